"""TracIn against autograd's gradients, against Captum's three classes, and its refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.influence import TracInCP, TracInCPFast, TracInCPFastRandProj
from captum.influence._utils.nearest_neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import TracIn
from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError
from tests.attribution.loss_gradients import gradients, log_probability
from tests.untouched import assert_untouched
from tests.worlds import N_TEST, N_TRAIN, SmallNet, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
RATES = [0.5, 0.03]


def checkpoints() -> list[dict[str, Tensor]]:
    """The weights of two other trained networks."""
    return [copy.deepcopy(small_world(seed).model.state_dict()) for seed in (5, 7)]


def tracin(world: World, **options: Any) -> TracIn:
    return TracIn(world.model, "fc", world.train, show_progress=False, **options)


def expected_of(world: World, names: list[str] | None = None) -> Tensor:
    total = torch.zeros(1)
    for state, rate in zip(checkpoints(), RATES, strict=True):
        network = SmallNet()
        network.load_state_dict(state)
        test = gradients(network, log_probability, world.x_test, TARGET, names)
        total = total + rate * test @ gradients(network, log_probability, *world.train.tensors, names).mT
    return total


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


def test_attribution_is_the_formula() -> None:
    world = small_world()
    method = tracin(world, checkpoints=checkpoints(), learning_rates=RATES)
    close(method.attribute(world.x_test, TARGET), expected_of(world))


def test_a_map_is_the_weighted_sum_of_the_maps_at_the_checkpoints() -> None:
    world = small_world()
    for at in (None, "hidden"):
        method = tracin(world, checkpoints=checkpoints(), learning_rates=RATES)
        found = method.input_attribution(world.x_test, TARGET, N_TRAIN, at=at)
        expected = torch.zeros_like(found)
        for state, rate in zip(checkpoints(), RATES, strict=True):
            world.model.load_state_dict(state)
            alone = tracin(world).input_attribution(world.x_test, TARGET, N_TRAIN, at=at)
            expected += rate * alone
        world = small_world()
        close(found, expected)


def test_files_are_checkpoints(tmp_path: Path) -> None:
    world, paths = small_world(), []
    for position, state in enumerate(checkpoints()):
        paths.append(tmp_path / f"{position}.pt")
        torch.save(state, paths[-1])
    method = tracin(world, checkpoints=[paths[0], str(paths[1])], learning_rates=RATES, layers=["fc"])
    close(method.attribute(world.x_test, TARGET), expected_of(world, ["fc.weight", "fc.bias"]))


def test_without_checkpoints_the_network_is_the_only_one() -> None:
    world = small_world()
    close(
        tracin(world).attribute(world.x_test, TARGET),
        tracin(world, checkpoints=[world.model.state_dict()], learning_rates=[1]).attribute(world.x_test, TARGET),
    )


def test_a_projection_is_unbiased() -> None:
    """The mean over seeds comes as close as the variance of the source says."""
    world = small_world()
    exact = tracin(world, layers=["fc"]).attribute(world.x_test, TARGET)
    seeds = range(20)
    drawn = [
        tracin(world, layers=["fc"], n_components=32, seed=s).attribute(world.x_test, TARGET).double() for s in seeds
    ]
    mean, spread = torch.stack(drawn).mean(0), torch.stack(drawn).std(0) / len(drawn) ** 0.5
    assert ((mean - exact).abs() < 5 * spread + 1e-6).all()


def load_into(model: nn.Module, path: str) -> float:
    """Captum's loader: the weights, and the learning rate as its answer."""
    stored = torch.load(path, weights_only=True)
    model.load_state_dict(stored["weights"])
    return float(stored["rate"])


