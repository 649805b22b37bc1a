"""The dual variables, stored sparsely: each training point lives on a scaled simplex.

    β_i = C·e_{y_i} − α_i ≥ 0,    Σ_c β_ic = C,    W = Σ_i α_i φ_iᵀ

A point keeps a short list of active classes, its label first (slot 0), and β only there; everywhere else β is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.objective import dual_objective

# The number of classes that a list has room for at first.
_FIRST_CAPACITY = 12


@dataclass
class SimplexState:
    """Active classes and β of every point: ``classes``, ``beta`` (n, capacity), of which ``count`` (n,) are in use."""

    classes: NDArray[np.int32]
    beta: NDArray[np.float64]
    count: NDArray[np.int32]
    C: float

    @classmethod
    def cold(cls, labels: NDArray[np.int64], C: float, n_classes: int) -> SimplexState:
        """α = 0: each point has its label alone, β_i = C·e_{y_i}."""
        n_train, capacity = len(labels), min(_FIRST_CAPACITY, n_classes)
        state = cls(
            np.zeros((n_train, capacity), np.int32), np.zeros((n_train, capacity)), np.ones(n_train, np.int32), C
        )
        state.classes[:, 0], state.beta[:, 0] = labels, C
        return state

    @property
    def capacity(self) -> int:
        """How many classes the list of a point can hold."""
        return int(self.classes.shape[1])

    @property
    def n_support(self) -> int:
        """The number of points with α_i ≠ 0."""
        return int(count_support(self.beta, self.count))

    @property
    def competing(self) -> NDArray[np.int64]:
        """The points with more than one active class, ascending."""
        return np.flatnonzero(self.count > 1)

    @property
    def n_free(self) -> int:
        """Σ_i (positive β_ic − 1): the dimension of the face of the simplices on which β lies."""
        return int(np.count_nonzero(self.beta > 0)) - len(self.beta)

    def dual_objective(self, weight: NDArray[np.float64]) -> float:
        """Σ_i α_{i y_i} − ½ ‖W‖², for W = αᵀΦ."""
        return dual_objective(self.beta, weight)

    def make_room(self, n_new: int, n_classes: int) -> None:
        """Forgets inactive classes, and sees to it that every point has room for ``n_new`` more."""
        drop_inactive(self.classes, self.beta, self.count)
        self.widen(n_new, n_classes)

    def widen(self, n_new: int, n_classes: int) -> None:
        """Doubles the capacity until every point has room for ``n_new`` more classes; lists stay as they are."""
        needed = min(n_classes, int(self.count.max()) + n_new)
        while self.capacity < needed:
            wider = ((0, 0), (0, min(self.capacity, n_classes - self.capacity)))
            self.classes, self.beta = np.pad(self.classes, wider), np.pad(self.beta, wider)

    def subset(self, rows: NDArray[np.int64]) -> SimplexState:
        """A copy of some points, as narrow as their lists allow."""
        width = int(self.count[rows].max()) if len(rows) else 1
        return SimplexState(
            np.ascontiguousarray(self.classes[rows, :width]),
            np.ascontiguousarray(self.beta[rows, :width]),
            self.count[rows],
            self.C,
        )

    def write_back(self, rows: NDArray[np.int64], part: SimplexState) -> None:
        """Writes back the β of a copy made by ``subset``."""
        self.beta[rows, : part.capacity] = part.beta

    def weight(self, features: NDArray[np.floating], class_scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """W = αᵀΦ (n_classes, n_features), summed in float64; row c is multiplied by the scale of class c."""
        weight = np.zeros((len(class_scale), features.shape[1]))
        accumulate_weight(features, self.classes, self.beta, self.count, weight)
        weight *= class_scale[:, None]
        return weight

    def sum_over_points(self, features: NDArray[np.floating], class_scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """Σ_i β_i φ_iᵀ (n_classes, n_features), for β of any sign; row c is multiplied by the scale of class c."""
        total = np.zeros((len(class_scale), features.shape[1]))
        add_outer(features, self.classes, self.count, self.beta, total)
        total *= class_scale[:, None]
        return total

    def with_beta(self, beta: NDArray[np.float64]) -> SimplexState:
        """The state that has another β on the same lists."""
        return SimplexState(self.classes, beta, self.count, self.C)

    def dual_coefficients(self, n_classes: int) -> tuple[NDArray[np.int64], csr_array]:
        """Support (n_support,) and α of the support rows, a CSR matrix (n_support, n_classes) that stores no zeros.

        α_{i y_i} is the sum of the other β_ic, so that each row sums to zero whatever the rounding of β_{i y_i}.
        """
        active = (self.beta > 0) & (np.arange(self.capacity) < self.count[:, None])
        active[:, 0] = False
        support = np.flatnonzero(active.any(axis=1))
        alpha = np.where(active[support], -self.beta[support], 0.0)
        alpha[:, 0] = -alpha[:, 1:].sum(axis=1)
        row, slot = np.nonzero(alpha)
        columns = self.classes[support[row], slot]
        shape = (len(support), n_classes)
        return support, csr_array((alpha[row, slot], (row, columns)), shape=shape)


@compiled
def count_support(beta: NDArray[np.float64], count: NDArray[np.int32]) -> int:
    """The number of points with a positive β_ic beside that of the label."""
    n_support = 0
    for i in range(len(count)):
        for slot in range(1, count[i]):
            if beta[i, slot] > 0.0:
                n_support += 1
                break
    return n_support


@compiled
def accumulate_weight(
    features: NDArray[np.floating],
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    count: NDArray[np.int32],
    weight: NDArray[np.float64],
) -> None:
    """Adds to weight Σ_i α_i φ_iᵀ, where α_{i y_i} is the sum of the other β_ic."""
    for i in range(features.shape[0]):
        total = 0.0
        for slot in range(1, count[i]):
            b = beta[i, slot]
            if b > 0.0:
                total += b
                w = weight[classes[i, slot]]
                for j in range(features.shape[1]):
                    w[j] -= b * features[i, j]
        if total > 0.0:
            w = weight[classes[i, 0]]
            for j in range(features.shape[1]):
                w[j] += total * features[i, j]


@compiled
def drop_inactive(classes: NDArray[np.int32], beta: NDArray[np.float64], count: NDArray[np.int32]) -> None:
    """Removes the classes with β_ic = 0 from every list; the label stays in slot 0."""
    for i in range(len(count)):
        kept = 1
        for slot in range(1, count[i]):
            if beta[i, slot] > 0.0:
                classes[i, kept], beta[i, kept] = classes[i, slot], beta[i, slot]
                kept += 1
        for slot in range(kept, count[i]):
            beta[i, slot] = 0.0
        count[i] = kept


@compiled
def add_outer(
    features: NDArray[np.floating],
    classes: NDArray[np.int32],
    count: NDArray[np.int32],
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Adds Σ_i values_i φ_iᵀ to the weight."""
    for i in range(features.shape[0]):
        for a in range(count[i]):
            value = values[i, a]
            if value != 0.0:
                w = weight[classes[i, a]]
                for j in range(features.shape[1]):
                    w[j] += value * features[i, j]
