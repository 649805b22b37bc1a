"""Probabilities in the place of logits: a softmax or a sigmoid at the end of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The sum of a softmax's row in bfloat16 is off by less.
_TOLERANCE = 0.02


def are_probabilities(outputs: Tensor) -> bool:
    """Whether the rows (n, n_classes) of all samples are positive and add up to one, as a softmax's do."""
    if len(outputs) == 0 or outputs.shape[1] < 2 or float(outputs.min()) < 0:
        return False
    tolerance = _TOLERANCE if outputs.dtype in (torch.float16, torch.bfloat16) else 1e-4
    return bool(((outputs.sum(dim=1) - 1).abs() < tolerance).all())


def end_in_sigmoid(outputs: Callable[[], Tensor]) -> bool:
    """Whether the outputs that a call returns are the values of a sigmoid that it computed."""
    with _Sigmoids() as sigmoids:
        found = outputs()
    flat = found.flatten().to(torch.float32)
    return any(
        values.numel() == flat.numel() and torch.equal(values.flatten().to(torch.float32), flat)
        for values in sigmoids.values
    )


class _Sigmoids(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what every sigmoid returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.sigmoid.default, torch.ops.aten.sigmoid_.default):
            self.values.append(result)
        return result
