"""Data attribution for Captum, scored in Quantus, carried to pixels by Zennit.

Public names are imported on first use, so that importing the package loads neither quantus nor zennit nor matplotlib.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dualview_plugin.version import __version__ as __version__

if TYPE_CHECKING:  # the table below, for type checkers and editors; a test compares the two
    from dualview_plugin.attribution import TRAK as TRAK
    from dualview_plugin.attribution import ArnoldiInfluence as ArnoldiInfluence
    from dualview_plugin.attribution import DataAttribution as DataAttribution
    from dualview_plugin.attribution import DualView as DualView
    from dualview_plugin.attribution import EKFACInfluence as EKFACInfluence
    from dualview_plugin.attribution import FeatureKernelAttribution as FeatureKernelAttribution
    from dualview_plugin.attribution import FeatureSimilarity as FeatureSimilarity
    from dualview_plugin.attribution import GradCos as GradCos
    from dualview_plugin.attribution import GradientSimilarity as GradientSimilarity
    from dualview_plugin.attribution import InfluenceFunctions as InfluenceFunctions
    from dualview_plugin.attribution import InputSimilarity as InputSimilarity
    from dualview_plugin.attribution import ProjectedGradientSimilarity as ProjectedGradientSimilarity
    from dualview_plugin.attribution import RandomAttribution as RandomAttribution
    from dualview_plugin.attribution import RepresenterPoints as RepresenterPoints
    from dualview_plugin.attribution import TracIn as TracIn
    from dualview_plugin.attribution import dualda as dualda
    from dualview_plugin.data import CountedStream as CountedStream
    from dualview_plugin.engines import RayEngine as RayEngine
    from dualview_plugin.errors import CacheWarning as CacheWarning
    from dualview_plugin.errors import ConservationWarning as ConservationWarning
    from dualview_plugin.errors import ConvergenceWarning as ConvergenceWarning
    from dualview_plugin.errors import DivergenceError as DivergenceError
    from dualview_plugin.errors import DualViewError as DualViewError
    from dualview_plugin.errors import InvalidTypeError as InvalidTypeError
    from dualview_plugin.errors import InvalidValueError as InvalidValueError
    from dualview_plugin.errors import LeftOutWarning as LeftOutWarning
    from dualview_plugin.errors import MissingDependencyError as MissingDependencyError
    from dualview_plugin.errors import NotApplicableWarning as NotApplicableWarning
    from dualview_plugin.errors import PrecisionWarning as PrecisionWarning
    from dualview_plugin.errors import RandomDataWarning as RandomDataWarning
    from dualview_plugin.errors import RandomNetworkWarning as RandomNetworkWarning
    from dualview_plugin.errors import SparseAttributionWarning as SparseAttributionWarning
    from dualview_plugin.errors import StaleFitError as StaleFitError
    from dualview_plugin.lrp import FunctionRules as FunctionRules
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
    from dualview_plugin.metrics import LeaveOneOut as LeaveOneOut
    from dualview_plugin.metrics import LinearDatamodeling as LinearDatamodeling
    from dualview_plugin.metrics import MixedDatasets as MixedDatasets
    from dualview_plugin.metrics import ModelRandomization as ModelRandomization
    from dualview_plugin.metrics import RetrainingCurve as RetrainingCurve
    from dualview_plugin.metrics import Sparsity as Sparsity
    from dualview_plugin.metrics import SubsetOutputs as SubsetOutputs
    from dualview_plugin.metrics import TopCardinality as TopCardinality
    from dualview_plugin.metrics import brittleness as brittleness
    from dualview_plugin.metrics import commonest_share as commonest_share
    from dualview_plugin.metrics import data_attribution as data_attribution
    from dualview_plugin.metrics import domain_mismatch as domain_mismatch
    from dualview_plugin.metrics import domain_mismatch_auprc as domain_mismatch_auprc
    from dualview_plugin.metrics import identical_class as identical_class
    from dualview_plugin.metrics import label_poisoning as label_poisoning
    from dualview_plugin.metrics import leave_one_out_correlation as leave_one_out_correlation
    from dualview_plugin.metrics import leave_one_out_effects as leave_one_out_effects
    from dualview_plugin.metrics import linear_datamodeling_interval as linear_datamodeling_interval
    from dualview_plugin.metrics import linear_datamodeling_score as linear_datamodeling_score
    from dualview_plugin.metrics import mixed_datasets as mixed_datasets
    from dualview_plugin.metrics import poisoning_curve as poisoning_curve
    from dualview_plugin.metrics import rank_correlation as rank_correlation
    from dualview_plugin.metrics import register as register
    from dualview_plugin.metrics import retrain_on_subsets as retrain_on_subsets
    from dualview_plugin.metrics import retraining_curve as retraining_curve
    from dualview_plugin.metrics import share_in_top_k as share_in_top_k
    from dualview_plugin.metrics import sparsity as sparsity
    from dualview_plugin.metrics import summed_attributions as summed_attributions
    from dualview_plugin.metrics import top_cardinality as top_cardinality
    from dualview_plugin.modifications import GroupedClasses as GroupedClasses
    from dualview_plugin.modifications import MarkedImages as MarkedImages
    from dualview_plugin.modifications import ModifiedDataset as ModifiedDataset
    from dualview_plugin.modifications import PoisonedLabels as PoisonedLabels
    from dualview_plugin.modifications import frame_and_square as frame_and_square
    from dualview_plugin.plots import plot_pairwise_relevance as plot_pairwise_relevance
    from dualview_plugin.plots import plot_pairwise_texts as plot_pairwise_texts
    from dualview_plugin.plots import plot_poisoning_curves as plot_poisoning_curves
    from dualview_plugin.plots import plot_training_points as plot_training_points
    from dualview_plugin.plots import plot_training_texts as plot_training_texts
    from dualview_plugin.report import Scores as Scores
    from dualview_plugin.report import TopPoints as TopPoints
    from dualview_plugin.report import top_points as top_points
    from dualview_plugin.report import write_report as write_report
    from dualview_plugin.solver import CrammerSingerSolution as CrammerSingerSolution
    from dualview_plugin.solver import SolverProgress as SolverProgress
    from dualview_plugin.solver import solve_crammer_singer as solve_crammer_singer
    from dualview_plugin.solver import solve_path as solve_path
    from dualview_plugin.storage import Storage as Storage
    from dualview_plugin.storage import StoreReport as StoreReport

_PUBLIC: dict[str, tuple[str, ...]] = {
    "attribution": (
        "TRAK",
        "ArnoldiInfluence",
        "DataAttribution",
        "DualView",
        "EKFACInfluence",
        "FeatureKernelAttribution",
        "FeatureSimilarity",
        "GradCos",
        "GradientSimilarity",
        "InfluenceFunctions",
        "InputSimilarity",
        "ProjectedGradientSimilarity",
        "RandomAttribution",
        "RepresenterPoints",
        "TracIn",
        "dualda",
    ),
    "data": ("CountedStream",),
    "engines": ("RayEngine",),
    "errors": (
        "CacheWarning",
        "ConservationWarning",
        "ConvergenceWarning",
        "DivergenceError",
        "DualViewError",
        "InvalidTypeError",
        "InvalidValueError",
        "LeftOutWarning",
        "MissingDependencyError",
        "NotApplicableWarning",
        "PrecisionWarning",
        "RandomDataWarning",
        "RandomNetworkWarning",
        "SparseAttributionWarning",
        "StaleFitError",
    ),
    "lrp": (
        "FunctionRules",
        "PairwiseRelevance",
        "RelevantPairs",
        "SurrogateRelevance",
        "named_composite",
        "propose_canonizers",
    ),
    "metrics": (
        "DataAttributionMetric",
        "DomainMismatch",
        "IdenticalClass",
        "IdenticalSubclass",
        "LabelPoisoning",
        "LeaveOneOut",
        "LinearDatamodeling",
        "MixedDatasets",
        "ModelRandomization",
        "RetrainingCurve",
        "Sparsity",
        "SubsetOutputs",
        "TopCardinality",
        "brittleness",
        "commonest_share",
        "data_attribution",
        "domain_mismatch",
        "domain_mismatch_auprc",
        "identical_class",
        "label_poisoning",
        "leave_one_out_correlation",
        "leave_one_out_effects",
        "linear_datamodeling_interval",
        "linear_datamodeling_score",
        "mixed_datasets",
        "poisoning_curve",
        "rank_correlation",
        "register",
        "retrain_on_subsets",
        "retraining_curve",
        "share_in_top_k",
        "sparsity",
        "summed_attributions",
        "top_cardinality",
    ),
    "modifications": (
        "GroupedClasses",
        "MarkedImages",
        "ModifiedDataset",
        "PoisonedLabels",
        "frame_and_square",
    ),
    "plots": (
        "plot_pairwise_relevance",
        "plot_pairwise_texts",
        "plot_poisoning_curves",
        "plot_training_points",
        "plot_training_texts",
    ),
    "report": (
        "Scores",
        "TopPoints",
        "top_points",
        "write_report",
    ),
    "solver": (
        "CrammerSingerSolution",
        "SolverProgress",
        "solve_crammer_singer",
        "solve_path",
    ),
    "storage": ("Storage", "StoreReport"),
}
_ROOM_OF = {name: room for room, names in _PUBLIC.items() for name in names}
_RENAMED = {"ClassGrouping": "GroupedClasses", "ClassMarking": "MarkedImages"}

__all__ = sorted(_ROOM_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        message = f"dualview_plugin.{name} is now called {_RENAMED[name]}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return __getattr__(_RENAMED[name])
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dualview_plugin.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF])
