"""Sparsity: the three measures by slow definitions, at their ends, and for tiny values."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.metrics import Sparsity, sparsity

ROWS = np.random.default_rng(0).normal(size=(7, 19)) ** 3


def slow(row: np.ndarray, variant: str) -> float:
    magnitudes = sorted((abs(float(value)) for value in row), reverse=True)
    if variant == "l0":
        return sum(value > 1e-6 * magnitudes[0] for value in magnitudes)
    if variant == "hoyer":
        n, length = len(row), sum(value**2 for value in magnitudes) ** 0.5
        return (n**0.5 - sum(magnitudes) / length) / (n**0.5 - 1)
    return next(m for m in range(1, len(row) + 1) if sum(magnitudes[:m]) >= 0.9 * sum(magnitudes))


@pytest.mark.parametrize("variant", ["l0", "hoyer", "mass"])
def test_equals_the_definition(variant: str) -> None:
    rows = np.where(np.abs(ROWS) > 0.1, ROWS, 0)
    expected = [slow(row, variant) for row in rows]
    np.testing.assert_allclose(sparsity(rows, variant), expected)  # type: ignore[arg-type]
    np.testing.assert_allclose(sparsity(-1e-200 * rows, variant), expected)  # type: ignore[arg-type]
    scores = Sparsity(variant=variant)(None, np.zeros((7, 3)), np.zeros(7, int), a_batch=rows, batch_size=2)  # type: ignore[arg-type]
    assert scores == pytest.approx(expected)


def test_single_equal_and_no_points() -> None:
    rows = np.zeros((3, 10))
    rows[0, 4], rows[1] = -2, 0.1
    np.testing.assert_array_equal(sparsity(rows, "l0"), [1, 10, 0])
    np.testing.assert_array_equal(sparsity(rows, "mass"), [1, 9, 0])
    np.testing.assert_allclose(sparsity(rows), [1, 0, np.nan], atol=1e-15)
    np.testing.assert_array_equal(sparsity(np.array([[3.0], [0.0]])), [1, np.nan])


def test_values_below_a_millionth_of_the_largest_count_as_zero() -> None:
    assert sparsity(np.array([[1.0, 2e-6, 0.9e-6, 0]]), "l0").tolist() == [2]


def test_a_random_attributor_is_not_sparse() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4001))
    assert sparsity(rows).mean() == pytest.approx(1 - np.sqrt(2 / np.pi), abs=0.01)
    assert (sparsity(rows, "l0") >= 3999).all()
    assert sparsity(rows, "mass").mean() / 4001 == pytest.approx(0.646, abs=0.005)
