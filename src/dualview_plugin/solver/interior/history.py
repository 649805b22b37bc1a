"""The iterates that an interior-point solve keeps, from which a solve at a larger C can start.

Where classes overlap, W hardly changes with C at hard margins and β grows with C. So an iterate whose β is scaled by
the ratio of the two C needs only a few more steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate
from dualview_plugin.solver.objective import half_squared_norm


@dataclass(frozen=True)
class CentralPathHistory:
    """The lists of all points after a solve at C, and iterates of that solve, largest gap first."""

    classes: NDArray[np.int32]
    count: NDArray[np.int32]
    C: float
    iterates: list[CentralPathIterate]

    def state(self, C: float) -> SimplexState:
        """α = 0 on these lists."""
        beta = np.zeros(self.classes.shape)
        beta[:, 0] = C
        return SimplexState(self.classes.copy(), beta, self.count.copy(), C)

    def start(self, C: float) -> CentralPathIterate | None:
        """The iterate with the smallest gap that is still larger than what scaling to C adds; None if there is none."""
        scale = C / self.C
        for iterate in reversed(self.iterates):
            gap = iterate.mu * float(self.count[iterate.rows].sum())
            added = (scale - 1.0) ** 2 * half_squared_norm(iterate.weight)
            if scale * gap >= added:
                return replace(iterate, beta=scale * iterate.beta, mu=scale * iterate.mu)
        return None
