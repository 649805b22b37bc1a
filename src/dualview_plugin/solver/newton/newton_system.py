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
from dualview_plugin.solver.linear.laplacian_system import Edges, laplacian_system, operations_of_system
from dualview_plugin.solver.newton.free_face import FreeFace
from dualview_plugin.solver.screening.monitor import Stop, never

# Up to this dimension a Cholesky factor is cheaper than conjugate gradients.
LARGEST_FACTOR = 5000
# The system of the face is preferred up to this ratio of its dimension to that of W: it is formed faster.
_FACE_PER_WEIGHT = 1.3
# Conjugate gradients end at this relative residual, or after this many steps.
_CG_TOLERANCE, _CG_STEPS = 1e-2, 150


def newton_direction(
    face: FreeFace, sigma: float, gradient: NDArray[np.float64], stop: Stop = never
) -> NDArray[np.float64]:
    """D with (I + σ AᵀA) D = −gradient, exactly or (for large systems) to a relative residual of 1e-2.

    Where the time does not suffice it is a direction of descent that solves the system less well.
    """
    if face.n_free == 0:
        return -gradient
    if min(face.n_free, gradient.size) > LARGEST_FACTOR:
        return by_conjugate_gradients(face, sigma, gradient, stop)
    if face.n_free <= _FACE_PER_WEIGHT * gradient.size:
        return -gradient if stop(operations_on_face(face)) else on_the_face(face, sigma, gradient)
    edges = face.edges(sigma)
    return -gradient if stop(operations_of_system(edges, gradient.shape)) else on_the_weights(face, edges, gradient)


def operations_on_face(face: FreeFace) -> float:
    """Floating-point operations to form A Aᵀ and to factor it."""
    return float(face.n_free**2 * face.features.shape[1] + face.n_free**3 / 3)


def on_the_face(face: FreeFace, sigma: float, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """By Woodbury, in the dimensions of the face."""
    system = sigma * face.gram()
    v = solve_shifted(system, face.apply(gradient), 1.0)
    return np.asarray(sigma * face.apply_transposed(v) - gradient)


def on_the_weights(face: FreeFace, edges: Edges, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """By a Cholesky factor in the dimensions of W; the edges are those of σ AᵀA."""
    system = laplacian_system(face.features, edges, face.class_scale)
    return np.asarray(-solve_shifted(system, gradient.ravel(), 1.0).reshape(gradient.shape))


def by_conjugate_gradients(
    face: FreeFace, sigma: float, gradient: NDArray[np.float64], stop: Stop = never
) -> NDArray[np.float64]:
    """By conjugate gradients on W; blocks that there is no time to factor are not preconditioned."""
    factors = [None if stop() else _block_factor(face, sigma, c) for c in range(face.n_classes)]

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
        if np.linalg.norm(residual) <= goal or stop():
            break
        preconditioned = precondition(residual)
        energy, previous = np.vdot(residual, preconditioned), energy
        conjugate = preconditioned + (energy / previous) * conjugate
    return direction


def _block_factor(face: FreeFace, sigma: float, c: int) -> tuple[NDArray[np.float64], bool] | None:
    block = face.diagonal_block(c)
    return None if block is None else factor_of_shifted(sigma * block, 1.0)
