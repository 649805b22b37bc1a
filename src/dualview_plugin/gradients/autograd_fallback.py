"""Gradients by automatic differentiation of one sample at a time, for what no rule covers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


def vectorised_gradients(model: nn.Module, chosen: Mapping[str, Tensor], inputs: Tensor, target: Tensor) -> Tensor:
    """Gradients (n_samples, n_elements) in the chosen parameters, one sample's network mapped over the batch."""

    def logit(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, parameters, (sample[None].clone(),))
        return outputs.gather(1, label[None, None]).sum()

    held = {name: parameter.detach() for name, parameter in chosen.items()}
    # The other parameters require gradients, and would make the result part of a graph.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because we have not yet")
        gradients = vmap(grad(logit), in_dims=(None, 0, 0))(held, inputs, target)
    return torch.cat([gradients[name].flatten(1) for name in chosen], 1)


def looped_gradients(model: nn.Module, chosen: Sequence[Tensor], inputs: Tensor, target: Tensor) -> Tensor:
    """Gradients (n_samples, n_elements) in the chosen parameters, one backward pass per sample."""
    rows = []
    for sample, label in zip(inputs, target, strict=True):
        gradients = sample_gradients(model, chosen, sample, label)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def sample_gradients(
    model: nn.Module, chosen: Sequence[Tensor], sample: Tensor, label: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Gradients of one sample's logit, zero in parameters that it does not depend on."""
    logit = model(sample[None].clone()).gather(1, label[None, None]).sum()
    return torch.autograd.grad(logit, chosen, create_graph=create_graph, allow_unused=True, materialize_grads=True)
