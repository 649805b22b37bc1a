"""Calls inside no_grad and inference mode, and networks with checkpoints, give what plain ones give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint
from torch.utils.data import TensorDataset

from dualview_plugin import DualView, PairwiseRelevance
from tests.attribution.test_network_kinds import METHODS
from tests.untouched import assert_untouched

N_TRAIN = 17
CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
}


class Checkpointed(nn.Module):
    """Three layers, each in a checkpoint: the first of an input without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(8, 7), nn.Tanh())
        self.fc = nn.Linear(7, 3)
        self.use_reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.first, self.second):
            if self.use_reentrant is None:
                x = part(x)
            else:
                x = checkpoint.checkpoint(part, x, use_reentrant=self.use_reentrant)
        return self.fc(x)


def answers(method: str, use_reentrant: bool | None, context: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model, x, test = Checkpointed(), torch.randn(N_TRAIN, 5), torch.randn(4, 5)
    model.use_reentrant = use_reentrant
    cls, options = METHODS[method]
    options = {**options, **({"layers": ["fc"]} if "layers" in options else {})}
    explained = cls(model, "fc", TensorDataset(x, torch.arange(N_TRAIN) % 3), show_progress=False, **options)
    own = checkpoint.CheckpointFunction
    with assert_untouched(model), context():
        found = {
            "attribute": explained.attribute(test),
            "influence": explained.influence(test, k=3).influence_scores,
            "self_influence": explained.self_influence(),
            "map": explained.input_attribution(test, k=2),
        }
        if method != "InputSimilarity":  # which runs no layer
            found["map at a layer"] = explained.input_attribution(test, k=2, at="second")
        if isinstance(explained, DualView):
            pairs = PairwiseRelevance(explained, "epsilon_plus").attribute(test, k=2)
            found |= {"test relevance": pairs.test_relevance, "train relevance": pairs.train_relevance}
    assert checkpoint.CheckpointFunction is own
    return found


@cache
def plain(method: str) -> dict[str, Tensor]:
    return answers(method, None, nullcontext)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dualview_plugin.SparseAttributionWarning")
@pytest.mark.filterwarnings("ignore::dualview_plugin.ConservationWarning")
@pytest.mark.parametrize("use_reentrant", [None, False, True], ids=["plain", "checkpoint", "reentrant checkpoint"])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_callers_mode_and_checkpoints_change_nothing(method: str, context: str, use_reentrant: bool | None) -> None:
    found = answers(method, use_reentrant, CONTEXTS[context])
    for name, expected in plain(method).items():
        torch.testing.assert_close(found[name], expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
        assert not found[name].is_inference()
        assert not found[name].requires_grad


def test_a_checkpoint_of_the_users_own_is_reentrant_again_afterwards() -> None:
    model = copy.deepcopy(Checkpointed())
    model.use_reentrant = True
    x = torch.randn(N_TRAIN, 5)
    DualView(model, "fc", TensorDataset(x, torch.arange(N_TRAIN) % 3), show_progress=False).fit()
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        torch.autograd.grad(model(x.requires_grad_()).sum(), x)


def test_what_is_loaded_in_inference_mode_can_be_differentiated(tmp_path: Path) -> None:
    model, data, test = Checkpointed(), TensorDataset(torch.randn(9, 5), torch.arange(9) % 3), torch.randn(2, 5)
    method = DualView(model, "fc", data, C=0.5, show_progress=False)
    expected = method.input_attribution(test, k=2)
    method.save(tmp_path / "fitted.zip")
    with torch.inference_mode():
        loaded = DualView.load(tmp_path / "fitted.zip", model, data, show_progress=False)
    assert torch.equal(loaded.input_attribution(test, k=2), expected)
