"""Scores of methods in metrics, with an interval for each mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """What one method scores in one metric.

    Attributes:
        method: the method's name.
        metric: the metric's name.
        values: the scores, usually one for each test point; NaN where the metric does not apply.
        seconds: how long the method and the metric took together; None: not measured.
    """

    method: str
    metric: str
    values: Sequence[float]
    seconds: float | None = None

    @property
    def finite(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The scores that are numbers."""
        values = np.asarray(self.values, dtype=np.float64).reshape(-1)
        return values[np.isfinite(values)]

    @property
    def mean(self) -> float:
        """The mean of the finite scores; NaN if there are none."""
        return float(self.finite.mean()) if self.finite.size else float("nan")

    def interval(self, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float] | None:
        """A percentile bootstrap interval of the mean over test points; None if there are fewer than two scores.

        It covers the choice of test points. It does not cover the network's training.

        Example:
            >>> from dualview_plugin import Scores
            >>> Scores("DualView", "Identical Class", [1.0, 0.0, 1.0, 1.0]).interval()
            (0.25, 1.0)
        """
        values = self.finite
        if values.size < 2:
            return None
        drawn = np.random.default_rng(seed).integers(0, values.size, (n_resamples, values.size))
        low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
