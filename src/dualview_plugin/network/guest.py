"""Contexts that leave the user's network and random states as they were."""

from __future__ import annotations

import os
import random
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dualview_plugin.network.arithmetic import plain_arithmetic
from dualview_plugin.network.snapshot import restorers

# Random states belong to the whole process, so that even visits to two networks take turns.
_ONE_VISIT = threading.RLock()
_visited: list[tuple[nn.Module, _Buffers]] = []
_writing: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_OF_MODULES = frozenset(vars(nn.Module()))


@contextmanager
def guest(model: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode, as every public call uses it; afterwards all is as before, also after an error.

    Restored are the modes, hooks, attributes, parameters and buffers of each module, what lists, tensors and generators
    among its attributes hold, and the random states of torch, NumPy and Python. In the block autocast, inference mode,
    products in less than the network's precision, caches of parametrized weights and checkpoints are off, and compiled
    code runs eagerly, so that hooks run, gradients exist, and values do not depend on the caller's context. Backward
    hooks do not run, which change gradients. Blocks inside of one another start with the buffers of the first. Threads
    take turns.
    """
    with _ONE_VISIT:
        buffers = next((buffers for other, buffers in _visited if other is model), None)
        if buffers is not None:
            with plain_arithmetic(model), buffers.kept():
                yield model
            return
        buffers = _Buffers(model)
        _visited.append((model, buffers))
        try:
            with preserved_random_state(), _same_state(model), buffers.kept(), _untouched_run(model):
                yield model
        finally:
            _visited.pop()


@contextmanager
def _same_state(model: nn.Module) -> Iterator[None]:
    """All that the network holds is afterwards as before, but for the values of buffers."""
    with restored(model), _same_contents(model), kept_weights(model) if writes_to_parameters(model) else nullcontext():
        yield


class _Buffers:
    """The buffers of a network as they were at the start of a visit: a forward pass may count on in them."""

    def __init__(self, model: nn.Module) -> None:
        self._before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self._versions = [buffer._version for buffer, _ in self._before]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """They have these values at the start of the block and after it."""
        self._restore()
        try:
            yield
        finally:
            self._restore()

    def _restore(self) -> None:
        with torch.no_grad():
            for place, (buffer, value) in enumerate(self._before):
                if self._versions[place] != buffer._version:
                    buffer.copy_(value)
                    self._versions[place] = buffer._version


@contextmanager
def _untouched_run(model: nn.Module) -> Iterator[None]:
    """Eval mode, plain arithmetic, no compiled code, and gradients that no hook changes."""
    with _eager(model), evaluating(model), plain_arithmetic(model), _no_backward_hooks(model):
        yield


@contextmanager
def _no_backward_hooks(model: nn.Module) -> Iterator[None]:
    """Parameters and modules without backward hooks: those that clip or scale gradients serve a training.

    Those of modules come back with all else that the modules hold, by :func:`restored`.
    """
    hooks = [(parameter, parameter._backward_hooks) for parameter in model.parameters() if parameter._backward_hooks]
    try:
        for parameter, _ in hooks:
            parameter._backward_hooks = None
        for module in model.modules():
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
        yield
    finally:
        for parameter, own in hooks:
            parameter._backward_hooks = own


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


def writes_to_parameters(model: nn.Module) -> bool:
    """Whether the network was seen to write to its parameters, or has a module that may when its mode changes."""
    return model in _writing or any(
        type(module).train is not nn.Module.train
        or type(module).eval is not nn.Module.eval
        or getattr(module, "max_norm", None) is not None
        for module in model.modules()
    )


def note_writing(model: nn.Module) -> None:
    """Remember that the network's forward pass writes to its parameters: guests then keep a copy of them."""
    _writing.add(model)


@contextmanager
def _same_contents(model: nn.Module) -> Iterator[None]:
    """What the plain attributes of each module hold is afterwards as before."""
    undo = [
        call
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in _OF_MODULES
        for call in restorers(value)
    ]
    try:
        yield
    finally:
        for call in undo:
            call()


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


@contextmanager
def kept_weights(model: nn.Module) -> Iterator[nn.Module]:
    """The parameters and buffers have their values again afterwards, also after an error; so have the gradients.

    Captum's TracIn loads its checkpoints into the network that it was given, and leaves the last one there.

    Cost: memory for one copy of the weights.
    """
    values = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(parameter, parameter.grad, _clone(parameter.grad)) for parameter in model.parameters()]
    try:
        with restored(model):  # load_state_dict(assign=True) puts other tensors in their place
            yield model
    finally:
        for tensor, value in values:
            if not torch.equal(tensor.data, value):
                tensor.data.copy_(value)
        for parameter, gradient, content in gradients:
            parameter.grad = gradient
            if gradient is not None and content is not None:
                gradient.data.copy_(content)


def _clone(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().clone()


def _with_copied_dicts(attributes: dict[str, Any]) -> dict[str, tuple[Any, dict[Any, Any] | None]]:
    """Each attribute with a copy of its content if it is a dictionary: parameters, buffers, submodules, hooks."""
    return {name: (value, dict(value) if isinstance(value, dict) else None) for name, value in attributes.items()}


@contextmanager
def rules_set_aside(model: nn.Module) -> Iterator[None]:
    """Rules and canonizers of Zennit that the user has registered change no gradient in the block."""
    with restored(model):
        for module in model.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for key, hook in list(hooks.items()):
                    owners = type(getattr(hook, "__self__", None)).__mro__
                    if any(owner.__module__.split(".")[0] == "zennit" for owner in owners):
                        del hooks[key]
        yield


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """The global random states of torch (all devices), NumPy and Python are the same after the block as before it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own global state
    with torch.random.fork_rng(devices=range(_n_cuda_devices())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def seed_random_states(seed: int) -> None:
    """The global random states of torch, NumPy and Python start from a seed."""
    # Without accelerators torch.manual_seed spends most of its time on noting where it was called, for each kind.
    accelerated = _n_cuda_devices() or torch.backends.mps.is_available() or torch.xpu.is_available()
    (torch if accelerated else torch.default_generator).manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the network may draw from the global state
    random.seed(seed)


def _n_cuda_devices() -> int:
    """How many CUDA devices are visible; torch counts them anew at every call until it has used one."""
    return _counted_devices(os.environ.get("CUDA_VISIBLE_DEVICES"))


@cache
def _counted_devices(visible: str | None) -> int:  # noqa: ARG001 - what the count depends on
    return torch.cuda.device_count()
