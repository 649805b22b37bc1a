"""Data attribution methods as Captum classes: which training points made the network say this?"""

from dualview_plugin.attribution.base import DataAttribution
from dualview_plugin.attribution.dualda import dualda
from dualview_plugin.attribution.dualview import DualView
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.attribution.influence_functions import InfluenceFunctions
from dualview_plugin.attribution.projected_gradient_similarity import ProjectedGradientSimilarity
from dualview_plugin.attribution.random_attribution import RandomAttribution
from dualview_plugin.attribution.representer_points import RepresenterPoints

__all__ = [
    "DataAttribution",
    "DualView",
    "FeatureKernelAttribution",
    "GradientSimilarity",
    "InfluenceFunctions",
    "ProjectedGradientSimilarity",
    "RandomAttribution",
    "RepresenterPoints",
    "dualda",
]
