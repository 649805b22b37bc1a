"""The logits of a batch, checked, from a network that may write to its input or squeeze a batch of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dualview_plugin.errors import InvalidValueError


@dataclass(frozen=True)
class Logits:
    """The map from a batch to its logits (n_samples, n_classes).

    Args:
        model: the network.
        owner: the class that asks, for error messages.
        doubles_single: pass a batch of one twice, for a network that squeezes its batch axis away.
        forward: what runs in place of the network, with other parameters.
    """

    model: nn.Module
    owner: str
    doubles_single: bool = False
    forward: Callable[[Tensor], object] | None = None

    def of(self, forward: Callable[[Tensor], object]) -> Logits:
        """The same around another forward pass."""
        return replace(self, forward=forward)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits of inputs (n_samples, …), which stay as they are.

        Raises:
            InvalidValueError: the output is no floating matrix with one row for each sample.
        """
        doubled = self.doubles_single and len(inputs) == 1
        batch = torch.cat([inputs, inputs]) if doubled else inputs.clone()
        outputs = (self.forward or self.model)(batch)
        if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(batch)):
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InvalidValueError("model", self.owner, "a network with outputs of shape (n_samples, n_classes)", got)
        if not outputs.is_floating_point():
            raise InvalidValueError("model", self.owner, "a network with floating outputs", str(outputs.dtype))
        return outputs[:1] if doubled else outputs
