"""Model → penultimate features: extraction with a hook, standardisation."""

from dualview_plugin.features.extraction import FeatureExtractor, TrainingFeatures, check_labels
from dualview_plugin.features.standardizer import Standardizer

__all__ = ["FeatureExtractor", "Standardizer", "TrainingFeatures", "check_labels"]
