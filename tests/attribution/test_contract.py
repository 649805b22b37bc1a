"""What every attribution class promises, checked on every class."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Attribution
from captum.influence import DataInfluence
from torch.utils.data import DataLoader, Subset, TensorDataset

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError
from tests.attribution.method_factories import NOT_DIFFERENTIABLE, NOT_EQUIVARIANT, Factory, fit_tolerance, over
from tests.worlds import N_CLASSES, N_TEST, N_TRAIN, small_world

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])


def assert_same_fit(method: DataAttribution, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Two fits on the same data, as close as what the method iterates to makes them: see ``FIT_TOLERANCES``."""
    tolerance = fit_tolerance(method)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@over()
def test_is_captums_attribution_and_influence(make: Factory) -> None:
    method = make(small_world())
    assert isinstance(method, Attribution)
    assert isinstance(method, DataInfluence)
    assert method.get_name() == type(method).__name__


@over()
def test_shapes_and_learned_state(make: Factory) -> None:
    world = small_world()
    method = make(world)
    attribution = method.attribute(world.x_test, TARGET)
    assert attribution.shape == (N_TEST, N_TRAIN)
    assert attribution.dtype == torch.float32
    assert not attribution.requires_grad
    assert attribution.isfinite().all()
    assert torch.equal(method.train_labels_, world.train.tensors[1])
    assert (method.n_train_, method.n_classes_) == (N_TRAIN, N_CLASSES)
    assert method.self_influence().shape == (N_TRAIN,)
    assert method.fit() is method


@over()
def test_target_none_is_the_decision(make: Factory) -> None:
    world = small_world()
    method = make(world)
    decisions = copy.deepcopy(world.model).eval()(world.x_test).argmax(dim=1)
    torch.testing.assert_close(method.attribute(world.x_test), method.attribute(world.x_test, decisions), **CLOSE)


@over()
def test_one_target_for_all(make: Factory) -> None:
    world = small_world()
    method = make(world)
    expected = method.attribute(world.x_test, torch.full((N_TEST,), 2))
    for target in (2, [2] * N_TEST, np.full(N_TEST, 2), torch.tensor(2)):
        torch.testing.assert_close(method.attribute(world.x_test, target), expected, **CLOSE)


@over()
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batch_size_equivalence(make: Factory, batch_size: int) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    method = make(world, batch_size=batch_size)
    assert_same_fit(method, method.attribute(world.x_test, TARGET), expected)


@over()
def test_blocks_are_the_rows(make: Factory) -> None:
    world = small_world()
    method = make(world, batch_size=3)
    blocks = list(method.attribute_blocks(world.x_test, TARGET))
    expected = method.attribute(world.x_test, TARGET)
    torch.testing.assert_close(torch.cat(blocks).to(expected), expected, **CLOSE)


@over()
def test_batch_of_one_keeps_its_axis(make: Factory) -> None:
    world = small_world()
    method = make(world)
    one = method.attribute(world.x_test[2:3], int(TARGET[2]))
    assert one.shape == (1, N_TRAIN)
    torch.testing.assert_close(one, method.attribute(world.x_test, TARGET)[2:3], **CLOSE)


@over()
def test_inputs_as_tensor_array_or_loader(make: Factory) -> None:
    world = small_world()
    method = make(world)
    expected = method.attribute(world.x_test, TARGET)
    loader = DataLoader(TensorDataset(world.x_test, TARGET), batch_size=2)
    for inputs in (world.x_test.numpy(), loader):
        torch.testing.assert_close(method.attribute(inputs, TARGET), expected, **CLOSE)


