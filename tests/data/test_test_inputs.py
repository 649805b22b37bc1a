"""The test stream: arrays, tensors and loaders, in order, counted, converted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset, default_collate

from dualview_plugin.data import TestInputs
from dualview_plugin.errors import DualViewError, InvalidValueError

X = torch.arange(17.0)[:, None]


def joined(inputs: Any, size: int) -> Tensor:
    return torch.cat(list(TestInputs(inputs, "Owner").batches(size)))


@pytest.mark.parametrize("size", [1, 3, 17, 100])
def test_every_kind_gives_the_same_rows(size: int) -> None:
    pairs = DataLoader(TensorDataset(X, X), batch_size=5)
    single = DataLoader(TensorDataset(X), batch_size=4)
    bare = DataLoader(list(X), batch_size=2)
    for inputs in (X, X.numpy(), pairs, single, bare, TestInputs(X, "Owner")):
        assert torch.equal(joined(inputs, size), X)
        assert len(TestInputs(inputs, "Owner")) == 17


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.bool_])
def test_arrays_keep_their_type(dtype: Any) -> None:
    assert joined(X.numpy().astype(dtype), 4).numpy().dtype == dtype


def test_odd_arrays_are_taken_as_they_are() -> None:
    array = X.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(joined(array, 5), X)
    assert torch.equal(joined(X.numpy()[::-1], 5), X.flip(0))
    assert torch.equal(joined(np.asfortranarray(np.tile(X.numpy(), (1, 3))), 5), X.tile(1, 3))


def test_batches_that_are_padded_each_to_its_length_stay_apart() -> None:
    texts = [torch.full((length,), float(length)) for length in (2, 5, 3, 3, 4, 1, 1)]
    loader = DataLoader(texts, batch_size=2, collate_fn=lambda batch: pad_sequence(batch, batch_first=True))
    batches = list(TestInputs(loader, "Owner").batches(4))
    assert [tuple(batch.shape) for batch in batches] == [(2, 5), (2, 3), (2, 4), (1, 1)]
    assert [float(row[0]) for batch in batches for row in batch] == [2, 5, 3, 3, 4, 1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "text", "a tensor, an array or a DataLoader, or tuples and dictionaries of tensors, got str"),
        (lambda: [1.0], "a tensor, an array or a DataLoader, or tuples and dictionaries of tensors, got float"),
        (lambda: None, "a tensor, an array or a DataLoader, or tuples and dictionaries of tensors, got NoneType"),
        (lambda: np.array(["a", "b"]), "an array of numbers"),
        (lambda: np.array([None, 1], dtype=object), "an array of numbers"),
        (lambda: TensorDataset(X), r"got TensorDataset"),
        (lambda: TensorDataset(X), r"write DataLoader\(dataset, batch_size=…\) for a dataset"),
        (lambda: list(X), "torch.stack makes a batch of a list of samples"),
        (lambda: X[:0], "not empty"),
        (lambda: X[0, 0], "samples along its first axis"),
        (lambda: X[0], r"samples along its first axis; write inputs\[None\]"),
        (lambda: X[None], "of 2 axes, as a batch of the training inputs"),
        (lambda: DataLoader(TensorDataset(X), shuffle=True), "in a fixed order"),
        (lambda: DataLoader(TensorDataset(X), sampler=SequentialSampler(range(5))), "complete.*sampler of 5"),
        (lambda: DataLoader(TensorDataset(X), batch_size=4, drop_last=True), "complete.*drop_last"),
        (lambda: DataLoader(TensorDataset(X), batch_size=None), "batched by the loader"),
        (lambda: DataLoader(TensorDataset(X[:0])), "not empty"),
    ],
)
def test_what_is_no_batch_of_inputs_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DualViewError, match=f"inputs of Owner must be .*{message}"):
        TestInputs(make(), "Owner", like=torch.zeros(1, 1))


def test_a_loader_that_loses_samples_is_refused_while_it_is_read() -> None:
    loader = DataLoader(list(X), batch_size=4, collate_fn=lambda samples: default_collate(samples[:3]))
    with pytest.raises(InvalidValueError, match="3 rows for 4 samples"):
        joined(loader, 4)
