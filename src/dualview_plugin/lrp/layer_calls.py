"""Layers are called and compute as the rules of LRP assume, or are refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import BasicHook
from zennit.types import Linear

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.lrp.module_calls import nodes_of, rule_of
from dualview_plugin.lrp.same_function import relative_difference

DIFFERENTIABLE = "differentiable in its inputs: requires_grad_(False) in place of no_grad() and detach()"
_NOT_IN_PLACE = "without operations in place on what a layer takes or gives (x = x + y in place of x += y)"


@contextmanager
def ready_for_rules(model: nn.Module, owner: str) -> Iterator[None]:
    """Inputs given by keyword reach a layer's rule by position; errors of autograd's bookkeeping are refusals.

    Enter it after the rules are registered.

    Raises:
        InvalidValueError: a layer runs without autograd's graph, or its output is changed in place.
    """
    handles = []
    for name, module in model.named_modules():

        def before(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> Any:
            if rule_of(module) is None and not isinstance(module, Linear):
                return None
            if kwargs and not args:
                bound = inspect.signature(module.forward).bind(**kwargs)
                args, kwargs = bound.args, bound.kwargs
            if nodes_of([args, kwargs]) and not torch.is_grad_enabled():
                raise InvalidValueError("model", owner, DIFFERENTIABLE, f"layer {name!r} under no_grad")
            return args, kwargs

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
    try:
        yield
    except RuntimeError as error:
        if "inplace" not in str(error) and "in-place" not in str(error):
            raise
        raise InvalidValueError("model", owner, _NOT_IN_PLACE, str(error).partition("\n")[0]) from error
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def other_layers(model: nn.Module, is_checked: bool = True) -> Iterator[list[str]]:
    """A list that gets the linear layers with a rule that compute something else than torch's with their weight."""
    others: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def after(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            if isinstance(rule_of(module), BasicHook) and not _is_torchs(module, args, output):
                others.append(f"layer {name!r} ({type(module).__name__})")

        if is_checked and isinstance(module, Linear):
            handles.append(module.register_forward_hook(after))
    try:
        yield others
    finally:
        for handle in handles:
            handle.remove()


def refuse_other_layers(others: list[str], owner: str) -> None:
    """Refuse layers whose rule would act on a weight that the layer does not compute with.

    Raises:
        InvalidValueError: names these layers.
    """
    if others:
        constraint = (
            "with linear layers that compute what torch's layer does with their weight and input (a weight that is "
            "transformed belongs in torch.nn.utils.parametrize)"
        )
        raise InvalidValueError("model", owner, constraint, ", ".join(dict.fromkeys(others)))


@torch.no_grad()
def _is_torchs(module: nn.Module, args: Any, output: Any) -> bool:
    """Whether the output is that of torch's own layer with the module's parameters."""
    base: Any = next(kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn.modules."))
    plain: Any = base.__new__(base)
    plain.__dict__ = vars(module)
    if not isinstance(output, Tensor):
        return False
    return not relative_difference(output, base.forward(plain, *args))
