"""The Crammer-Singer problem: its data, checked once, in the form that the solvers read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver.compiled import compiled
from dualview_plugin.validation import check_integer, check_positive

OWNER = "solve_crammer_singer"
_LARGEST_NORM = 1e15  # beyond it a squared norm leaves the range of float32


@dataclass(frozen=True)
class CrammerSingerProblem:
    """Training data and margin constant of a problem.

        min_W  ½ Σ_c ‖w_c‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩)

    ``features`` (n_train, n_features) is float32 or float64 and C-contiguous, ``labels`` (n_train,) int64. With
    ``fit_intercept`` the last feature is the constant 1.
    """

    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    C: float
    n_classes: int
    fit_intercept: bool = False

    @property
    def n_train(self) -> int:
        """The number of training points."""
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """The number of features, the constant one of the intercept included."""
        return int(self.features.shape[1])

    @property
    def n_weights(self) -> int:
        """The number of entries of W."""
        return self.n_classes * self.n_features

    @cached_property
    def features32(self) -> NDArray[np.float32]:
        """The features in single precision, for the screens; no copy where they are single already."""
        return self.features.astype(np.float32, copy=False)

    @cached_property
    def squared_norms(self) -> NDArray[np.float64]:
        """‖φ_i‖² (n_train,), kept off zero, so that a zero row takes a finite (and then exact) step."""
        norms = squared_norms_of(self.features)
        largest = float(norms.max())
        return np.maximum(norms, 1e-30 * largest if largest > 0 else 1.0)

    @cached_property
    def mean_squared_norm(self) -> float:
        """The mean of ‖φ_i‖²: the unit in which C and the proximal parameter are measured."""
        return float(self.squared_norms.mean())

    @property
    def hardness(self) -> float:
        """C · mean ‖φ_i‖²: without a unit, the same for every scale of the features; large for hard margins."""
        return self.C * self.mean_squared_norm


@compiled
def squared_norms_of(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """‖φ_i‖² of every row, summed in float64."""
    norms = np.empty(features.shape[0])
    for i in range(features.shape[0]):
        total = 0.0
        for j in range(features.shape[1]):
            total += np.float64(features[i, j]) * np.float64(features[i, j])
        norms[i] = total
    return norms


def make_problem(
    features: object, labels: object, C: object, *, n_classes: object = None, fit_intercept: bool = False
) -> CrammerSingerProblem:
    """The problem, if features, labels, C and n_classes are fit for it; refuses them before any heavy work."""
    constant = check_positive(C, "C", OWNER)
    checked_features = _check_features(features)
    checked_labels = _check_labels(labels, len(checked_features))
    if fit_intercept:
        ones = np.ones((len(checked_features), 1), checked_features.dtype)
        checked_features = np.concatenate([checked_features, ones], axis=1)
    return CrammerSingerProblem(
        checked_features, checked_labels, constant, _check_n_classes(n_classes, checked_labels), bool(fit_intercept)
    )


def _check_features(features: object) -> NDArray[np.floating]:
    constraint = "a NumPy array (n_train, n_features) of real numbers"
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiu":
        kind = f"an array of {features.dtype}" if isinstance(features, np.ndarray) else type(features).__name__
        raise InvalidTypeError("features", OWNER, constraint, kind)
    if features.ndim != 2 or 0 in features.shape:
        raise InvalidValueError("features", OWNER, f"{constraint} with at least one row and column", features.shape)
    dtype = np.float32 if features.dtype in (np.float16, np.float32) else np.float64
    array: NDArray[np.floating] = np.ascontiguousarray(features, dtype=dtype)
    largest = max(abs(float(array.min())), abs(float(array.max())))
    if not largest * np.sqrt(array.shape[1]) < _LARGEST_NORM:  # NaN compares false
        at = np.unravel_index(int(np.abs(array).argmax()), array.shape)  # of the NaN, if there is one
        constraint = f"finite, with row norms below {_LARGEST_NORM:g}"
        raise InvalidValueError("features", OWNER, constraint, f"{array[at]} in row {at[0]}")
    return array


def _check_labels(labels: object, n_train: int) -> NDArray[np.int64]:
    constraint = f"a NumPy array of {n_train} integers, one per row of features"
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        kind = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InvalidTypeError("labels", OWNER, constraint, kind)
    if labels.shape != (n_train,):
        raise InvalidValueError("labels", OWNER, constraint, f"shape {labels.shape}")
    if labels.min() < 0:
        raise InvalidValueError("labels", OWNER, "class indices of at least 0", int(labels.min()))
    return np.ascontiguousarray(labels, dtype=np.int64)


def _check_n_classes(n_classes: object, labels: NDArray[np.int64]) -> int:
    largest = int(labels.max())
    if n_classes is None:
        if largest < 1:
            raise InvalidValueError("n_classes", OWNER, "given when all labels are 0", None)
        return largest + 1
    checked = check_integer(n_classes, "n_classes", OWNER, minimum=2)
    if largest >= checked:
        raise InvalidValueError("labels", OWNER, f"below n_classes = {checked}", largest)
    return checked
