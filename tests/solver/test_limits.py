"""Extreme numbers: refused with the package's error, or solved with a gap that is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

import dualview_plugin
from dualview_plugin.errors import DualViewError, InvalidValueError
from dualview_plugin.solver import CrammerSingerSolution, solve_crammer_singer, solve_path
from dualview_plugin.solver.problem import make_problem
from dualview_plugin.solver.solution import certify
from tests.solver.crammer_singer_oracle import blobs, dense_alpha

FEATURES, LABELS = blobs(29, 5, 3)


@pytest.mark.parametrize("n_classes", [3, None])
@pytest.mark.parametrize("label", [2**64 - 10**6, 2**63, 2**31])
def test_labels_beyond_any_class_are_refused(label: int, n_classes: int | None) -> None:
    labels = LABELS.astype(np.uint64)
    labels[7] = label
    with pytest.raises(InvalidValueError, match=f"labels .* below n_classes = .*, got {label}"):
        solve_crammer_singer(FEATURES, labels, 0.1, n_classes=n_classes)


@pytest.mark.parametrize("C", [1e300, 1e40, 1e-40, 1e-300])
def test_a_constant_out_of_proportion_to_the_features_is_refused(C: float) -> None:
    with pytest.raises(InvalidValueError, match=r"C of solve_crammer_singer must be such that C times .* got 1e"):
        solve_crammer_singer(FEATURES, LABELS, C)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300])
def test_features_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(InvalidValueError, match="features of solve_crammer_singer must be"):
        solve_crammer_singer(scale * FEATURES, LABELS, 0.1)


@pytest.mark.parametrize("scaled_c", [1e-25, 1e-15, 1e15, 1e25])
@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e13])
@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.ConvergenceWarning")
def test_what_is_not_refused_gives_finite_figures(scaled_c: float, scale: float) -> None:
    solution = solve_crammer_singer(scale * FEATURES, LABELS, scaled_c / scale**2, max_iter=5)
    assert np.isfinite([solution.primal_objective, solution.dual_objective, solution.duality_gap]).all()
    assert np.isfinite(solution.weight).all()
    assert -1e-6 <= solution.duality_gap <= 1 + 1e-6


@pytest.mark.parametrize(("argument", "value"), [("tol", 0.0), ("method", "sgd"), ("seed", -1), ("n_classes", 1)])
def test_a_message_names_the_function_that_was_called(argument: str, value: object) -> None:
    with pytest.raises(DualViewError, match=f"{argument} of solve_path must be"):
        solve_path(FEATURES, LABELS, [0.1], **{argument: value})  # type: ignore[arg-type]


def gap_in_extended_precision(
    solution: CrammerSingerSolution, features: NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    """The relative gap of α, with every sum in long double."""
    alpha, rows = dense_alpha(solution, len(labels)).astype(np.longdouble), features.astype(np.longdouble)
    weight = alpha.T @ rows
    scores = rows @ weight.T
    own = scores[np.arange(len(labels)), labels][:, None]
    violations = scores - own + 1
    violations[np.arange(len(labels)), labels] = 0
    half_norm = (weight**2).sum() / 2
    primal = half_norm + np.longdouble(solution.C) * violations.max(axis=1).sum()
    return float((primal - alpha[np.arange(len(labels)), labels].sum() + half_norm) / primal)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is float64 here")
@pytest.mark.parametrize("C", [1e7, 1e9, 1e11])
@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.ConvergenceWarning")
def test_the_gap_is_right_where_the_weight_cancels(C: float) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(499, 5)), rng.integers(0, 3, 499)
    solution = solve_crammer_singer(features, labels, C, max_iter=20)
    expected = gap_in_extended_precision(solution, features, labels)
    np.testing.assert_allclose(solution.duality_gap, expected, rtol=1e-3, atol=1e-13)


def test_the_certificate_sums_with_compensation() -> None:
    """Two terms of 1e16 cancel; what is left is the small one."""
    features = np.array([[1.0], [1.0], [1e-3]])
    alpha = csr_array(np.array([[1e16, -1e16], [-1e16, 1e16], [1.0, -1.0]]))
    problem = make_problem(features, np.array([0, 1, 0]), 1e16)
    np.testing.assert_allclose(
        certify(problem, np.arange(3), alpha, tol=1.0, n_iter=0).weight, [[1e-3], [-1e-3]], rtol=1e-14
    )


@pytest.mark.slow
def test_without_a_folder_for_its_cache_the_solver_compiles_without_one() -> None:
    """Numba finds no folder that it can write to."""
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import numpy as np\n"
        "from dualview_plugin.solver.dual.simplex_projection import project_onto_simplex\n"
        "point = np.array([0.9, 0.5])\n"
        "project_onto_simplex(point, 2, 1.0)\n"
        "print(point.round(6).tolist())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(dualview_plugin.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "[0.7, 0.3]", done.stderr
