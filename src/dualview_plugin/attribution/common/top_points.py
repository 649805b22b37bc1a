"""Warnings about values that are zero, or too small for their type."""

from __future__ import annotations

import warnings

import torch
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor

from dualview_plugin.errors import PrecisionWarning, SparseAttributionWarning


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


def warn_of_underflow(block: Tensor, dtype: torch.dtype, owner: str) -> None:
    """Warn if rows, as those of points of which the network is sure, are too small for the type of the result."""
    if torch.finfo(dtype).bits >= torch.finfo(block.dtype).bits:
        return
    largest = block.amax(dim=1).maximum(-block.amin(dim=1))  # a quarter of the time of abs().amax()
    smallest_kept = torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    lost = (largest > 0) & (largest < smallest_kept)
    if bool(lost.any()):
        warnings.warn(
            f"the attributions of {owner} to {int(lost.sum())} test points are below {smallest_kept:.0e}: {dtype} holds"
            " few of their digits or none; influence(k) and attribute_blocks keep them, as does a float64 network",
            PrecisionWarning,
            stacklevel=5,
        )


def warn_of_lost_values(exact: Tensor, values: Tensor, owner: str) -> None:
    """Warn if self-influences other than zero have become zero in the type of the result."""
    n_lost = int(((exact != 0) & (values == 0)).sum())
    if n_lost:
        warnings.warn(
            f"{n_lost} self-influences of {owner} are too small for {values.dtype} and come as zero: convert the"
            " network to float64 to tell them apart",
            PrecisionWarning,
            stacklevel=3,
        )
