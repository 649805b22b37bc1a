"""The pairs of one test point as the figures take them: those for its answer, and those against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.plots.images import Image, as_array, check_finite, check_indices


class Pairs(Protocol):
    """The pairs of one test point, such as ``RelevantPairs`` at one position: arrays with k first."""

    @property
    def test_relevance(self) -> Any:
        """Of the test point, (k, …): channels, height and width of an image, or tokens."""

    @property
    def train_relevance(self) -> Any:
        """Of the training points, likewise."""

    @property
    def attribution(self) -> Any:
        """(k,)."""

    @property
    def train_indices(self) -> Any:
        """(k,)."""


class Pair(NamedTuple):
    """One of them."""

    train_index: int
    attribution: float
    test_relevance: Image
    train_relevance: Image


def bands(pairs: Iterable[Pairs], training: Any, shown: Callable[[Any], Image], owner: str) -> dict[str, list[Pair]]:
    """The pairs by the sign of their attribution, the strongest first; a sign that none has is left out.

    Args:
        pairs: groups of pairs of one test point.
        training: all training points; its length, if it has one, bounds the indices.
        shown: the relevance of one point as the figure takes it.
        owner: the function that asks, for error messages.

    Raises:
        InvalidTypeError, InvalidValueError: no list of groups; groups whose parts do not fit; no pair of any strength.
    """
    if hasattr(pairs, "train_indices"):
        raise InvalidTypeError("pairs", owner, "a list of groups of pairs: write [pairs]", type(pairs).__name__)
    found = [pair for group in pairs for pair in _pairs_of(group, training, shown, owner)]
    found.sort(key=lambda pair: -abs(pair.attribution))
    by_sign = {
        "proponents": [pair for pair in found if pair.attribution > 0],
        "opponents": [pair for pair in found if pair.attribution < 0],
    }
    if not any(by_sign.values()):
        raise InvalidValueError("pairs", owner, "some, with an attribution that is not zero", "none")
    return {name: band for name, band in by_sign.items() if band}


def _pairs_of(group: Pairs, training: Any, shown: Callable[[Any], Image], owner: str) -> list[Pair]:
    """The group's pairs, one by one."""
    attribution, indices = as_array(group.attribution), as_array(group.train_indices)
    if attribution.ndim != 1 or indices.shape != attribution.shape:
        constraint = "those of one test point, with attributions (k,) and as many training points"
        raise InvalidValueError("pairs", owner, constraint, f"shapes {attribution.shape} and {indices.shape}")
    check_indices(indices, training, "pairs", owner)
    check_finite("pairs", attribution, owner)
    relevance = [[shown(one) for one in side] for side in (group.test_relevance, group.train_relevance)]
    if any(len(side) != len(indices) for side in relevance):
        got = f"relevance of {len(relevance[0])} test and {len(relevance[1])} training points"
        raise InvalidValueError("pairs", owner, f"with relevance of each of {len(indices)} pairs", got)
    return [Pair(int(i), float(a), *sides) for i, a, *sides in zip(indices, attribution, *relevance, strict=True)]
