"""C="auto" against its rule, applied by hand to single solves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from dualview_plugin import DualView, solve_crammer_singer
from dualview_plugin.errors import InvalidValueError
from tests.worlds import N_CLASSES, N_TRAIN, World, small_world

CONSTANTS = [10.0**power for power in range(-6, 2)]


def dualview(world: World, max_support: float | None, C: object = "auto") -> DualView:
    options = {"C": C, "max_support": max_support, "show_progress": False}
    return DualView(world.model, "fc", world.train, **options)


def learned_world() -> World:
    """A network whose decisions are the labels, less two, so that some surrogates agree with it more than others."""
    world = small_world()
    x, _ = world.train.tensors
    labels = copy.deepcopy(world.model).eval()(x).argmax(1)
    labels[:2] = (labels[:2] + 1) % N_CLASSES
    world.train = TensorDataset(x, labels)
    return world


def agreements(world: World, max_support: float) -> dict[float, float]:
    """How far each surrogate agrees with the network, for the solutions that are sparse enough."""
    fitted = dualview(world, 1.0, C=1.0).fit()
    features = fitted.transform_features(fitted._training_features().features).numpy()
    x, labels = world.train.tensors
    decisions = copy.deepcopy(world.model).eval()(x).argmax(1).numpy()
    found = {}
    for C in CONSTANTS:
        solution = solve_crammer_singer(features, labels.numpy(), C, n_classes=N_CLASSES)
        if solution.n_support <= max_support * N_TRAIN:
            found[C] = float(np.mean((features @ solution.weight.T).argmax(1) == decisions))
    return found


@pytest.mark.parametrize("max_support", [1.0, 0.95])
def test_no_sparse_enough_solution_agrees_more(max_support: float) -> None:
    """Up to one point: on a near tie of two classes rounding decides."""
    world = learned_world()
    method = dualview(world, max_support).fit()
    found = agreements(world, max_support)
    (chosen,) = (C for C in CONSTANTS if pytest.approx(C) == method.solution_.C)
    assert found[chosen] >= max(found.values()) - 1.5 / N_TRAIN
    assert max(found.values()) > min(agreements(world, 1.0).values()) + 1.5 / N_TRAIN
    assert method.solution_.n_support <= max_support * N_TRAIN
    fixed = dualview(world, 1.0, C=method.solution_.C).attribute(world.x_test)
    torch.testing.assert_close(method.attribute(world.x_test), fixed, rtol=1e-3, atol=1e-3 * float(fixed.abs().max()))


def test_a_sparsity_that_no_constant_reaches_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"max_support of DualView must be at least 0\.\d+, the share of"):
        dualview(small_world(), 1 / N_TRAIN).fit()


def test_without_a_stated_sparsity_the_sparsest_solution_is_taken() -> None:
    """The labels are random, so that every solution has more than a fifth of the points as support points."""
    world = small_world()
    supports = {C: dualview(world, 1.0, C=C).fit().solution_.n_support for C in CONSTANTS}
    assert min(supports.values()) > N_TRAIN / 5
    assert dualview(world, None).fit().solution_.n_support == pytest.approx(min(supports.values()), abs=1)


@pytest.mark.parametrize(("C", "max_support"), [("largest", 0.5), (0.0, 0.5), ("auto", 0.0), ("auto", 1.5)])
def test_other_arguments_are_refused(C: object, max_support: float) -> None:
    with pytest.raises((InvalidValueError, TypeError), match="of DualView must be"):
        dualview(small_world(), max_support, C)
