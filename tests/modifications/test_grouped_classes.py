"""GroupedClasses: the superclass is the position of the group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.modifications import GroupedClasses

LABELS = torch.tensor([3, 0, 1, 4, 2, 2, 0])
DATASET = TensorDataset(torch.randn(7, 3), LABELS)


def test_labels_are_positions_of_groups_and_subclasses_the_original_labels() -> None:
    grouped = GroupedClasses(DATASET, groups=[[4, 0], {1}, (2, 3)])
    assert [grouped[index][1] for index in range(7)] == [2, 0, 1, 0, 2, 2, 0]
    np.testing.assert_array_equal(grouped.subclasses, LABELS)
    assert grouped.n_classes == 3
    assert all(grouped[index][0] is not None and grouped[index][0].equal(DATASET[index][0]) for index in range(7))


def test_superclass_serves_test_labels_of_any_integer_type() -> None:
    grouped = GroupedClasses(DATASET, groups=[[0, 1], [2, 3], [4]])
    assert [grouped.superclass(label) for label in (np.int64(3), torch.tensor(4), 0)] == [1, 2, 0]


@pytest.mark.parametrize("groups", [[], [[0, 1], []], [[0, 1], [1, 2]], [[0, 0]]])
def test_refuses_empty_and_overlapping_groups(groups: Any) -> None:
    with pytest.raises(InvalidValueError, match="groups of GroupedClasses must be non-empty and disjoint"):
        GroupedClasses(DATASET, groups)


@pytest.mark.parametrize("groups", [[0, 1], 3, [["a"]], None])
def test_refuses_what_is_no_sequence_of_sequences_of_integers(groups: Any) -> None:
    with pytest.raises(InvalidTypeError, match="groups of GroupedClasses must be sequences of integers"):
        GroupedClasses(DATASET, groups)


def test_refuses_a_class_without_a_group() -> None:
    grouped = GroupedClasses(DATASET, groups=[[0, 1], [2, 3]])
    with pytest.raises(InvalidValueError, match="groups that hold every class, got no group with 4"):
        grouped[3]
