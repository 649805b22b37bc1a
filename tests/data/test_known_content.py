"""Data are told apart by what they hold, and are known whole only where that is all that samples are made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from dualview_plugin.data.identity import known_content

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6) % 3
CHANGED = X + torch.eye(6, 2)


class Holder(Dataset[Any]):
    """Attributes, of which it is not known what the samples make of them."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> int:
        return index


def objects(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], bool]] = {
    "other points of a part": (
        lambda: Subset(TensorDataset(X, Y), [0, 1, 2]),
        lambda: Subset(TensorDataset(X, Y), [0, 1, 3]),
        True,
    ),
    "a part of other data": (
        lambda: Subset(TensorDataset(X, Y), [0, 1, 2]),
        lambda: Subset(TensorDataset(CHANGED, Y), [0, 1, 2]),
        True,
    ),
    "a sum in another order": (
        lambda: ConcatDataset([TensorDataset(X, Y), TensorDataset(CHANGED, Y)]),
        lambda: ConcatDataset([TensorDataset(CHANGED, Y), TensorDataset(X, Y)]),
        True,
    ),
    "an array of texts": (
        lambda: Holder(texts=[objects(["a", "b"])] * 6),
        lambda: Holder(texts=[objects(["a", "c"])] * 6),
        False,
    ),
    "another number of samples": (lambda: TensorDataset(X, Y), lambda: TensorDataset(X[:5], Y[:5]), True),
}


@pytest.mark.parametrize(("one", "other", "whole"), CASES.values(), ids=CASES)
def test_data_that_differ_are_told_apart(one: Callable[[], Any], other: Callable[[], Any], whole: bool) -> None:
    assert known_content(one()) == known_content(one())
    assert known_content(one()).digest != known_content(other()).digest
    assert known_content(one()).whole is whole


def test_an_array_in_a_file_counts_by_the_time_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X.numpy())
    data = Holder(x=np.load(path, mmap_mode="r"))
    before = known_content(data)
    assert not before.whole
    assert known_content(data) == before
    os.utime(path, (1, 1))
    assert known_content(data).digest != before.digest


@pytest.mark.parametrize("unknown", [X.to("meta"), objects([object()] * 6)], ids=["meta", "objects"])
def test_what_cannot_be_read_is_not_known(unknown: Any) -> None:
    assert not known_content(Holder(unknown=unknown)).whole
    assert not known_content(TensorDataset(unknown) if isinstance(unknown, torch.Tensor) else [unknown] * 6).whole
