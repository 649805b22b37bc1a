"""What is returned is feasible, consistent and near-optimal, for every method and for awkward data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.solver import solve_crammer_singer
from tests.solver.crammer_singer_oracle import assert_certified, blobs, dense_alpha

FAST_METHODS = ("auto", "cd", "newton", "interior")
METHODS = (*FAST_METHODS, "qp")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_certificate_of_every_method(method, C):
    features, labels = blobs(67, 5, 3)
    solution = solve_crammer_singer(features, labels, C, method=method)
    assert_certified(solution, features, labels, C, tol=1e-6)


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize("tol", [1e-3, 1e-9, 1e-12])
def test_any_tolerance(method, tol):
    features, labels = blobs(131, 7, 5)
    solution = solve_crammer_singer(features, labels, 0.1, method=method, tol=tol)
    assert_certified(solution, features, labels, 0.1, tol=tol)


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_precision_of_the_features(method, dtype):
    features, labels = blobs(127, 11, 3)
    features = (3 * features).astype(dtype)
    solution = solve_crammer_singer(features, labels, 0.01, method=method)
    assert solution.weight.dtype == np.float64
    assert_certified(solution, features, labels, 0.01, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("C", [1e-3, 1.0])
def test_two_classes(method, C):
    features, labels = blobs(53, 7, 2)
    solution = solve_crammer_singer(features, labels, C, method=method)
    assert_certified(solution, features, labels, C, tol=1e-6)
    np.testing.assert_allclose(solution.weight[0], -solution.weight[1], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_point(method, n_classes):
    features, labels = blobs(5, 7, 1)[0][:1], np.zeros(1, np.int64)
    solution = solve_crammer_singer(features, labels, 1.0, n_classes=n_classes, method=method)
    assert_certified(solution, features, labels, 1.0, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_points_than_features(method):
    features, labels = blobs(13, 37, 5)
    solution = solve_crammer_singer(features, labels, 1.0, method=method)
    assert_certified(solution, features, labels, 1.0, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_classes_without_points(method):
    features, labels = blobs(61, 5, 3)
    labels = np.array([1, 4, 6])[labels]
    solution = solve_crammer_singer(features, labels, 0.1, method=method, n_classes=11)
    assert solution.weight.shape == (11, 5)
    assert_certified(solution, features, labels, 0.1, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_class_with_points(method):
    features, _ = blobs(17, 3, 2)
    labels = np.full(17, 2)
    solution = solve_crammer_singer(features, labels, 0.1, method=method, n_classes=5)
    assert_certified(solution, features, labels, 0.1, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_with_one_and_with_two_labels(method):
    features, labels = blobs(31, 5, 3)
    features = np.concatenate([features, features, features])
    labels = np.concatenate([labels, labels, (labels + 1) % 3])
    solution = solve_crammer_singer(features, labels, 0.5, method=method)
    assert_certified(solution, features, labels, 0.5, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_zero", [11, 47])
def test_zero_rows(method, n_zero):
    features, labels = blobs(47, 5, 3)
    features[:n_zero] = 0.0
    solution = solve_crammer_singer(features, labels, 0.1, method=method)
    assert_certified(solution, features, labels, 0.1, tol=1e-6)


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_of_the_features_cancels_in_c(method, scale, dtype):
    features, labels = blobs(83, 5, 3, dtype=np.float64)
    C = 0.05 / scale**2
    solution = solve_crammer_singer((scale * features).astype(dtype), labels, C, method=method, tol=1e-9)
    assert_certified(solution, (scale * features).astype(dtype), labels, C, tol=1e-9)
    unscaled = solve_crammer_singer(features, labels, 0.05, tol=1e-9)
    np.testing.assert_allclose(scale * solution.weight, unscaled.weight, atol=1e-4)


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_of_the_features_at_fixed_c(method, scale):
    features, labels = blobs(83, 5, 3)
    features *= scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at 1e6 the problem is a linear program
        solution = solve_crammer_singer(features, labels, 1e-3, method=method, max_iter=10)
    assert_certified(solution, features, labels, 1e-3)


@pytest.mark.parametrize("method", FAST_METHODS)
def test_rows_of_very_different_norms(method):
    features, labels = blobs(71, 5, 3)
    features *= 10.0 ** np.random.default_rng(1).uniform(-5, 1, (71, 1))
    solution = solve_crammer_singer(features, labels, 0.01, method=method)
    assert_certified(solution, features, labels, 0.01, tol=1e-6)


@pytest.mark.parametrize("method", FAST_METHODS)
def test_more_classes_than_the_first_lists_hold(method):
    features, labels = blobs(211, 3, 41)  # classes crowd in three dimensions: many compete for each point
    solution = solve_crammer_singer(features, labels, 1.0, method=method)
    if method != "interior":  # which ends at another of the optima, with shorter lists
        assert np.diff(solution.sparse_dual_coef.indptr).max() > 12
    assert_certified(solution, features, labels, 1.0, tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_intercept_is_a_constant_feature(method):
    features, labels = blobs(59, 5, 3)
    features += 2.0
    solution = solve_crammer_singer(features, labels, 0.1, method=method, fit_intercept=True, tol=1e-8)
    assert_certified(solution, features, labels, 0.1, tol=1e-8, fit_intercept=True)
    appended = np.concatenate([features, np.ones((59, 1))], axis=1)
    by_hand = solve_crammer_singer(appended, labels, 0.1, method=method, tol=1e-8)
    np.testing.assert_allclose(solution.intercept, by_hand.weight[:, -1], atol=1e-12)
    np.testing.assert_allclose(solution.intercept, dense_alpha(solution, 59).sum(axis=0), atol=1e-12)
    assert solution.weight.shape == (3, 5)


@settings(max_examples=40, deadline=None)
@given(
    n_train=st.integers(1, 40),
    n_features=st.integers(1, 7),
    n_classes=st.integers(2, 6),
    log_c=st.floats(-4, 2),
    seed=st.integers(0, 2**16),
    method=st.sampled_from(FAST_METHODS),
    fit_intercept=st.booleans(),
)
def test_certificate_of_random_problems(n_train, n_features, n_classes, log_c, seed, method, fit_intercept):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_train, n_features)).round(rng.integers(0, 4))  # coarse rounding: duplicates, zeros
    labels = rng.integers(0, n_classes, n_train)
    solution = solve_crammer_singer(
        features, labels, 10.0**log_c, n_classes=n_classes, method=method, fit_intercept=fit_intercept, tol=1e-5
    )
    assert_certified(solution, features, labels, 10.0**log_c, tol=1e-5, fit_intercept=fit_intercept)
