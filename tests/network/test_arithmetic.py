"""What a caller has chosen for torch as a whole changes no value inside, and is there again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import TensorDataset

from dualview_plugin import DualView, GradCos, GradientSimilarity, TracIn
from dualview_plugin.network.arithmetic import _precision_settings, plain_arithmetic

TEST = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    for place in (0, 2):
        parametrizations.weight_norm(network[place])
    return network


def _data() -> TensorDataset:
    return TensorDataset(torch.randn(11, 5, generator=torch.Generator().manual_seed(1)), torch.arange(11) % 3)


@pytest.mark.parametrize("kind", [GradientSimilarity, TracIn, GradCos])
def test_a_cache_of_parametrized_weights_has_no_effect(kind: Any) -> None:
    expected = kind(_network(), "2", _data(), show_progress=False).attribute(TEST)
    network = _network()
    with parametrize.cached():
        cached = network[0].weight
        assert torch.equal(kind(network, "2", _data(), show_progress=False).attribute(TEST), expected)
        assert network[0].weight is cached
        original = network[0].parametrizations.weight.original0
        (gradient,) = torch.autograd.grad(network(TEST).sum(), original)
    assert bool(gradient.any())


def test_another_thread_may_leave_its_cache_meanwhile() -> None:
    network, inside, leave = _network(), threading.Event(), threading.Event()

    def other() -> None:
        with parametrize.cached():
            network[0].weight  # noqa: B018
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(60)
    with plain_arithmetic(network):
        leave.set()
        thread.join()
    assert parametrize._cache_enabled == 0
    before = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].parametrizations.weight.original0.mul_(2)
    assert torch.equal(network[0].weight, 2 * before)


def test_another_thread_keeps_its_autocast() -> None:
    found: list[torch.dtype] = []

    def other() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(nn.functional.linear(TEST, TEST).dtype)

    with plain_arithmetic(_network()):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        other()
    assert found == [torch.bfloat16, torch.float32]


class Casting(nn.Module):
    """Casts by itself, and works in autocast alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.first(x.bfloat16()).relu()
        return self.fc(hidden.float())


def test_a_network_that_needs_autocast_has_it() -> None:
    torch.manual_seed(0)
    model = Casting()
    features = DualView(model, "fc", _data(), C=0.5, show_progress=False).fit().extract(TEST)
    with torch.no_grad():
        expected = model.first(TEST).relu(), model(TEST)
    torch.testing.assert_close(tuple(part.detach() for part in features), expected, rtol=2e-2, atol=2e-2)
    assert bool(GradientSimilarity(model, "fc", _data(), show_progress=False).attribute(TEST).isfinite().all())


@contextmanager
def _by_name(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _by_setting(setting: Any, precision: str) -> Iterator[None]:
    before = setting.fp32_precision
    setting.fp32_precision = precision
    try:
        yield
    finally:
        setting.fp32_precision = before


def _now() -> list[str]:
    return [setting.fp32_precision for setting in _precision_settings()] or [torch.get_float32_matmul_precision()]


CHOICES: dict[str, Callable[[], Any]] = {
    "high": lambda: _by_name("high"),
    "medium": lambda: _by_name("medium"),
    "products on the CPU": lambda: _by_setting(_precision_settings()[0], "bf16"),
    "all backends": lambda: _by_setting(torch.backends, "bf16"),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_products_are_in_full_precision(choice: str) -> None:
    if choice in ("products on the CPU", "all backends") and not _precision_settings():
        pytest.skip("this version of torch has one setting for all backends")
    outside = _now()
    with CHOICES[choice]():
        chosen = _now()
        with plain_arithmetic(nn.Identity()), plain_arithmetic(nn.Identity()):
            assert set(_now()) <= {"none", "ieee", "highest"}
        assert _now() == chosen != outside
    assert [value.replace("ieee", "none") for value in _now()] == [value.replace("ieee", "none") for value in outside]


def test_a_setting_for_all_backends_stays_one_for_all() -> None:
    if not _precision_settings():
        pytest.skip("this version of torch has one setting for all backends")
    convolutions = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    with _by_setting(torch.backends, "bf16"):
        with plain_arithmetic(nn.Identity()):
            assert convolutions.fp32_precision == "ieee"
        with _by_setting(torch.backends, "tf32"):
            assert convolutions.fp32_precision == "tf32"
