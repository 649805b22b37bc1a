"""One check for "the user's network, data and random states are as before"."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def _state_of(model: nn.Module) -> dict[str, Any]:
    """Everything about a network that a guest might change, copied."""
    return {
        "modes": [module.training for module in model.modules()],
        "values": [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())],
        "identities": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [
            [tuple(hooks) for name, hooks in sorted(vars(module).items()) if name.endswith("_hooks")]
            for module in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002


def _same(first: Any, second: Any) -> bool:
    """Equality of nested lists with tensors and arrays in them."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return bool((first == second).all())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


@contextmanager
def assert_untouched(model: nn.Module, *data: Tensor) -> Iterator[None]:
    """After the block, also after an error in it: the network, the data and the process's settings are as before."""
    state, values, states = _state_of(model), copy.deepcopy(data), _random_states()
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    try:
        yield
    finally:
        after = _state_of(model)
        changed = [name for name in state if not _same(state[name], after[name])]
        assert not changed, f"the network has other {', '.join(changed)}"
        assert _same(values, data), "the data have changed"
        assert _same(states, _random_states()), "a random state has moved"
        assert settings == (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
