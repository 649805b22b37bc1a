"""The logits of a batch, from a network that may write to its input or squeeze a batch of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch, concatenated, mapped, n_rows
from dualview_plugin.network import Caller


@dataclass(frozen=True)
class Logits:
    """The map from a batch to its logits (n_samples, n_classes).

    Args:
        call: how the network is called.
        doubles_single: pass a batch of one twice, for a network that squeezes its batch axis away.
    """

    call: Caller
    doubles_single: bool = False

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.call.model

    @property
    def owner(self) -> str:
        """The class that asks, for error messages."""
        return self.call.owner

    def __call__(self, inputs: Batch, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of inputs (n_samples, …), which stay as they are; with other parameters, by name, if given.

        Raises:
            InvalidValueError: the network does not take the inputs, or its output is no floating matrix with one row
                for each sample.
        """
        doubled = self.doubles_single and n_rows(inputs) == 1
        batch = concatenated([inputs, inputs]) if doubled else mapped(torch.clone, inputs)
        if parameters is None:
            with self.call.taking(inputs, "samples"):
                logits = self.call(batch)
        else:
            logits = self.call.with_parameters(parameters, batch)
        return logits[:1] if doubled else logits
