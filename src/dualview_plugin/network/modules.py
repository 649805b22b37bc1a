"""The network as a module: what is taken, and what it decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network.guest import guest
from dualview_plugin.network.placement import Placement

# Modules that only pass batches on, by the name under which they hold the network.
WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
# An error names all modules of a network that has no more than these.
_LISTED = 20


def checked_model(model: Any, owner: str) -> nn.Module:
    """The network itself; of a compiled or parallel one the original, which shares its weights and runs hooks.

    Raises:
        InvalidTypeError: no module, one in TorchScript, which runs no hooks, or one of torch.export.
        InvalidValueError: parameters that have no values yet, or that were made in inference mode.
    """
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
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


@torch.no_grad()
def decisions(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """The network's decisions in eval mode, (n,), on its device, in passes of at most ``batch_size``."""
    place = Placement.of(model)
    with guest(model):
        return torch.cat([model(place(part).clone()).argmax(dim=1) for part in torch.split(inputs, batch_size)])


def _name_in_network(name: str) -> str:
    """A layer's name in a compiled or parallel network as its name in the network itself."""
    prefixes = tuple(f"{held}." for held in set(WRAPPERS.values()))
    while name.startswith(prefixes):
        name = name.split(".", 1)[1]
    return name


def layer_name(model: nn.Module, layer: nn.Module | str, parameter: str, owner: str) -> str:
    """The dotted name of a layer in a network, which may have been given as that of a compiled or parallel one.

    Raises:
        InvalidTypeError: neither a module nor a string.
        InvalidValueError: no layer of the network.
    """
    if isinstance(layer, nn.Module):
        found = [name for name, module in model.named_modules() if module is layer]
        if not found:
            raise InvalidValueError(parameter, owner, "a module of the model", f"a foreign {type(layer).__name__}")
        return str(found[0])
    if not isinstance(layer, str):
        raise InvalidTypeError(parameter, owner, "a module or its dotted name", type(layer).__name__)
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for name in (layer, _name_in_network(layer)):
        if name in names:
            return name
    raise InvalidValueError(parameter, owner, _choice_of(model, names), repr(layer))


def _choice_of(model: nn.Module, names: list[str]) -> str:
    """The layers to choose from: all of a small network, the last linear ones of a large network."""
    if len(names) <= _LISTED:
        return "one of " + ", ".join(names)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return f"one of its {len(names)} modules, such as {', '.join((linear or names)[-3:])} (see model.named_modules())"
