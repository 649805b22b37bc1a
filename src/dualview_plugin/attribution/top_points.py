"""The strongest training points of each test point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor

from dualview_plugin.errors import SparseAttributionWarning


def strongest(
    blocks: Iterable[Tensor], k: int, proponents: bool, update: Callable[[int], object]
) -> KMostInfluentialResults:
    """The ``k`` highest attributions of each row, descending, or the lowest, ascending; ``update`` counts rows."""
    tops = []
    for block in blocks:
        tops.append(block.topk(k, dim=1, largest=proponents))
        update(len(block))
    return KMostInfluentialResults(torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops]))


def warn_of_zeros(found: KMostInfluentialResults, owner: str) -> None:
    """Warn if places of the ranking hold training points without an attribution."""
    rows = (found.influence_scores == 0).any(dim=1)
    if bool(rows.any()):
        k = found.influence_scores.shape[1]
        warnings.warn(
            f"{int(rows.sum())} of {len(rows)} test points have fewer than k = {k} training points with an attribution"
            f" of {owner} other than zero: their last places hold training points with none",
            SparseAttributionWarning,
            stacklevel=3,
        )
