"""Sparsity: how many training points does an explanation need?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray
from quantus.helpers.enums import ScoreDirection

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.validation import check_option

Variant = Literal["l0", "hoyer", "mass"]
ZERO = 1e-6  # of the largest magnitude: below, a value counts as zero
MASS = 0.9  # of the sum of magnitudes
_ROUNDING = 1e-12


def sparsity(attributions: NDArray[Any], variant: Variant = "hoyer") -> NDArray[np.float64]:
    """How few training points carry each test point's attributions.

        "l0":    #{j : |τ_j| > 1e-6 · max |τ|}
        "hoyer": (√n − ‖τ‖₁ / ‖τ‖₂) / (√n − 1),   n = n_train
        "mass":  the smallest m for which the m largest |τ_j| have 90 % of ‖τ‖₁

    Args:
        attributions: (n_test, n_train); the sign has no effect.
        variant: one of the three.

    Returns:
        (n_test,). Counts in 0 .. n_train for "l0" and "mass", low if sparse; "hoyer" in [0, 1], 1 for a single point
        and 0 for equal magnitudes. A row of zeros counts 0 points, and its Hoyer measure is NaN.

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix, another variant.

    Source: arXiv 2402.12118, v3 (ℓ0 and Hoyer's measure); Hoyer 2004.
    Cost: O(n_test · n_train) time and memory ("mass": times log n_train in time).

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import sparsity
        >>> sparsity(np.array([[0.0, 4.0, 0.0, -3.0]]), "l0"), sparsity(np.array([[0.0, 4.0, 0.0, 0.0]]))
        (array([2.]), array([1.]))
    """
    owner = "sparsity"
    check_attributions(attributions, owner)
    if attributions.shape[1] == 0:
        raise InvalidValueError("attributions", owner, "of at least one training point", "none")
    return _MEASURES[check_option(variant, "variant", owner, get_args(Variant))](_relative(attributions))


def _relative(attributions: NDArray[Any]) -> NDArray[np.float64]:
    """Magnitudes relative to the largest of their row, so that none of their squares underflows; zeros stay zeros."""
    magnitudes = np.abs(attributions.astype(np.float64))
    largest = magnitudes.max(axis=1, keepdims=True)
    relative: NDArray[np.float64] = np.divide(magnitudes, largest, out=np.zeros_like(magnitudes), where=largest > 0)
    return relative


def _l0(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number of values above a millionth of the largest, (n_test,)."""
    counts: NDArray[np.float64] = (magnitudes > ZERO).sum(axis=1).astype(np.float64)
    return counts


def _hoyer(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hoyer's measure, (n_test,); NaN for rows of zeros."""
    root, norms = np.sqrt(magnitudes.shape[1]), np.linalg.norm(magnitudes, axis=1)
    ratio = np.divide(magnitudes.sum(axis=1), norms, out=np.full(len(norms), np.nan), where=norms > 0)
    measure: NDArray[np.float64] = (root - ratio) / (root - 1) if root > 1 else ratio  # of a single point: 1
    return np.clip(measure, 0.0, 1.0)


def _mass(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number of the largest values that have 90 % of the sum, (n_test,)."""
    reached = np.cumsum(-np.sort(-magnitudes, axis=1), axis=1)
    needed = MASS * (1 - _ROUNDING) * reached[:, -1:]
    counts: NDArray[np.float64] = (reached < needed).sum(axis=1) + (reached[:, -1] > 0).astype(np.float64)
    return counts


_MEASURES = {"l0": _l0, "hoyer": _hoyer, "mass": _mass}


class Sparsity(DataAttributionMetric):
    """One score for each test point: how few training points carry its attributions.

    Args:
        variant: ``"hoyer"``: Hoyer's measure in [0, 1], higher is sparser. ``"l0"``: the number of points above a
            millionth of the largest, lower is sparser. ``"mass"``: the number of points that have 90 % of the sum of
            magnitudes, lower is sparser.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidValueError: another variant.

    Source: arXiv 2402.12118, v3; Hoyer 2004. A random attributor (normal values) scores a Hoyer measure near
        1 − √(2/π) = 0.20 for many training points, and n_train by "l0".
    Cost: O(n_test · n_train) time ("mass": times log n_train), memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import Sparsity
        >>> metric = Sparsity(variant="mass")
        >>> metric(None, np.zeros((1, 4)), np.array([1]), a_batch=np.array([[0.5, -0.4, 0.06, 0.04]]))
        [2.0]
    """

    name = "Sparsity"
    interpretation = (
        "How few training points carry an explanation. Hoyer's measure is 1 for a single point and 0 for equal"
        " magnitudes; the variants l0 and mass count points. A random attributor is not sparse: about 0.2 by Hoyer."
    )

    def __init__(self, *, variant: Variant = "hoyer", **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.variant: Variant = check_option(variant, "variant", self._owner, get_args(Variant))
        if variant != "hoyer":
            vars(self)["score_direction"] = ScoreDirection.LOWER  # a class variable in Quantus' annotations

    def _check_sizes(self, _n_test: int, _n_train: int) -> None:
        """Any sizes fit."""

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        return [score for part in rows for score in sparsity(part.attributions, self.variant).tolist()]
