"""Samples that change behind the dataset's back: no result is made of old and new ones; padding is no change."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin import DualView, EKFACInfluence, GradientSimilarity, StaleFitError, TracIn
from dualview_plugin.data import SeenSamples

N_TRAIN, CHANGED = 60, 37  # a sample that no probe reads
X_TEST = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Waits in its forward pass where a test tells it to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.fc = nn.Linear(6, 8), nn.Linear(8, 3)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def forward(self, x: Tensor) -> Tensor:
        self.entered.set()
        assert self.go_on.wait(30)
        return self.fc(torch.relu(self.first(x)))

    def __deepcopy__(self, _: Any) -> Network:
        return self


def data() -> tuple[np.ndarray[Any, Any], TensorDataset]:
    """The array behind a dataset, whose tensor does not know when it is written to."""
    array = np.random.default_rng(0).normal(size=(N_TRAIN, 6)).astype(np.float32)
    return array, TensorDataset(torch.from_numpy(array), torch.arange(N_TRAIN) % 3)


@pytest.mark.parametrize("method", [EKFACInfluence, GradientSimilarity, TracIn])
def test_a_later_pass_that_reads_another_sample_is_refused(method: Any) -> None:
    array, dataset = data()
    explainer = method(Network(), "fc", dataset, show_progress=False)
    explainer.attribute(X_TEST)
    array[CHANGED] += 1
    with pytest.raises(StaleFitError, match=rf"another sample at position {CHANGED} than in an earlier pass"):
        explainer.attribute(X_TEST)
    found = explainer.fit().attribute(X_TEST)
    expected = method(Network(), "fc", dataset, show_progress=False).attribute(X_TEST)
    torch.testing.assert_close(found, expected)


def test_samples_of_other_lengths_and_batches_are_no_others() -> None:
    seen = SeenSamples(4)
    rows = {"ids": torch.arange(12).view(4, 3), "mask": torch.ones(4, 3, dtype=torch.bool)}
    assert seen.first_change(range(4), rows) is None
    assert seen.first_change(range(1, 3), {name: part[1:3] for name, part in rows.items()}) is None
    padded = {name: nn.functional.pad(part[:2], (0, 1)) for name, part in rows.items()}
    assert seen.first_change(range(2), padded) is None
    by_turns = [{"a": torch.zeros(2, 3 + i), "b": torch.zeros(2, 5 - i)} for i in range(3)]  # as many numbers in each
    pairs = SeenSamples(2)
    assert [pairs.first_change(range(2), part) for part in by_turns] == [None] * 3
    other = {**rows, "ids": rows["ids"] + torch.tensor([0, 0, 0, 1])[:, None]}
    assert seen.first_change(range(4), other) == 3


def test_a_copy_in_another_process_can_be_written_to() -> None:
    """As Ray makes it, of memory that cannot be written to."""
    seen = SeenSamples(4)
    assert seen.first_change(range(2), torch.ones(2, 3)) is None
    copied = SeenSamples(4)
    state = {name: array.copy() for name, array in vars(seen).items()}
    for array in state.values():
        array.flags.writeable = False
    copied.__setstate__(state)
    assert copied.first_change(range(4), torch.ones(4, 3)) is None
    assert copied.first_change(range(2), torch.zeros(2, 3)) == 0


def in_a_thread(call: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_a_fit_waits_for_the_call_of_another_thread() -> None:
    network, (_, dataset) = Network(), data()
    method = DualView(network, "fc", dataset, show_progress=False)
    expected = DualView(Network(), "fc", dataset, show_progress=False).attribute(X_TEST)
    network.go_on.clear()
    first, attributed = in_a_thread(lambda: method.attribute(X_TEST))
    assert network.entered.wait(30)
    second, fitted = in_a_thread(method.fit)
    network.go_on.set()
    first.join(60)
    second.join(60)
    torch.testing.assert_close(attributed[0], expected)
    assert fitted == [method]


@pytest.mark.parametrize("fitted", [False, True])
def test_a_copy_made_during_a_call_is_in_no_call(fitted: bool) -> None:
    network, (_, dataset) = Network(), data()
    method = DualView(network, "fc", dataset, show_progress=False)
    if fitted:
        method.fit()
    network.go_on.clear()
    network.entered.clear()
    thread, attributed = in_a_thread(lambda: method.attribute(X_TEST))
    assert network.entered.wait(30)
    copied = copy.copy(method)
    network.go_on.set()
    thread.join(60)
    torch.testing.assert_close(copied.attribute(X_TEST), attributed[0])
    with torch.no_grad():
        network.first.weight.mul_(3)
    with pytest.raises(StaleFitError):
        copied.attribute(X_TEST)
