"""Controlled changes of a dataset: wrong labels, merged classes, a planted mark, each with the right answer kept."""

import warnings
from typing import Any

from dualview_plugin.modifications.grouped_classes import GroupedClasses
from dualview_plugin.modifications.marked_images import MarkedImages, frame_and_square
from dualview_plugin.modifications.modified_dataset import ModifiedDataset
from dualview_plugin.modifications.poisoned_labels import PoisonedLabels

__all__ = ["GroupedClasses", "MarkedImages", "ModifiedDataset", "PoisonedLabels", "frame_and_square"]

_RENAMED = {"ClassGrouping": "GroupedClasses", "ClassMarking": "MarkedImages", "LabelPoisoning": "PoisonedLabels"}


def __getattr__(name: str) -> Any:
    """The classes by their former names, for one release."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"dualview_plugin.modifications.{name} is now called {_RENAMED[name]}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