class NoIndex(NearestNeighbors):
    """In place of annoy, which only its search for the strongest points needs."""

    def setup(self, data: Tensor) -> None: ...

    def get_nearest_neighbors(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def without_bias(seed: int) -> SmallNet:
    """A trained network whose final layer has no bias, which Captum's fast classes leave out."""
    network = small_world(seed).model
    network.fc.bias = None
    return network


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["TracInCP", "TracInCPFast", "TracInCPFastRandProj"])
def test_captum_gives_the_same(kind: str, tmp_path: Path) -> None:
    world, network, paths = small_world(), without_bias(5).eval(), []
    world.model = without_bias(0)
    states = [without_bias(seed).state_dict() for seed in (5, 7)]
    for position, (state, rate) in enumerate(zip(states, RATES, strict=True)):
        paths.append(str(tmp_path / f"{position}.pt"))
        torch.save({"weights": state, "rate": rate}, paths[-1])
    method = tracin(world, checkpoints=states, learning_rates=RATES, layers=None if kind == "TracInCP" else ["fc"])
    loss = nn.CrossEntropyLoss(reduction="sum")
    common: dict[str, Any] = {"checkpoints": paths, "checkpoints_load_func": load_into, "batch_size": 8}
    if kind == "TracInCP":
        theirs: Any = TracInCP(network, world.train, loss_fn=nn.CrossEntropyLoss(reduction="none"), **common)
        expected = theirs.influence((world.x_test, TARGET))
    elif kind == "TracInCPFast":
        theirs = TracInCPFast(network, network.fc, world.train, loss_fn=loss, **common)
        expected = theirs.influence((world.x_test, TARGET))
    else:
        theirs = TracInCPFastRandProj(
            network, network.fc, world.train, loss_fn=loss, nearest_neighbors=NoIndex(), **common
        )
        test = DataLoader(TensorDataset(world.x_test, TARGET), batch_size=4)
        vectors = [theirs.compute_intermediate_quantities(loader) for loader in (test, DataLoader(world.train, 8))]
        expected = vectors[0] @ vectors[1].mT
    close(method.attribute(world.x_test, TARGET), expected)
    if kind != "TracInCPFastRandProj":  # which has none
        close(method.self_influence(), theirs.self_influence())


def test_the_network_stays_as_it_is() -> None:
    world = small_world()
    states = checkpoints()
    with assert_untouched(world.model):
        method = tracin(world, checkpoints=states, learning_rates=RATES)
        method.attribute(world.x_test)
        method.self_influence()
    decisions = copy.deepcopy(world.model).eval()(world.x_test).argmax(1)
    close(method.attribute(world.x_test), method.attribute(world.x_test, decisions))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoints": []}, InvalidValueError, "checkpoints of TracIn must be"),
        ({"checkpoints": "weights.pt"}, InvalidTypeError, "checkpoints of TracIn must be a sequence"),
        ({"checkpoints": [3]}, InvalidTypeError, "checkpoints of TracIn must be a sequence"),
        ({"learning_rates": [0.1, 0.2]}, InvalidValueError, "learning_rates of TracIn must be one for each of the 1"),
        ({"learning_rates": [0.0]}, InvalidValueError, "learning_rates of TracIn must be"),
        ({"layers": ["nowhere"]}, InvalidValueError, "layers"),
        ({"n_components": 0}, InvalidValueError, "n_components of TracIn"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tracin(small_world(), **options)


@pytest.mark.parametrize("checkpoint", [{"fc.weight": torch.ones(2, 2)}, "nowhere.pt"])
def test_checkpoints_of_other_networks_are_refused(checkpoint: Any) -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match=r"checkpoints of TracIn must be .* at position 0"):
        tracin(world, checkpoints=[checkpoint]).attribute(world.x_test)


def test_another_network_has_no_checkpoints() -> None:
    world, other = small_world(), small_world(seed=5)
    method = tracin(world, checkpoints=checkpoints()).fit()
    with pytest.raises(DualViewError, match="the network of the checkpoints"):
        method(other.model, world.x_test.numpy(), TARGET.numpy())
    assert method(world.model, world.x_test.numpy(), TARGET.numpy()).shape == (N_TEST, 2, 5, 7)


def test_networks_that_keep_results_are_copied() -> None:
    """A tensor with a graph behind it is refused by copy.deepcopy."""
    world = small_world()
    plain = tracin(world, checkpoints=checkpoints()).attribute(world.x_test, TARGET)
    world.model.last = world.model.eval()(world.x_test)
    close(tracin(world, checkpoints=checkpoints()).attribute(world.x_test, TARGET), plain)


def test_checkpoints_in_one_memory_are_refused() -> None:
    """The weights of one network at two times are the same if they are no copies."""
    world = small_world()
    states = [world.model.state_dict(), world.model.state_dict()]
    with pytest.raises(InvalidValueError, match=r"copies of the weights.*the same memory at positions 0 and 1"):
        tracin(world, checkpoints=states)
    tracin(world, checkpoints=[states[0], copy.deepcopy(states[1])]).attribute(world.x_test, TARGET)
