"""The face of the simplices on which β lies, with an orthonormal basis: where Newton's method may move.

A point with q positive β_ic can move in the q − 1 directions that keep their sum. Helmert's vectors

    u_r = (1, …, 1, −r, 0, …) / √(r (r + 1)),    r = 1 … q − 1

are an orthonormal basis of them, supported on the positive classes. All basis vectors of all points, one under the
other, are the rows of U, and row f belongs to the point ``rows[f]``. On weights, A(D)_f = ⟨u_f φ_fᵀ, D⟩ = u_fᵀ D φ_f.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.linear.laplacian_system import Edges, number_of_pair

_DENSE_CLASSES = 64  # up to here U is handled as a dense matrix by BLAS


@dataclass(frozen=True)
class FreeFace:
    """U (n_free, n_classes), and of its rows the points (n_free,) with their features (n_free, n_features).

    ``basis`` is U and acts on β; ``scaled_basis`` is U with column c multiplied by the scale of class c, and acts on W.
    """

    basis: csr_array
    scaled_basis: csr_array
    class_scale: NDArray[np.float64]
    points: NDArray[np.int64]
    features: NDArray[np.float64]

    @classmethod
    def of(cls, state: SimplexState, features: NDArray[np.floating], class_scale: NDArray[np.float64]) -> FreeFace:
        """The face of a state's positive β; the features become float64."""
        positive = state.beta > 0
        free = positive.sum(axis=1) - 1
        n_free, n_entries = int(free.sum()), int(((free + 1) * (free + 2) // 2 - 1).sum())
        start, column = np.zeros(n_free + 1, np.int64), np.empty(n_entries, np.int64)
        value = np.empty(n_entries)
        fill_helmert_basis(state.classes, state.beta, state.count, start, column, value)
        rows = np.repeat(np.arange(len(free)), free)
        basis = csr_array((value, column, start), shape=(n_free, len(class_scale)))
        scaled = csr_array((value * class_scale[column], column, start), shape=basis.shape)
        return cls(basis, scaled, class_scale, rows, features[rows].astype(np.float64, copy=False))

    @property
    def n_free(self) -> int:
        """The dimension of the face."""
        return int(self.basis.shape[0])

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return int(self.basis.shape[1])

    @cached_property
    def _dense_basis(self) -> NDArray[np.float64]:
        return np.asarray(self.scaled_basis.toarray())

    @cached_property
    def _transposed_basis(self) -> csr_array:
        return csr_array(self.scaled_basis.T)

    def apply(self, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """A(D)_f = u_fᵀ D φ_f."""
        if self.n_classes <= _DENSE_CLASSES:
            return np.asarray(np.einsum("fc,fc->f", self._dense_basis, self.features @ direction.T))
        return np.asarray(np.einsum("fd,fd->f", self.scaled_basis @ direction, self.features))

    def apply_transposed(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Aᵀ(v) = Σ_f v_f u_f φ_fᵀ, (n_classes, n_features)."""
        if self.n_classes <= _DENSE_CLASSES:
            return np.asarray((self._dense_basis * v[:, None]).T @ self.features)
        return np.asarray(self._transposed_basis @ (self.features * v[:, None]))

    def gram(self) -> NDArray[np.float64]:
        """A Aᵀ = (U Uᵀ) ∘ (Φ_f Φ_fᵀ), (n_free, n_free)."""
        if self.n_classes <= _DENSE_CLASSES:
            classes = self._dense_basis @ self._dense_basis.T
        else:
            classes = (self.scaled_basis @ self._transposed_basis).toarray()
        classes *= self.features @ self.features.T
        return np.asarray(classes)

    def diagonal_block(self, c: int) -> NDArray[np.float64] | None:
        """Σ_f u_fc² φ_f φ_fᵀ (n_features, n_features): the block of AᵀA at one class. None where it is zero."""
        columns = self._transposed_basis
        used = slice(columns.indptr[c], columns.indptr[c + 1])
        if used.start == used.stop:
            return None
        scaled = self.features[columns.indices[used]] * columns.data[used, None]
        return np.asarray(scaled.T @ scaled)

    def edges(self, sigma: float) -> Edges:
        """σ AᵀA as Laplacians: Σ_r u_r u_rᵀ = I − 11ᵀ/q of a point joins all pairs of its q positive classes by 1/q."""
        last = np.flatnonzero(np.diff(self.points, append=-1))
        return Edges(*list_pairs(self.basis.indptr, self.basis.indices, last, sigma))

    def entries_at(self, classes: NDArray[np.int32]) -> NDArray[np.float64]:
        """U_fc for one class c per row."""
        return np.asarray(self.basis[np.arange(self.n_free), classes]).ravel()

    def change_of_beta(self, v: NDArray[np.float64], state: SimplexState) -> NDArray[np.float64]:
        """Uᵀ v on the lists of active classes of the state that the face was made of, shaped like its β."""
        points, position = np.unique(self.points, return_inverse=True)
        gather = csr_array((v, (position, np.arange(self.n_free))), shape=(len(points), self.n_free))
        by_class = (gather @ self.basis).toarray()
        change = np.zeros_like(state.beta)
        change[points] = np.take_along_axis(by_class, state.classes[points].astype(np.int64), axis=1)
        change[state.beta <= 0.0] = 0.0
        return change


@compiled
def fill_helmert_basis(
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    count: NDArray[np.int32],
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    value: NDArray[np.float64],
) -> None:
    """Fills U as a CSR matrix: row starts, columns, values."""
    positive = np.empty(classes.shape[1], np.int64)
    row, entry = 0, 0
    for i in range(len(count)):
        size = 0
        for a in range(count[i]):
            if beta[i, a] > 0.0:
                positive[size] = classes[i, a]
                size += 1
        for r in range(1, size):
            unit = 1.0 / np.sqrt(r * (r + 1.0))
            for a in range(r + 1):
                column[entry] = positive[a]
                value[entry] = unit if a < r else -r * unit
                entry += 1
            row += 1
            start[row] = entry


@compiled
def list_pairs(
    start: NDArray[np.integer],
    column: NDArray[np.integer],
    last: NDArray[np.int64],
    sigma: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pair, row and weight of the edges between all classes that a basis row in ``last`` holds: σ / their number."""
    n_edges = 0
    for f in last:
        size = start[f + 1] - start[f]
        n_edges += size * (size - 1) // 2
    pair, row, weight = np.empty(n_edges, np.int64), np.empty(n_edges, np.int64), np.empty(n_edges)
    n_edges = 0
    for f in last:
        size = start[f + 1] - start[f]
        for a in range(size):
            for b in range(a):
                pair[n_edges] = number_of_pair(np.int64(column[start[f] + a]), np.int64(column[start[f] + b]))
                row[n_edges], weight[n_edges] = f, sigma / size
                n_edges += 1
    return pair, row, weight
