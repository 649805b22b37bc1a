"""The last layer is found, and is taken only if it alone gives the network's outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.errors import DualViewError
from dualview_plugin.last_layer import LinearLayer

N_SAMPLES, N_FEATURES, N_CLASSES = 7, 11, 5


def caught(model: nn.Module, name: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What flows into the layer, flattened, and the network's outputs."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1)))
    with torch.no_grad():
        logits = model.eval()(inputs)
    handle.remove()
    return seen[0], logits


def last_of(model: nn.Module, name: str, dtype: torch.dtype = torch.float32) -> tuple[LinearLayer, Tensor, Tensor]:
    features, logits = caught(model.to(dtype), name, torch.randn(N_SAMPLES, 3, dtype=dtype))
    return LinearLayer.last_of(model, name, features, logits, "Method"), features, logits


def network(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, N_FEATURES), nn.ReLU(), *head)


def linear(**options: bool) -> nn.Linear:
    return nn.Linear(N_FEATURES, N_CLASSES, **options)


class Scaled(nn.Linear):
    """A linear layer with a temperature."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3.0


class Cosine(nn.Linear):
    """A classifier by angles."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Times(nn.Module):
    """A scale behind the layer."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "no bias": lambda: linear(bias=False),
    "dropout and linear": lambda: nn.Sequential(nn.Dropout(), linear()),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(linear()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (-1, 1, 1)), nn.Conv2d(N_FEATURES, N_CLASSES, 1), nn.Flatten()
    ),
}


@pytest.mark.parametrize("head", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_layer_is_found_in_double_precision(head: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    layer, features, logits = last_of(network(head()), "2", dtype)
    assert layer.weight.dtype == layer.bias.dtype == layer(features).dtype == torch.float64
    torch.testing.assert_close(layer(features), logits.double(), rtol=5 * torch.finfo(dtype).eps, atol=5e-2)


WRONG: dict[str, tuple[nn.Module, str]] = {
    "softmax": (network(linear(), nn.Softmax(1)), "2"),
    "log softmax": (network(linear(), nn.LogSoftmax(1)), "2"),
    "scale": (network(linear(), Times(1.5)), "2"),
    "temperature": (network(Scaled(N_FEATURES, N_CLASSES)), "2"),
    "cosine": (network(Cosine(N_FEATURES, N_CLASSES, bias=False)), "2"),
    "activation before it": (network(nn.Sequential(nn.Tanh(), linear())), "2"),
    "another layer behind it": (network(linear(), nn.ReLU(), nn.Linear(N_CLASSES, N_CLASSES)), "2"),
    "no layer in it": (network(nn.Flatten(), linear()), "2"),
}


@pytest.mark.parametrize(("model", "name"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_anything_else_is_refused(model: nn.Module, name: str, dtype: torch.dtype) -> None:
    with pytest.raises(DualViewError, match="final_fc_layer of Method must be the linear layer whose outputs"):
        last_of(model, name, dtype)


def test_the_message_names_the_layer_that_is_meant() -> None:
    model = network(nn.Sequential(nn.Linear(N_FEATURES, 3), nn.ReLU(), nn.Linear(3, N_CLASSES)))
    for name in ("2", "2.0"):
        with pytest.raises(DualViewError, match=f"got '{name}'; the last one with 5 outputs is '2.2'"):
            last_of(model, name)
    with pytest.raises(DualViewError, match="got '2', whose outputs are other ones; take off the softmax"):
        last_of(network(linear(), nn.Softmax(1)), "2")
