"""Which samples are looked at."""

from __future__ import annotations

import random


def probe_indices(n_samples: int, size: int = 4) -> list[int]:
    """A few positions, always the same, spread at random and in no order, so that sorting them shows."""
    return random.Random(0).sample(range(n_samples), min(size, n_samples))
