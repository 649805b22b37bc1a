"""Classes without points are solved as one; the answer is that of the whole problem."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from dualview_plugin.solver import solve_crammer_singer, solve_path
from dualview_plugin.solver.absent_classes import AbsentClasses
from dualview_plugin.solver.problem import make_problem
from tests.solver.crammer_singer_oracle import assert_certified, blobs

FAST_METHODS = ("auto", "cd", "newton", "interior")


def points_of_few_classes(n_train: int = 41) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points of the classes 2, 5 and 9, away from the origin, so that the other classes compete."""
    features, labels = blobs(n_train, 5, 3)
    return features + 0.5, np.array([2, 5, 9])[labels]


@pytest.mark.parametrize("method", FAST_METHODS)
@pytest.mark.parametrize("n_classes", [11, 12, 29])
@pytest.mark.parametrize("C", [1e-2, 0.1, 10.0])
def test_the_quadratic_program_of_the_whole_problem_agrees(method: str, n_classes: int, C: float) -> None:
    features, labels = points_of_few_classes()
    whole = solve_crammer_singer(features, labels, C, n_classes=n_classes, method="qp", tol=1e-6)
    merged = solve_crammer_singer(features, labels, C, n_classes=n_classes, method=method, tol=1e-9)
    assert_certified(merged, features, labels, C, tol=1e-9)
    np.testing.assert_allclose(merged.primal_objective, whole.primal_objective, rtol=1e-6)
    np.testing.assert_allclose(merged.weight, whole.weight, atol=1e-4 * np.abs(whole.weight).max())


@pytest.mark.parametrize("method", FAST_METHODS)
def test_all_absent_classes_have_one_weight_and_equal_multipliers(method: str) -> None:
    features, labels = points_of_few_classes()
    solution = solve_crammer_singer(features, labels, 0.1, n_classes=13, method=method)
    absent = np.setdiff1d(np.arange(13), labels)
    assert np.abs(solution.weight[absent]).max() > 0
    np.testing.assert_array_equal(solution.weight[absent], np.tile(solution.weight[0], (len(absent), 1)))
    np.testing.assert_array_equal(
        solution.dual_coef[:, absent], np.repeat(solution.dual_coef[:, [0]], len(absent), axis=1)
    )


@pytest.mark.parametrize("method", FAST_METHODS)
def test_an_intercept_is_expanded_too(method: str) -> None:
    features, labels = points_of_few_classes()
    solution = solve_crammer_singer(features, labels, 0.1, n_classes=13, method=method, fit_intercept=True)
    assert_certified(solution, features, labels, 0.1, tol=1e-6, fit_intercept=True)
    assert solution.intercept[0] != 0


@pytest.mark.parametrize("method", FAST_METHODS)
def test_one_class_with_points_among_many(method: str) -> None:
    features, _ = points_of_few_classes()
    labels = np.full(41, 3)
    solution = solve_crammer_singer(features, labels, 0.1, n_classes=1000, method=method)
    assert_certified(solution, features, labels, 0.1, tol=1e-6)


def test_a_warm_start_and_a_path_keep_the_optimum() -> None:
    features, labels = points_of_few_classes()
    first = solve_crammer_singer(features, labels, 0.1, n_classes=17, tol=1e-10)
    again = solve_crammer_singer(features, labels, 0.1, n_classes=17, warm_start=first)
    assert again.n_iter == 1
    for solution in solve_path(features, labels, [0.01, 1.0, 100.0], n_classes=17):
        assert_certified(solution, features, labels, solution.C, tol=1e-6)


def test_a_single_absent_class_is_left_as_it_is() -> None:
    problem = make_problem(np.eye(3), np.array([0, 2, 0]), 1.0, n_classes=3)
    absent = AbsentClasses.of(problem)
    assert absent.n_absent == 0
    assert absent.merge(problem) is problem


def test_the_small_problem_has_the_present_classes_and_one_more() -> None:
    problem = make_problem(np.eye(3), np.array([6, 1, 6]), 1.0, n_classes=9)
    small = AbsentClasses.of(problem).merge(problem)
    assert small.labels.tolist() == [1, 0, 1]
    assert (small.n_classes, small.n_merged) == (3, 7)
    np.testing.assert_allclose(small.class_scale, [1, 1, 7**-0.5])


@pytest.mark.parametrize(
    ("n_train", "n_present", "n_features", "C"), [(50, 2, 512, 1e-3), (20, 4, 4, 0.05), (24, 24, 7, 0.1)]
)
def test_few_points_among_a_thousand_classes_are_solved_at_once(
    n_train: int, n_present: int, n_features: int, C: float
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(n_train) % n_present
    features = np.maximum(rng.normal(size=(n_train, n_features)) + rng.normal(size=(n_present, n_features))[labels], 0)
    solve_crammer_singer(features, labels, C, n_classes=n_present + 2)  # loads the kernels
    started = time.perf_counter()
    solution = solve_crammer_singer(features, labels, C, n_classes=1000)
    assert time.perf_counter() - started < 1.0
    assert_certified(solution, features, labels, C, tol=1e-6)
