"""Extraction, batches, the standardiser: values against direct computation, and nothing left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from torchvision.models import resnet18

from dualview_plugin.data import TestInputs, TrainingData
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.features import FeatureExtractor, Standardizer, training_features
from dualview_plugin.network import evaluating, preserved_random_state
from tests.worlds import N_CLASSES, N_FEATURES, N_TRAIN, small_world


def direct_features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """φ(x) written out for SmallNet in eval mode."""
    model.eval()
    return torch.relu(model.hidden(torch.relu(model.norm(model.conv(x))).flatten(1)))


@pytest.mark.parametrize("as_module", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, N_TRAIN, 100])
def test_features_are_the_layers_input(as_module: bool, batch_size: int) -> None:
    world = small_world()
    layer = world.model.fc if as_module else "fc"
    data = TrainingData(world.train, batch_size, "test")
    extracted = training_features(FeatureExtractor(world.model, layer), data)
    x, labels = world.train.tensors
    expected = direct_features(world.model, x)
    torch.testing.assert_close(extracted.features, expected.detach())
    torch.testing.assert_close(extracted.logits, world.model.fc(expected).detach())
    assert torch.equal(extracted.labels, labels)


def test_input_of_the_layer_is_flattened() -> None:
    model = nn.Sequential(nn.Conv2d(1, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(7, 3, 1), nn.Flatten())
    features, logits = FeatureExtractor(model, "2")(torch.randn(5, 1, 11, 13))
    assert features.shape == (5, 7)
    assert logits.shape == (5, 3)


def test_model_and_random_state_are_as_before() -> None:
    world = small_world()
    world.model.norm.eval()  # a mixed mode, which model.train() would not restore
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    training_features(FeatureExtractor(world.model, "fc"), TrainingData(world.train, 7, "test"))
    assert [module.training for module in world.model.modules()] == [True, True, False, True, True, True]
    assert not any(module._forward_pre_hooks for module in world.model.modules())
    assert all(torch.equal(before[name], value) for name, value in world.model.state_dict().items())
    assert all(parameter.grad is None for parameter in world.model.parameters())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


def test_model_is_as_before_after_an_error() -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match=r"such that the network takes them, got shape \(5, 2, 5, 3\)"):
        FeatureExtractor(world.model, "fc")(torch.randn(5, 2, 5, 3))
    assert world.model.training
    assert not world.model.fc._forward_pre_hooks


def test_evaluating_restores_after_an_error() -> None:
    model = small_world().model
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert all(module.training for module in model.modules())


def test_random_state_is_preserved_from_a_random_dataset() -> None:
    with preserved_random_state():
        before = torch.get_rng_state()
        with preserved_random_state():
            torch.randn(3)
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("nonsense", InvalidValueError, "final_fc_layer of Owner must be one of conv, norm, dropout, hidden, fc"),
        (nn.Linear(2, 3), InvalidValueError, "a module of the model"),
        (3, InvalidTypeError, "a module or its dotted name, got int"),
    ],
)
def test_unknown_layers_are_refused(layer: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FeatureExtractor(small_world().model, layer, "Owner")


def test_the_error_for_a_large_network_names_its_linear_layers() -> None:
    message = r"one of its \d+ modules, such as fc \(see model.named_modules\(\)\), got 'classifier'"
    with pytest.raises(InvalidValueError, match=message):
        FeatureExtractor(resnet18(num_classes=2), "classifier", "Owner")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_layer_that_gets_no_tensor_or_runs_no_hooks_is_refused() -> None:
    class FromPair(nn.Module):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return pair[0] + pair[1]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum = FromPair()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sum((x, x))

    with pytest.raises(InvalidValueError, match="a layer whose first input is a tensor, got tuple"):
        FeatureExtractor(Network(), "sum", "Owner")(torch.randn(5, 3))
    scripted = nn.Sequential(torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)))
    with pytest.raises(InvalidTypeError, match="final_fc_layer of Owner must be a layer that runs hooks"):
        FeatureExtractor(scripted, "0", "Owner")


def test_layer_without_flat_input_is_refused() -> None:
    extractor = FeatureExtractor(small_world().model, "conv")
    with pytest.raises(InvalidValueError, match=r"one flat feature vector for each sample, .* got 'conv' with input"):
        extractor(torch.randn(5, 2, 5, 7))


def test_layer_over_a_sequence_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 2), nn.Flatten())
    with pytest.raises(InvalidValueError, match=r"one flat feature vector"):
        FeatureExtractor(model, "1")(torch.randn(5, 11, 3))


def test_layer_that_runs_twice_is_refused() -> None:
    layer = nn.Linear(3, 3)
    with pytest.raises(InvalidValueError, match=r"exactly once in a forward pass.*, got '0' with 2 runs"):
        FeatureExtractor(nn.Sequential(layer, nn.ReLU(), layer), layer)(torch.randn(5, 3))


@pytest.mark.parametrize("label", [-1, N_CLASSES])
def test_labels_out_of_range_are_refused(label: int) -> None:
    world = small_world()
    x, labels = world.train.tensors
    labels = labels.clone()
    labels[11] = label
    data = TrainingData(TensorDataset(x, labels), 7, "Owner")
    with pytest.raises(InvalidValueError, match="labelled from 0 to 4, the classes of the model, got labels"):
        training_features(FeatureExtractor(world.model, "fc", "Owner"), data)


def test_features_that_are_not_finite_are_refused() -> None:
    world = small_world()
    x, labels = world.train.tensors
    x = x.clone()
    x[11] = torch.nan
    with pytest.raises(InvalidValueError, match="finite features and outputs, got NaN or inf at position 11"):
        training_features(FeatureExtractor(world.model, "fc"), TrainingData(TensorDataset(x, labels), 7, "Owner"))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda data: DataLoader(data, shuffle=True), InvalidValueError, "in a fixed order.*RandomSampler"),
        (lambda data: DataLoader(data, sampler=RandomSampler(data)), InvalidValueError, "in a fixed order"),
        (lambda data: DataLoader(data, batch_size=7, drop_last=True), InvalidValueError, "complete"),
        (lambda data: TensorDataset(data.tensors[0][:0], data.tensors[1][:0]), InvalidValueError, "not empty"),
        (lambda _: 3, InvalidTypeError, "a map-style Dataset"),
    ],
)
def test_training_data_in_no_fixed_order_are_refused(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainingData(make(small_world().train), 7, "Owner")


def test_datasets_without_integer_labels_are_refused() -> None:
    world = small_world()
    x, _ = world.train.tensors
    extractor = FeatureExtractor(world.model, "fc", "Owner")
    with pytest.raises(InvalidTypeError, match=r"\(input, label\) pairs, .*, got a list of Tensor"):
        training_features(extractor, TrainingData(TensorDataset(x), 7, "Owner"))
    with pytest.raises(InvalidValueError, match=r"one integer label for each sample; .*, got labels"):
        training_features(extractor, TrainingData(TensorDataset(x, torch.zeros(N_TRAIN)), 7, "Owner"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 19])
@pytest.mark.parametrize("loader_size", [None, 1, 4, 17])
def test_input_batches_are_the_inputs_in_order(size: int, loader_size: int | None) -> None:
    x = torch.arange(17.0)[:, None]
    inputs = x if loader_size is None else DataLoader(TensorDataset(x, x), batch_size=loader_size)
    batches = list(TestInputs(inputs, "Owner").batches(size))
    assert torch.equal(torch.cat(batches), x)
    assert all(len(batch) == size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= size


def test_standardizer_has_the_training_statistics() -> None:
    features = torch.randn(29, N_FEATURES) * torch.arange(N_FEATURES) + 3
    features[:, 4] = 0.1  # constant, and not exactly representable
    features[:, 0] = 0.0  # dead
    standardized = Standardizer.from_features(features)(features)
    alive = [m for m in range(N_FEATURES) if m not in (0, 4)]
    torch.testing.assert_close(standardized.mean(dim=0), torch.zeros(N_FEATURES), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized[:, alive].std(dim=0, correction=0), torch.ones(len(alive)))
    assert not standardized[:, [0, 4]].any()
    other = torch.randn(3, N_FEATURES)
    assert not Standardizer.from_features(features)(other)[:, [0, 4]].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_a_feature_that_is_constant_up_to_rounding_is_constant(dtype: torch.dtype, scale: float) -> None:
    """(6a + c) − 6a is c in exact arithmetic."""
    noise, constant = (6 * scale * torch.randn(29, dtype=torch.float64)).to(dtype), torch.tensor(scale, dtype=dtype)
    features = torch.stack([(noise + constant) - noise, noise], 1)
    assert len(features[:, 0].unique()) > 1
    precision = None if dtype in (torch.float32, torch.float64) else dtype
    features = features if precision is None else features.float()
    standardized = Standardizer.from_features(features, precision)(features)
    assert not standardized[:, 0].any()
    assert standardized[:, 1].std() > 0.9


def test_a_small_variation_far_above_rounding_is_kept() -> None:
    features = (1000 + 0.1 * torch.randn(29, 1)).float()
    assert float(Standardizer.from_features(features)(features).std()) == pytest.approx(1, rel=0.05)


def test_identity_standardizer_changes_nothing() -> None:
    features = torch.randn(5, N_FEATURES)
    assert torch.equal(Standardizer.identity(features)(features), features)
