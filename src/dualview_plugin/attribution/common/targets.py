"""Which class of each test point is explained."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dualview_plugin.data import as_tensor, as_torch_takes_it
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.validation import refuse_masked

Target: TypeAlias = "int | list[int] | Tensor | np.ndarray[Any, Any] | None"


def checked_target(target: Target, n_test: int, n_classes: int, owner: str) -> Tensor | None:
    """One class for each test point, (n_test,) int64, or None for the network's decisions.

    Raises:
        InvalidTypeError: no integers.
        InvalidValueError: neither one class nor one for each test point, or a class that the network does not have.
    """
    if target is None:
        return None
    refuse_masked(target, "target", owner)
    if isinstance(target, Tensor):
        classes = as_tensor(target, owner, "target")
    else:
        try:
            classes = torch.as_tensor(
                as_torch_takes_it(target) if isinstance(target, np.ndarray) else target, device="cpu"
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidTypeError("target", owner, "an integer or integers", repr(target)[:80]) from error
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise InvalidTypeError("target", owner, "an integer or integers", str(classes.dtype))
    if classes.ndim > 1 or (classes.ndim == 1 and len(classes) != n_test):
        constraint = f"one class, or one for each of the {n_test} inputs"
        raise InvalidValueError("target", owner, constraint, f"shape {tuple(classes.shape)}")
    classes = classes.to(torch.int64)
    if int(classes.min()) < 0 or int(classes.max()) >= n_classes:
        got = f"values from {int(classes.min())} to {int(classes.max())}"
        raise InvalidValueError("target", owner, f"in 0 … {n_classes - 1}", got)
    return classes.expand(n_test)
