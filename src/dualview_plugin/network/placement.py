"""Where a network lives, and in which precision it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch, mapped


def coarsest_type(model: nn.Module) -> torch.dtype | None:
    """The floating type of the parameters with the fewest digits; None without any."""
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return max(types, key=lambda dtype: torch.finfo(dtype).eps, default=None)


@dataclass(frozen=True)
class Placement:
    """Device and precision of a network, and the way of a batch to it.

    Attributes:
        device: of the parameters; the CPU without any.
        dtype: the floating type that all floating parameters share; None if they differ or there are none.
    """

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def of(cls, model: nn.Module) -> Placement:
        """The placement of a network as it is now."""
        tensors = [*model.parameters(), *model.buffers()]
        dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
        device = tensors[0].device if tensors else torch.device("cpu")
        return cls(device, dtypes.pop() if len(dtypes) == 1 else None)

    @overload
    def __call__(self, batch: Tensor) -> Tensor: ...

    @overload
    def __call__(self, batch: Batch) -> Batch: ...

    def __call__(self, batch: Batch) -> Batch:
        """The batch on the device; floating values in the network's type, integers as they are."""
        placed: Batch = mapped(self._placed, batch)
        return placed

    def _placed(self, tensor: Tensor) -> Tensor:
        convert = tensor.is_floating_point() and self.dtype is not None
        placed = tensor.to(self.device, self.dtype) if convert else tensor.to(self.device)
        return placed.clone() if placed.is_inference() else placed  # a tensor that gradients can flow to
