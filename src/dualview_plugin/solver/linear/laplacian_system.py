"""Systems on W that are made of one Laplacian per point, for Newton's method and the interior-point method.

    Σ_i L_i ⊗ φ_i φ_iᵀ,    L_i = Σ_{a<b} d_iab (e_a − e_b)(e_a − e_b)ᵀ

An edge joins two classes of a point. All edges between the same two classes give one matrix Φᵀ diag(d) Φ, which
enters the system four times: with + at (a, a) and (b, b), with − at (a, b) and (b, a).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk

from dualview_plugin.solver.compiled import compiled

# A product of scaled features is formed from at most this many rows at once.
_ROWS_PER_PRODUCT = 4096


@dataclass(frozen=True)
class Edges:
    """Edges of all Laplacians: number of the pair of classes (see ``number_of_pair``), row of the point, weight > 0."""

    pair: NDArray[np.int64]
    row: NDArray[np.int64]
    weight: NDArray[np.float64]


def laplacian_system(
    features: NDArray[np.float64], edges: Edges, class_scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The system, square in n_classes · n_features dimensions; only its lower triangle is filled.

    The features of class c are multiplied by ``class_scale[c]``.
    """
    n_classes, n_features = len(class_scale), features.shape[1]
    order = np.argsort(edges.pair, kind="stable")
    row, root = edges.row[order], np.sqrt(edges.weight[order])
    bounds = np.searchsorted(edges.pair[order], np.arange(n_classes * (n_classes - 1) // 2 + 1))
    system = np.zeros((n_classes, n_features, n_classes, n_features))
    for high in range(n_classes):
        for low in range(high):
            number = number_of_pair(high, low)
            first, last = bounds[number], bounds[number + 1]
            if first < last:
                gram = _gram(features, row[first:last], root[first:last])
                system[high, :, high, :] += class_scale[high] ** 2 * gram
                system[low, :, low, :] += class_scale[low] ** 2 * gram
                system[high, :, low, :] -= class_scale[high] * class_scale[low] * (gram + np.tril(gram, -1).T)
    return system.reshape(n_classes * n_features, n_classes * n_features)


def operations_of_system(edges: Edges, shape: tuple[int, ...]) -> float:
    """Floating-point operations to form the system of W's shape, and to factor it."""
    n_classes, n_features = shape
    return len(edges.pair) * n_features**2 + (n_classes * n_features) ** 3 / 3


def _gram(features: NDArray[np.float64], rows: NDArray[np.int64], root: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ root² φφᵀ over the rows; only its lower triangle is filled."""
    n_features = features.shape[1]
    gram = np.zeros((n_features, n_features), order="F")
    for start in range(0, len(rows), _ROWS_PER_PRODUCT):
        some = slice(start, start + _ROWS_PER_PRODUCT)
        scaled = features[rows[some]] * root[some, None]
        gram = dsyrk(1.0, scaled.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    return gram


@compiled
def number_of_pair(first: int | np.int64, second: int | np.int64) -> int:
    """The number of a pair of classes in whichever order: 0 for (1, 0), 1 for (2, 0), 2 for (2, 1), 3 for (3, 0)."""
    high, low = max(first, second), min(first, second)
    return int(high * (high - 1) // 2 + low)


@compiled
def list_edges(
    classes: NDArray[np.int32],
    stiffness: NDArray[np.float64],
    count: NDArray[np.int32],
    squared_norms: NDArray[np.float64],
    dropped: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pair, row and weight of the edges of diag(D_i) − D_i D_iᵀ / Σ D_i for the stiffness D ≥ 0 of active classes.

    Edges are left out if all of them together change the system by at most ``dropped`` · I.
    """
    most = 0
    for size in count:
        most += np.int64(size) * (size - 1) // 2
    pair, row, weight = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    smallest, n_edges = dropped / (2 * max(1, most)), 0
    for i in range(len(count)):
        total = 0.0
        for a in range(count[i]):
            total += stiffness[i, a]
        for a in range(count[i]):
            for b in range(a):
                product = stiffness[i, a] * stiffness[i, b]
                if product > 0.0 and product / total * squared_norms[i] > smallest:
                    pair[n_edges] = number_of_pair(np.int64(classes[i, a]), np.int64(classes[i, b]))
                    row[n_edges], weight[n_edges] = i, product / total
                    n_edges += 1
    return pair[:n_edges], row[:n_edges], weight[:n_edges]
