"""PoisonedLabels: how many labels move, where to, and from which seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import TensorDataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.modifications import PoisonedLabels

N_TRAIN, N_CLASSES = 101, 7


def labels_of(dataset: Any) -> np.ndarray:
    return np.array([dataset[index][1] for index in range(len(dataset))])


def clean(n_train: int = N_TRAIN) -> TensorDataset:
    return TensorDataset(torch.randn(n_train, 3), torch.arange(n_train) % N_CLASSES)


@pytest.mark.parametrize(("fraction", "n_poisoned"), [(0.3, 30), (0.01, 1), (1, N_TRAIN), (0.5, 50)])
def test_exactly_the_named_points_have_another_label(fraction: float, n_poisoned: int) -> None:
    dataset = clean()
    poisoned = PoisonedLabels(dataset, fraction, N_CLASSES, seed=5)
    changed = np.flatnonzero(labels_of(poisoned) != labels_of(dataset))
    np.testing.assert_array_equal(changed, poisoned.poisoned_indices)
    assert len(changed) == n_poisoned
    assert set(labels_of(poisoned)) <= set(range(N_CLASSES))
    assert all(poisoned[index][0].equal(dataset[index][0]) for index in range(N_TRAIN))


def test_the_seed_alone_decides() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what must not move
    first, again, other = (PoisonedLabels(clean(), 0.3, N_CLASSES, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(labels_of(first), labels_of(again))
    assert not np.array_equal(first.poisoned_indices, other.poisoned_indices)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_wrong_labels_are_uniform_over_the_other_classes() -> None:
    n_train = 60_000
    poisoned = PoisonedLabels(clean(n_train), 1.0, N_CLASSES, seed=0)
    shifts = (labels_of(poisoned) - np.arange(n_train)) % N_CLASSES
    counts = np.bincount(shifts, minlength=N_CLASSES)
    assert counts[0] == 0
    assert chisquare(counts[1:]).pvalue > 1e-3


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan"), 0.001])
def test_refuses_a_fraction_that_poisons_nothing_or_too_much(fraction: float) -> None:
    with pytest.raises(InvalidValueError, match="fraction of PoisonedLabels must be"):
        PoisonedLabels(clean(), fraction, N_CLASSES)


@pytest.mark.parametrize("wrong", [{"fraction": "0.3"}, {"fraction": True}, {"n_classes": 2.0}, {"seed": None}])
def test_refuses_wrong_types(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTypeError, match=f"{next(iter(wrong))} of PoisonedLabels must be"):
        PoisonedLabels(clean(), **{"fraction": 0.3, "n_classes": N_CLASSES, **wrong})


def test_refuses_a_single_class_and_labels_outside_the_classes() -> None:
    with pytest.raises(InvalidValueError, match="n_classes of PoisonedLabels must be an integer of at least 2"):
        PoisonedLabels(clean(), 0.3, 1)
    with pytest.raises(InvalidValueError, match=r"labels in 0 \.\. 4, got label 5 at index 5"):
        labels_of(PoisonedLabels(clean(), 0.3, 5))
