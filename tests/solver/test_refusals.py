"""Bad arguments are refused before any work, in the package's one form of message."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError
from dualview_plugin.solver import solve_crammer_singer
from tests.solver.crammer_singer_oracle import blobs

FEATURES, LABELS = blobs(29, 5, 3)


def with_entry(value):
    features = FEATURES.copy()
    features[7, 2] = value
    return features


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (torch.zeros(29, 5), LABELS, InvalidTypeError, "features .* must be a NumPy array .*, got Tensor"),
        (FEATURES.astype(complex), LABELS, InvalidTypeError, "real numbers, got an array of complex128"),
        (FEATURES[0], LABELS, InvalidValueError, "features"),
        (FEATURES[:0], LABELS[:0], InvalidValueError, "at least one row"),
        (with_entry(np.nan), LABELS, InvalidValueError, "features .* must be finite, .* got nan in row 7"),
        (with_entry(-np.inf), LABELS, InvalidValueError, "got -inf in row 7"),
        (with_entry(1e20), LABELS, InvalidValueError, "in row 7"),
        (np.ma.masked_array(FEATURES, FEATURES > 1), LABELS, InvalidTypeError, "features .* must be without a mask"),
        (FEATURES, np.ma.masked_array(LABELS, LABELS > 1), InvalidTypeError, "labels .* must be without a mask"),
        (FEATURES, LABELS.tolist(), InvalidTypeError, "labels .* got list"),
        (FEATURES, LABELS.astype(float), InvalidTypeError, "integers, .* got an array of float64"),
        (FEATURES, LABELS[:-1], InvalidValueError, r"labels .* 29 integers.*, got shape \(28,\)"),
        (FEATURES, LABELS - 1, InvalidValueError, "labels .* at least 0, got -1"),
        (FEATURES, 0 * LABELS, InvalidValueError, "n_classes .* must be given when all labels are 0"),
    ],
)
def test_data(features, labels, error, message):
    with pytest.raises(error, match=message) as caught:
        solve_crammer_singer(features, labels, 1.0)
    assert isinstance(caught.value, DualViewError)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("C", 0.0, InvalidValueError),
        ("C", -1.0, InvalidValueError),
        ("C", float("nan"), InvalidValueError),
        ("C", "1", InvalidTypeError),
        ("n_classes", 1, InvalidValueError),
        ("n_classes", 3.0, InvalidTypeError),
        ("tol", 0.0, InvalidValueError),
        ("max_iter", 0, InvalidValueError),
        ("time_limit", -1.0, InvalidValueError),
        ("method", "sgd", InvalidValueError),
        ("seed", -1, InvalidValueError),
        ("warm_start", "yesterday", InvalidTypeError),
    ],
)
def test_arguments(argument, value, error):
    arguments = {"C": 1.0} | {argument: value}
    with pytest.raises(error, match=f"{argument} of solve_crammer_singer must be .*, got "):
        solve_crammer_singer(FEATURES, LABELS, **arguments)


def test_labels_beyond_n_classes():
    with pytest.raises(InvalidValueError, match="labels of solve_crammer_singer must be below n_classes = 2, got 2"):
        solve_crammer_singer(FEATURES, LABELS, 1.0, n_classes=2)
