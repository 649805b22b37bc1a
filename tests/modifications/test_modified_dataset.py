"""What holds for every modification: a lazy view that leaves the wrapped dataset alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.modifications import GroupedClasses, MarkedImages, ModifiedDataset, PoisonedLabels

N_TRAIN, N_CHANNELS, HEIGHT, WIDTH, N_CLASSES = 53, 2, 11, 13, 5
MODIFICATIONS: dict[str, Callable[[Dataset[Any]], ModifiedDataset]] = {
    "poisoning": lambda dataset: PoisonedLabels(dataset, fraction=0.3, n_classes=N_CLASSES, seed=3),
    "grouping": lambda dataset: GroupedClasses(dataset, groups=[[0, 4], [1], [2, 3]]),
    "marking": lambda dataset: MarkedImages(dataset, target_class=2, fraction=0.5, seed=3),
}


class CountingDataset(Dataset[tuple[np.ndarray, int]]):
    """Arrays and plain integers, and a count of the items read."""

    def __init__(self) -> None:
        generator = np.random.default_rng(7)
        self.inputs = generator.uniform(size=(N_TRAIN, N_CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
        self.labels = np.arange(N_TRAIN) % N_CLASSES
        self.n_read = 0

    def __len__(self) -> int:
        return N_TRAIN

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.n_read += 1
        return self.inputs[index], int(self.labels[index])


@pytest.fixture(params=MODIFICATIONS)
def modify(request: pytest.FixtureRequest) -> Callable[[Dataset[Any]], ModifiedDataset]:
    return MODIFICATIONS[request.param]


def test_leaves_the_wrapped_dataset_as_it_was(modify: Callable[[Dataset[Any]], ModifiedDataset]) -> None:
    dataset = CountingDataset()
    inputs, labels = dataset.inputs.copy(), dataset.labels.copy()
    for item in modify(dataset):
        assert isinstance(item[1], int)
    np.testing.assert_array_equal(dataset.inputs, inputs)
    np.testing.assert_array_equal(dataset.labels, labels)


def test_reads_no_item_when_built(modify: Callable[[Dataset[Any]], ModifiedDataset]) -> None:
    dataset = CountingDataset()
    assert len(modify(dataset)) == N_TRAIN
    assert dataset.n_read == 0


def test_labels_read_item_by_item_equal_those_of_a_tensor_dataset() -> None:
    dataset = CountingDataset()
    tensors = TensorDataset(torch.from_numpy(dataset.inputs), torch.from_numpy(dataset.labels))
    by_item, by_tensor = (MODIFICATIONS["grouping"](each).original_labels for each in (dataset, tensors))
    np.testing.assert_array_equal(by_item, by_tensor)
    assert by_item.dtype == by_tensor.dtype == np.int64


def test_negative_and_excessive_indices_follow_sequences(modify: Callable[[Dataset[Any]], ModifiedDataset]) -> None:
    modified = modify(CountingDataset())
    for last, first in ((modified[-1], modified[N_TRAIN - 1]), (modified[-N_TRAIN], modified[0])):
        np.testing.assert_array_equal(last[0], first[0])
        assert last[1] == first[1]
    for index in (N_TRAIN, -N_TRAIN - 1):
        with pytest.raises(IndexError, match=f"index {index} is out of range"):
            modified[index]


def test_works_in_a_data_loader_and_survives_pickling(modify: Callable[[Dataset[Any]], ModifiedDataset]) -> None:
    modified = modify(CountingDataset())
    copy = pickle.loads(pickle.dumps(modified))
    for original, copied in zip(DataLoader(modified, 17), DataLoader(copy, 17), strict=True):
        assert torch.equal(original[0], copied[0])
        assert torch.equal(original[1], copied[1])
        assert original[1].dtype == torch.int64


def test_refuses_what_is_no_map_style_dataset(modify: Callable[[Dataset[Any]], ModifiedDataset]) -> None:
    with pytest.raises(InvalidTypeError, match=r"dataset of .* must be a map-style dataset"):
        modify(iter([]))
    with pytest.raises(InvalidValueError, match="at least one item, got an empty one"):
        modify(TensorDataset(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)))
