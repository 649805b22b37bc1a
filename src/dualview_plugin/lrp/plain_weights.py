"""Weights that are computed anew before every pass, as plain parameters while rules look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dualview_plugin.errors import InvalidValueError

_COMPUTE_A_WEIGHT = (prune.BasePruningMethod, SpectralNorm, WeightNorm)


@contextmanager
def plain_weights(model: nn.Module, owner: str) -> Iterator[None]:
    """Pruned, normalised and parametrized weights are plain parameters in the block, with the values of eval mode.

    Only inside of ``restored``, which undoes all but the class of a parametrized module.

    Raises:
        InvalidValueError: a weight is a tensor beside the parameters, and no known hook makes it.
    """
    modules = list(model.named_modules())
    classes = [(module, type(module)) for _, module in modules if parametrize.is_parametrized(module)]
    try:
        for name, module in modules:
            _fix_hooked(name, module, owner)
        for module, _ in classes:
            _fix_parametrized(module)
        yield
    finally:
        for module, own_class in classes:
            module.__class__ = own_class


def _fix_hooked(name: str, module: nn.Module, owner: str) -> None:
    """The weights of a module whose hooks compute them, as parameters; without these hooks."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, _COMPUTE_A_WEIGHT):
            hook(module, ())
            del module._forward_pre_hooks[key]
    for parameter in ("weight", "bias"):
        value = vars(module).get(parameter)
        if isinstance(value, Tensor):
            if not module._parameters:
                constraint = "a network whose layers keep their weights as parameters"
                raise InvalidValueError("model", owner, constraint, f"{name!r}, where {parameter} is a bare tensor")
            del vars(module)[parameter]
            module._parameters[parameter] = nn.Parameter(value.detach())


def _fix_parametrized(module: Any) -> None:
    """The parametrized weights of a module as parameters of its original class."""
    values = {name: getattr(module, name).detach() for name in module.parametrizations}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    module._parameters.update({name: nn.Parameter(value) for name, value in values.items()})
