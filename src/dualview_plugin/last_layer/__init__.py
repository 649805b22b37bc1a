"""The convex problem of a last layer: its loss gradients, its curvature and the inverse of that, its retraining."""

from dualview_plugin.last_layer.inverse_curvature import (
    CholeskyInverse,
    ConjugateGradientInverse,
    InverseCurvature,
    LissaInverse,
)
from dualview_plugin.last_layer.linear_layer import LinearLayer
from dualview_plugin.last_layer.loss_gradients import residuals_of, softmax_residuals, weight_gradients
from dualview_plugin.last_layer.memory import total_memory
from dualview_plugin.last_layer.softmax_curvature import SoftmaxCurvature
from dualview_plugin.last_layer.softmax_regression import SoftmaxRegression, fit_softmax_regression

__all__ = [
    "CholeskyInverse",
    "ConjugateGradientInverse",
    "InverseCurvature",
    "LinearLayer",
    "LissaInverse",
    "SoftmaxCurvature",
    "SoftmaxRegression",
    "fit_softmax_regression",
    "residuals_of",
    "softmax_residuals",
    "total_memory",
    "weight_gradients",
]
