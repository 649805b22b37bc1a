"""A stream of samples as a dataset: for data that come one after another, such as webdataset's or Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network import fingerprint
from dualview_plugin.validation import check_integer

# Samples at the beginning that are kept, and stand for all where data are recognised.
_KEPT = 128


class CountedStream(Dataset[Any]):
    """The samples of an iterable whose every iteration gives the same ones in the same order; sample i is the i-th.

    Reading on from sample to sample costs one sample each. Reading elsewhere begins anew and passes over what lies
    before, so methods that read single training points are slow; pass ``cache_dir``, which reads the stream once.

    Args:
        stream: an IterableDataset or another iterable of ``(input, label)`` pairs; it must not shuffle.
        n_samples: how many there are.

    Raises:
        InvalidTypeError, InvalidValueError: no iterable, no count; while samples are read: more or fewer samples, or
            others at the second reading.

    Example:
        >>> import torch
        >>> from dualview_plugin import CountedStream
        >>> stream = CountedStream([(torch.zeros(2), 0), (torch.ones(2), 1)], n_samples=2)
        >>> stream[1]
        (tensor([1., 1.]), 1)
    """

    def __init__(self, stream: Iterable[Any], n_samples: int) -> None:
        if not isinstance(stream, Iterable) or isinstance(stream, Iterator):
            constraint = "an iterable that can be gone through again, such as an IterableDataset"
            raise InvalidTypeError("stream", "CountedStream", constraint, type(stream).__name__)
        self._stream, self._n_samples = stream, check_integer(n_samples, "n_samples", "CountedStream")
        self._beginning: list[Any] | None = None
        self._rest: Iterator[Any] = iter(())
        self._next = 0

    @property
    def probe_positions(self) -> range:
        """The samples that may be read to recognise the data."""
        return range(min(_KEPT, self._n_samples))

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._n_samples:
            raise IndexError(f"index {index} is out of range for a stream of {self._n_samples} samples")
        if self._beginning is None:
            self._beginning = self._checked_beginning()
        if index < len(self._beginning):
            return self._beginning[index]
        if index < self._next or self._next == 0:
            self._rest, self._next = iter(self._stream), 0
        while self._next < index:
            self._read()
        return self._read()

    def __getstate__(self) -> dict[str, Any]:
        """Without the place in the stream, for other processes."""
        return {**vars(self), "_rest": iter(()), "_next": 0}

    def _read(self) -> Any:
        """The next sample; after the last one the stream must end."""
        sample = next(self._rest, _END)
        if sample is _END:
            raise self._wrong_count(f"{self._next}")
        self._next += 1
        if self._next == self._n_samples and next(self._rest, _END) is not _END:
            raise self._wrong_count("more")
        return sample

    def _checked_beginning(self) -> list[Any]:
        """The first samples, read twice."""
        readings = []
        for _ in range(2):
            self._rest, self._next = iter(self._stream), 0
            readings.append([self._read() for _ in self.probe_positions])
        if _marks(readings[0]) != _marks(readings[1]):
            constraint = "the same at every reading: without shuffling, and with the transform of the evaluation"
            raise InvalidValueError("stream", "CountedStream", constraint, "other samples at the second reading")
        return readings[0]

    def _wrong_count(self, found: str) -> InvalidValueError:
        return InvalidValueError("n_samples", "CountedStream", f"the number of samples, {found}", str(self._n_samples))


_END = object()


def _marks(samples: list[Any]) -> list[str]:
    """A digest of each sample."""
    return [fingerprint(*torch.utils._pytree.tree_leaves(sample)) for sample in samples]
