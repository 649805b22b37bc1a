"""The two Domain Mismatch scores: by hand, and the area against scikit-learn's average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from dualview_plugin.errors import DualViewError
from dualview_plugin.metrics import domain_mismatch, domain_mismatch_auprc, mixed_datasets

ATTRIBUTIONS = np.array(
    [
        [0.0, 0.1, 0.9, 0.0, -2.0, 0.0, 0.2],
        [0.0, 0.8, 0.1, 0.0, -2.0, 0.0, 0.2],
        [0.7, 0.7, 0.1, 0.0, 0.0, 0.7, 0.7],
        [-1.0, -3.0, -0.5, -1.0, -9.0, -1.0, -1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
MARKED = np.array([True, False, True, False, False, False, False])


def test_top_by_hand() -> None:
    np.testing.assert_allclose(domain_mismatch(ATTRIBUTIONS, MARKED), [1, 0, 1 / 4, 1, 2 / 7])


@given(
    attributions=arrays(np.float64, (3, 11), elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e3, 1e3))),
    marked=arrays(np.bool_, 11).filter(np.any),
)
@settings(deadline=None, max_examples=100)
def test_auprc_equals_average_precision_ties_included(attributions: np.ndarray, marked: np.ndarray) -> None:
    expected = [average_precision_score(marked, row) for row in attributions]
    np.testing.assert_allclose(domain_mismatch_auprc(attributions, marked), expected, atol=1e-12)


def test_auprc_of_a_perfect_and_of_an_undecided_ranking() -> None:
    rows = np.array([MARKED.astype(float), np.zeros(7)])
    np.testing.assert_allclose(domain_mismatch_auprc(rows, MARKED), [1.0, 2 / 7])


def test_a_random_attributor_finds_its_share() -> None:
    n_test, n_train, n_marked = 4000, 53, 11
    attributions = np.random.default_rng(2).normal(size=(n_test, n_train))
    score, share = domain_mismatch(attributions, np.arange(n_train) < n_marked).mean(), n_marked / n_train
    assert abs(score - share) < 5 * np.sqrt(share * (1 - share) / n_test)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.bool_, np.float16])
def test_every_kind_of_number_has_the_area_of_the_same_floats(kind: Any) -> None:
    values = np.random.default_rng(0).integers(0, 3, (20, 8)).astype(kind)
    marked = np.arange(8) % 3 == 2
    expected = [average_precision_score(marked, row) for row in values.astype(float)]
    np.testing.assert_allclose(domain_mismatch_auprc(values, marked), expected)
    np.testing.assert_allclose(mixed_datasets(values, marked.astype(int), np.ones(20, int), variant="auprc"), expected)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(DualViewError, match="attributions of domain_mismatch_auprc must be real numbers"):
        domain_mismatch_auprc(np.ones((2, 3)) * 1j, np.array([True, False, False]))
