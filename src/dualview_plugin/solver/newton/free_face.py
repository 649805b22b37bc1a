"""The face of the simplices on which β lies, with an orthonormal basis of the directions in it.

A point with q positive β_ic can move in the q − 1 directions that keep their sum. Helmert's vectors

    u_r = (1, …, 1, −r, 0, …) / √(r (r + 1)),    r = 1 … q − 1

are an orthonormal basis of them, supported on the positive classes. All basis vectors of all points, one under the
other, are the rows of U, and row f belongs to the point ``points[f]``. On weights, A(D)_f = ⟨u_f φ_fᵀ, D⟩ = u_fᵀ D φ_f.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.linear.laplacian_system import Edges, list_edges

# Up to this number of classes U is a dense matrix, which BLAS handles faster than a sparse one.
_DENSE_CLASSES = 64


@dataclass(frozen=True)
class FreeFace:
    """The basis U (n_free, n_classes) at a state, and the point and the features of each of its rows.

    ``basis`` is U and acts on β; ``scaled_basis`` is U with column c multiplied by the scale of class c, and acts on W.
    """

    state: SimplexState
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
        return cls(state, basis, scaled, class_scale, rows, features[rows].astype(np.float64, copy=False))

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
        part = self.state.subset(self.points[last])
        stiffness = np.where(part.beta > 0, sigma, 0.0)
        pair, row, weight = list_edges(part.classes, stiffness, part.count, np.ones(len(last)), 0.0)
        return Edges(pair, last[row], weight)

    @property
    def entries_at_label(self) -> NDArray[np.float64]:
        """U_{f y} for the label y of each row's point."""
        labels = self.state.classes[self.points, 0]
        return np.asarray(self.basis[np.arange(self.n_free), labels]).ravel()

    def change_of_beta(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Uᵀ v on the lists of active classes, shaped like β."""
        state = self.state
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
