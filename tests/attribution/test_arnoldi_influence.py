"""ArnoldiInfluence against the eigenvectors of an explicit Hessian, and against Captum's class."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from dualview_plugin import ArnoldiInfluence
from dualview_plugin.errors import InvalidValueError
from tests.attribution.loss_gradients import gradients, log_probability
from tests.worlds import N_TRAIN, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
NAMES = ["hidden.weight", "hidden.bias", "fc.weight", "fc.bias"]


def arnoldi(world: World, **options: Any) -> ArnoldiInfluence:
    return ArnoldiInfluence(world.model, "fc", world.train, show_progress=False, **options)


def hessian(world: World, names: list[str]) -> Tensor:
    """The Hessian of the mean training loss in these parameters, in double precision."""
    network = copy.deepcopy(world.model).double().eval()
    chosen = {name: p.detach() for name, p in network.named_parameters() if name in names}
    sizes = [p.numel() for p in chosen.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {n: v.view_as(p) for (n, p), v in zip(chosen.items(), flat.split(sizes), strict=True)}
        x, labels = world.train.tensors
        return cross_entropy(functional_call(network, parts, (x.double(),)), labels)

    return torch.autograd.functional.hessian(loss, torch.cat([p.flatten() for p in chosen.values()]))


@pytest.mark.parametrize(("names", "layers"), [(NAMES, ["hidden", "fc"]), (NAMES[2:], ["fc"])])
def test_attribution_is_that_of_the_leading_eigenvectors(names: list[str], layers: list[str]) -> None:
    world = small_world(dtype=torch.float64)
    method = arnoldi(world, n_components=6, arnoldi_dim=80, damping=0.01, layers=layers)
    values, vectors = torch.linalg.eigh(hessian(world, names))
    leading, basis = values[-6:], vectors[:, -6:]
    test = gradients(world.model, log_probability, world.x_test, TARGET, names) @ basis
    expected = (
        test / (leading + 0.01) @ (gradients(world.model, log_probability, *world.train.tensors, names) @ basis).mT
    )
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(method.eigenvalues_, leading.flip(0), rtol=1e-8, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_captum_gives_the_same_up_to_the_number_of_training_points(tmp_path: Path) -> None:
    world = small_world(dtype=torch.float64)
    ours = arnoldi(world, n_components=5, arnoldi_dim=60, damping=1e-3 / N_TRAIN, layers=["fc"])
    path = str(tmp_path / "weights.pt")
    torch.save(world.model.state_dict(), path)
    network = copy.deepcopy(world.model).eval()
    theirs = ArnoldiInfluenceFunction(
        network,
        world.train,
        path,
        layers=["fc"],
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=8,
        projection_dim=5,
        arnoldi_dim=60,
        arnoldi_tol=1e-10,
        hessian_reg=1e-3,
        sample_wise_grads_per_batch=False,
    )
    expected = N_TRAIN * theirs.influence((world.x_test, TARGET))
    found = ours.attribute(world.x_test, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


def test_a_network_without_curvature_is_refused() -> None:
    world = small_world()
    with torch.no_grad():
        world.model.fc.weight.zero_()
        world.model.fc.bias.copy_(torch.tensor([1e4, 0, 0, 0, 0]))
    with pytest.raises(InvalidValueError, match="a positive curvature"):
        arnoldi(world, layers=["hidden"], arnoldi_dim=3).fit()
