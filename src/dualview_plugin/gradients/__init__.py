"""Per-sample gradients in layer-wise factors, their random projections, and the curvature of a last layer."""

from dualview_plugin.gradients.inverse_curvature import (
    CholeskyInverse,
    ConjugateGradientInverse,
    InverseCurvature,
    LissaInverse,
)
from dualview_plugin.gradients.per_sample import PerSampleGradients
from dualview_plugin.gradients.projection import GaussianProjection
from dualview_plugin.gradients.sample_gradients import SampleGradients
from dualview_plugin.gradients.softmax_curvature import SoftmaxCurvature
from dualview_plugin.gradients.softmax_regression import SoftmaxRegression, fit_softmax_regression

__all__ = [
    "CholeskyInverse",
    "ConjugateGradientInverse",
    "GaussianProjection",
    "InverseCurvature",
    "LissaInverse",
    "PerSampleGradients",
    "SampleGradients",
    "SoftmaxCurvature",
    "SoftmaxRegression",
    "fit_softmax_regression",
]
