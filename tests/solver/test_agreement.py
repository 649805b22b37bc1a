"""The fast solvers against the quadratic program, against invariances of the problem, and against themselves."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.solver import solve_crammer_singer
from tests.solver.crammer_singer_oracle import blobs, dense_alpha

FAST_METHODS = ("auto", "cd", "newton", "interior")


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize(("n_train", "n_features", "n_classes"), [(89, 5, 3), (23, 31, 7), (101, 7, 2)])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_quadratic_program_agrees(method, n_train, n_features, n_classes, C):
    features, labels = blobs(n_train, n_features, n_classes)
    fast = solve_crammer_singer(features, labels, C, method=method, tol=1e-10)
    slow = solve_crammer_singer(features, labels, C, method="qp", tol=1e-6)
    np.testing.assert_allclose(fast.primal_objective, slow.primal_objective, rtol=1e-5)
    np.testing.assert_allclose(fast.weight, slow.weight, atol=1e-5 * np.abs(slow.weight).max())


@pytest.mark.parametrize("method", FAST_METHODS)
def test_same_seed_same_bits(method):
    features, labels = blobs(307, 11, 7)
    first, second = (solve_crammer_singer(features, labels, 0.1, method=method, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.support, second.support)
    np.testing.assert_array_equal(first.dual_coef, second.dual_coef)
    np.testing.assert_array_equal(first.weight, second.weight)


@pytest.mark.parametrize("method", FAST_METHODS)
def test_other_seed_same_optimum(method):
    features, labels = blobs(307, 11, 7)
    first, second = (solve_crammer_singer(features, labels, 0.1, method=method, seed=s, tol=1e-10) for s in (1, 2))
    np.testing.assert_allclose(first.weight, second.weight, atol=1e-4)


@pytest.mark.parametrize("method", FAST_METHODS)
def test_permuted_points_permute_alpha(method):
    features, labels = blobs(97, 13, 5)
    order = np.random.default_rng(3).permutation(97)
    straight = solve_crammer_singer(features, labels, 0.01, method=method, tol=1e-11)
    permuted = solve_crammer_singer(features[order], labels[order], 0.01, method=method, tol=1e-11)
    np.testing.assert_allclose(permuted.weight, straight.weight, atol=1e-5)
    np.testing.assert_allclose(dense_alpha(permuted, 97), dense_alpha(straight, 97)[order], atol=1e-5)


@pytest.mark.parametrize("method", FAST_METHODS)
def test_permuted_classes_permute_the_weight(method):
    features, labels = blobs(97, 5, 5)
    order = np.array([3, 0, 4, 1, 2])
    straight = solve_crammer_singer(features, labels, 0.1, method=method, tol=1e-11)
    permuted = solve_crammer_singer(features, order[labels], 0.1, method=method, tol=1e-11)
    np.testing.assert_allclose(permuted.weight[order], straight.weight, atol=1e-4)


def test_layout_of_the_features_does_not_matter():
    features, labels = blobs(97, 5, 5)
    straight = solve_crammer_singer(features, labels, 0.1)
    for other in (np.asfortranarray(features), np.repeat(features, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(solve_crammer_singer(other, labels.astype(np.uint8), 0.1).weight, straight.weight)


def test_inputs_are_left_alone():
    features, labels = blobs(97, 5, 5)
    kept = features.copy(), labels.copy()
    features.flags.writeable = labels.flags.writeable = False
    solve_crammer_singer(features, labels, 0.1)
    np.testing.assert_array_equal(features, kept[0])
    np.testing.assert_array_equal(labels, kept[1])
