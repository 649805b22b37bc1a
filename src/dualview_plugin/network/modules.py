"""The network as a module: what is taken, and what it decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError
from dualview_plugin.network.guest import guest
from dualview_plugin.network.placement import Placement


def checked_model(model: Any, owner: str) -> nn.Module:
    """The network itself; of a compiled one the original, which shares its weights and runs hooks.

    Raises:
        InvalidTypeError: no module, one in TorchScript, which runs no hooks, or one of torch.export.
        InvalidValueError: parameters that have no values yet, or that were made in inference mode.
    """
    if type(model).__name__ == "OptimizedModule" and isinstance(getattr(model, "_orig_mod", None), nn.Module):
        model = model._orig_mod
    if not isinstance(model, nn.Module):
        raise InvalidTypeError("model", owner, "a torch.nn.Module", type(model).__name__)
    if isinstance(model, torch.jit.ScriptModule):
        constraint = "the module itself, before torch.jit.script or torch.jit.trace: TorchScript runs no hooks"
        raise InvalidTypeError("model", owner, constraint, type(model).__name__)
    if any(base.__module__.startswith("torch.export") for base in type(model).__mro__):
        constraint = "the module itself, before torch.export: an exported program has no layers that can be hooked"
        raise InvalidTypeError("model", owner, constraint, "a module of torch.export")
    for name, parameter in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(parameter, (UninitializedParameter, UninitializedBuffer)):
            constraint = "initialised: run one batch through its lazy modules first"
            raise InvalidValueError("model", owner, constraint, f"{name!r} without a shape")
        if parameter.is_inference():
            constraint = "made outside torch.inference_mode(): its parameters cannot be differentiated"
            raise InvalidValueError("model", owner, constraint, f"{name!r} as an inference tensor")
    return model


def outputs_of(model: nn.Module, inputs: Tensor, parameter: str, owner: str) -> Any:
    """The network's outputs for a copy of the inputs, to which it may write.

    Raises:
        InvalidValueError: the network does not take these inputs.
    """
    try:
        return model(inputs.clone())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, DualViewError):
            raise
        got = f"shape {tuple(inputs.shape)}, {inputs.dtype}: {' '.join(str(error).split())[:200]}"
        raise InvalidValueError(parameter, owner, "such that the network takes them", got) from error


@torch.no_grad()
def decisions(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """The network's decisions in eval mode, (n,), on its device, in passes of at most ``batch_size``."""
    place = Placement.of(model)
    with guest(model):
        return torch.cat([model(place(part).clone()).argmax(dim=1) for part in torch.split(inputs, batch_size)])
