"""Figures from arrays: every function returns a matplotlib figure and touches no global state."""

from __future__ import annotations

from importlib.util import find_spec

from dualview_plugin.errors import MissingDependencyError

if find_spec("matplotlib") is None:
    raise MissingDependencyError("the figures need matplotlib: pip install matplotlib")

from dualview_plugin.plots.pairwise_relevance import plot_pairwise_relevance
from dualview_plugin.plots.pairwise_texts import plot_pairwise_texts
from dualview_plugin.plots.poisoning_curves import plot_poisoning_curves
from dualview_plugin.plots.training_points import plot_training_points
from dualview_plugin.plots.training_texts import plot_training_texts

__all__ = [
    "plot_pairwise_relevance",
    "plot_pairwise_texts",
    "plot_poisoning_curves",
    "plot_training_points",
    "plot_training_texts",
]
