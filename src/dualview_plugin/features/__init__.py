"""Model → penultimate features: extraction with a hook, standardisation."""

from dualview_plugin.features.extraction import FeatureExtractor, TrainingFeatures, check_labels
from dualview_plugin.features.propagation import Composite, propagate
from dualview_plugin.features.standardizer import Standardizer

__all__ = ["Composite", "FeatureExtractor", "Standardizer", "TrainingFeatures", "check_labels", "propagate"]
