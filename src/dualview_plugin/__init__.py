"""Data attribution for Captum, scored in Quantus, carried to pixels by Zennit.

Public names are imported on first use, so that importing the package loads neither quantus nor zennit nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualview_plugin.attribution import DataAttribution as DataAttribution
    from dualview_plugin.attribution import DualView as DualView
    from dualview_plugin.attribution import GradientSimilarity as GradientSimilarity
    from dualview_plugin.attribution import InfluenceFunctions as InfluenceFunctions
    from dualview_plugin.attribution import ProjectedGradientSimilarity as ProjectedGradientSimilarity
    from dualview_plugin.attribution import RandomAttribution as RandomAttribution
    from dualview_plugin.attribution import RepresenterPoints as RepresenterPoints
    from dualview_plugin.lrp import PairwiseRelevance as PairwiseRelevance
    from dualview_plugin.lrp import RelevantPairs as RelevantPairs
    from dualview_plugin.lrp import SurrogateRelevance as SurrogateRelevance
    from dualview_plugin.lrp import named_composite as named_composite
    from dualview_plugin.lrp import propose_canonizers as propose_canonizers
    from dualview_plugin.metrics import DataAttributionMetric as DataAttributionMetric
    from dualview_plugin.metrics import DomainMismatch as DomainMismatch
    from dualview_plugin.metrics import IdenticalClass as IdenticalClass
    from dualview_plugin.metrics import IdenticalSubclass as IdenticalSubclass
    from dualview_plugin.metrics import LabelPoisoning as LabelPoisoning
    from dualview_plugin.metrics import data_attribution as data_attribution
    from dualview_plugin.metrics import register as register
    from dualview_plugin.modifications import ClassGrouping as ClassGrouping
    from dualview_plugin.modifications import ClassMarking as ClassMarking
    from dualview_plugin.plots import plot_pairwise_relevance as plot_pairwise_relevance
    from dualview_plugin.plots import plot_poisoning_curves as plot_poisoning_curves
    from dualview_plugin.plots import plot_training_points as plot_training_points
    from dualview_plugin.solver import CrammerSingerSolution as CrammerSingerSolution
    from dualview_plugin.solver import solve_crammer_singer as solve_crammer_singer
    from dualview_plugin.solver import solve_path as solve_path

__version__ = "0.1.0"

_HOME_OF: dict[str, str] = {
    "ClassGrouping": "dualview_plugin.modifications",
    "ClassMarking": "dualview_plugin.modifications",
    "CrammerSingerSolution": "dualview_plugin.solver",
    "DataAttribution": "dualview_plugin.attribution",
    "DataAttributionMetric": "dualview_plugin.metrics",
    "DomainMismatch": "dualview_plugin.metrics",
    "DualView": "dualview_plugin.attribution",
    "GradientSimilarity": "dualview_plugin.attribution",
    "IdenticalClass": "dualview_plugin.metrics",
    "IdenticalSubclass": "dualview_plugin.metrics",
    "InfluenceFunctions": "dualview_plugin.attribution",
    "LabelPoisoning": "dualview_plugin.metrics",
    "PairwiseRelevance": "dualview_plugin.lrp",
    "ProjectedGradientSimilarity": "dualview_plugin.attribution",
    "RandomAttribution": "dualview_plugin.attribution",
    "RelevantPairs": "dualview_plugin.lrp",
    "RepresenterPoints": "dualview_plugin.attribution",
    "SurrogateRelevance": "dualview_plugin.lrp",
    "data_attribution": "dualview_plugin.metrics",
    "named_composite": "dualview_plugin.lrp",
    "plot_pairwise_relevance": "dualview_plugin.plots",
    "plot_poisoning_curves": "dualview_plugin.plots",
    "plot_training_points": "dualview_plugin.plots",
    "propose_canonizers": "dualview_plugin.lrp",
    "register": "dualview_plugin.metrics",
    "solve_crammer_singer": "dualview_plugin.solver",
    "solve_path": "dualview_plugin.solver",
}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
