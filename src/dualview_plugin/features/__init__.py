"""Model → penultimate features: extraction with a hook, batches in order, standardisation."""

from dualview_plugin.features.batches import (
    Inputs,
    TrainData,
    as_input_tensor,
    input_batches,
    labelled_batches,
    n_samples,
    ordered_loader,
)
from dualview_plugin.features.extraction import FeatureExtractor, TrainingFeatures, check_labels
from dualview_plugin.features.propagation import Composite, propagate
from dualview_plugin.features.standardizer import Standardizer
from dualview_plugin.model_state import evaluating, preserved_random_state, restored

__all__ = [
    "Composite",
    "FeatureExtractor",
    "Inputs",
    "Standardizer",
    "TrainData",
    "TrainingFeatures",
    "as_input_tensor",
    "check_labels",
    "evaluating",
    "input_batches",
    "labelled_batches",
    "n_samples",
    "ordered_loader",
    "preserved_random_state",
    "propagate",
    "restored",
]
