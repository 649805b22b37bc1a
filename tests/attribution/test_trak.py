"""TRAK against its formula with explicit gradients and an explicit projection, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dualview_plugin import TRAK
from dualview_plugin.errors import InvalidValueError
from tests.attribution.loss_gradients import gradients, margin
from tests.worlds import World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])


def trak(world: World, **options: Any) -> TRAK:
    return TRAK(world.model, "fc", world.train, show_progress=False, **options)


def by_formula(world: World, method: TRAK, damping: float) -> Tensor:
    """φ_cᵀ (ΦᵀΦ + λI)⁻¹ φ_i (1 − p_i), the projection read off the method's own P by its adjoint."""
    method.fit()
    layout = method._gradients(world.x_test, TARGET)
    identity = torch.eye(method.n_components)
    projection = method._gradients.flatten(*method._projection.adjoint(identity, layout)).double()
    x, labels = world.train.tensors
    train = gradients(world.model, margin, x, labels) @ projection.mT
    test = gradients(world.model, margin, world.x_test, TARGET) @ projection.mT
    p = world.model.eval()(x).double().softmax(1).gather(1, labels[:, None])[:, 0]
    gram = train.mT @ train
    gram += damping * gram.trace() / len(gram) * torch.eye(len(gram))
    return (test @ torch.linalg.inv(gram) @ train.mT * (1 - p)).detach()


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_attribution_is_the_formula(damping: float) -> None:
    world = small_world()
    method = trak(world, n_components=7, seed=2, damping=damping)
    expected = by_formula(world, method, damping)
    found = method.attribute(world.x_test, TARGET).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.slow
def test_a_scale_of_the_gradients_changes_nothing() -> None:
    """With as many components as dimensions of the last layer's margins, P itself does not matter."""
    world = small_world(dtype=torch.float64)
    names = ["fc.weight", "fc.bias"]
    x, labels = world.train.tensors
    train, test = (
        gradients(world.model, margin, x, labels, names),
        gradients(world.model, margin, world.x_test, TARGET, names),
    )
    p = world.model.eval()(x).softmax(1).gather(1, labels[:, None])[:, 0]
    gram = train.mT @ train + 0.3 * train.square().sum() / train.shape[1] * torch.eye(train.shape[1])
    expected = test @ torch.linalg.solve(gram, train.mT) * (1 - p)
    found = torch.stack(
        [
            trak(world, n_components=1500, seed=s, damping=0.3 * 1500 / 60, layers=["fc"]).attribute(
                world.x_test, TARGET
            )
            for s in range(3)
        ]
    ).mean(0)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.98


def test_a_singular_matrix_is_refused() -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match=r"damping of TRAK must be positive where .* 2048 components and 31"):
        trak(world).attribute(world.x_test)
