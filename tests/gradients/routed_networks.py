"""Networks whose layers do not see one row for each sample in order, or whose tensors are overwritten."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence

N_SAMPLES, N_CLASSES, SIZE = 12, 3, 5


class Experts(nn.Module):
    """A mixture of experts: each sample goes through one of two layers."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(SIZE, 7, bias=bias), nn.Linear(SIZE, 7, bias=bias)
        self.fc = nn.Linear(7, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x[:, 0] > 0).nonzero()[:, 0], (x[:, 0] <= 0).nonzero()[:, 0]
        hidden = x.new_zeros(len(x), 7).index_add(0, left, self.left(x[left])).index_add(0, right, self.right(x[right]))
        return self.fc(torch.tanh(hidden))


class Adapter(nn.Module):
    """Some samples go through one layer more."""

    def __init__(self, select: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.adapter = nn.Linear(SIZE, 7), nn.Linear(7, 7, bias=False)
        self.fc = nn.Linear(7, N_CLASSES)
        self.select = select

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        rows = self.select(x).nonzero()[:, 0]
        return self.fc(hidden.index_add(0, rows, self.adapter(hidden[rows])))


class Sorted(nn.Module):
    """The layer sees the samples in the order of one feature."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(SIZE, 7), nn.Linear(7, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 1].argsort()
        return self.fc(torch.tanh(self.inner(x[order]))[order.argsort()])


class TokenExperts(nn.Module):
    """Each of several tokens may go to the expert: by chance as many as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.expert, self.fc = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=x.dtype)[:, None]
        rows = tokens.flatten(0, 1)
        chosen = (rows[:, 0] > rows[:, 1]).nonzero()[:, 0][::2]
        rows = rows.index_add(0, chosen, torch.tanh(self.expert(rows[chosen])))
        return self.fc(rows.view_as(tokens).square().sum(1))


class Packed(nn.Module):
    """A recurrent network on packed sequences of several lengths."""

    def __init__(self, recurrent: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Linear(1, 4)
        self.recurrent = recurrent(4, 5, batch_first=True)
        self.fc = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        lengths = 1 + (x[:, 0].abs() * 10).long() % SIZE
        packed = pack_padded_sequence(self.words(x[:, :, None]), lengths, batch_first=True, enforce_sorted=False)
        last = self.recurrent(packed)[1]
        return self.fc((last[0] if isinstance(last, tuple) else last)[-1])


class Scaled(nn.Module):
    """A parameter without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(SIZE, 7), nn.Linear(7, N_CLASSES)
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.inner(x))) * self.scale.exp()


class Writing(nn.Module):
    """The network writes to its own input, and perhaps to what a layer saw."""

    def __init__(self, to_layer_input: bool) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, N_CLASSES)
        self.to_layer_input = to_layer_input

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        hidden = self.inner(x)
        if self.to_layer_input:
            x *= 0
        return self.fc(torch.relu_(hidden))


class Squeezing(nn.Module):
    """A batch of one loses its axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(SIZE, 7), nn.Linear(7, N_CLASSES)
        self.squeezes = True

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x))
        return self.fc(hidden.squeeze() if self.squeezes else hidden)


class Functional(nn.Module):
    """Weights used without their modules, and a module's forward without its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Linear(SIZE, 7), nn.Linear(7, 7), nn.Linear(7, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(linear(x, self.first.weight, self.first.bias))
        return self.fc(torch.tanh(self.second.forward(hidden)))


class BatchSecond(nn.Module):
    """Attention with the batch as its second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Linear(1, 4)
        self.attention = nn.TransformerEncoderLayer(4, 2, 5)
        self.fc = nn.Linear(4, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(self.words(x.mT[:, :, None])).mean(0))


class SparseWords(nn.Module):
    """An embedding whose gradients are sparse, used as a function too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 7, sparse=True)
        self.fc = nn.Linear(7, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = (x.abs() * 10).long() % 11
        return self.fc(torch.tanh(self.words(rows)).sum(1) + self.words.weight[rows[:, 0]])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "experts": Experts,
    "experts with biases": lambda: Experts(bias=True),
    "adapter on few rows": lambda: Adapter(lambda x: x[:, 0] > 1),
    "adapter on the largest row": lambda: Adapter(lambda x: x[:, 0] == 0.875),
    "sorted": Sorted,
    "experts of tokens": TokenExperts,
    "packed LSTM": lambda: Packed(nn.LSTM),
    "packed GRU": lambda: Packed(nn.GRU),
    "scalar parameter": Scaled,
    "functional": Functional,
    "batch second": BatchSecond,
    "sparse embedding": SparseWords,
}


def make(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64, inputs, and classes."""
    inputs = torch.randn(N_SAMPLES, SIZE, dtype=torch.float64)
    inputs[2::4, 0] = 0.875
    return NETWORKS[name]().double().eval(), inputs, torch.arange(N_SAMPLES) % N_CLASSES
