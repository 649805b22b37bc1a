"""Model → penultimate features: extraction with a hook, tests on a probe, standardisation."""

from dualview_plugin.features.extraction import FeatureExtractor, TrainingFeatures, check_finite, check_labels
from dualview_plugin.features.probe import Probe, take_probe
from dualview_plugin.features.standardizer import Standardizer

__all__ = [
    "FeatureExtractor",
    "Probe",
    "Standardizer",
    "TrainingFeatures",
    "check_finite",
    "check_labels",
    "take_probe",
]
