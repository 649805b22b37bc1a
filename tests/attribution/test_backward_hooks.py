"""Hooks that clip or scale gradients serve a training: attributions are without them, and they stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin import (
    TRAK,
    ArnoldiInfluence,
    DualView,
    EKFACInfluence,
    GradCos,
    GradientSimilarity,
    InfluenceFunctions,
    ProjectedGradientSimilarity,
    TracIn,
)

METHODS: list[tuple[Any, dict[str, Any]]] = [
    (GradientSimilarity, {}),
    (GradCos, {}),
    (ProjectedGradientSimilarity, {"n_components": 4}),
    (TracIn, {}),
    (TRAK, {"n_components": 4, "damping": 0.1}),
    (ArnoldiInfluence, {"n_components": 4}),
    (EKFACInfluence, {}),
    (InfluenceFunctions, {}),
]
DATA = TensorDataset(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
X = DATA.tensors[0][:2] + 0.1


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_gradients_are_exact_behind_hooks_that_change_them(method: Any, options: dict[str, Any]) -> None:
    hooked, calls = network(), []

    def clipped(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient.clamp(-0.1, 0.1)

    for parameter in hooked.parameters():
        parameter.register_hook(clipped)
    hooked[1].register_full_backward_hook(lambda _, gradients, __: tuple(gradient / 2 for gradient in gradients))
    hooked[2].register_full_backward_pre_hook(lambda _, gradients: tuple(gradient * 3 for gradient in gradients))
    found, expected = (
        method(model, "2", DATA, show_progress=False, **options).attribute(X, 0) for model in (hooked, network())
    )
    assert torch.equal(found, expected)
    assert not calls
    hooked(X).sum().backward()
    assert len(calls) == 4
    assert [len(module._backward_hooks) + len(module._backward_pre_hooks) for module in hooked] == [0, 1, 1]


def test_input_maps_are_exact_behind_hooks_too() -> None:
    hooked = network()
    hooked[0].register_full_backward_hook(lambda _, gradients, __: tuple(gradient / 2 for gradient in gradients))
    maps = [
        DualView(model, "2", DATA, C=0.1, show_progress=False).input_attribution(X, 0) for model in (hooked, network())
    ]
    assert torch.equal(*maps)
