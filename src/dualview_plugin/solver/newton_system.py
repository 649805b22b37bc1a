"""Newton's equation (I + σ AᵀA) D = −G for the proximal function, in whichever of three forms is smallest.

face     by Woodbury in the n_free dimensions of the face:  D = −G + σ Aᵀ v,  (I + σ A Aᵀ) v = A(G)
weights  in the n_classes · n_features dimensions of W, by its Cholesky factor
inexact  conjugate gradients on W, preconditioned by the class-diagonal blocks of I + σ AᵀA
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from dualview_plugin.solver.free_face import FreeFace

LARGEST_FACTOR = 5000  # dimension up to which a Cholesky factor is cheaper than conjugate gradients
_CG_TOLERANCE = 1e-2
_CG_STEPS = 150


def newton_direction(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """D with (I + σ AᵀA) D = −gradient, exactly or (for large systems) to a relative residual of 1e-2."""
    if face.n_free == 0:
        return -gradient
    smallest = min(face.n_free, gradient.size)
    if smallest > LARGEST_FACTOR:
        return _by_conjugate_gradients(face, sigma, gradient)
    if face.n_free <= 1.3 * gradient.size:
        return _on_the_face(face, sigma, gradient)
    return _on_the_weights(face, sigma, gradient)


def _on_the_face(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    system = sigma * face.gram()
    v = solve_shifted(system, face.apply(gradient), 1.0)
    return np.asarray(sigma * face.apply_transposed(v) - gradient)


def _on_the_weights(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    n_classes, n_features = gradient.shape
    system = np.zeros((n_classes, n_features, n_classes, n_features))
    for first in range(n_classes):
        for second in range(first + 1):
            block = face.block(first, second)
            if block is not None:
                system[first, :, second, :] = sigma * block
    solved = solve_shifted(system.reshape(gradient.size, gradient.size), gradient.ravel(), 1.0)
    return np.asarray(-solved.reshape(n_classes, n_features))


def solve_shifted(system: NDArray[np.floating], right: NDArray[np.floating], shift: float) -> NDArray[np.floating]:
    """Solves (shift · I + system) x = right from the lower triangle of the system, which is overwritten.

    Raises:
        LinAlgError: the shifted system is not positive definite.
    """
    system.flat[:: len(system) + 1] += shift
    factor = cho_factor(system.T, lower=False, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, right, check_finite=False))


def _by_conjugate_gradients(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    factors = [_block_factor(face, sigma, c) for c in range(face.n_classes)]

    def precondition(residual: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(
            [r if f is None else cho_solve(f, r, check_finite=False) for f, r in zip(factors, residual, strict=True)]
        )

    dtype = face.features.dtype
    direction, residual = np.zeros_like(gradient), -gradient
    conjugate = preconditioned = precondition(residual)
    energy, goal = np.vdot(residual, preconditioned), _CG_TOLERANCE * np.linalg.norm(gradient)
    for _ in range(_CG_STEPS):
        image = conjugate + sigma * face.apply_transposed(face.apply(conjugate.astype(dtype)))
        step = energy / np.vdot(conjugate, image)
        direction, residual = direction + step * conjugate, residual - step * image
        if np.linalg.norm(residual) <= goal:
            break
        preconditioned = precondition(residual)
        energy, previous = np.vdot(residual, preconditioned), energy
        conjugate = preconditioned + (energy / previous) * conjugate
    return direction


def _block_factor(face: FreeFace, sigma: float, c: int) -> tuple[NDArray[np.floating], bool] | None:
    block = face.block(c, c)
    if block is None:
        return None
    block = sigma * block.astype(np.float64)
    block.flat[:: len(block) + 1] += 1.0
    factor: tuple[NDArray[np.floating], bool] = cho_factor(block, overwrite_a=True, check_finite=False)
    return factor
