"""The Crammer-Singer problem: its data, checked once, in the form that the solvers read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver.compiled import compiled
from dualview_plugin.validation import check_flag, check_integer, check_positive, refuse_masked

# Squared norms of rows up to 1e15, and their products with 1e-15, stay in the range of float32.
_LARGEST_NORM, _SMALLEST_NORM = 1e15, 1e-15
# Between these values of C · mean ‖φ_i‖² neither objective overflows or vanishes in float64.
_SCALED_C_RANGE = (1e-30, 1e30)
# Lists of active classes store them as int32.
_MOST_CLASSES = 2**31 - 1


@dataclass(frozen=True)
class CrammerSingerProblem:
    """Training data and margin constant of a problem.

        min_W  ½ Σ_c ‖w_c‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩)

    ``features`` (n_train, n_features) is float32 or float64 and C-contiguous, ``labels`` (n_train,) int64. With
    ``fit_intercept`` the last feature is the constant 1. The last class represents ``n_merged`` classes without points
    (see ``absent_classes``).
    """

    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    C: float
    n_classes: int
    fit_intercept: bool = False
    n_merged: int = 1

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

    @cached_property
    def class_scale(self) -> NDArray[np.float64]:
        """The factor of the features for each class (n_classes,): 1, and 1/√m for a class that represents m."""
        scale = np.ones(self.n_classes)
        scale[-1] = 1.0 / np.sqrt(self.n_merged)
        return scale

    @property
    def scaled_c(self) -> float:
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
    features: object,
    labels: object,
    C: object,
    *,
    n_classes: object = None,
    fit_intercept: bool = False,
    owner: str = "solve_crammer_singer",
) -> CrammerSingerProblem:
    """The problem, if features, labels, C and n_classes are fit for it; refuses them before any heavy work.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint; the message names it and ``owner``.
    """
    constant = check_positive(C, "C", owner)
    rows = checked_features(features, owner)
    checked_labels, checked_n_classes = _check_labels(labels, n_classes, len(rows), owner)
    fit_intercept = check_flag(fit_intercept, "fit_intercept", owner)
    if fit_intercept:
        rows = np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
    problem = CrammerSingerProblem(rows, checked_labels, constant, checked_n_classes, fit_intercept)
    low, high = _SCALED_C_RANGE
    if not low <= problem.scaled_c <= high:
        constraint = f"such that C times the mean squared norm of the features is in [{low:g}, {high:g}]"
        raise InvalidValueError("C", owner, constraint, f"{constant:g} (times {problem.mean_squared_norm:.3g})")
    return problem


def checked_features(features: object, owner: str) -> NDArray[np.floating]:
    """The features in float32 or float64, in row-major order; the same array where it is so already."""
    constraint = "a NumPy array (n_train, n_features) of real numbers"
    refuse_masked(features, "features", owner)
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiu":
        kind = f"an array of {features.dtype}" if isinstance(features, np.ndarray) else type(features).__name__
        raise InvalidTypeError("features", owner, constraint, kind)
    if features.ndim != 2 or 0 in features.shape:
        raise InvalidValueError("features", owner, f"{constraint} with at least one row and column", features.shape)
    dtype = np.float32 if features.dtype in (np.float16, np.float32) else np.float64
    array: NDArray[np.floating] = np.ascontiguousarray(features, dtype=dtype)
    largest = max(abs(float(array.min())), abs(float(array.max())))
    if not largest * np.sqrt(array.shape[1]) < _LARGEST_NORM:  # NaN compares false
        at = np.unravel_index(int(np.abs(array).argmax()), array.shape)  # of the NaN, if there is one
        constraint = f"finite, with row norms below {_LARGEST_NORM:g}"
        raise InvalidValueError("features", owner, constraint, f"{array[at]} in row {at[0]}")
    if 0 < largest < _SMALLEST_NORM:
        constraint = f"zero, or of absolute values up to at least {_SMALLEST_NORM:g}"
        raise InvalidValueError("features", owner, constraint, f"a largest absolute value of {largest:g}")
    return array


def _check_labels(labels: object, n_classes: object, n_train: int, owner: str) -> tuple[NDArray[np.int64], int]:
    """The labels as int64 and the number of classes; compared before the cast, which would wrap large labels."""
    constraint = f"a NumPy array of {n_train} integers, one per row of features"
    refuse_masked(labels, "labels", owner)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        kind = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InvalidTypeError("labels", owner, constraint, kind)
    if labels.shape != (n_train,):
        raise InvalidValueError("labels", owner, constraint, f"shape {labels.shape}")
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0:
        raise InvalidValueError("labels", owner, "class indices of at least 0", smallest)
    checked = _check_n_classes(n_classes, largest, owner)
    if largest >= checked:
        raise InvalidValueError("labels", owner, f"below n_classes = {checked}", largest)
    return np.ascontiguousarray(labels, dtype=np.int64), checked


def _check_n_classes(n_classes: object, largest_label: int, owner: str) -> int:
    if n_classes is None:
        if largest_label < 1:
            raise InvalidValueError("n_classes", owner, "given when all labels are 0", None)
        return min(largest_label + 1, _MOST_CLASSES)
    checked = check_integer(n_classes, "n_classes", owner, minimum=2)
    if checked > _MOST_CLASSES:
        raise InvalidValueError("n_classes", owner, f"at most {_MOST_CLASSES}", checked)
    return checked
