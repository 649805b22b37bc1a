"""Model → penultimate features: extraction with a hook, tests on a probe, standardisation."""

from dualview_plugin.features.extraction import FeatureExtractor, check_finite, check_labels
from dualview_plugin.features.probe import Probe, same_answers, take_probe
from dualview_plugin.features.shards import FeatureShards, in_precision
from dualview_plugin.features.standardizer import Standardizer
from dualview_plugin.features.training_features import TrainingFeatures, training_features

__all__ = [
    "FeatureExtractor",
    "FeatureShards",
    "Probe",
    "Standardizer",
    "TrainingFeatures",
    "check_finite",
    "check_labels",
    "in_precision",
    "same_answers",
    "take_probe",
    "training_features",
]
