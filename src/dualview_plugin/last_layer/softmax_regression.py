"""Ridge-regularised softmax regression on soft labels, by Newton's method, to a stated stationarity."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.last_layer.inverse_curvature import conjugate_gradients
from dualview_plugin.last_layer.softmax_curvature import SoftmaxCurvature

_MAX_CG_ITERATIONS = 500
_MAX_HALVINGS = 30
_SUFFICIENT_DECREASE = 1e-4
_ROWS = 4096


@dataclass(frozen=True)
class SoftmaxRegression:
    """The minimiser of (1/n) Σ_i CE(t_i, softmax(V φ_i)) + λ ‖V‖², with the figures of its fit.

    Args:
        weight: V (n_classes, n_features), float64.
        probabilities: softmax(V φ_i) (n_train, n_classes), float64.
        stationarity: ‖∇‖ / (2λ ‖V‖), which is ‖V − Σ_i α_i φ_iᵀ‖ / ‖V‖ with α = (t − p) / (2λn).
        n_iter: Newton steps.
    """

    weight: Tensor
    probabilities: Tensor
    stationarity: float
    n_iter: int


def fit_softmax_regression(
    features: Tensor, soft_labels: Tensor, weight_decay: float, *, start: Tensor, tol: float, max_iter: int
) -> SoftmaxRegression:
    """Minimise the regularised cross entropy with soft labels over the weights of a linear layer.

    Newton steps by conjugate gradients, solved the more exactly the nearer the minimum, with a backtracking line
    search. The objective is strongly convex: the minimiser is unique and does not depend on ``start``.

    Args:
        features: φ (n_train, n_features).
        soft_labels: t (n_train, n_classes), rows that sum to one.
        weight_decay: λ, above zero.
        start: V to start from (n_classes, n_features).
        tol: stop where the stationarity is at most this.
        max_iter: at most this many Newton steps; a fit that stops there warns with its figures.

    Returns:
        The minimiser, to the stated stationarity.

    Cost: for each conjugate gradient iteration 4 · n_train · n_features · n_classes flops in float64.
    """
    problem = _Problem(features, soft_labels.to(torch.float64), weight_decay)
    weight = start.to(torch.float64)
    loss, gradient, probabilities = problem.evaluate(weight)
    first = float(gradient.norm())
    for n_iter in range(max_iter + 1):
        stationarity = float(
            gradient.norm() / (2 * weight_decay * weight.norm()).clamp_min(torch.finfo(weight.dtype).tiny)
        )
        if stationarity <= tol or n_iter == max_iter:
            break
        curvature = SoftmaxCurvature(features, probabilities, 2 * weight_decay)
        forcing = min(0.1, (float(gradient.norm()) / first) ** 0.5)
        step = conjugate_gradients(curvature.product, -gradient[None], forcing, _MAX_CG_ITERATIONS)[0][0]
        moved = problem.line_search(weight, step, loss, gradient)
        if moved is None:  # no decrease that float64 can see
            break
        weight, (loss, gradient, probabilities) = moved
    if stationarity > tol:
        _warn(stationarity, tol, n_iter)
    return SoftmaxRegression(weight, probabilities, stationarity, n_iter)


_Evaluation = tuple[float, Tensor, Tensor]  # loss, gradient, probabilities


@dataclass(frozen=True)
class _Problem:
    """The objective, its gradient, and a line search on it."""

    features: Tensor
    soft_labels: Tensor
    weight_decay: float

    def evaluate(self, weight: Tensor) -> _Evaluation:
        """Loss, gradient (n_classes, n_features) and probabilities at the weight, in blocks of rows."""
        n_train, loss, gradient, blocks = len(self.features), 0.0, torch.zeros_like(weight), []
        for features, soft in zip(torch.split(self.features, _ROWS), torch.split(self.soft_labels, _ROWS), strict=True):
            rows = features.to(weight.dtype)
            log_probabilities = (rows @ weight.mT).log_softmax(1)
            blocks.append(log_probabilities.exp())
            loss -= float((soft * log_probabilities).sum())
            gradient += (blocks[-1] - soft).mT @ rows
        loss = loss / n_train + self.weight_decay * float(weight.square().sum())
        return loss, gradient / n_train + 2 * self.weight_decay * weight, torch.cat(blocks)

    def line_search(
        self, weight: Tensor, step: Tensor, loss: float, gradient: Tensor
    ) -> tuple[Tensor, _Evaluation] | None:
        """The first halving of the step that decreases the loss enough, evaluated; None if there is none.

        Near the minimum rounding hides the decrease of the loss: a smaller gradient then counts as well.
        """
        slope = float((gradient * step).sum())
        rounding = 10 * torch.finfo(weight.dtype).eps * abs(loss)
        for halvings in range(_MAX_HALVINGS):
            length = 0.5**halvings
            candidate = weight + length * step
            evaluation = self.evaluate(candidate)
            decreased = evaluation[0] <= loss + _SUFFICIENT_DECREASE * length * slope
            hidden = evaluation[0] <= loss + rounding and bool(evaluation[1].norm() < gradient.norm())
            if decreased or hidden:
                return candidate, evaluation
        return None


def _warn(stationarity: float, tol: float, n_iter: int) -> None:
    """Warn that the fit stopped early, with its figures."""
    warnings.warn(
        f"the softmax regression stopped after {n_iter} steps at stationarity {stationarity:.1e}, above tol {tol:.1e}: "
        "raise max_iter or weight_decay, or accept the tolerance",
        ConvergenceWarning,
        stacklevel=3,
    )
