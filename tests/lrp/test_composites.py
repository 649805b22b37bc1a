"""Composites by name get the canonizers that the network needs."""

from __future__ import annotations

import pytest
from torch import nn
from torchvision.models import resnet18, resnet50, vgg11_bn
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus, EpsilonPlusFlat
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.lrp import FunctionRules, named_composite, propose_canonizers
from dualview_plugin.lrp.canonizers import MergeBatchNorms


def small_vgg_bn():
    """torchvision's VGG without the time that its initialisation takes."""
    return vgg11_bn(init_weights=False)


class LlamaRMSNorm(nn.Module):
    """A norm that is no layer of torch; libraries call theirs so."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (resnet18, [MergeBatchNorms, ResNetBasicBlockCanonizer]),
        (resnet50, [MergeBatchNorms, ResNetBottleneckCanonizer]),
        (small_vgg_bn, [MergeBatchNorms]),
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU()), [MergeBatchNorms]),
        (lambda: nn.Sequential(nn.Conv2d(3, 5, 2), nn.GroupNorm(1, 5)), [FunctionRules]),
        (lambda: nn.TransformerEncoderLayer(4, 2), [FunctionRules]),
        (lambda: nn.Sequential(nn.Linear(3, 5), LlamaRMSNorm()), [FunctionRules]),
        (lambda: resnet18(norm_layer=lambda n: nn.GroupNorm(8, n)), [ResNetBasicBlockCanonizer, FunctionRules]),
        (lambda: nn.Linear(3, 5), []),
    ],
    ids=[
        "resnet18",
        "resnet50",
        "vgg11_bn",
        "norm behind linear",
        "group norm",
        "transformer",
        "rms norm by name",
        "group norm resnet",
        "linear",
    ],
)
def test_proposed_canonizers(model, expected):
    assert [type(canonizer) for canonizer in propose_canonizers(model())] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("epsilon_plus", {}, EpsilonPlus),
        ("epsilon_plus_flat", {"zero_params": "bias", "epsilon": 0.1}, EpsilonPlusFlat),
        ("epsilon_alpha2_beta1", {}, EpsilonAlpha2Beta1),
        ("epsilon_gamma_box", {"low": -1.0, "high": 2.0}, EpsilonGammaBox),
    ],
)
def test_composites_by_name(name, options, expected):
    composite = named_composite(name, small_vgg_bn(), **options)
    assert type(composite) is expected
    assert [type(canonizer) for canonizer in composite.canonizers] == [MergeBatchNorms]


@pytest.mark.parametrize("softmax", ["taylor", "constant"])
def test_the_softmax_of_the_callers_choice(softmax):
    (canonizer,) = named_composite("epsilon_plus", nn.TransformerEncoderLayer(4, 2), softmax).canonizers
    assert canonizer.softmax == softmax


def test_canonizers_of_the_callers_choice():
    assert named_composite("epsilon_plus", small_vgg_bn(), canonizers=[]).canonizers == []


def test_unknown_names_and_wrong_options_are_refused():
    with pytest.raises(InvalidValueError, match=r"name of named_composite must be one of .*, got 'lrp'"):
        named_composite("lrp", nn.Linear(3, 5))
    with pytest.raises(InvalidTypeError, match=r"options of named_composite must be what 'epsilon_gamma_box' takes"):
        named_composite("epsilon_gamma_box", nn.Linear(3, 5))
