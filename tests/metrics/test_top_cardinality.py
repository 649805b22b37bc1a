"""Distinct top points and the commonest one's share: by counting, and over all ways to break ties."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dualview_plugin.metrics import TopCardinality, commonest_share, top_cardinality


@pytest.mark.parametrize("k", [1, 3, 13])
def test_equals_a_count_without_ties(k: int) -> None:
    attributions = np.random.default_rng(0).normal(size=(5, 13))
    top = [set(np.argsort(-row)[:k]) for row in attributions]
    distinct = len(set().union(*top))
    commonest = max(sum(j in points for points in top) for j in range(13))
    assert top_cardinality(attributions, k) == pytest.approx(distinct / min(5 * k, 13))
    assert commonest_share(attributions, k) == pytest.approx(commonest / 5)


def test_ties_count_in_expectation() -> None:
    attributions = np.array([[2, 2, 0, 1], [3, 3, 3, 1], [0, 0, 5, 1]])
    choices = list(product([0, 1], [0, 1, 2], [2]))
    expected = np.mean([len(set(choice)) for choice in choices]) / 3
    assert top_cardinality(attributions) == pytest.approx(expected)
    counts = np.mean([[choice.count(j) for j in range(4)] for choice in choices], axis=0)
    assert commonest_share(attributions) == pytest.approx(counts.max() / 3)


def test_diverse_hub_and_random() -> None:
    assert top_cardinality(np.eye(7)) == 1
    assert commonest_share(np.eye(7)) == pytest.approx(1 / 7)
    hub = np.tile(np.arange(7), (5, 1))
    assert top_cardinality(hub) == pytest.approx(1 / 5)
    assert commonest_share(hub) == 1
    generator = np.random.default_rng(1)
    scores = [top_cardinality(generator.normal(size=(31, 53)), 2) for _ in range(200)]
    baseline = 53 * (1 - (1 - 2 / 53) ** 31) / 53
    assert np.mean(scores) == pytest.approx(baseline, abs=0.01)
    assert top_cardinality(np.zeros((31, 53)), 2) == pytest.approx(baseline)


@pytest.mark.parametrize("variant", ["distinct", "commonest"])
def test_the_class_streams_what_the_function_counts(variant: str) -> None:
    attributions = np.random.default_rng(2).integers(0, 4, size=(11, 17))
    function = {"distinct": top_cardinality, "commonest": commonest_share}[variant]
    metric = TopCardinality(k=2, variant=variant)  # type: ignore[arg-type]
    scores = metric(None, np.zeros((11, 3)), np.zeros(11, int), a_batch=attributions, batch_size=3)
    assert scores == pytest.approx([function(attributions, 2)])
