"""Maps of consecutive blocks of test points as one, also where loaders pad each batch to its own length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dualview_plugin.errors import InvalidValueError


def joined_maps(maps: list[Any], owner: str, padded_in_front: Callable[[], bool]) -> Any:
    """The maps of consecutive blocks as one, in the inputs' structure; None where an input has no map.

    Args:
        maps: of each block, (n_block, …). Those of sequences, (n_block, n_tokens), may have several lengths, and get
            zeros up to the longest: where their batches were padded.
        owner: the class that asks, for error messages.
        padded_in_front: whether batches were padded before their sequences; asked only if lengths differ.

    Raises:
        InvalidValueError: maps of several shapes that are not those of sequences.
    """
    first = maps[0]
    if isinstance(first, dict):
        return {name: joined_maps([part[name] for part in maps], owner, padded_in_front) for name in first}
    if isinstance(first, tuple):
        return tuple(joined_maps(list(parts), owner, padded_in_front) for parts in zip(*maps, strict=True))
    if first is None:
        return None
    if len({part.shape[1:] for part in maps}) > 1:
        if any(part.ndim != 2 for part in maps):
            constraint = "of one shape for a map; pad them to one length"
            raise InvalidValueError("inputs", owner, constraint, "batches of several shapes")
        longest, in_front = max(part.shape[1] for part in maps), padded_in_front()
        missing = [longest - part.shape[1] for part in maps]
        sides = [(n, 0) if in_front else (0, n) for n in missing]
        maps = [torch.nn.functional.pad(part, side) for part, side in zip(maps, sides, strict=True)]
    return torch.cat(maps).detach()
