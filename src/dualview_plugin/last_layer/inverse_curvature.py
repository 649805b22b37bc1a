"""Three ways to apply the inverse of a last layer's curvature to gradients: exactly, by conjugate gradients, by LiSSA.

All take and return (n_vectors, n_classes, n_features). Which to use: ``CholeskyInverse`` as long as (n_classes ·
n_features)² float64 numbers fit in memory (512 features x 10 classes: 210 MB), because all further solves are matrix
products; ``ConjugateGradientInverse`` beyond that; ``LissaInverse`` to compare with published results, which used it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from dualview_plugin.errors import ConvergenceWarning, DivergenceError, InvalidValueError
from dualview_plugin.last_layer.softmax_curvature import SoftmaxCurvature
from dualview_plugin.sums import Total


class InverseCurvature(Protocol):
    """Applies (H + δI)⁻¹."""

    def solve(self, gradients: Tensor) -> Tensor:
        """(H + δI)⁻¹ g for each gradient (n_vectors, n_classes, n_features), in float64."""


class CholeskyInverse:
    """The inverse through one factorisation of the assembled matrix, in float64.

    Args:
        curvature: H + δI.
        total: adds up the matrix; None: this process alone.

    Raises:
        InvalidValueError: the damping is so small that rounding leaves no positive definite matrix.

    Cost: (n_classes · n_features)³/3 once, then (n_classes · n_features)² for each vector; memory: two such matrices.
    """

    def __init__(self, curvature: SoftmaxCurvature, total: Total | None = None) -> None:
        curvature.check_damping()
        self._factor, info = torch.linalg.cholesky_ex(curvature.matrix(total))
        if int(info):
            raise curvature.damping_error()

    @staticmethod
    def memory(n_weights: int) -> int:
        """Bytes of the matrix and its factor."""
        return 2 * 8 * n_weights**2

    def solve(self, gradients: Tensor) -> Tensor:
        """(H + δI)⁻¹ g, to rounding."""
        columns = gradients.to(self._factor.dtype).flatten(1).mT
        return torch.cholesky_solve(columns, self._factor).mT.reshape(gradients.shape)


@dataclass(frozen=True)
class ConjugateGradientInverse:
    """The inverse by conjugate gradients on products with the curvature, all vectors at once.

    Args:
        curvature: H + δI.
        tol: stop where ‖g − (H + δI) v‖ ≤ tol · ‖g‖, for each vector; below the rounding unit it counts as that.
        max_iter: stop there in any case, with a ConvergenceWarning.
        show_progress: a progress bar that counts products, with the vectors that are left.

    Raises:
        InvalidValueError: the damping is so small that rounding leaves no positive definite matrix.

    Cost: one product with the curvature per iteration, for the vectors that have not converged. Memory: six times that
    of the vectors, the gradients included.
    """

    curvature: SoftmaxCurvature
    tol: float = 1e-6
    max_iter: int = 1000
    show_progress: bool = False

    def __post_init__(self) -> None:
        self.curvature.check_damping()

    def solve(self, gradients: Tensor, total: Total | None = None) -> Tensor:
        """(H + δI)⁻¹ g to the relative tolerance; ``total`` adds up the products, None: this process alone."""
        right, sizes = _scaled(gradients, self.curvature.dtype)
        del gradients  # of no more use, and as large as the solution
        with tqdm(desc="conjugate gradients", unit=" products", disable=not self.show_progress, leave=False) as bar:

            def product(vectors: Tensor) -> Tensor:
                bar.set_postfix_str(f"{len(vectors)} of {len(right)} vectors left", refresh=False)
                bar.update()
                return self.curvature.product(vectors, total=total)

            solution, residuals = conjugate_gradients(product, right, self.tol, self.max_iter)
        worst = float(residuals.max()) if len(residuals) else 0.0
        if worst > max(self.tol, torch.finfo(right.dtype).eps):
            _warn(
                f"conjugate gradients stopped at relative residual {worst:.1e} above tol {self.tol:.1e}", self.max_iter
            )
        return solution.mul_(sizes)


@dataclass(frozen=True)
class LissaInverse:
    """The inverse by LiSSA: v ← g + (I − (H_j + δI)/s) v with H_j from one random batch per step; the result is v/s.

    Each pass visits every training point once in a new order, so that the mean of H_j over it is H. Over any window
    of whole passes, (v_end − v_start)/n_steps then estimates the residual of the window's mean v: that
    mean is the result, and this drift the test of convergence. Windows double in length, which averages the batches'
    noise away as depth grows; the window with the least drift counts.

    Args:
        curvature: H + δI.
        scale: s, at least half the largest eigenvalue of H + δI; None for 1.1 times that eigenvalue, doubled as often
            as the batches, whose curvature varies around H, make v diverge. The number of steps grows with s/δ.
        depth: at most this many steps, rounded up to whole passes, with a ConvergenceWarning where tol is not met.
        batch_size: training points in each step.
        tol: relative tolerance on the residual.
        seed: of the order of training points.
        show_progress: a progress bar over the passes.

    Cost: depth products with the curvature of ``batch_size`` points, all vectors at once.
    """

    curvature: SoftmaxCurvature
    scale: float | None = None
    depth: int = 5000
    batch_size: int = 256
    tol: float = 1e-3
    seed: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        limit = torch.finfo(self.curvature.dtype).max ** 0.5
        if self.curvature.damping > limit:
            constraint = f"at most {limit:.0e}, so that squares of its products are finite"
            raise InvalidValueError("damping", self.curvature.owner, constraint, repr(self.curvature.damping))

    def solve(self, gradients: Tensor) -> Tensor:
        """An estimate of (H + δI)⁻¹ g.

        Raises:
            DivergenceError: v left the ball in which the iteration stays with a sufficient scale, which was given.
        """
        right, sizes = _scaled(gradients, self.curvature.dtype)
        return self._solve_scaled(right) * sizes

    def _solve_scaled(self, right: Tensor) -> Tensor:
        """An estimate for vectors of ordinary size, with the given scale or the first that does not diverge."""
        if self.scale is not None:
            return self._solve(right, self.scale)
        scale = 1.1 * self.curvature.largest_eigenvalue(seed=self.seed)
        while True:
            try:
                return self._solve(right, scale)
            except DivergenceError:
                if not scale < self._sufficient_scale():
                    raise
                scale *= 2

    def _solve(self, right: Tensor, scale: float) -> Tensor:
        solution, drifts = right.clone(), torch.full_like(right[:, 0, 0], torch.inf)
        active = torch.arange(len(right), device=right.device)
        vectors = start = total = right
        n_steps = 0
        passes = tqdm(
            self._passes(),
            total=self._n_passes,
            desc="LiSSA",
            unit=" passes",
            disable=not self.show_progress,
            leave=False,
        )
        for n_passes, batches in enumerate(passes, start=1):
            if n_passes & (n_passes - 1) == 0:  # a power of two: a new window
                start, total, n_steps = vectors, torch.zeros_like(vectors), 0
            vectors, total = self._one_pass(vectors, total, right[active], batches, scale)
            n_steps += len(batches)
            drift = _norms(vectors - start) / (n_steps * _norms(right[active])).clamp_min(torch.finfo(right.dtype).tiny)
            better = drift < drifts[active]
            solution[active[better]], drifts[active[better]] = total[better] / n_steps, drift[better]
            going = drifts[active] > self.tol
            active, vectors, start, total = active[going], vectors[going], start[going], total[going]
            if not len(active):
                break
        else:
            _warn(f"LiSSA stopped at relative residual {float(drifts.max()):.1e} above tol {self.tol:.1e}", self.depth)
        return (solution / scale).to(torch.float64)

    def _sufficient_scale(self) -> float:
        """A bound on the curvature of every batch: half the largest ‖φ_i‖², plus δ."""
        return 0.5 * float(self.curvature.features.square().sum(dim=1).max()) + self.curvature.damping

    def _passes(self) -> Iterator[list[Tensor]]:
        """The batches of each pass over the training points, of sizes as equal as can be, for ``depth`` steps."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        n_train = len(self.curvature.features)
        for _ in range(self._n_passes):
            order = torch.randperm(n_train, generator=generator, device="cpu")
            yield [part.to(self.curvature.features.device) for part in order.tensor_split(self._n_batches)]

    @property
    def _n_batches(self) -> int:
        """Batches in a pass over the training points."""
        return math.ceil(len(self.curvature.features) / self.batch_size)

    @property
    def _n_passes(self) -> int:
        """Passes over the training points at most."""
        return math.ceil(self.depth / self._n_batches)

    def _one_pass(
        self, vectors: Tensor, total: Tensor, right: Tensor, batches: list[Tensor], scale: float
    ) -> tuple[Tensor, Tensor]:
        """The vectors after one pass, and their sum over all steps so far."""
        # With a sufficient scale v is a sum of s/δ terms of norm ‖g‖ at most; twice that allows for the batches' noise.
        bound = 2 * (1 + scale / self.curvature.damping) * _norms(right)
        total = total.clone()
        for rows in batches:
            total += vectors
            vectors = vectors + right - self.curvature.product(vectors, rows) / scale
            if not (_norms(vectors) <= bound).all():
                raise DivergenceError(f"LiSSA diverged with scale {scale:.3g}; raise scale, damping or batch_size")
        return vectors, total


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, tol: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    """Solve A x = b for many right-hand sides at once, A symmetric and positive definite.

    Args:
        product: (n_vectors, …) → A times each vector.
        right: b (n_vectors, …).
        tol: stop a vector where ‖b − A x‖ ≤ tol · ‖b‖, or where the rest is rounding.
        max_iter: at most this many products.

    Returns:
        Solutions (n_vectors, …) and the relative residuals (n_vectors,) that the recurrence reached.
    """
    shape = (-1, *[1] * (right.dim() - 1))
    solution, relative = torch.zeros_like(right), torch.zeros_like(_norms(right))
    norms = _norms(right).clamp_min(torch.finfo(right.dtype).tiny)
    limit = max(tol, torch.finfo(right.dtype).eps)
    active = torch.arange(len(right), device=right.device)
    # The state of the active vectors alone: their solutions, residuals and directions.
    found, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    square = _squares(residual)
    for n_steps in range(max_iter + 1):
        relative[active] = square.sqrt() / norms[active]
        going = relative[active] > limit
        if not bool(going.all()):
            solution[active[~going]] = found[~going]
            active, square = active[going], square[going]
            found = found[going]  # one after the other, so that one of them exists twice at a time
            residual = residual[going]
            direction = direction[going]
        if not len(active) or n_steps == max_iter:
            break
        curved = None  # the former one goes before the next one comes
        curved = product(direction)
        step = square / _inner(direction, curved)
        found.addcmul_(step.view(shape), direction)
        residual.addcmul_(step.view(shape), curved, value=-1)
        before, square = square, _squares(residual)
        direction.mul_((square / before).view(shape)).add_(residual)
    solution[active] = found
    return solution, relative


def _scaled(vectors: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The vectors with a largest entry of one, in a precision that may be lower, and their sizes in their own.

    Gradients of confident points are as small as 1e-300: their squares underflow in every precision.
    """
    sizes = vectors.abs().amax((1, 2), keepdim=True) if len(vectors) else vectors.new_ones(0, 1, 1)
    sizes = torch.where(sizes > 0, sizes, 1.0)
    return (vectors / sizes).to(dtype), sizes


def _squares(vectors: Tensor) -> Tensor:
    """Squared norm of each vector."""
    return _inner(vectors, vectors)


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """The inner product of each vector with its counterpart, without a copy of them."""
    return (first.flatten(1)[:, None] @ second.flatten(1)[:, :, None])[:, 0, 0]


def _norms(vectors: Tensor) -> Tensor:
    """Norm of each vector."""
    return _squares(vectors).sqrt()


def _warn(figures: str, max_iter: int) -> None:
    """Warn that an iteration stopped early, with its figures."""
    advice = "raise the number of steps or the damping, or accept the tolerance"
    warnings.warn(f"{figures} after {max_iter} steps: {advice}", ConvergenceWarning, stacklevel=3)
