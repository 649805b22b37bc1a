"""DualView: completeness, the formula as a double loop, sparsity, the intercept, real data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dualview_plugin.attribution import DualView
from dualview_plugin.data import TrainingData
from dualview_plugin.errors import ConvergenceWarning, DualViewError
from dualview_plugin.features import FeatureExtractor, training_features
from tests.worlds import EMPTY_CLASS, N_CLASSES, N_TEST, N_TRAIN, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
VARIANTS = pytest.mark.parametrize(
    "options",
    [{}, {"standardize": False}, {"fit_intercept": True}, {"C": 10.0, "fit_intercept": True, "standardize": False}],
    ids=str,
)


def dualview(world: World, **options) -> DualView:
    return DualView(world.model, "fc", world.train, **{"C": 0.05, "show_progress": False, **options})


def raw_features(world: World, x: Tensor) -> np.ndarray:
    world.model.eval()
    with torch.no_grad():
        return FeatureExtractor(world.model, "fc")(x)[0].double().numpy()


def attribution_by_double_loop(method: DualView, world: World) -> np.ndarray:
    """τ_i(x, c) = α_ic (⟨φ(x_i), φ(x)⟩ + offset), one pair at a time, from the solution alone."""
    train, test = raw_features(world, world.train.tensors[0]), raw_features(world, world.x_test)
    if method.standardize:
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        alive = deviation > 0
        train, test = ((part - mean)[:, alive] / deviation[alive] for part in (train, test))
    result = np.zeros((N_TEST, N_TRAIN))
    for t in range(N_TEST):
        for row, i in enumerate(method.solution_.support):
            kernel = float(train[i] @ test[t]) + float(method.fit_intercept)
            result[t, i] = method.solution_.dual_coef[row, TARGET[t]] * kernel
    return result


@VARIANTS
def test_attribution_is_the_formula(options: dict) -> None:
    world = small_world()
    method = dualview(world, **options)
    attribution = method.attribute(world.x_test, TARGET).numpy()
    np.testing.assert_allclose(attribution, attribution_by_double_loop(method, world), rtol=1e-3, atol=1e-5)


@VARIANTS
def test_completeness(options: dict) -> None:
    world = small_world(dtype=torch.float64)
    method = dualview(world, **options)
    total = method.attribute(world.x_test, TARGET).sum(dim=1)
    logits = method.surrogate_logits(world.x_test)
    assert logits.shape == (N_TEST, N_CLASSES)
    torch.testing.assert_close(total, logits[torch.arange(N_TEST), TARGET], rtol=1e-6, atol=1e-8)
    assert bool(method.surrogate_bias_.any()) == method.fit_intercept


@VARIANTS
def test_coefficients_are_feasible_and_give_the_weights(options: dict) -> None:
    world = small_world(dtype=torch.float64)
    method = dualview(world, **options).fit()
    alpha = method.dual_coef_
    own = method.train_labels_[method.support_indices_]
    bound = torch.zeros_like(alpha).scatter_(1, own[:, None], method.C)
    assert (alpha <= bound + 1e-9 * method.C).all()
    torch.testing.assert_close(alpha.sum(dim=1), torch.zeros(len(alpha), dtype=alpha.dtype), atol=1e-9, rtol=0)
    torch.testing.assert_close(alpha.T @ method.support_features_, method.surrogate_weight_, rtol=1e-9, atol=1e-12)
    assert method.solution_.converged
    assert method.solution_.duality_gap <= method.tol


def test_a_class_without_training_points_has_opponents_only() -> None:
    world = small_world()
    method = dualview(world).fit()
    assert EMPTY_CLASS not in method.train_labels_
    assert (method.dual_coef_[:, EMPTY_CLASS] <= 0).all()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_is_dense_without_zeros() -> None:
    world = small_world()
    method = dualview(world, C=10.0, batch_size=3)
    sparse = method.attribute(world.x_test, TARGET, sparse=True)
    dense = method.attribute(world.x_test, TARGET)
    assert sparse.layout == torch.sparse_csr
    torch.testing.assert_close(sparse.to_dense(), dense)
    assert sparse.values().count_nonzero() == len(sparse.values())
    assert len(sparse.values()) < dense.numel()


def test_a_harder_margin_has_fewer_support_points() -> None:
    world = small_world()
    sizes = [len(dualview(world, C=C).fit().support_indices_) for C in (1e-3, 0.1, 10.0)]
    assert sizes[0] == N_TRAIN
    assert sizes[0] > sizes[2]


def test_coefficients_off_the_support_are_zero() -> None:
    world = small_world()
    method = dualview(world, C=10.0).fit()
    everyone = torch.arange(N_TRAIN).expand(N_TEST, N_TRAIN)
    found = method.coefficients(everyone, TARGET)
    expected = torch.zeros(N_TRAIN, N_CLASSES)
    expected[method.support_indices_] = method.dual_coef_
    torch.testing.assert_close(found, expected.T[TARGET])


@pytest.mark.parametrize("limit", [{"max_iter": 1}, {"time_limit": 1e-6}], ids=str)
def test_a_fit_that_stops_early_warns_and_is_feasible(limit: dict) -> None:
    world = small_world()
    with pytest.warns(ConvergenceWarning, match=next(iter(limit))):
        method = dualview(world, C=100.0, tol=1e-12, **limit).fit()
    assert not method.solution_.converged
    assert method.dual_coef_.sum(dim=1).abs().max() < 1e-4
    assert method.dual_coef_.max() <= 100.0


@pytest.mark.parametrize(
    "options", [{"C": 0.0}, {"C": -1}, {"C": "1"}, {"tol": 0}, {"max_iter": 0}, {"time_limit": 0}], ids=str
)
def test_bad_parameters_are_refused(options: dict) -> None:
    with pytest.raises(DualViewError, match=f"{next(iter(options))} of DualView must be "):
        dualview(small_world(), **options)


def test_features_that_are_not_finite_are_refused_before_the_fit() -> None:
    world = small_world()
    with torch.no_grad():
        world.model.hidden.bias[2] = torch.nan
    with pytest.raises(DualViewError, match="finite features"):
        dualview(world).fit()


def test_surrogate_learns_a_separable_world() -> None:
    """The extracted features are labelled by the network itself: the surrogate then repeats its decisions."""
    world = small_world()
    x, _ = world.train.tensors
    world.model.eval()
    with torch.no_grad():
        decisions = world.model(x).argmax(dim=1)
    relabelled = World(world.model, type(world.train)(x, decisions), world.x_test)
    method = dualview(relabelled, C=1e4, standardize=False, fit_intercept=True, tol=1e-3)
    assert torch.equal(method.surrogate_logits(x).argmax(dim=1), decisions)
    data = TrainingData(relabelled.train, 7, "test")
    assert torch.equal(training_features(FeatureExtractor(world.model, "fc"), data).labels, decisions)
