"""Which samples are looked at, and when two readings are the same."""

from __future__ import annotations

import random

from torch import Tensor


def probe_indices(n_samples: int, size: int = 4) -> list[int]:
    """A few positions, always the same, spread at random and in no order, so that sorting them shows."""
    return random.Random(0).sample(range(n_samples), min(size, n_samples))


def same_values(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same shape and values, NaN included."""
    if first.shape != second.shape:
        return False
    return bool((first == second).logical_or((first != first) & (second != second)).all())
