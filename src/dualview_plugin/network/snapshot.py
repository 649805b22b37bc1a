"""What objects hold beside parameters and buffers, kept so that it can be put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Restore = Callable[[], object]
_DEPTH = 4  # of containers in containers
_LARGEST = 100_000  # items of a container that is looked into


def restorers(value: Any, depth: int = _DEPTH) -> Iterator[Restore]:
    """Calls that put back the content of containers, tensors, arrays and generators, nested ones first."""
    if isinstance(value, (dict, list, set, deque)):
        yield _content(value)
        if depth and len(value) <= _LARGEST:
            for part in list(value.values() if isinstance(value, dict) else value):
                yield from restorers(part, depth - 1)
    elif isinstance(value, tuple) and depth and len(value) <= _LARGEST:
        for part in value:
            yield from restorers(part, depth - 1)
    elif isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter) and not value.requires_grad and not value.is_inference():
            yield _tensor(value)
    elif isinstance(value, np.ndarray) and value.flags.writeable:
        yield _array(value)
    else:
        yield from generator_restorers(value)


def generator_restorers(value: Any) -> Iterator[Restore]:
    """A call that puts back the state of a random generator, if the value is one."""
    if isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, np.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    elif isinstance(value, np.random.RandomState):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())


def dataset_generators(dataset: Any, depth: int = _DEPTH) -> Iterator[Restore]:
    """Calls that put back the generators of a dataset, of its transforms, and of datasets that it wraps."""
    own = [
        kind for kind in type(dataset).__mro__ if kind.__module__.split(".")[0] not in ("torch", "builtins", "typing")
    ]
    values = [value for holder in (dataset, *own) for value in list(getattr(holder, "__dict__", {}).values())]
    for value in values:
        parts = value if isinstance(value, (list, tuple)) and len(value) <= _LARGEST else [value]
        for part in parts:
            yield from generator_restorers(part)
            if depth and hasattr(part, "__dict__") and not isinstance(part, (type, nn.Module, Tensor)):
                yield from dataset_generators(part, depth - 1)


def _content(value: Any) -> Restore:
    before = value.copy()

    def restore() -> None:
        value.clear()
        (value.update if isinstance(value, (dict, set)) else value.extend)(before)

    return restore


def _tensor(value: Tensor) -> Restore:
    before, version = value.detach().clone(), value._version

    def restore() -> None:
        if value._version != version:
            with torch.no_grad():
                value.copy_(before)

    return restore


def _array(value: np.ndarray[Any, Any]) -> Restore:
    before = value.copy()

    def restore() -> None:
        value[...] = before

    return restore
