"""A context that undoes what a call writes into a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dualview_plugin.network.guest import restored


@contextmanager
def kept_weights(model: nn.Module) -> Iterator[nn.Module]:
    """The parameters and buffers have their values again afterwards, also after an error; so have the gradients.

    Captum's TracIn loads its checkpoints into the network that it was given, and leaves the last one there.

    Cost: memory for one copy of the weights.
    """
    values = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(parameter, parameter.grad, _clone(parameter.grad)) for parameter in model.parameters()]
    try:
        with restored(model):  # load_state_dict(assign=True) puts other tensors in their place
            yield model
    finally:
        for tensor, value in values:
            if not torch.equal(tensor.data, value):
                tensor.data.copy_(value)
        for parameter, gradient, content in gradients:
            parameter.grad = gradient
            if gradient is not None and content is not None:
                gradient.data.copy_(content)


def _clone(gradient: torch.Tensor | None) -> torch.Tensor | None:
    return None if gradient is None else gradient.detach().clone()
