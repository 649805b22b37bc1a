"""The linear datamodeling score against scipy's Spearman, and where the true datamodel is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from dualview_plugin.metrics import (
    LinearDatamodeling,
    linear_datamodeling_interval,
    linear_datamodeling_score,
    rank_correlation,
)

N_SUBSETS, N_TRAIN, N_TEST = 29, 17, 11
random = np.random.default_rng(0)
SUBSETS = np.stack([np.isin(np.arange(N_TRAIN), random.permutation(N_TRAIN)[:8]) for _ in range(N_SUBSETS)])
TRUE = random.normal(size=(N_TEST, N_TRAIN))
LINEAR = SUBSETS @ TRUE.T + 3.0  # each training point adds its share, whatever the others do
NOISE = random.normal(size=(N_SUBSETS, N_TEST))
X, Y = np.zeros((N_TEST, 3)), np.zeros(N_TEST, int)


def slow(attributions: np.ndarray, outputs: np.ndarray) -> list[float]:
    scores = []
    for row, output in zip(attributions, outputs.T, strict=True):
        sums = [sum(row[j] for j in range(N_TRAIN) if subset[j]) for subset in SUBSETS]
        scores.append(float(spearmanr(sums, output).statistic))
    return scores


def test_equals_scipys_spearman() -> None:
    scores = linear_datamodeling_score(TRUE, SUBSETS, NOISE)
    np.testing.assert_allclose(scores, slow(TRUE, NOISE))
    integers = random.integers(-2, 3, size=TRUE.shape)
    np.testing.assert_allclose(
        linear_datamodeling_score(integers, SUBSETS, np.round(NOISE)), slow(integers, np.round(NOISE))
    )


def test_the_true_datamodel_is_perfect_its_reverse_minus_one_and_random_near_zero() -> None:
    outputs = np.exp(LINEAR)  # ranks know no monotone function
    np.testing.assert_allclose(linear_datamodeling_score(TRUE, SUBSETS, outputs), 1)
    np.testing.assert_allclose(linear_datamodeling_score(-TRUE, SUBSETS, outputs), -1)
    draws = [linear_datamodeling_score(random.normal(size=TRUE.shape), SUBSETS, outputs).mean() for _ in range(100)]
    assert abs(np.mean(draws)) < 5 / np.sqrt(100 * N_TEST * (N_SUBSETS - 1))


def test_a_ridge_regression_has_its_true_datamodel_in_its_influence() -> None:
    """Half of the points retrained in closed form: the exact first-order influence ranks well, its reverse badly."""
    x, test = random.normal(size=(200, 3)), random.normal(size=(N_TEST, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + random.normal(size=200)
    subsets = np.stack([np.isin(np.arange(200), random.permutation(200)[:100]) for _ in range(60)])
    weights = np.stack([np.linalg.solve(x[s].T @ x[s] + np.eye(3), x[s].T @ y[s]) for s in subsets])
    hessian = x.T @ x + np.eye(3)
    residual = y - x @ np.linalg.solve(hessian, x.T @ y)
    influence = test @ np.linalg.solve(hessian, (x * residual[:, None]).T)
    scores = linear_datamodeling_score(influence, subsets, weights @ test.T)
    assert scores.mean() > 0.9
    np.testing.assert_allclose(linear_datamodeling_score(-influence, subsets, weights @ test.T), -scores)


def test_missing_outputs_are_left_out() -> None:
    outputs = NOISE.copy()
    outputs[[0, 4, 9], 2] = np.nan
    outputs[1:, 3] = np.nan
    outputs[:, 5] = 7
    scores = linear_datamodeling_score(TRUE, SUBSETS, outputs)
    kept = np.setdiff1d(np.arange(N_SUBSETS), [0, 4, 9])
    assert scores[2] == pytest.approx(float(spearmanr(SUBSETS[kept] @ TRUE[2], outputs[kept, 2]).statistic))
    assert np.isnan(scores[[3, 5]]).all()
    others = [0, 1, 4, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(scores[others], linear_datamodeling_score(TRUE, SUBSETS, NOISE)[others])


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-300, 1e300])
def test_equal_attributions_predict_nothing(value: float) -> None:
    scores = linear_datamodeling_score(np.full((N_TEST, N_TRAIN), value), SUBSETS, NOISE)
    np.testing.assert_array_equal(scores, 0)


def test_the_interval_covers_the_score_and_shrinks_with_confidence() -> None:
    outputs = LINEAR + 3 * NOISE
    mean = linear_datamodeling_score(TRUE, SUBSETS, outputs).mean()
    low, high = linear_datamodeling_interval(TRUE, SUBSETS, outputs, n_resamples=200)
    assert -1 <= low < mean < high <= 1
    narrow = linear_datamodeling_interval(TRUE, SUBSETS, outputs, n_resamples=200, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high
    metric = LinearDatamodeling(SUBSETS, outputs)
    for name, sign in (("one", 1), ("two", -1)):
        metric(None, X, Y, a_batch=sign * TRUE, batch_size=4, explain_func_kwargs={"method": name})
    assert metric.interval("one", n_resamples=200) == (low, high)
    assert metric.interval(n_resamples=200) == pytest.approx((-high, -low))
    assert np.isnan(linear_datamodeling_interval(TRUE, SUBSETS, np.full_like(NOISE, np.nan), n_resamples=3)).all()


@given(
    first=arrays(np.float64, (3, 11), elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e3, 1e3))),
    second=arrays(np.float64, (3, 11), elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e3, 1e3))),
)
@settings(deadline=None, max_examples=200)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_rank_correlation_equals_scipys_ties_included(first: np.ndarray, second: np.ndarray) -> None:
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)
