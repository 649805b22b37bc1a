"""How a network computes in a guest's calls: in its own precision and with its gradients, whatever the caller chose."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils import checkpoint

# Networks whose autocast was set aside, and those that do not work without it.
_set_aside: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_allowed: weakref.WeakSet[nn.Module] = weakref.WeakSet()
# Torch's names for products that are not rounded, and for a setting that nobody has made.
_FULL = ("none", "ieee")


@contextmanager
def plain_arithmetic(model: nn.Module) -> Iterator[None]:
    """No inference mode, no autocast, no checkpoints, no cached weights, and products in full precision."""
    with ExitStack() as stack:
        stack.enter_context(_no_checkpoints())
        stack.enter_context(_no_cached_weights())
        stack.enter_context(_full_precision())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())  # what inference mode had; leaving it would record graphs
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if all(parameter.dtype in (torch.float32, torch.float64) for parameter in model.parameters()):
            stack.enter_context(_no_autocast(model))
        yield


@contextmanager
def _no_autocast(model: nn.Module) -> Iterator[None]:
    """``torch.autocast`` in a network's own forward has no effect in this thread, as where a training wrapped it.

    Neither rules of relevance nor tests of gradients would know in which precision a layer has computed. Networks that
    :func:`allow_autocast` has noted keep it.
    """
    kind: Any = torch.autocast
    own_enter, own_exit = kind.__enter__, kind.__exit__
    thread = threading.get_ident()

    def enter(self: Any) -> Any:
        if threading.get_ident() != thread or model in _allowed:
            return own_enter(self)
        _set_aside.add(model)
        self._n_set_aside = getattr(self, "_n_set_aside", 0) + 1
        return self

    def leave(self: Any, *error: Any) -> Any:
        if not getattr(self, "_n_set_aside", 0):
            return own_exit(self, *error)
        self._n_set_aside -= 1
        return False

    kind.__enter__, kind.__exit__ = enter, leave
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = own_enter, own_exit


def allow_autocast(model: nn.Module) -> bool:
    """Let a network that has failed autocast from now on, if that may be why; returns whether it may."""
    may_help = model in _set_aside and model not in _allowed
    if may_help:
        _allowed.add(model)
    return may_help


@contextmanager
def _no_cached_weights() -> Iterator[None]:
    """``parametrize.cached()`` around the block has no effect in it, and keeps what it holds.

    A pass without gradients would leave weights without a graph in the cache, for later passes and for the user's own.
    """
    own, forgetful = parametrize._cache, _Forgetful()
    parametrize._cache = forgetful
    try:
        yield
    finally:
        if parametrize._cache is forgetful:  # else another thread has left such a block, and dropped the cache
            parametrize._cache = own


class _Forgetful(dict[Any, Any]):
    """A cache that keeps nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of matrices in the precision of their factors, not in TF32 or bfloat16 as the caller may have allowed.

    Those round to three digits: sums over many points, and tests of whether two answers agree, need more. The setting
    for convolutions by cuDNN, which is TF32 unless somebody changes it, stays as it is.
    """
    settings = _precision_settings()
    if not settings:  # an older torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    lowered = [(setting, setting.fp32_precision) for setting in settings if setting.fp32_precision not in _FULL]
    try:
        for setting, _ in lowered:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, before in lowered:
            setting.fp32_precision = "none"  # what all backends have in common
            if setting.fp32_precision != before:
                setting.fp32_precision = before


def _precision_settings() -> list[Any]:
    """Torch's settings for products on the CPU and on CUDA devices; none for versions with a single one."""
    backends = torch.backends
    found = [getattr(backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")]
    found.append(backends.cuda.matmul)
    return [setting for setting in found if hasattr(setting, "fp32_precision")]


class _Direct:
    """In the place of torch's ``CheckpointFunction``: the function as it is."""

    @staticmethod
    def apply(function: Any, _: bool, *args: Any) -> Any:
        return function(*args)


def _nothing_around(*_: Any, **__: Any) -> Iterator[None]:
    """In the place of what torch does before and after a function whose checkpoint is not reentrant."""
    yield


# By their names in torch.utils.checkpoint, of which versions of torch have some.
_CHECKPOINTS: dict[str, Any] = {
    "CheckpointFunction": _Direct,
    "_checkpoint_without_reentrant_generator": _nothing_around,
    "_checkpoint_without_reentrant_generator_impl": _nothing_around,
}


@contextmanager
def _no_checkpoints() -> Iterator[None]:
    """``torch.utils.checkpoint`` runs its function as it is, and activations stay in memory.

    A reentrant checkpoint has no gradient by hooks or in its inputs, and its parameters have none where its input needs
    none: the first layers would be left out without a word. Others run again in the backward pass, when parameters may
    have their own values back.
    """
    names = vars(checkpoint)
    own = {name: names[name] for name in _CHECKPOINTS if name in names}
    try:
        names.update({name: _CHECKPOINTS[name] for name in own})
        yield
    finally:
        names.update(own)
