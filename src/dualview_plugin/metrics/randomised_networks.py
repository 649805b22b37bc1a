"""Copies of a network whose layers are randomised, one after the other from the top."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.network import preserved_random_state


def layers_from_the_top(model: nn.Module, layers: Sequence[str] | None, owner: str) -> list[str]:
    """The layers to randomise in their order: the given ones, or all with parameters of their own, the last first.

    Raises:
        InvalidValueError: a name that is no layer with parameters of its own, or no layer at all.
    """
    names = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    chosen = names[::-1] if layers is None else list(layers)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise InvalidValueError("layers", owner, f"some of the layers with parameters, {names}", unknown or "none")
    return chosen


def randomised_networks(model: nn.Module, layers: Sequence[str], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """After each layer, a copy of the network in which it and all before it in the list are randomised.

    A layer gets new values from its ``reset_parameters``; without one, the entries of each parameter change places.

    Args:
        model: the network, which stays as it is.
        layers: dotted names.
        seed: of the new values; the global random states are as before.
    """
    current = model
    for index, name in enumerate(layers):
        current = copy.deepcopy(current)
        with preserved_random_state(), torch.no_grad():
            torch.manual_seed(_hashed(seed, index))  # not the small number that the network was made with
            _randomise(current.get_submodule(name))
        yield name, current


def _hashed(seed: int, index: int) -> int:
    """A seed that no user would choose."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def _randomise(layer: nn.Module) -> None:
    """Give a layer new values, in place."""
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in layer.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), device="cpu").to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
