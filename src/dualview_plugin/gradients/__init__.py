"""Per-sample gradients in layer-wise factors, and their random projections."""

from dualview_plugin.gradients.direction import Direction
from dualview_plugin.gradients.factored_projection import FactoredProjection, cheaper_projection
from dualview_plugin.gradients.layer_rules import cheaper_inner_product
from dualview_plugin.gradients.logits import Logits
from dualview_plugin.gradients.model_outputs import LogProbabilities, Margins, log_probabilities, margins
from dualview_plugin.gradients.parameter_uses import count_uses, differentiable, select_parameters, twice_differentiable
from dualview_plugin.gradients.per_sample import PerSampleGradients
from dualview_plugin.gradients.projection import GaussianProjection
from dualview_plugin.gradients.sample_gradients import OuterProducts, SampleGradients

__all__ = [
    "Direction",
    "FactoredProjection",
    "GaussianProjection",
    "LogProbabilities",
    "Logits",
    "Margins",
    "OuterProducts",
    "PerSampleGradients",
    "SampleGradients",
    "cheaper_inner_product",
    "cheaper_projection",
    "count_uses",
    "differentiable",
    "log_probabilities",
    "margins",
    "select_parameters",
    "twice_differentiable",
]
