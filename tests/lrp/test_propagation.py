"""A pass of LRP leaves the network as it was, and says so when sums of branches are not under a rule."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus
from zennit.core import Composite, Hook
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer

from dualview_plugin.errors import ConservationWarning
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp import named_composite
from dualview_plugin.lrp.propagation import propagate
from tests.worlds import N_CLASSES, N_FEATURES, SmallNet, small_world

BARE_SUM = pytest.warns(ConservationWarning, match="adds branches in")


def identity(features: torch.Tensor) -> torch.Tensor:
    return features


def snapshot(model: nn.Module) -> dict[str, object]:
    """What must not change: values, modes, attributes and hooks of every module."""
    state: dict[str, object] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        state[f"{name} mode"], state[f"{name} attributes"] = module.training, sorted(vars(module))
        state[f"{name} hooks"] = [list(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks")]
        state[f"{name} parameters"] = {key: id(value) for key, value in module._parameters.items()}
        state[f"{name} gradients"] = [parameter.grad for parameter in module.parameters()]
    return state


def assert_same(model: nn.Module, before: dict[str, object]) -> None:
    after = snapshot(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
        assert same, name


class _Failing(Hook):
    """Fails in the backward pass."""

    def backward(self, module, grad_input, grad_output):
        raise RuntimeError("in the middle")


class _FailingCanonizer(SequentialMergeBatchNorm):
    """Merges, and then fails before anything could know what there is to undo."""

    def apply(self, root_module):
        super().apply(root_module)
        root_module.fc.forward = None
        root_module.extra = nn.Linear(2, 3)
        raise RuntimeError("half-way")


def test_the_network_is_as_before():
    world = small_world()
    world.model.fc.register_forward_hook(lambda *_: None)
    world.model.hidden.weight.requires_grad_(False)
    world.model.norm.eval()
    before = snapshot(world.model)
    composite = EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])
    propagate(FeatureExtractor(world.model, "fc"), world.x_test, identity, composite)
    assert_same(world.model, before)
    assert not composite.handles


@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.ConservationWarning")
@pytest.mark.parametrize(
    "composite",
    [
        Composite(lambda ctx, name, module: _Failing() if name == "hidden" else None, [SequentialMergeBatchNorm()]),
        EpsilonPlus(canonizers=[_FailingCanonizer()]),
        Composite(lambda ctx, name, module: 1 / 0 if name == "hidden" else Hook()),
    ],
    ids=["in the backward pass", "in a canonizer", "in the mapping"],
)
def test_the_network_is_as_before_after_an_exception_in_the_middle(composite):
    world = small_world()
    before, expected = snapshot(world.model), copy.deepcopy(world.model).eval()(world.x_test)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        propagate(FeatureExtractor(world.model, "fc"), world.x_test, identity, composite)
    assert_same(world.model, before)
    torch.testing.assert_close(world.model.eval()(world.x_test), expected)


def test_a_resnet_is_as_before():
    model = resnet18()
    before = snapshot(model)
    propagate(
        FeatureExtractor(model, "fc"), torch.rand(2, 3, 33, 33), identity, EpsilonPlus(canonizers=[ResNetCanonizer()])
    )
    assert_same(model, before)


def test_a_transformer_is_as_before():
    model = nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(18, 3))
    model[0].norm1.weight.requires_grad_(False)
    before, needed = snapshot(model), [parameter.requires_grad for parameter in model.parameters()]
    propagate(FeatureExtractor(model, "2"), torch.rand(2, 3, 6), identity, named_composite("epsilon_plus", model))
    assert_same(model, before)
    assert [parameter.requires_grad for parameter in model.parameters()] == needed


def test_without_rules_it_is_the_gradient():
    world = small_world()
    start = torch.randn(len(world.x_test), N_FEATURES)
    found = propagate(FeatureExtractor(world.model, "fc"), world.x_test, lambda _: start, Composite())
    point = world.x_test.clone().requires_grad_()
    features, _ = FeatureExtractor(world.model, "fc")(point)
    (expected,) = torch.autograd.grad((features * start).sum(), point)
    torch.testing.assert_close(found, expected)


def test_the_final_layer_takes_no_part():
    world = small_world()
    found = propagate(FeatureExtractor(world.model, "fc"), world.x_test, identity, EpsilonPlus())
    world.model.fc = nn.Linear(N_FEATURES, N_CLASSES)
    again = propagate(FeatureExtractor(world.model, "fc"), world.x_test, identity, EpsilonPlus())
    torch.testing.assert_close(found, again)


class _Residual(SmallNet):
    """One residual sum, made in one of four ways; a shift by a parameter is none."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.sum, self.shift = how, Sum(), nn.Parameter(torch.ones(N_FEATURES))

    def forward(self, x):
        hidden = torch.relu(self.hidden(torch.relu(self.norm(self.conv(x))).flatten(1))) + self.shift
        if self.how == "plus":
            hidden = hidden + torch.relu(hidden - 1)
        elif self.how == "minus":
            hidden = hidden - 0.5 * hidden
        elif self.how == "unhooked sum":
            hidden = Sum()(torch.stack([hidden, hidden.clone()], dim=-1))
        elif self.how == "hooked sum":
            hidden = self.sum(torch.stack([hidden, hidden.clone()], dim=-1))
        return self.fc(hidden)


@pytest.mark.filterwarnings("ignore:the network multiplies by constants")
@pytest.mark.parametrize("how", ["plus", "minus", "unhooked sum"])
def test_bare_sums_are_reported(how):
    with BARE_SUM:
        propagate(FeatureExtractor(_Residual(how), "fc"), small_world().x_test, identity, EpsilonPlus())


@pytest.mark.parametrize("how", ["none", "hooked sum"])
def test_other_sums_are_not_reported(how):
    propagate(FeatureExtractor(_Residual(how), "fc"), small_world().x_test, identity, EpsilonPlus())


def test_a_resnet_without_its_canonizer_is_reported():
    model = resnet18()
    n_sums = sum(isinstance(module, BasicBlock) for module in model.modules())
    with pytest.warns(ConservationWarning, match=f"in {n_sums} place"):
        propagate(FeatureExtractor(model, "fc"), torch.rand(1, 3, 33, 33), identity, EpsilonPlus())
