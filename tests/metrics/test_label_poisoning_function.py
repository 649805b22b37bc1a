"""The poisoning curve and its area against scikit-learn, the definition, and an enumeration of tie-breaks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from dualview_plugin.metrics import label_poisoning, poisoning_curve


@st.composite
def rankings(draw: st.DrawFn, n_train: st.SearchStrategy[int]) -> tuple[np.ndarray, np.ndarray]:
    """Ranking values, many of them tied, and a mask that is neither empty nor full."""
    n = draw(n_train)
    values = st.one_of(st.sampled_from([0.0, 0.0, 1.0, 3.0]), st.floats(-1e6, 1e6, width=32))
    poisoned = draw(arrays(np.bool_, n).filter(lambda mask: 0 < mask.sum() < len(mask)))
    return draw(arrays(np.float64, n, elements=values)), poisoned


@given(rankings(st.integers(2, 60)))
@settings(deadline=None, max_examples=100)
def test_equals_roc_auc_ties_included(case: tuple[np.ndarray, np.ndarray]) -> None:
    ranking, poisoned = case
    assert label_poisoning(ranking, poisoned) == pytest.approx(roc_auc_score(poisoned, ranking), abs=1e-12)


@given(rankings(st.just(5)))
@settings(deadline=None, max_examples=40)
def test_curve_is_the_mean_over_all_tie_breaks(case: tuple[np.ndarray, np.ndarray]) -> None:
    ranking, poisoned = case
    curves = []
    for order in map(np.array, permutations(range(5))):
        found = np.cumsum(poisoned[order][np.argsort(-ranking[order], kind="stable")])
        curves.append(np.concatenate([[0], found]) / poisoned.sum())
    np.testing.assert_allclose(poisoning_curve(ranking, poisoned), np.mean(curves, axis=0), atol=1e-12)


@given(rankings(st.integers(2, 40)), st.randoms())
@settings(deadline=None, max_examples=50)
def test_the_order_of_the_training_points_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: object) -> None:
    ranking, poisoned = case
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(ranking))  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        poisoning_curve(ranking[order], poisoned[order]), poisoning_curve(ranking, poisoned), atol=1e-12
    )


def test_best_worst_and_undecided_rankings() -> None:
    poisoned = np.array([False, True, False, True, True, False, False])
    assert label_poisoning(poisoned.astype(float), poisoned) == 1.0
    assert label_poisoning(-poisoned.astype(float), poisoned) == 0.0
    assert label_poisoning(np.full(7, 3.0), poisoned) == pytest.approx(0.5, abs=1e-15)


def test_curve_by_hand() -> None:
    ranking = np.array([3, 3, 9, 0, 0, 0, 1])
    poisoned = np.array([True, False, False, True, False, False, True])
    # first the clean 9, then a tie of one poisoned and one clean, then the poisoned 1, then a tie of three with one
    expected = np.array([0, 0, 0.5, 1, 2, 2 + 1 / 3, 2 + 2 / 3, 3]) / 3
    np.testing.assert_allclose(poisoning_curve(ranking, poisoned), expected, atol=1e-15)


def test_a_random_ranking_scores_a_half() -> None:
    generator = np.random.default_rng(1)
    n_train, n_poisoned, n_draws = 101, 31, 400
    poisoned = np.arange(n_train) < n_poisoned
    scores = [label_poisoning(generator.normal(size=n_train), poisoned) for _ in range(n_draws)]
    # the Mann-Whitney variance: (n + 1) / (12 P (n − P)); five standard errors
    standard_error = np.sqrt((n_train + 1) / (12 * n_poisoned * (n_train - n_poisoned)) / n_draws)
    assert abs(np.mean(scores) - 0.5) < 5 * standard_error


def test_unsigned_integers_rank_by_value() -> None:
    assert label_poisoning(np.array([0, 200, 7], dtype=np.uint8), np.array([False, True, False])) == 1.0
