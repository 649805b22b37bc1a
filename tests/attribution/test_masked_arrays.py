"""Arrays with a mask are refused wherever a user may pass one: what is under the mask would count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin import FeatureSimilarity
from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.metrics import IdenticalClass, LabelPoisoning

X, Y = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), np.array([0, 1, 1, 0])
MODEL = nn.Sequential(nn.Linear(5, 2))
METHOD = FeatureSimilarity(MODEL, "0", TensorDataset(torch.tensor(X), torch.tensor(Y)), show_progress=False)


def masked(array: Any) -> Any:
    return np.ma.masked_array(array, np.arange(np.size(array)).reshape(np.shape(array)) == 0)


CALLS: dict[str, Callable[[], Any]] = {
    "inputs": lambda: METHOD.attribute(masked(X)),
    "target": lambda: METHOD.attribute(X, masked(Y)),
    "x_batch": lambda: IdenticalClass()(MODEL, masked(X), Y, explain_func=METHOD),
    "y_batch": lambda: IdenticalClass()(MODEL, X, masked(Y), explain_func=METHOD),
    "a_batch": lambda: IdenticalClass(Y)(MODEL, X, Y, a_batch=masked(X @ X.T)),
    "train_labels": lambda: IdenticalClass(masked(Y))(MODEL, X, Y, explain_func=METHOD),
    "poisoned": lambda: LabelPoisoning(masked([1, 2]))(MODEL, X, Y, explain_func=METHOD),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_mask_is_refused(call: str) -> None:
    with pytest.raises(InvalidTypeError, match="must be without a mask: write array"):
        CALLS[call]()
