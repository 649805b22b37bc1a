"""φ of a final layer that is applied at several positions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.features.head import pooled_features

X = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))  # five samples of four positions


class Everywhere(nn.Module):
    """A linear layer at each position, and what a function makes of its outputs."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.pool = nn.Linear(3, 7), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.fc(x))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (lambda y: y[:, 0], X[:, 0]),
        (lambda y: y[torch.arange(5), torch.arange(5) % 4], X[torch.arange(5), torch.arange(5) % 4]),
        (lambda y: y.mean(1), X.mean(1)),
        (lambda y: y[:, -1].double(), X[:, -1]),
    ],
)
def test_features_are_those_of_the_position_or_the_mean(pool: Callable[[Tensor], Tensor], expected: Tensor) -> None:
    features, logits = FeatureExtractor(Everywhere(pool), "fc")(X)
    torch.testing.assert_close(features, expected)
    assert logits.shape == (5, 7)


@pytest.mark.parametrize("pool", [lambda y: y.amax(1), lambda y: y.sum(1), lambda y: torch.relu(y).mean(1)])
def test_other_poolings_are_refused(pool: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InvalidValueError, match=r"one of them, or their mean, got 'fc' with input \(5, 4, 3\) for"):
        FeatureExtractor(Everywhere(pool), "fc")(X)


def test_positions_that_cannot_be_told_apart_have_one_input_or_none() -> None:
    same, other = X.clone(), X.clone()
    same[:, 3] = same[:, 1]
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.zero_()
    assert pooled_features(layer, other, layer(other), layer(other)[:, 1]) is None  # all outputs are one
    layer = nn.Linear(3, 2)
    found = pooled_features(layer, same, layer(same), layer(same)[:, 1])
    assert found is not None
    assert torch.equal(found, same[:, 1])


def test_a_convolution_of_one_pixel_has_the_mean() -> None:
    x = torch.randn(5, 3, 4, 6)
    model = nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.testing.assert_close(FeatureExtractor(model, "0")(x)[0], x.mean((2, 3)))
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InvalidValueError, match="one flat feature vector"):
        FeatureExtractor(model, "0")(x)
