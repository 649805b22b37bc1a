"""The output of a layer as a point at which a forward pass is differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dualview_plugin.errors import InvalidTypeError, InvalidValueError


@contextmanager
def differentiable_at(model: nn.Module, layer: str, owner: str) -> Iterator[list[Tensor]]:
    """A list of the layer's outputs in the block, each a point in the graph by which autograd can differentiate.

    Raises:
        InvalidTypeError: an output is no floating tensor.
    """
    points: list[Tensor] = []

    def catch(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not (isinstance(output, Tensor) and output.is_floating_point()):
            got = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
            raise InvalidTypeError("at", owner, "a layer whose output is a floating tensor", f"{layer!r} with {got}")
        points.append(output if output.requires_grad else output.detach().requires_grad_())
        return points[-1].clone()  # which what follows may overwrite

    handle = model.get_submodule(layer).register_forward_hook(catch)
    try:
        yield points
    finally:
        handle.remove()


def only_point(points: list[Tensor], layer: str, owner: str) -> Tensor:
    """The output of a layer that ran once.

    Raises:
        InvalidValueError: it ran more than once or not at all.
    """
    if len(points) != 1:
        constraint = "a layer that runs exactly once in a forward pass"
        raise InvalidValueError("at", owner, constraint, f"{layer!r} with {len(points)} runs")
    return points[0]
