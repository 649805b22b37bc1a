"""Controlled changes of a dataset: wrong labels, merged classes, a planted mark, each with the right answer kept."""

from dualview_plugin.modifications.class_grouping import ClassGrouping
from dualview_plugin.modifications.class_marking import ClassMarking, frame_and_square
from dualview_plugin.modifications.label_poisoning import LabelPoisoning
from dualview_plugin.modifications.modified_dataset import ModifiedDataset

__all__ = ["ClassGrouping", "ClassMarking", "LabelPoisoning", "ModifiedDataset", "frame_and_square"]
