"""Contexts that leave the user's model and random state as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

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
def preserved_random_state() -> Iterator[None]:
    """The global random states of torch (all devices), NumPy and Python are the same after the block as before it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own global state
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
