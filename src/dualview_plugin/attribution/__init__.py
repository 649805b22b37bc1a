"""Data attribution methods as Captum classes: which training points made the network say this?"""

from dualview_plugin.attribution.base import DataAttribution
from dualview_plugin.attribution.dualview import DualView
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.attribution.random_attribution import RandomAttribution

__all__ = ["DataAttribution", "DualView", "FeatureKernelAttribution", "RandomAttribution"]
