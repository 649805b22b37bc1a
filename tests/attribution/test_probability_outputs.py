"""Networks that end in a softmax or a sigmoid: their outputs are no logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin import (
    ArnoldiInfluence,
    DualView,
    EKFACInfluence,
    GradientSimilarity,
    InvalidValueError,
    RandomAttribution,
    TracIn,
    retrain_on_subsets,
)

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
TRAIN = TensorDataset(X, (X[:, 0] > 0).long())


def network(*end: nn.Module, n_outputs: int = 1) -> nn.Sequential:
    """A small network with this end behind its last linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_outputs), *end)


class Functional(nn.Module):
    """A sigmoid without a module, whose single column is squeezed away; tokens have no gradient, nor have weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(x)).squeeze(1)


@pytest.mark.parametrize(("model", "layer"), [(network(nn.Sigmoid()), "2"), (Functional(), "fc")])
@pytest.mark.parametrize("method", [DualView, RandomAttribution, GradientSimilarity])
def test_a_single_probability_is_refused(method: Any, model: nn.Module, layer: str) -> None:
    with pytest.raises(InvalidValueError, match=r"single output is a logit: take the sigmoid off.*torch\.logit"):
        method(model, layer, TRAIN, show_progress=False).attribute(X[:2])


def test_a_single_probability_taken_back_to_its_logit_is_explained() -> None:
    """As the refusal says: the same attributions as without the sigmoid, of the same decisions."""
    plain = DualView(network(), "2", TRAIN, show_progress=False)
    logit = {"forward": lambda model, batch: torch.logit(model(batch))}
    behind = DualView(network(nn.Sigmoid()), "2", TRAIN, show_progress=False, **logit)
    torch.testing.assert_close(behind.attribute(X), plain.attribute(X))


def test_a_single_logit_between_0_and_1_is_no_probability() -> None:
    """Nor is one behind a layer that has a sigmoid inside."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.fc = nn.Linear(4, 4), nn.Linear(4, 1)
            nn.init.zeros_(self.fc.weight)
            nn.init.constant_(self.fc.bias, 0.4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x * torch.sigmoid(self.gate(x)))

    DualView(Gated(), "fc", TRAIN, show_progress=False).attribute(X[:2])


@pytest.mark.parametrize("method", [TracIn, ArnoldiInfluence, EKFACInfluence])
def test_methods_of_losses_refuse_a_softmax(method: Any) -> None:
    model = network(nn.Softmax(dim=1), n_outputs=3)
    options = {"checkpoints": [model.state_dict()]} if method is TracIn else {}
    with pytest.raises(InvalidValueError, match=r"outputs are logits: take the softmax off.*log"):
        method(model, "2", TRAIN, show_progress=False, **options).attribute(X[:2])


def test_a_softmax_taken_back_to_its_logarithm_has_the_same_losses() -> None:
    log = {"forward": lambda model, batch: model(batch).log()}
    found = []
    for model, options in ((network(n_outputs=3), {}), (network(nn.Softmax(dim=1), n_outputs=3), log)):
        method = TracIn(model, "2", TRAIN, checkpoints=[model.state_dict()], show_progress=False, **options)
        found.append(method.attribute(X[:2], target=0))
    torch.testing.assert_close(*found)


def test_retrained_networks_must_give_logits(tmp_path: Any) -> None:
    with pytest.raises(InvalidValueError, match="outputs are logits, without a softmax"):
        retrain_on_subsets(
            lambda subset, seed: network(nn.Softmax(dim=1), n_outputs=2), TRAIN, X, [0] * 24, [0] * 24, folder=tmp_path
        )
