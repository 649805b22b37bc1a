"""Whose answers are these: digests see all that a network computes with, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

from dualview_plugin.errors import DualViewError
from dualview_plugin.network import (
    Placement,
    checked_model,
    decisions,
    fingerprint,
    model_fingerprint,
    relative_difference,
    same_outputs,
    weights_checksum,
)
from dualview_plugin.network.identity import sum_of_words
from tests.untouched import assert_untouched


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    model.register_buffer("constant", torch.zeros(2), persistent=False)
    return model


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight in place": lambda model: model[0].weight.data[1, 2].add_(1e-6),
    "a weight assigned": lambda model: setattr(model[3].bias, "data", model[3].bias.data + 1e-6),
    "a running mean": lambda model: model[1].running_mean.add_(1e-6),
    "a counter": lambda model: model[1].num_batches_tracked.add_(1),
    "a buffer outside the state": lambda model: model.constant.fill_(1e-6),
    "the precision": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("digest", [model_fingerprint, weights_checksum])
def test_every_number_counts(digest: Callable[[nn.Module], Any], change: Callable[[Any], Any]) -> None:
    model = network()
    before = digest(model)
    assert digest(copy.deepcopy(model)) == before
    change(model)
    assert digest(model) != before


def test_structure_counts() -> None:
    first, second = nn.Sequential(nn.Linear(3, 5), nn.ReLU()), nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    second.load_state_dict(first.state_dict())
    assert model_fingerprint(first) != model_fingerprint(second)


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_count() -> None:
    packed = [torch.ao.quantization.quantize_dynamic(network().eval(), {nn.Linear}) for _ in range(2)]
    assert model_fingerprint(packed[0]) == model_fingerprint(packed[1])
    other = network().eval()
    other[0].weight.data.neg_()
    assert model_fingerprint(torch.ao.quantization.quantize_dynamic(other, {nn.Linear})) != model_fingerprint(packed[0])


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_a_forward_pass_leaves_behind_does_not_count() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(3, 5)))
    before = model_fingerprint(model), weights_checksum(model)
    model(torch.randn(2, 3))
    model.last = torch.randn(2, 3)
    assert (model_fingerprint(model), weights_checksum(model)) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.bool, torch.uint8])
def test_fingerprints_take_every_type(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 0, 1, 1]).to(dtype)
    assert fingerprint(values) == fingerprint(values.clone())
    assert fingerprint(values) != fingerprint(values.flip(0))


def test_answers_agree_up_to_rounding_and_nan_never_does() -> None:
    values = torch.tensor([[1.0, -1000.0]])
    assert same_outputs(values + 1e-3, values)
    assert not same_outputs(values + 1, values)
    assert not same_outputs(values[:, :1], values)
    assert not same_outputs(values * torch.nan, values)
    assert relative_difference(values, values) == 0
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "a torch.nn.Module, got int"),
        (lambda: nn.Linear, "a torch.nn.Module, got type"),
        (lambda: torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), "the module itself, before torch.jit"),
        (lambda: exported(nn.Linear(3, 2)), "the module itself, before torch.export"),
        (lambda: nn.Sequential(nn.LazyLinear(2)), "initialised: run one batch through its lazy modules"),
        (lambda: made_in_inference_mode(), "made outside torch.inference_mode"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_networks_that_no_method_can_explain_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DualViewError, match=f"model of Owner must be {message}"):
        checked_model(make(), "Owner")


def exported(module: nn.Linear) -> nn.Module:
    return torch.export.export(module, (torch.zeros(1, module.in_features),)).module()


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(3, 2)


def test_of_a_compiled_network_the_original_is_taken() -> None:
    model = network()
    assert checked_model(torch.compile(model, backend="eager"), "Owner") is model


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_batches_come_in_the_networks_precision(dtype: torch.dtype) -> None:
    place = Placement.of(network().to(dtype))
    assert place(torch.zeros(2)).dtype == dtype
    assert place(torch.zeros(2, dtype=torch.int64)).dtype == torch.int64
    assert Placement.of(nn.Flatten())(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_decisions_leave_the_network_and_the_inputs_alone() -> None:
    class Writing(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs.sub_(0.5))

    model, inputs = Writing(nn.Linear(3, 5)), torch.randn(7, 3)
    with assert_untouched(model, inputs):
        found = decisions(model, inputs, batch_size=2)
    assert torch.equal(found, model[0](inputs - 0.5).argmax(dim=1))


def test_the_sum_that_is_computed_on_an_accelerator_sees_values_and_places() -> None:
    bits = torch.arange(1, 12, dtype=torch.uint8)
    swapped, changed = bits[[1, 0, *range(2, 11)]], bits + (torch.arange(11) == 7)
    sums = [sum_of_words(part.to(torch.uint8)) for part in (bits, swapped, changed)]
    assert len(set(sums)) == 3
    assert sum_of_words(bits.clone()) == sums[0] == sum(int(b) * (2 * i + 1) for i, b in enumerate(bits))
