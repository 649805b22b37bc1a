"""The last layer's curvature against autograd's Hessian, and its three inverses against a dense solve."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dualview_plugin.errors import ConvergenceWarning, DivergenceError
from dualview_plugin.last_layer import CholeskyInverse, ConjugateGradientInverse, LissaInverse, SoftmaxCurvature
from dualview_plugin.last_layer.inverse_curvature import conjugate_gradients
from tests.conftest import TOLERANCES

EXACT = TOLERANCES[torch.float64]
N_TRAIN, N_FEATURES, N_CLASSES, N_VECTORS = 211, 7, 3, 5
SHAPE = (N_CLASSES, N_FEATURES)


def problem(damping: float = 0.1) -> tuple[SoftmaxCurvature, Tensor, Tensor]:
    """A curvature, the weights at which it is one, and right-hand sides."""
    features = torch.randn(N_TRAIN, N_FEATURES, dtype=torch.float64) + 1
    weight = torch.randn(SHAPE, dtype=torch.float64)
    probabilities = (features @ weight.mT).softmax(1)
    vectors = torch.randn(N_VECTORS, *SHAPE, dtype=torch.float64)
    return SoftmaxCurvature(features, probabilities, damping), weight, vectors


def dense(curvature: SoftmaxCurvature, weight: Tensor) -> Tensor:
    """H + δI by automatic differentiation of the mean cross entropy, for arbitrary labels."""
    labels = torch.arange(N_TRAIN) % N_CLASSES
    hessian = torch.autograd.functional.hessian(lambda w: cross_entropy(curvature.features @ w.mT, labels), weight)
    size = N_CLASSES * N_FEATURES
    return hessian.reshape(size, size) + curvature.damping * torch.eye(size, dtype=torch.float64)


def solved(curvature: SoftmaxCurvature, weight: Tensor, vectors: Tensor) -> Tensor:
    return torch.linalg.solve(dense(curvature, weight), vectors.flatten(1).mT).mT.reshape(vectors.shape)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a vector."""
    return float(((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max())


def test_matrix_is_autograds_hessian() -> None:
    curvature, weight, _ = problem()
    torch.testing.assert_close(curvature.matrix(), dense(curvature, weight), **EXACT)


@pytest.mark.parametrize("rows", [1, 13, N_TRAIN])
def test_matrix_is_the_same_in_any_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    curvature, weight, _ = problem()
    monkeypatch.setattr("dualview_plugin.last_layer.softmax_curvature._ASSEMBLY_ROWS", rows)
    torch.testing.assert_close(curvature.matrix(), dense(curvature, weight), **EXACT)


@pytest.mark.parametrize("elements", [1, 97, 10**6])
def test_product_is_the_matrix_times_vectors(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    curvature, weight, vectors = problem()
    monkeypatch.setattr("dualview_plugin.last_layer.softmax_curvature._SCORE_ELEMENTS", elements)
    expected = (vectors.flatten(1) @ dense(curvature, weight)).view_as(vectors)
    torch.testing.assert_close(curvature.product(vectors), expected, **EXACT)


def test_product_over_rows_is_that_of_the_rows_alone() -> None:
    curvature, _, vectors = problem()
    rows = torch.tensor([2, 3, 5, 7, 11])
    alone = SoftmaxCurvature(curvature.features[rows], curvature.probabilities[rows], curvature.damping)
    torch.testing.assert_close(curvature.product(vectors, rows), alone.product(vectors), **EXACT)


def test_features_stay_in_their_precision() -> None:
    curvature, weight, vectors = problem()
    single = SoftmaxCurvature(curvature.features.float(), curvature.probabilities.float(), curvature.damping)
    assert single.features.dtype == torch.float32
    assert single.matrix().dtype == single.product(vectors).dtype == torch.float64
    torch.testing.assert_close(single.matrix(), dense(curvature, weight), rtol=1e-5, atol=1e-6)


def test_largest_eigenvalue() -> None:
    curvature, weight, _ = problem()
    expected = float(torch.linalg.eigvalsh(dense(curvature, weight))[-1])
    found = curvature.largest_eigenvalue(tol=1e-8)
    assert found == pytest.approx(expected, rel=1e-6)
    assert curvature.largest_eigenvalue(seed=1) == pytest.approx(expected, rel=0.05)


def test_cholesky_is_exact() -> None:
    curvature, weight, vectors = problem()
    torch.testing.assert_close(CholeskyInverse(curvature).solve(vectors), solved(curvature, weight, vectors), **EXACT)


@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-10])
def test_conjugate_gradients_meet_their_tolerance(tol: float) -> None:
    curvature, _, vectors = problem(damping=0.01)
    found = ConjugateGradientInverse(curvature, tol).solve(vectors)
    assert relative_error(curvature.product(found), vectors) <= 1.01 * tol


def test_conjugate_gradients_of_one_vector_do_not_depend_on_the_others() -> None:
    curvature, _, vectors = problem()
    inverse = ConjugateGradientInverse(curvature, 1e-4)
    vectors = vectors * torch.logspace(-5, 5, N_VECTORS, dtype=torch.float64)[:, None, None]
    alone = torch.cat([inverse.solve(vector[None]) for vector in vectors])
    assert relative_error(inverse.solve(vectors), alone) < 1e-9


def test_conjugate_gradients_of_nothing_and_of_zero() -> None:
    curvature, _, vectors = problem()
    inverse = ConjugateGradientInverse(curvature)
    assert inverse.solve(vectors[:0]).shape == (0, *SHAPE)
    assert not inverse.solve(torch.zeros_like(vectors)).any()


def test_conjugate_gradients_warn_with_their_figures() -> None:
    curvature, _, vectors = problem(damping=1e-6)
    with pytest.warns(ConvergenceWarning, match=r"relative residual .* above tol 1\.0e-10 after 2 steps"):
        ConjugateGradientInverse(curvature, 1e-10, max_iter=2).solve(vectors)
    solution, residuals = conjugate_gradients(curvature.product, vectors, 1e-10, 2)
    actual = (vectors - curvature.product(solution)).flatten(1).norm(dim=1) / vectors.flatten(1).norm(dim=1)
    torch.testing.assert_close(residuals, actual, **EXACT)


def test_lissa_is_within_a_fifth() -> None:
    curvature, weight, vectors = problem()
    expected = solved(curvature, weight, vectors)
    assert relative_error(LissaInverse(curvature, batch_size=17, tol=1e-2).solve(vectors), expected) < 0.2


@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.ConvergenceWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_lissa_is_no_worse_with_more_depth(seed: int) -> None:
    curvature, weight, vectors = problem()
    expected = solved(curvature, weight, vectors)
    depths = [20, 100, 500, 2000]
    errors = [
        relative_error(LissaInverse(curvature, depth=d, batch_size=17, tol=1e-12, seed=seed).solve(vectors), expected)
        for d in depths
    ]
    assert errors[-1] < 0.05
    assert all(later <= max(earlier, 0.02) for earlier, later in pairwise(errors))


def test_lissa_on_whole_batches_converges_to_the_solution() -> None:
    curvature, weight, vectors = problem()
    found = LissaInverse(curvature, batch_size=N_TRAIN, tol=1e-7).solve(vectors)
    assert relative_error(found, solved(curvature, weight, vectors)) < 1e-5


def test_lissa_with_a_scale_and_a_seed() -> None:
    curvature, _, vectors = problem()
    first, again, other = (
        LissaInverse(curvature, 7.0, batch_size=17, tol=0.05, seed=s).solve(vectors) for s in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_lissa_raises_on_divergence() -> None:
    curvature, _, vectors = problem()
    with pytest.raises(DivergenceError, match=r"LiSSA diverged with scale 0\.01"):
        LissaInverse(curvature, scale=0.01).solve(vectors)


@pytest.mark.slow
def test_lissa_raises_its_own_scale_where_batches_vary() -> None:
    """One point far outside: a batch with it has a curvature many times that of the whole."""
    ordinary, _, vectors = problem(damping=0.5)
    features = ordinary.features.clone()
    features[0] *= 9
    curvature = SoftmaxCurvature(features, torch.full((N_TRAIN, N_CLASSES), 1 / N_CLASSES), 0.5)
    with pytest.raises(DivergenceError):
        LissaInverse(curvature, 1.1 * curvature.largest_eigenvalue(seed=0), batch_size=1).solve(vectors)
    expected = torch.linalg.solve(curvature.matrix(), vectors.flatten(1).mT).mT.reshape(vectors.shape)
    found = LissaInverse(curvature, depth=30_000, batch_size=1, tol=2e-3).solve(vectors)
    assert relative_error(found, expected) < 0.2


def test_lissa_warns_with_its_figures() -> None:
    curvature, _, vectors = problem(damping=1e-6)
    with pytest.warns(ConvergenceWarning, match=r"LiSSA stopped at relative residual .* after 20 steps"):
        LissaInverse(curvature, depth=20, tol=1e-9).solve(vectors)
