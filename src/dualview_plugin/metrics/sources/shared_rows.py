"""Attributions that several metrics of one ``quantus.evaluate`` ask for: computed once, and kept for the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from weakref import finalize, ref

from dualview_plugin.metrics.sources.arrays import Array

SHARED_BYTES = 2**28


class SharedRows:
    """Blocks of attributions under a key that names all that they depend on; those used last stay.

    A key is an object that lives as long as the fit of a method, and what else they depend on. They go with the object.

    Args:
        n_bytes: how much is kept. What takes more is passed on and not kept.
    """

    def __init__(self, n_bytes: int = SHARED_BYTES) -> None:
        self.n_bytes = n_bytes
        self._kept: OrderedDict[tuple[ref[object], Hashable], list[Array]] = OrderedDict()

    def blocks(self, key: tuple[object, Hashable] | None, compute: Callable[[], Iterable[Array]]) -> Iterator[Array]:
        """Copies of the blocks under a key, or the computed ones, which are kept once the last is taken.

        Args:
            key: None: compute, and keep nothing.
            compute: the blocks, (n_block, …).
        """
        if key is None:
            yield from compute()
            return
        mark, asked = key
        weak_key = ref(mark), asked
        kept = self._kept.get(weak_key)
        if kept is not None:
            self._kept[weak_key] = self._kept.pop(weak_key)  # now the last
            yield from (block.copy() for block in kept)
            return
        taken: list[Array] | None = []
        for block in compute():
            if taken is not None:
                taken.append(block.copy())
                if _n_bytes(taken) > self.n_bytes:
                    taken = None
            yield block
        if taken is not None:
            self._kept[weak_key] = taken
            finalize(mark, self._kept.pop, weak_key, None).atexit = False
            while sum(map(_n_bytes, self._kept.values())) > self.n_bytes:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        """How many results are kept."""
        return len(self._kept)


def _n_bytes(blocks: list[Array]) -> int:
    return sum(block.nbytes for block in blocks)
