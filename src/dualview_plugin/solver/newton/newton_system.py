"""Newton's equation (I + σ AᵀA) D = −G for the proximal function, in whichever of three forms is smallest.

face     by Woodbury in the n_free dimensions of the face:  D = −G + σ Aᵀ v,  (I + σ A Aᵀ) v = A(G)
weights  in the n_classes · n_features dimensions of W, by its Cholesky factor
inexact  conjugate gradients on W, preconditioned by the class-diagonal blocks of I + σ AᵀA
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from dualview_plugin.solver.linear.cholesky import factor_of_shifted, solve_shifted
from dualview_plugin.solver.linear.laplacian_system import laplacian_system
from dualview_plugin.solver.newton.free_face import FreeFace

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
    system = laplacian_system(face.features, face.edges(sigma), face.class_scale)
    return np.asarray(-solve_shifted(system, gradient.ravel(), 1.0).reshape(gradient.shape))


def _by_conjugate_gradients(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    factors = [_block_factor(face, sigma, c) for c in range(face.n_classes)]

    def precondition(residual: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(
            [r if f is None else cho_solve(f, r, check_finite=False) for f, r in zip(factors, residual, strict=True)]
        )

    direction, residual = np.zeros_like(gradient), -gradient
    conjugate = preconditioned = precondition(residual)
    energy, goal = np.vdot(residual, preconditioned), _CG_TOLERANCE * np.linalg.norm(gradient)
    for _ in range(_CG_STEPS):
        image = conjugate + sigma * face.apply_transposed(face.apply(conjugate))
        step = energy / np.vdot(conjugate, image)
        direction, residual = direction + step * conjugate, residual - step * image
        if np.linalg.norm(residual) <= goal:
            break
        preconditioned = precondition(residual)
        energy, previous = np.vdot(residual, preconditioned), energy
        conjugate = preconditioned + (energy / previous) * conjugate
    return direction


def _block_factor(face: FreeFace, sigma: float, c: int) -> tuple[NDArray[np.float64], bool] | None:
    block = face.diagonal_block(c)
    return None if block is None else factor_of_shifted(sigma * block, 1.0)
