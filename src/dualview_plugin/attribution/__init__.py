"""Data attribution methods as Captum classes: which training points made the network say this?"""

from dualview_plugin.attribution.arnoldi_influence import ArnoldiInfluence
from dualview_plugin.attribution.base import DataAttribution
from dualview_plugin.attribution.dualda import dualda
from dualview_plugin.attribution.dualview import DualView
from dualview_plugin.attribution.ekfac_influence import EKFACInfluence
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.attribution.feature_similarity import FeatureSimilarity
from dualview_plugin.attribution.grad_cos import GradCos
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.attribution.influence_functions import InfluenceFunctions
from dualview_plugin.attribution.input_similarity import InputSimilarity
from dualview_plugin.attribution.projected_gradient_similarity import ProjectedGradientSimilarity
from dualview_plugin.attribution.random_attribution import RandomAttribution
from dualview_plugin.attribution.representer_points import RepresenterPoints
from dualview_plugin.attribution.tracin import TracIn
from dualview_plugin.attribution.trak import TRAK

__all__ = [
    "TRAK",
    "ArnoldiInfluence",
    "DataAttribution",
    "DualView",
    "EKFACInfluence",
    "FeatureKernelAttribution",
    "FeatureSimilarity",
    "GradCos",
    "GradientSimilarity",
    "InfluenceFunctions",
    "InputSimilarity",
    "ProjectedGradientSimilarity",
    "RandomAttribution",
    "RepresenterPoints",
    "TracIn",
    "dualda",
]
