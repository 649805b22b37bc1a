"""share_in_top_k against a plain count, an enumeration of tie-breaks, and a reordering of the training points."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.share_in_top_k import share_in_top_k

N_TEST, N_TRAIN = 5, 7


def share_over_all_tie_breaks(row: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """The mean over every order of the training points: the first k after a stable sort."""
    shares = []
    for order in permutations(range(len(row))):
        shuffled = np.array(order)
        top = shuffled[np.argsort(-row[shuffled], kind="stable")][:k]
        shares.append(relevant[top].mean())
    return float(np.mean(shares))


@given(
    row=arrays(np.float64, 5, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    relevant=arrays(np.bool_, 5),
    k=st.integers(1, 5),
)
@settings(deadline=None, max_examples=60)
def test_ties_take_their_expectation(row: np.ndarray, relevant: np.ndarray, k: int) -> None:
    share = share_in_top_k(row[None], relevant, k)
    np.testing.assert_allclose(share, [share_over_all_tie_breaks(row, relevant, k)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, N_TRAIN])
def test_without_ties_it_counts_the_hits_of_a_sort(k: int) -> None:
    generator = np.random.default_rng(k)
    attributions, relevant = generator.normal(size=(N_TEST, N_TRAIN)), generator.random((N_TEST, N_TRAIN)) < 0.4
    top = np.argsort(-attributions, axis=1)[:, :k]
    np.testing.assert_allclose(
        share_in_top_k(attributions, relevant, k), np.take_along_axis(relevant, top, 1).mean(axis=1)
    )


def test_a_permuted_training_set_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    attributions = generator.integers(-2, 3, size=(N_TEST, N_TRAIN)).astype(np.float32)
    relevant, order = generator.random(N_TRAIN) < 0.5, generator.permutation(N_TRAIN)
    for k in (1, 2, 4):
        np.testing.assert_allclose(
            share_in_top_k(attributions, relevant, k), share_in_top_k(attributions[:, order], relevant[order], k)
        )


def test_nothing_attributed_scores_as_a_random_attributor_does() -> None:
    relevant = np.array([True, False, False, True, False])
    np.testing.assert_allclose(share_in_top_k(np.zeros((3, 5)), relevant), 0.4)


@pytest.mark.parametrize(("k", "error"), [(0, InvalidValueError), (8, InvalidValueError), (1.0, InvalidTypeError)])
def test_refuses_k_outside_the_training_points(k: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="k of share_in_top_k must be"):
        share_in_top_k(np.zeros((1, N_TRAIN)), np.zeros(N_TRAIN, bool), k)  # type: ignore[arg-type]
