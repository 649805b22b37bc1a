"""Which changes of a dataset come of its being read, and which of somebody else."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualview_plugin.data.stamp import Stamp, blank_names, dataset_stamp

_NOTES: dict[int, ReadingNotes] = {}  # by the id of a dataset that lives


class ReadingNotes:
    """Follows the stamp of a dataset through our own readings, after which it may be another one.

    Some datasets write to themselves when they are read: caches of what they decode, counters, buffers. What a reading
    of few samples changes, others may change likewise. What changes between two readings, or in a reading although no
    reading of few samples has changed it, is somebody else's. An attribute that every reading of the same samples
    changes says nothing, and does not count.

    Attributes:
        version: how often somebody else has changed the dataset, as far as seen.
    """

    def __init__(self) -> None:
        self.version = 0
        self._expected: Stamp | None = None
        self._written: set[str] = set()
        self._restless: set[str] = set()
        self._blank: frozenset[str] | None = None
        self._last: tuple[list[int], set[str]] = ([], set())

    @classmethod
    def of(cls, dataset: Any) -> ReadingNotes:
        """The notes of a dataset, which all who read it share."""
        return _NOTES.get(id(dataset)) or cls()._registered(dataset)

    def _registered(self, dataset: Any) -> ReadingNotes:
        """These notes, for all who read the dataset from now on."""
        if id(dataset) not in _NOTES:
            try:
                weakref.finalize(dataset, _NOTES.pop, id(dataset), None)
            except TypeError:  # a list or another object without weak references: notes of one reader alone
                return self
            _NOTES[id(dataset)] = self
        return self

    def look(self, dataset: Any) -> Stamp:
        """The stamp now; another than the expected one is a new version."""
        now = dataset_stamp(dataset)
        if self._expected is not None and _changed(self._expected, now) - self._restless:
            self._count_change()
        self._expected = now
        return now

    @property
    def filled(self) -> set[str]:
        """The attributes that held nothing before they were first read, and hold what readings have written since."""
        return self._written & (self._blank or set())

    def _count_change(self) -> None:
        self.version += 1
        self._blank = frozenset()  # what they hold may be somebody else's

    def accept(self, dataset: Any) -> None:
        """The stamp now is the expected one, as of a copy of what was known."""
        self._expected = dataset_stamp(dataset)
        self._registered(dataset)

    @contextmanager
    def few(self, dataset: Any, positions: list[int]) -> Iterator[None]:
        """A reading of these samples, from which is learned what readings change."""
        before = self.look(dataset)
        if self._blank is None:
            self._blank = blank_names(dataset)
        yield
        self._expected = dataset_stamp(dataset)
        changed = _changed(before, self._expected)
        self._written |= changed
        if self._last[0] == positions:
            self._restless |= changed & self._last[1]
        self._last = positions, changed

    @contextmanager
    def many(self, dataset: Any) -> Iterator[None]:
        """A reading of any samples."""
        before = self.look(dataset)
        try:
            yield
        finally:
            if self._written:
                self._expected = dataset_stamp(dataset)
                if _changed(before, self._expected) - self._written:
                    self._count_change()


def _changed(first: Stamp, second: Stamp) -> set[str]:
    """The names whose digests differ, or that one stamp has alone."""
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}
