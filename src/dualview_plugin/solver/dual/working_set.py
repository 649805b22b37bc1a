"""The working set: the points on which the inner solvers work between two screens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.problem import CrammerSingerProblem

# Up to this number of bytes the features of the competing points are copied, so that they lie side by side in memory.
_LARGEST_COPY = 2**28


class WorkingSet:
    """Some points, on which the inner solvers work, and W.

    Features, lists and β are copies. With ``in_place`` they are those of all points themselves, and ``rows`` all rows.

    ``weight`` is the array of the outer loop: an inner solver that changes β changes it too.
    """

    def __init__(
        self,
        problem: CrammerSingerProblem,
        state: SimplexState,
        weight: NDArray[np.float64],
        rows: NDArray[np.int64],
        *,
        in_place: bool = False,
    ) -> None:
        self.rows, self.weight = rows, weight
        self.features = problem.features[rows] if len(rows) < problem.n_train else problem.features
        self.squared_norms = problem.squared_norms[rows]
        self.class_scale = problem.class_scale
        self.state = state if in_place else state.subset(rows)

    @classmethod
    def of_competing(
        cls, problem: CrammerSingerProblem, state: SimplexState, weight: NDArray[np.float64]
    ) -> WorkingSet:
        """All points with more than one active class."""
        return cls(problem, state, weight, state.competing)

    @classmethod
    def for_screens(
        cls,
        problem: CrammerSingerProblem,
        state: SimplexState,
        weight: NDArray[np.float64],
        *,
        largest_copy: int = _LARGEST_COPY,
    ) -> WorkingSet:
        """The competing points; all points where copies of the competing ones' features would exceed ``largest_copy``.

        All points are used in place, so that a memory map stays on disk. Descent skips a point with one
        active class before it reads its features.
        """
        rows = state.competing
        if len(rows) * problem.n_features * problem.features.itemsize > largest_copy:
            return cls(problem, state, weight, np.arange(problem.n_train), in_place=True)
        return cls(problem, state, weight, rows)

    def refresh(self, state: SimplexState) -> bool:
        """Copies the lists of its points again; False if other points have more than one active class now."""
        if not np.array_equal(state.competing, self.rows):
            return False
        self.state = state.subset(self.rows)
        return True

    @property
    def size(self) -> int:
        """The number of points."""
        return len(self.rows)
