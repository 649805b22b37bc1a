"""Contexts that leave the user's model and random state as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


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
