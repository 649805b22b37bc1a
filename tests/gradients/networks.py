"""Networks for the gradient suites: layers with a rule, reasons for the fallback, ways to share parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

N_SAMPLES, N_CLASSES = 7, 5


def _images(*shape: int) -> Tensor:
    return torch.randn(N_SAMPLES, *shape, dtype=torch.float64)


class Tied(nn.Module):
    """Convolution, batch norm, biases, a linear layer that runs twice at several positions, an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, stride=2)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.tied = nn.Linear(11, 11)
        self.fc = nn.Linear(33, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x))).flatten(2)
        return self.fc(self.tied(self.relu(self.tied(x))).flatten(1))


class TiedLarge(nn.Module):
    """A linear layer large enough for outer products, used twice, and once more as another module's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(29, 29), nn.Linear(29, 29, bias=False)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(29, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.fc(self.second(torch.tanh(self.first(x))))


class FunctionalUse(nn.Module):
    """A layer that runs as a module once and whose weight a function uses besides."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(13, 13)
        self.fc = nn.Linear(13, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(functional.linear(torch.tanh(self.shared(x)), self.shared.weight))


class Words(nn.Module):
    """Embeddings, one of them the output layer's weight too, with padding and a layer norm."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(N_CLASSES, 3, padding_idx=1)
        self.places = nn.Embedding(997, 3)
        self.norm = nn.LayerNorm(3)
        self.fc = nn.Linear(3, N_CLASSES)
        if tied:
            self.fc.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x % N_CLASSES) + self.places(x)
        return self.fc(torch.tanh(self.norm(x)).mean(1))


class SequenceFirst(nn.Module):
    """A linear layer that sees the sequence along its first axis, of the same length as the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(3, 3)
        self.fc = nn.Linear(3, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.step(x.transpose(0, 1))).transpose(0, 1).square().mean(1))


class Recurrent(nn.Module):
    """An LSTM, whose parameters vmap reaches in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.fc = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class _Cube(torch.autograd.Function):
    """x³ w, an operation without a batching rule."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x**3 * weight

    @staticmethod
    def backward(ctx, delta: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return 3 * x**2 * weight * delta, (x**3 * delta).sum(0)


class Custom(nn.Module):
    """A parameter of the network's own, in an operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(13))
        self.unused = nn.Linear(2, 3)
        self.fc = nn.Linear(13, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(_Cube.apply(x, self.scale))


class Attention(nn.Module):
    """A transformer layer: parameters of its own, modules that it uses as functions, and plain linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 13, batch_first=True)
        self.fc = nn.Linear(6, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x).mean(1))


def _convolutions(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.LazyLinear(N_CLASSES))


def _normalised() -> nn.Module:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(13, 11))
    return nn.Sequential(linear, nn.PReLU(), nn.GroupNorm(1, 11), nn.BatchNorm1d(11), nn.Linear(11, N_CLASSES))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Sequence[int]]] = {
    "tied": (Tied, (2, 3, 23)),
    "tied large": (TiedLarge, (29,)),
    "functional use": (FunctionalUse, (13,)),
    "sequence first": (SequenceFirst, (N_SAMPLES, 3)),
    "recurrent": (Recurrent, (11, 3)),
    "custom": (Custom, (13,)),
    "attention": (Attention, (11, 6)),
    "weight norm, PReLU, norms": (_normalised, (13,)),
    "grouped, circular": (
        _convolutions(nn.Conv2d(2, 4, 3, padding="same", groups=2, padding_mode="circular")),
        (2, 7, 5),
    ),
    "dilated, strided": (_convolutions(nn.Conv2d(2, 3, (3, 2), (1, 2), (2, 1), (1, 2))), (2, 7, 5)),
    "even kernel, same": (_convolutions(nn.Conv1d(2, 3, 4, padding="same", dilation=2)), (2, 17)),
    "volume": (_convolutions(nn.Conv3d(2, 3, 2, padding=1, padding_mode="replicate")), (2, 3, 5, 7)),
    "dilated, large planes": (_convolutions(nn.Conv2d(3, 4, (3, 2), padding=(1, 2), dilation=(2, 1))), (3, 9, 6)),
    "wide convolution": (_convolutions(nn.Conv1d(13, 31, 3)), (13, 5)),
    "transposed": (_convolutions(nn.ConvTranspose2d(2, 3, 2)), (2, 5, 3)),
}


def make(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64 with running statistics and weights that are not the defaults, inputs, and classes."""
    if name.startswith("words"):
        model: nn.Module = Words(tied=name == "words tied").double()
        inputs = torch.randint(2, 997, (N_SAMPLES, 11))
        inputs[:, 0] = 1
    else:
        factory, shape = NETWORKS[name]
        inputs, model = _images(*shape), factory().double()
        model.train()(inputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval(), inputs, torch.arange(N_SAMPLES) % N_CLASSES


NAMES = [*NETWORKS, "words", "words tied"]


def gradient_by_gradient(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """All gradients (n_samples, n_parameters), by one backward pass for each sample alone."""
    rows = []
    for sample, label in zip(inputs, target, strict=True):
        model.zero_grad()
        model(sample[None])[0, label].backward()
        rows.append(
            torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in model.parameters()])
        )
    model.zero_grad()
    return torch.stack(rows)
