"""Per-sample gradients in layer-wise factors, and their random projections."""

from dualview_plugin.gradients.factored_projection import FactoredProjection
from dualview_plugin.gradients.per_sample import PerSampleGradients
from dualview_plugin.gradients.projection import GaussianProjection
from dualview_plugin.gradients.sample_gradients import SampleGradients

__all__ = ["FactoredProjection", "GaussianProjection", "PerSampleGradients", "SampleGradients"]
