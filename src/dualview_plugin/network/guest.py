"""Contexts that leave the user's network and random states as they were."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Item = TypeVar("Item")

# Random states belong to the whole process, so that even visits to two networks take turns.
_ONE_VISIT = threading.RLock()
_visited: list[nn.Module] = []


@contextmanager
def guest(model: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode, as every public call uses it; afterwards all is as before, also after an error.

    Restored are the modes, hooks, attributes, parameters and buffers of each module, and the random states of torch,
    NumPy and Python. In the block autocast and inference mode are off and compiled code runs eagerly, so that
    hooks run, gradients exist, and values do not depend on the caller's context. Threads take turns.
    """
    with _ONE_VISIT:
        if any(other is model for other in _visited):
            with _plain_arithmetic():
                yield model
            return
        _visited.append(model)
        try:
            with preserved_random_state(), restored(model), _same_buffers(model), _untouched_run(model):
                yield model
        finally:
            _visited.pop()


@contextmanager
def _untouched_run(model: nn.Module) -> Iterator[None]:
    """Eval mode, plain arithmetic, and no compiled code."""
    with _eager(model), evaluating(model), _plain_arithmetic():
        yield


def guest_steps(model: nn.Module, items: Iterator[Item]) -> Iterator[Item]:
    """The items, each computed in a visit of its own: between them the network is the user's."""
    while True:
        with guest(model):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


@contextmanager
def _plain_arithmetic() -> Iterator[None]:
    """No inference mode and no autocast."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Compiled parts of the network run as plain Python, with their hooks."""
    compiled = any(
        type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if not compiled or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that a forward pass writes to get their values back."""
    before = [(buffer, buffer.detach().clone(), _version(buffer)) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value, version in before:
                if version is None or version != _version(buffer):
                    buffer.copy_(value)


def _version(tensor: Tensor) -> int | None:
    """The counter of writes in place; inference tensors have none."""
    return None if tensor.is_inference() else tensor._version


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode; every submodule gets its own mode back afterwards, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def restored(model: nn.Module) -> Iterator[nn.Module]:
    """Every submodule gets its own attributes, hooks, parameters and buffers back afterwards, also after an error.

    Assignments are undone, such as those of ``parameter.data`` or ``module.forward``; a tensor that was written to in
    place keeps its new values.
    """
    attributes = [(vars(module), _with_copied_dicts(vars(module))) for module in model.modules()]
    values = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield model
    finally:
        for current, before in attributes:
            for name in current.keys() - before.keys():
                del current[name]
            for name, (value, content) in before.items():
                current[name] = value
                if content is not None:
                    value.clear()
                    value.update(content)
        for tensor, value in values:
            if tensor.data_ptr() != value.data_ptr() or tensor.shape != value.shape:
                tensor.data = value


def _with_copied_dicts(attributes: dict[str, Any]) -> dict[str, tuple[Any, dict[Any, Any] | None]]:
    """Each attribute with a copy of its content if it is a dictionary: parameters, buffers, submodules, hooks."""
    return {name: (value, dict(value) if isinstance(value, dict) else None) for name, value in attributes.items()}


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """The global random states of torch (all devices), NumPy and Python are the same after the block as before it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own global state
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
