"""What a store had and what had to be computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoreReport:
    """How a method got what it keeps of the training data.

    Attributes:
        folder: of the store.
        n_shards: shards of the store.
        n_computed: how many of them this process computed; 0 is a hit.
        recognised_by: how the data were recognised: ``"whole content"``, ``"probe of 128 samples"`` or
            ``"all samples"``.
        content: a digest of all samples as they were read when the shards were computed.
        recalled: what was learned from them that was read from the folder and not computed: ``"solution"`` of
            DualView, ``"factor"`` of influence functions, ``"weights"`` of representer points, and so on.
    """

    folder: Path
    n_shards: int
    n_computed: int
    recognised_by: str
    content: str = ""
    recalled: tuple[str, ...] = ()
