"""What users have as batches: tuples, dictionaries, structured arrays; where labels are; what is refused."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import DualView, GradientSimilarity, InfluenceFunctions
from dualview_plugin.batches import (
    alike,
    concatenated,
    leaves,
    mapped,
    n_rows,
    rows_of,
    same_values,
    samples,
    split,
    structure,
)
from dualview_plugin.data import TestInputs, TrainingData, as_batch, with_arguments
from dualview_plugin.errors import DualViewError

X, M, Y = torch.arange(35.0).view(7, 5), torch.arange(7 * 3).view(7, 3), torch.arange(7) % 2
NESTED = {"b": (X, M), "a": Y}


def test_rows_parts_and_joints_are_those_of_each_tensor() -> None:
    assert structure(NESTED) == "{a: tensor, b: (tensor, tensor)}"
    assert n_rows(as_batch(NESTED, "Owner", "inputs")) == 7
    batch = as_batch(NESTED, "Owner", "inputs")
    assert [leaf.shape for leaf in leaves(batch)] == [X.shape, M.shape, Y.shape]
    assert torch.equal(rows_of(batch, slice(2, 4))["b"][1], M[2:4])
    assert [n_rows(part) for part in split(batch, 3)] == [3, 3, 1]
    assert len(list(samples(batch))) == 7
    assert same_values(concatenated(list(split(batch, 2))), batch)
    assert torch.equal(mapped(lambda leaf: leaf + 1, batch)["b"][0], X + 1)
    assert alike(batch, rows_of(batch, slice(1)))
    assert not alike(batch, mapped(lambda leaf: leaf.double(), batch))
    assert not same_values(batch, mapped(lambda leaf: leaf.flip(0), batch))
    assert not same_values(batch, {"a": Y, "b": X})


def test_what_users_have_becomes_tuples_and_dictionaries_in_its_own_order() -> None:
    record = np.zeros((7, 3), [("mask", "i8"), ("ids", "i8")])
    record["ids"], record["mask"] = M, 1
    for given, expected in (
        (X.numpy(), X),
        ([X, M.numpy()], (X, M)),
        (UserDict(b=X, a=M), {"b": X, "a": M}),
        (OrderedDict(b=[X, M], a=None), {"b": (X, M)}),
        (record, {"mask": torch.ones_like(M), "ids": M}),
    ):
        found = as_batch(given, "Owner", "inputs")
        assert same_values(found, expected)
        assert not isinstance(found, dict) or list(found) == list(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, M[:3]), r"samples along their first axis, got shape \(7, 5\), torch.float32; shape \(3, 3\)"),
        ((X, torch.tensor(1.0)), "samples along their first axis"),
        ((), "samples along their first axis, got nothing"),
        ({}, "samples along their first axis, got nothing"),
        ({"x": X, "text": ["a"] * 7}, "dictionaries of tensors, got str"),
        ({1: X}, "a dictionary with strings for names"),
    ],
)
def test_what_is_no_batch_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DualViewError, match=f"inputs of Owner must be .*{message}"):
        as_batch(given, "Owner", "inputs")


def read(dataset: Any, **options: Any) -> tuple[Any, Tensor]:
    parts = list(TrainingData(dataset, 3, "Owner", **options).batches())
    return concatenated([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


EVERY = torch.stack([Y, 1 - Y, Y * 0], 1)
DATASETS: dict[str, tuple[Callable[[], Any], dict[str, Any], Any, Tensor]] = {
    "pairs": (lambda: TensorDataset(X, Y), {}, X, Y),
    "two inputs": (lambda: TensorDataset(X, M, Y), {}, (X, M), Y),
    "a tuple and a label": (lambda: [((x, m), int(y)) for x, m, y in zip(X, M, Y, strict=True)], {}, (X, M), Y),
    "labels": (lambda: [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)], {}, {"x": X}, Y),
    "label": (lambda: [{"x": x, "label": int(y)} for x, y in zip(X, Y, strict=True)], {}, {"x": X}, Y),
    "a dictionary and a label": (lambda: [({"x": x}, y) for x, y in zip(X, Y, strict=True)], {}, {"x": X}, Y),
    "a function": (lambda: TensorDataset(Y, X), {"label_fn": lambda batch: batch[0]}, (Y, X), Y),
    "an output": (lambda: TensorDataset(X, EVERY.float()), {"output": 1}, X, 1 - Y),
    "one output, floating": (lambda: TensorDataset(X, Y[:, None].double()), {"output": 0}, X, Y),
}


@pytest.mark.parametrize("name", DATASETS)
def test_labels_and_inputs_are_found(name: str) -> None:
    make, options, inputs, labels = DATASETS[name]
    found, found_labels = read(make(), **options)
    assert same_values(found, inputs)
    assert torch.equal(found_labels, labels)
    assert found_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: [{"label": 1, "labels": 2, "x": X[0]}] * 7, {}, "hold 'labels' or 'label'; else pass label_fn"),
        (lambda: TensorDataset(X, EVERY), {}, "one integer label for each sample; .*output=… takes one"),
        (lambda: TensorDataset(X, EVERY + 1), {"output": 1}, "labels of an output are 0 or 1"),
        (lambda: TensorDataset(X, Y), {"label_fn": lambda batch: batch[1][1:]}, "2 rows for 3 samples"),
    ],
)
def test_labels_that_are_none_are_refused(make: Callable[[], Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DualViewError, match=f"train_dataset of Owner must be .*{message}"):
        read(make(), **options)


def test_test_inputs_are_found_beside_labels() -> None:
    pair, batch = (X, M), {"x": X}
    rows = [{"x": x, "labels": 1} for x in X]
    for given, like in (
        (pair, pair),
        (DataLoader(TensorDataset(X, M), batch_size=3), pair),
        (DataLoader(TensorDataset(X, M, Y), batch_size=3), pair),
        (DataLoader([((x, m), 1) for x, m in zip(X, M, strict=True)], batch_size=3), pair),
        (DataLoader(rows, batch_size=3), batch),
        (rows, batch),
        (DataLoader(TensorDataset(X, Y), batch_size=3), X),
    ):
        test = TestInputs(given, "Owner", like)
        assert len(test) == 7
        assert same_values(concatenated(list(test.batches(2))), like)


def test_arguments_come_behind_the_inputs() -> None:
    assert with_arguments(X, None) is X
    assert with_arguments(X, M) == (X, M)
    assert with_arguments((X, Y), [M]) == (X, Y, M)


def test_names_have_the_order_of_the_first_training_batch() -> None:
    first = {"size": X, "deep": {"b": M, "a": M}, "labels": Y}
    later = {"labels": Y, "deep": {"a": M, "b": M}, "size": X}
    batches = [first, later]
    data = TrainingData(DataLoader(range(14), batch_size=7, collate_fn=lambda _: batches.pop(0)), 7, "Owner")  # type: ignore[arg-type]
    found = [inputs for inputs, _ in data.batches()]
    test = TestInputs({"deep": {"a": M, "b": M}, "size": X}, "Owner", found[0])
    for batch in (*found, *test.batches(3)):
        assert list(batch) == ["size", "deep"]
        assert list(batch["deep"]) == ["b", "a"]


class Joining(nn.Module):
    """Joins its inputs in the order that they come in."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.fc = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, **parts: Tensor) -> Tensor:
        outputs: Tensor = self.fc(self.hidden(torch.cat(list(parts.values()), 1)).tanh())
        return outputs


@pytest.mark.parametrize("kind", [DualView, GradientSimilarity, InfluenceFunctions])
def test_a_network_that_joins_its_inputs_gets_them_in_the_users_order(kind: Any) -> None:
    torch.manual_seed(0)
    network, x, labels = Joining(), torch.randn(30, 8), torch.arange(30) % 3
    samples = [{"size": row[:5], "age": row[5:], "label": int(label)} for row, label in zip(x, labels, strict=True)]
    plain = nn.Sequential(network.hidden, nn.Tanh(), network.fc)
    expected = kind(plain, "2", TensorDataset(x, labels), show_progress=False).attribute(x[:4], 1)
    method = kind(network, "fc", samples, show_progress=False)
    for test in ({"size": x[:4, :5], "age": x[:4, 5:]}, {"age": x[:4, 5:], "size": x[:4, :5]}):
        torch.testing.assert_close(method.attribute(test, 1), expected, rtol=1e-4, atol=1e-6)
