"""TrainSubset: masks and indices name the same points, and what names none, all or others is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.train_subset import TrainSubset

MASK = np.array([False, True, False, True, True, False, False])


@pytest.mark.parametrize(
    "members",
    [MASK, MASK.tolist(), torch.from_numpy(MASK), [4, 1, 3], np.array([1, 3, 4], np.int32), torch.tensor([3, 4, 1])],
)
def test_masks_and_indices_name_the_same_points(members: Any) -> None:
    subset = TrainSubset(members, "poisoned", "LabelPoisoning")
    np.testing.assert_array_equal(subset.mask(7), MASK)
    np.testing.assert_array_equal(subset.indices, [1, 3, 4])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "some of the training points, got none"),
        (np.zeros(7, bool), "some of the training points, got none"),
        (np.ones(7, bool), "some of the training points, got all of them"),
        ([1, 1], "a bool mask, or distinct indices from 0"),
        ([0, 1, 0, 0, 1], "a bool mask, or distinct indices from 0"),
        ([-1, 2], "a bool mask, or distinct indices from 0"),
        ([[1, 2]], "one-dimensional"),
        (3, "one-dimensional"),
    ],
)
def test_refuses_at_once_what_cannot_fit_any_training_set(members: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"poisoned of LabelPoisoning must be {message}"):
        TrainSubset(members, "poisoned", "LabelPoisoning")


@pytest.mark.parametrize("members", [[0.5, 1.0], np.array([1.0, 2.0]), ["a"]])
def test_refuses_other_types(members: Any) -> None:
    with pytest.raises(InvalidTypeError, match="marked of DomainMismatch must be a bool mask or integer indices"):
        TrainSubset(members, "marked", "DomainMismatch")


@pytest.mark.parametrize(
    ("members", "n_train", "message"),
    [
        (MASK, 8, "a mask of 8 training points, got one of 7"),
        ([1, 8], 8, "indices below the number of training points, 8, got 8"),
        ([0, 1, 2], 3, "some of the training points, got all of them"),
    ],
)
def test_refuses_what_does_not_fit_this_training_set(members: Any, n_train: int, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TrainSubset(members, "marked", "DomainMismatch").mask(n_train)
