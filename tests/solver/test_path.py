"""A path of C gives the solutions of the single solves, in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver import solve_crammer_singer, solve_path
from tests.solver.crammer_singer_oracle import assert_certified, blobs

FEATURES, LABELS = blobs(149, 7, 5)


@pytest.mark.parametrize("method", ["auto", "cd", "newton", "interior", "qp"])
def test_solutions_of_the_single_problems(method):
    Cs = [1.0, 1e-3, 0.03, 1.0]
    path = solve_path(FEATURES, LABELS, Cs, method=method)
    assert [solution.C for solution in path] == Cs
    for C, solution in zip(Cs, path, strict=True):
        assert_certified(solution, FEATURES, LABELS, C, tol=1e-6)
        alone = solve_crammer_singer(FEATURES, LABELS, C)
        np.testing.assert_allclose(solution.primal_objective, alone.primal_objective, rtol=2e-6)


@pytest.mark.parametrize("Cs", [[], [0.1, 0.0], [0.1, -1.0]])
def test_bad_constants_are_refused(Cs):
    with pytest.raises(InvalidValueError, match="Cs of solve_path must be"):
        solve_path(FEATURES, LABELS, Cs)
