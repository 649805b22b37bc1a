"""Relevance is conserved on torchvision's networks, with the proposed canonizers and biases set aside."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18, vgg11_bn

from dualview_plugin.errors import ConservationWarning
from dualview_plugin.lrp import PairwiseRelevance, RelevantPairs, named_composite
from tests.lrp.kernel_world import DrawnKernel, images

N_CLASSES, N_TRAIN, N_TEST, SHAPE = 5, 7, 2, (3, 32, 32)
X_TEST = images(N_TEST, SHAPE, seed=1).float()


@cache
def trained_like(name: str) -> nn.Module:
    """torchvision's network with random weights, and batch norms as after training: statistics of images, shifts."""
    torch.manual_seed(0)
    make, options = {"resnet18": (resnet18, {}), "vgg11_bn": (vgg11_bn, {"init_weights": False})}[name]
    model = make(num_classes=N_CLASSES, **options)
    if name == "vgg11_bn":  # as deep, and less wide
        for index, (n_inputs, n_outputs) in {0: (512 * 49, 128), 3: (128, 128), 6: (128, N_CLASSES)}.items():
            model.classifier[index] = nn.Linear(n_inputs, n_outputs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        model(images(N_TRAIN, SHAPE).float())
    return model


@cache
def strongest_pairs(name: str, standardize: bool) -> tuple[DrawnKernel, RelevantPairs]:
    """The strongest pair of each test image, and the method."""
    layer = {"resnet18": "fc", "vgg11_bn": "classifier.6"}[name]
    train = TensorDataset(images(N_TRAIN, SHAPE).float(), torch.arange(N_TRAIN) % N_CLASSES)
    method = DrawnKernel(trained_like(name), layer, train, standardize=standardize)
    composite = named_composite("epsilon_plus_flat", method.model, zero_params="bias")
    return method, PairwiseRelevance(method, composite).attribute(X_TEST, k=1)


@pytest.mark.parametrize(
    ("name", "standardize"),
    [("resnet18", False), *(pytest.param("vgg11_bn", value, marks=pytest.mark.slow) for value in (False, True))],
    ids=str,
)
def test_conservation_on_torchvision(name: str, standardize: bool) -> None:
    _, pairs = strongest_pairs(name, standardize)
    torch.testing.assert_close(pairs.conservation, torch.ones(N_TEST, 1, 2), rtol=0, atol=0.05)


def test_shares_of_units_behind_a_pooling_of_zeros_are_what_is_lost() -> None:
    method, pairs = strongest_pairs("resnet18", True)
    features = method.extractor(X_TEST)[0].detach()
    train_features = method.extractor(method.training_inputs(pairs.train_indices))[0].detach()
    shares = method.feature_shares(features, pairs.target, pairs.train_indices)[:, 0]
    for own, relevance in ((features, pairs.test_relevance), (train_features, pairs.train_relevance)):
        assert (own == 0).any()
        expected = (shares * (own > 0)).sum(dim=1)
        scale = shares.abs().sum(dim=1)
        torch.testing.assert_close(_total(relevance) / scale, expected / scale, rtol=0, atol=0.02)


def test_without_its_canonizer_a_resnet_multiplies_relevance() -> None:
    method, canonized = strongest_pairs("resnet18", False)
    bare = named_composite("epsilon_plus_flat", method.model, zero_params="bias", canonizers=[])
    far_off = pytest.warns(ConservationWarning, match="2 of 2 heatmaps: 256 to 256 times")
    with far_off, pytest.warns(ConservationWarning, match="in 8 place"):
        pairs = PairwiseRelevance(method, bare).attribute(X_TEST[:1], k=1)
    torch.testing.assert_close(pairs.attribution, canonized.attribution[:1], rtol=1e-3, atol=0)
    assert (pairs.conservation > 50).all()  # one doubling in each of 8 blocks


def _total(relevance: Tensor) -> Tensor:
    return relevance.flatten(start_dim=1).sum(dim=1)
