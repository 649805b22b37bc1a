"""Classes without training points: all of them are solved as one.

The primal does not change when two classes without points exchange their weights, and its minimum is unique. So all m
of these classes have the same weight v at the optimum, and together they cost ½ m ‖v‖². With u = √m v this is the
problem of a single class whose features are φ_i / √m:

    ½ m ‖v‖² = ½‖u‖²,    ⟨v, φ_i⟩ = ⟨u, φ_i / √m⟩,    u = Σ_i a_i φ_i / √m

where a_i ≤ 0 is the multiplier of that class at point i. Each absent class then receives α_ic = a_i / m: the rows still
sum to zero, and w_c = Σ_i (a_i / m) φ_i = u / √m = v. Primal and dual objective are those of the small problem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.solution import CrammerSingerSolution


@dataclass(frozen=True)
class AbsentClasses:
    """Maps a problem to one in which a single class, the last, represents all classes without points.

    ``representative`` (n_classes,) is the number of each class in the small problem. ``n_absent`` is 0 where nothing is
    gained: with fewer than two classes without points the small problem is the problem itself.
    """

    representative: NDArray[np.int64]
    n_absent: int

    @classmethod
    def of(cls, problem: CrammerSingerProblem) -> AbsentClasses:
        """The classes that no label names."""
        is_present = np.bincount(problem.labels, minlength=problem.n_classes) > 0
        n_absent = int(np.count_nonzero(~is_present))
        if n_absent < 2:
            return cls(np.arange(problem.n_classes), 0)
        return cls(np.where(is_present, np.cumsum(is_present) - 1, is_present.sum()), n_absent)

    def merge(self, problem: CrammerSingerProblem) -> CrammerSingerProblem:
        """The small problem."""
        if not self.n_absent:
            return problem
        labels = self.representative[problem.labels]
        n_classes = int(self.representative.max()) + 1
        return replace(problem, labels=labels, n_classes=n_classes, n_merged=self.n_absent)

    def merge_coefficients(self, alpha: csr_array) -> csr_array:
        """The α of the small problem: the last class has the sum of the absent classes."""
        if not self.n_absent:
            return alpha
        return csr_array(alpha @ self._membership(np.ones(len(self.representative))))

    def expand(self, solution: CrammerSingerSolution) -> CrammerSingerSolution:
        """The solution of the whole problem: every absent class has the last class's weight, and 1/m of its α."""
        if not self.n_absent:
            return solution
        portion = np.where(self.representative == self.representative.max(), 1.0 / self.n_absent, 1.0)
        return replace(
            solution,
            sparse_dual_coef=csr_array(solution.sparse_dual_coef @ self._membership(portion).T),
            weight=solution.weight[self.representative],
            intercept=solution.intercept[self.representative],
        )

    def _membership(self, values: NDArray[np.float64]) -> csr_array:
        """One entry per class, in the column of its representative."""
        n_classes = len(self.representative)
        shape = (n_classes, int(self.representative.max()) + 1)
        return csr_array((values, (np.arange(n_classes), self.representative)), shape=shape)
