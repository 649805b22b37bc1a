"""A guest leaves no trace: every part of a network and of the process is as before, also after an error."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.network import guest, kept_weights
from tests.untouched import assert_untouched


class Restless(nn.Module):
    """A network whose forward pass changes whatever it can reach."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        self.scratch = torch.ones(2)
        self.last = self.layer(nn.functional.dropout(inputs, 0.5, training=True))
        np.random.rand()  # noqa: NPY002
        random.random()
        return self.last


def test_a_forward_pass_leaves_no_trace() -> None:
    model, inputs = Restless(), torch.randn(7, 3)
    with assert_untouched(model, inputs), guest(model):
        model(inputs)
    assert (model.calls, float(model.count), hasattr(model, "last")) == (0, 0.0, False)


def test_an_error_leaves_no_trace() -> None:
    model = Restless()
    model.layer.eval()  # a mixed mode

    def visit() -> None:
        with guest(model):
            model.layer.register_forward_hook(lambda *_: None)
            model(torch.randn(2, 3))
            raise KeyError

    with assert_untouched(model), pytest.raises(KeyError):
        visit()


def test_a_visit_within_a_visit_is_one() -> None:
    model = Restless()
    with assert_untouched(model), guest(model), guest(model):
        assert not model.training
        torch.randn(3)


def test_modes_of_arithmetic_are_plain_inside_and_as_before_outside() -> None:
    model = nn.Linear(3, 5)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        with guest(model), torch.enable_grad():
            output = model(torch.randn(2, 3).clone())
            assert output.dtype == torch.float32
            assert output.requires_grad
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")


def test_compiled_code_runs_with_hooks() -> None:
    layer = nn.Linear(3, 5)
    model = nn.Sequential(torch.compile(nn.Sequential(layer, nn.ReLU()), backend="eager"))
    model(torch.randn(2, 3))
    seen: list[int] = []
    with guest(model):
        layer.register_forward_hook(lambda *_: seen.append(1))
        model(torch.randn(2, 3))
    assert seen == [1]


def test_threads_take_turns() -> None:
    models = [nn.Dropout(0.5).train() for _ in range(2)]
    state, inside, most = torch.get_rng_state(), 0, 0

    def visit(model: nn.Module) -> None:
        nonlocal inside, most
        for _ in range(20):
            with guest(model):
                inside += 1
                most = max(most, inside)
                torch.randn(50)
                inside -= 1

    threads = [threading.Thread(target=visit, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert torch.equal(state, torch.get_rng_state())
    assert all(model.training for model in models)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()}),
        lambda model: model.load_state_dict({n: v + 1 for n, v in model.state_dict().items()}, assign=True),
        lambda model: model.weight.data.mul_(2),
        lambda model: setattr(model.weight, "data", torch.zeros(5, 3)),
        lambda model: setattr(model.weight, "grad", torch.ones(5, 3)),
    ],
)
def test_weights_that_a_call_loads_are_undone(change: Callable[[nn.Module], Any]) -> None:
    model = nn.Linear(3, 5)

    def call() -> None:
        with kept_weights(model):
            change(model)
            raise KeyError

    with assert_untouched(model), pytest.raises(KeyError):
        call()


def test_no_graph_is_recorded_where_the_caller_wants_none() -> None:
    model = nn.Linear(3, 5)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, guest(model):
            output = model(torch.zeros(2, 3))
            assert not output.requires_grad
            assert not output.is_inference()


class Counting(nn.Module):
    """Counts its passes, and answers with their number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x + self.passes


def test_a_visit_in_a_visit_begins_with_the_same_buffers() -> None:
    model = Counting()
    model(torch.zeros(1))
    with guest(model):
        for _ in range(2):
            model(torch.zeros(1))
            with guest(model):
                assert float(model(torch.zeros(1))) == 2
            assert float(model.passes) == 1
    assert float(model.passes) == 1


class Autocasting(nn.Module):
    """Computes in bfloat16 by its own choice."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.second(self.first(x))


def test_a_network_of_float32_weights_does_not_autocast() -> None:
    model, x = Autocasting(torch.float32), torch.randn(3, 5)
    with guest(model):
        assert model(x).dtype == torch.float32
        assert torch.equal(model(x), model.second(model.first(x)))
    assert model(x).dtype == torch.bfloat16


def test_a_network_of_several_precisions_autocasts_as_it_needs() -> None:
    model = Autocasting(torch.bfloat16)
    with guest(model):
        assert model(torch.randn(3, 5)).dtype == torch.bfloat16
