"""Model → penultimate features: extraction with a hook, tests on a probe, standardisation."""

from dualview_plugin.features.extraction import FeatureExtractor, TrainingFeatures, check_finite, check_labels
from dualview_plugin.features.probe import Probe, take_probe
from dualview_plugin.features.propagation import Composite, propagate
from dualview_plugin.features.standardizer import Standardizer

__all__ = [
    "Composite",
    "FeatureExtractor",
    "Probe",
    "Standardizer",
    "TrainingFeatures",
    "check_finite",
    "check_labels",
    "propagate",
    "take_probe",
]
