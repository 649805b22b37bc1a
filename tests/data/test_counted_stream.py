"""A stream with a count is a dataset: the same attributions, one reading, and counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from dualview_plugin import CountedStream, InvalidTypeError, InvalidValueError
from tests.storage.worlds import TEST, dualview, tensors

N = 300


class Stream(IterableDataset[Any]):
    """Counts what is read."""

    def __init__(self, n: int = N, shuffled: bool = False) -> None:
        self.source, self.shuffled, self.read = tensors(n), shuffled, 0

    def __iter__(self) -> Iterator[Any]:
        order = list(range(len(self.source)))
        if self.shuffled:
            random.Random(self.read).shuffle(order)
        for index in order:
            self.read += 1
            yield self.source[index]


def test_attributions_are_those_of_the_samples_and_the_stream_is_read_once(tmp_path: Path) -> None:
    stream = Stream()
    data = CountedStream(stream, N)
    method = dualview(tmp_path, data).fit()
    torch.testing.assert_close(method.attribute(TEST), dualview(None, tensors(N)).attribute(TEST), rtol=1e-3, atol=1e-5)
    assert stream.read <= N + 2 * 128 + 1
    stream.read = 0
    again = dualview(tmp_path, CountedStream(stream, N)).fit()
    assert again.store_ is not None
    assert again.store_.n_computed == 0
    assert stream.read == 2 * 128


def test_any_sample_can_be_asked_for() -> None:
    data, source = CountedStream(Stream(), N), tensors(N)
    for index in (250, 3, 251, 299, 130, 250):
        assert torch.equal(data[index][0], source[index][0])
    with pytest.raises(IndexError, match="index 300 is out of range"):
        _ = data[N]


@pytest.mark.parametrize("n", [N - 1, N + 1, 2 * N])
def test_a_wrong_count_is_refused(n: int) -> None:
    with pytest.raises(InvalidValueError, match="n_samples of CountedStream must be the number of samples"):
        dualview(None, CountedStream(Stream(), n)).fit()


def test_a_stream_that_shuffles_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="stream of CountedStream must be the same at every reading"):
        dualview(None, CountedStream(Stream(shuffled=True), N)).fit()


def test_what_cannot_be_gone_through_twice_is_refused() -> None:
    for stream in (iter([1]), 3):
        with pytest.raises(InvalidTypeError, match="stream of CountedStream must be an iterable that can be gone"):
            CountedStream(stream, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"train_dataset of DualView .*CountedStream\(dataset, n_samples\)"):
        dualview(None, Stream())
