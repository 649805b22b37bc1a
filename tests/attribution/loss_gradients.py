"""Gradients of an output by autograd, one sample at a time, in double precision: the oracles' common part."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Output = Callable[[Tensor, Tensor], Tensor]


def log_probability(logits: Tensor, label: Tensor) -> Tensor:
    return logits.log_softmax(0)[label]


def margin(logits: Tensor, label: Tensor) -> Tensor:
    others = torch.arange(len(logits)) != label
    return logits[label] - logits[others].logsumexp(0)


def gradients(model: nn.Module, output: Output, x: Tensor, labels: Tensor, names: list[str] | None = None) -> Tensor:
    """∇_θ of the output at each sample, (n, n_parameters), in the parameters of these names."""
    network = copy.deepcopy(model).double().eval()
    chosen = [p for name, p in network.named_parameters() if names is None or name in names]
    rows = []
    for sample, label in zip(x.double(), labels, strict=True):
        value = output(network(sample[None])[0], label)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, chosen)]))
    return torch.stack(rows)
