"""Under a composite a network must compute what it computes without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

N_PROBES = 2  # samples for the comparison
# Largest difference relative to the largest value. A canonizer that leaves out eps = 1e-5 in each of 50 batch norms is
# off by less in single precision; a batch norm merged where it does not belong is off by much more.
_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}


def relative_difference(found: Tensor, expected: Tensor, computed_in: torch.dtype | None = None) -> float:
    """The largest difference relative to the largest expected value, if it is beyond rounding, else 0.

    Args:
        found: what is compared.
        expected: with what, likewise.
        computed_in: the type whose rounding counts; None: their own.
    """
    if found.shape != expected.shape:
        return torch.inf
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found - expected).abs().max()) if expected.numel() else 0.0
    relative = error / scale if scale else error
    return relative if not relative <= _TOLERANCE.get(computed_in or expected.dtype, 1e-3) else 0.0


@contextmanager
def recorded_outputs(model: nn.Module) -> Iterator[dict[Any, Tensor]]:
    """The outputs of modules in the block by (name, run), in order, without the graph."""
    outputs: dict[Any, Tensor] = {}
    runs: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():

        def record(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
            runs[name] = runs.get(name, 0) + 1
            if isinstance(output, Tensor):
                outputs[name, runs[name]] = output.detach().clone()

        handles.append(module.register_forward_hook(record))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def responsible_layers(with_rules: dict[Any, Tensor], without: dict[Any, Tensor]) -> str:
    """The first modules of the last stretch where outputs differ: a merge that the next layer makes good is none."""
    names: list[str] = []
    for key, expected in without.items():
        if key not in with_rules:
            continue
        if relative_difference(with_rules[key], expected):
            names.append(key[0] or "the network itself")
        else:
            names.clear()
    return ", ".join(map(repr, dict.fromkeys(names[:3]))) or "none that is a module"