@over()
def test_training_data_as_dataset_or_loader(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    loader = DataLoader(world.train, batch_size=4)
    torch.testing.assert_close(make(world, loader).attribute(world.x_test, TARGET), expected, **CLOSE)


@over()
def test_layer_as_module_or_name(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    world.final_fc_layer = world.model.fc
    torch.testing.assert_close(make(world).attribute(world.x_test, TARGET), expected, **CLOSE)


@over(NOT_EQUIVARIANT)
def test_permuted_training_set_permutes_columns(make: Factory) -> None:
    world = small_world()
    order = torch.randperm(N_TRAIN).tolist()
    expected = make(world).attribute(world.x_test, TARGET)[:, order]
    method = make(world, Subset(world.train, order))
    assert_same_fit(method, method.attribute(world.x_test, TARGET), expected)


@over()
@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.SparseAttributionWarning")
@pytest.mark.parametrize("proponents", [True, False])
def test_influence_is_the_top_of_attribute(make: Factory, proponents: bool) -> None:
    world = small_world()
    method = make(world, batch_size=3)
    attribution = method.attribute(world.x_test, TARGET)
    top = method.influence(world.x_test, k=5, target=TARGET, proponents=proponents)
    expected = attribution.sort(dim=1, descending=proponents).values[:, :5]
    torch.testing.assert_close(top.influence_scores, expected, **CLOSE)
    torch.testing.assert_close(attribution.gather(1, top.indices), expected, **CLOSE)
    torch.testing.assert_close(method.influence(world.x_test, target=TARGET), attribution, **CLOSE)


@over(NOT_DIFFERENTIABLE)
def test_self_influence_is_the_diagonal(make: Factory) -> None:
    world = small_world()
    x, labels = world.train.tensors
    method = make(world)
    expected = method.attribute(x, labels).diagonal()
    torch.testing.assert_close(method.self_influence(), expected, rtol=1e-3, atol=1e-5)


@over()
def test_pair_attribution_is_attribute_at_the_pairs(make: Factory) -> None:
    world = small_world()
    method = make(world).fit()
    indices = torch.randint(N_TRAIN, (N_TEST, 3))
    pairs = method._pair_attribution(world.x_test, TARGET, indices).detach()
    expected = method.attribute(world.x_test, TARGET).gather(1, indices)
    torch.testing.assert_close(pairs.to(expected), expected, rtol=1e-3, atol=1e-5)


@over(NOT_DIFFERENTIABLE)
def test_input_attribution_is_gradient_times_input(make: Factory) -> None:
    """Against a central difference of the attribution to the strongest proponents, along the input itself."""
    world = small_world(dtype=torch.float64)
    method = make(world)
    top = method.strongest(world.x_test, 2, TARGET)
    step = 1e-6
    plus, minus = (method.attribute(world.x_test * (1 + s), TARGET).gather(1, top.indices) for s in (step, -step))
    expected = (plus - minus).sum(dim=1) / (2 * step)
    found = method.input_attribution(world.x_test, TARGET, k=2)
    assert found.shape == world.x_test.shape
    torch.testing.assert_close(found.flatten(1).sum(dim=1), expected, rtol=1e-3, atol=1e-6)


@over()
def test_quantus_call_returns_a_map(make: Factory) -> None:
    world = small_world()
    method = make(world)
    attribution = method(model=world.model, inputs=world.x_test.numpy(), targets=TARGET.numpy(), method="x", foreign=3)
    assert type(attribution) is np.ndarray
    assert attribution.shape == tuple(world.x_test.shape)
    assert attribution.std() > 0
    np.testing.assert_allclose(attribution, method.input_attribution(world.x_test, TARGET), rtol=1e-4, atol=1e-6)


@over(NOT_DIFFERENTIABLE)
def test_quantus_call_on_another_network_is_fitted_to_it(make: Factory) -> None:
    world, other = small_world(), small_world(seed=5)
    method = make(world).fit()
    other.train, other.x_test = world.train, world.x_test
    expected = make(other)(other.model, world.x_test.numpy(), TARGET.numpy())
    kept = method.attribute(world.x_test, TARGET)
    np.testing.assert_allclose(
        method(other.model, world.x_test.numpy(), TARGET.numpy()), expected, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), kept, **CLOSE)
    twin = method(copy.deepcopy(world.model), world.x_test.numpy(), TARGET.numpy())
    np.testing.assert_allclose(twin, method.input_attribution(world.x_test, TARGET), rtol=1e-4, atol=1e-6)


@over()
def test_nothing_of_the_users_changes(make: Factory) -> None:
    world = small_world()
    world.model.norm.eval()  # a mixed mode
    modes = [module.training for module in world.model.modules()]
    weights = copy.deepcopy(world.model.state_dict())
    data = [tensor.clone() for tensor in (*world.train.tensors, world.x_test)]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    method = make(world)
    method.attribute(world.x_test)
    method.strongest(world.x_test, k=2)
    method.self_influence()
    method(world.model, world.x_test.numpy(), TARGET.numpy())
    assert [module.training for module in world.model.modules()] == modes
    assert all(torch.equal(weights[name], value) for name, value in world.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in world.model.parameters())
    for module in world.model.modules():
        assert not any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
    assert all(map(torch.equal, data, (*world.train.tensors, world.x_test)))
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


@over()
def test_works_without_grad_mode(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    with torch.no_grad():
        method = make(world)
        torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, **CLOSE)
        assert method.input_attribution(world.x_test, TARGET).shape == world.x_test.shape


@over()
def test_cache_gives_the_same_and_not_to_another_network(make: Factory, tmp_path: Path) -> None:
    world, other = small_world(), small_world(seed=5)
    other.train = world.train
    expected = make(world).attribute(world.x_test, TARGET)
    for _ in range(2):
        cached = make(world, cache_dir=tmp_path).attribute(world.x_test, TARGET)
        torch.testing.assert_close(cached, expected, **CLOSE)
    foreign = make(other, cache_dir=tmp_path).attribute(world.x_test, TARGET)
    torch.testing.assert_close(foreign, make(other).attribute(world.x_test, TARGET), **CLOSE)


@over()
@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([1, 2], InvalidValueError, "one class, or one for each of the 7 inputs, got shape"),
        (N_CLASSES, InvalidValueError, "in 0 … 4"),
        (-1, InvalidValueError, "in 0 … 4"),
        (0.5, InvalidTypeError, "an integer or integers"),
    ],
)
def test_targets_are_checked_before_the_fit(make: Factory, target: object, error: type, message: str) -> None:
    world = small_world()
    method = make(world)
    with pytest.raises(error, match=message):
        method.attribute(world.x_test, target)
    assert not hasattr(method, "train_labels_")


@over()
def test_bad_calls_are_refused(make: Factory) -> None:
    world = small_world()
    method = make(world)
    shuffling = DataLoader(TensorDataset(world.x_test, TARGET), shuffle=True)
    for call in (
        lambda: method.attribute(world.x_test[:0]),
        lambda: method.attribute(shuffling),
        lambda: method.attribute("text"),
        lambda: method.influence(world.x_test, k=N_TRAIN + 1),
        lambda: method.influence(world.x_test, k=0),
        lambda: make(world, batch_size=0),
        lambda: make(world, device="cuda:0"),
    ):
        with pytest.raises(DualViewError, match=f" of {method.get_name()} must be "):
            call()


@pytest.mark.gpu
@over()
def test_a_gpu_gives_the_same(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    world.model.to("cuda")
    method = make(world)
    found = method.attribute(world.x_test, TARGET)
    assert found.device.type == "cuda"
    assert_same_fit(method, found.cpu(), expected)
    assert method(world.model, world.x_test.numpy(), TARGET.numpy()).shape == tuple(world.x_test.shape)
