"""Ridge-regularised softmax regression on soft labels, by Newton's method, to a stated stationarity."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.last_layer.inverse_curvature import conjugate_gradients
from dualview_plugin.last_layer.softmax_curvature import SoftmaxCurvature
from dualview_plugin.sums import Alone, Total

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


Summing = Callable[["LossSummands"], AbstractContextManager[Total | None]]


def _alone(_: LossSummands) -> AbstractContextManager[None]:
    return nullcontext()


def fit_softmax_regression(
    features: Tensor,
    soft_labels: Tensor,
    weight_decay: float,
    *,
    start: Tensor,
    tol: float,
    max_iter: int,
    summing: Summing = _alone,
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
        summing: opens what adds up the loss, its gradient and the Hessian's products over the training points; by
            default this process does so alone.

    Returns:
        The minimiser, to the stated stationarity.

    Cost: for each conjugate gradient iteration 4 · n_train · n_features · n_classes flops in float64.
    """
    summands = LossSummands(features, soft_labels.to(torch.float64))
    with summing(summands) as total:
        problem = _Problem(total or Alone(summands, len(features)), len(features), weight_decay)
        weight = start.to(torch.float64)
        loss, gradient = problem.evaluate(weight)
        first = float(gradient.norm())
        for n_iter in range(max_iter + 1):
            stationarity = float(
                gradient.norm() / (2 * weight_decay * weight.norm()).clamp_min(torch.finfo(weight.dtype).tiny)
            )
            if stationarity <= tol or n_iter == max_iter:
                break
            forcing = min(0.1, (float(gradient.norm()) / first) ** 0.5)
            product = partial(problem.product, weight)
            step = conjugate_gradients(product, -gradient[None], forcing, _MAX_CG_ITERATIONS)[0][0]
            moved = problem.line_search(weight, step, loss, gradient)
            if moved is None:  # no decrease that float64 can see
                break
            weight, loss, gradient = moved
    if stationarity > tol:
        _warn(stationarity, tol, n_iter)
    return SoftmaxRegression(weight, summands.probabilities(range(len(features)), weight), stationarity, n_iter)


@dataclass
class LossSummands:
    """What the loss, its gradient and its Hessian are sums of, for ranges of training points.

    The probabilities of the range and the weight that were last asked for are kept: a line search ends with the weight
    of the next products.
    """

    features: Tensor
    soft_labels: Tensor
    _last: tuple[range, Tensor, Tensor] | None = None

    def loss_of(self, rows: range, weight: Tensor) -> Tensor:
        """Σ CE(t_i, softmax(V φ_i)) and, behind it, its gradient, (1 + n_classes · n_features,)."""
        loss, gradient, blocks = weight.new_zeros(1), torch.zeros_like(weight), []
        for features, soft in self._blocks(rows):
            log_probabilities = (features @ weight.mT).log_softmax(1)
            blocks.append(log_probabilities.exp())
            loss -= (soft * log_probabilities).sum()
            gradient += (blocks[-1] - soft).mT @ features
        self._last = rows, weight.clone(), torch.cat(blocks)
        return torch.cat([loss, gradient.flatten()])

    def product_of(self, rows: range, weight: Tensor, vectors: Tensor) -> Tensor:
        """The loss's Hessian at the weight times vectors (n_vectors, n_classes, n_features)."""
        places = slice(rows.start, rows.stop)
        curvature = SoftmaxCurvature(self.features[places], self.probabilities(rows, weight), damping=0.0)
        return curvature.product_of(range(len(rows)), vectors)

    def probabilities(self, rows: range, weight: Tensor) -> Tensor:
        """softmax(V φ_i), (n_rows, n_classes)."""
        if self._last is None or self._last[0] != rows or not torch.equal(self._last[1], weight):
            blocks = [(features @ weight.mT).log_softmax(1).exp() for features, _ in self._blocks(rows)]
            self._last = rows, weight.clone(), torch.cat(blocks)
        return self._last[2]

    def _blocks(self, rows: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Features in float64 and soft labels, a few rows at a time."""
        for start in range(rows.start, rows.stop, _ROWS):
            block = slice(start, min(start + _ROWS, rows.stop))
            yield self.features[block].to(torch.float64), self.soft_labels[block]


_Moved = tuple[Tensor, float, Tensor]  # weight, loss, gradient


@dataclass(frozen=True)
class _Problem:
    """The objective, its derivatives, and a line search on it."""

    total: Total
    n_train: int
    weight_decay: float

    def evaluate(self, weight: Tensor) -> tuple[float, Tensor]:
        """Loss and gradient (n_classes, n_features) at the weight."""
        sums = self.total("loss_of", weight) / self.n_train
        loss = float(sums[0]) + self.weight_decay * float(weight.square().sum())
        return loss, sums[1:].view_as(weight) + 2 * self.weight_decay * weight

    def product(self, weight: Tensor, vectors: Tensor) -> Tensor:
        """The Hessian at the weight times vectors (n_vectors, n_classes, n_features)."""
        summed = self.total("product_of", weight, vectors)
        return summed.div_(self.n_train).add_(vectors, alpha=2 * self.weight_decay)

    def line_search(self, weight: Tensor, step: Tensor, loss: float, gradient: Tensor) -> _Moved | None:
        """The first halving of the step that decreases the loss enough, evaluated; None if there is none.

        Near the minimum rounding hides the decrease of the loss: a smaller gradient then counts as well.
        """
        slope = float((gradient * step).sum())
        rounding = 10 * torch.finfo(weight.dtype).eps * abs(loss)
        for halvings in range(_MAX_HALVINGS):
            length = 0.5**halvings
            candidate = weight + length * step
            found = self.evaluate(candidate)
            decreased = found[0] <= loss + _SUFFICIENT_DECREASE * length * slope
            hidden = found[0] <= loss + rounding and bool(found[1].norm() < gradient.norm())
            if decreased or hidden:
                return candidate, *found
        return None


def _warn(stationarity: float, tol: float, n_iter: int) -> None:
    """Warn that the fit stopped early, with its figures."""
    warnings.warn(
        f"the softmax regression stopped after {n_iter} steps at stationarity {stationarity:.1e}, above tol {tol:.1e}: "
        "raise max_iter or weight_decay, or accept the tolerance",
        ConvergenceWarning,
        stacklevel=3,
    )
