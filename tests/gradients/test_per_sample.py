"""Per-sample gradients against one backward pass per sample, over networks of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients import PerSampleGradients, SampleGradients
from dualview_plugin.gradients.sample_gradients import exact_norms, rows_are_finite
from tests.conftest import TOLERANCES
from tests.gradients.networks import N_SAMPLES, NAMES, Tied, gradient_by_gradient, make

EXACT = TOLERANCES[torch.float64]
# Parameters that no rule can cover in each network; all others have one.
FALLBACK = {
    "functional use": {"shared.weight"},
    "sequence first": {"step.weight", "step.bias"},
    "recurrent": {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"},
    "custom": {"scale"},
    "attention": {
        "layer.self_attn.in_proj_weight",
        "layer.self_attn.in_proj_bias",
        "layer.self_attn.out_proj.weight",
        "layer.self_attn.out_proj.bias",
    },
    "weight norm, PReLU, norms": {
        "0.bias",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "1.weight",
    },
    "transposed": {"0.weight", "0.bias"},
}
OUTER = {"tied large": {"first.weight", "fc.weight"}, "wide convolution": {"0.weight"}, "words": {"places.weight"}}


@pytest.mark.parametrize("name", NAMES)
def test_inner_products_and_norms_are_those_of_the_whole_gradients(name: str) -> None:
    model, inputs, target = make(name)
    expected = gradient_by_gradient(model, inputs, target)
    per_sample = PerSampleGradients(model)
    rows, columns = per_sample(inputs, target), per_sample(inputs[:3], target[:3])
    torch.testing.assert_close(rows.inner(columns), expected @ expected[:3].mT, **EXACT)
    torch.testing.assert_close(rows.norms(), expected.norm(dim=1), **EXACT)
    torch.testing.assert_close(per_sample.flat(inputs, target), expected, **EXACT)
    assert per_sample.n_parameters == expected.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_rules_cover_what_they_can(name: str) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    gradients = per_sample(inputs, target)
    names = {name for name, _ in model.named_parameters() if not name.startswith("unused")}
    assert per_sample.parameters_with_rule == names - FALLBACK.get(name, set())
    assert set(gradients.outer) >= OUTER.get(name, set())


@pytest.mark.parametrize("name", ["tied", "tied large", "words", "wide convolution", "attention"])
def test_batches_stack_to_the_whole(name: str) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    whole = per_sample(inputs, target)
    for size in (1, 2, 3):
        parts = zip(inputs.split(size), target.split(size), strict=True)
        stacked = SampleGradients.stack(per_sample(*part) for part in parts)
        assert len(stacked) == N_SAMPLES
        torch.testing.assert_close(stacked.inner(whole), whole.inner(whole), **EXACT)
        assert stacked.bytes_per_sample == whole.bytes_per_sample


def test_sequences_of_different_lengths() -> None:
    model, inputs, target = make("words")
    per_sample = PerSampleGradients(model)
    short, long = per_sample(inputs[:, :5], target), per_sample(inputs, target)
    expected = torch.cat([gradient_by_gradient(model, x, target) for x in (inputs[:, :5], inputs)])
    stacked = SampleGradients.stack([short, long])
    torch.testing.assert_close(stacked.inner(long), expected @ expected[N_SAMPLES:].mT, **EXACT)


@pytest.mark.parametrize("layers", [["conv"], ["tied", "fc"], ["relu", "norm"]])
def test_layers_restrict_the_parameters(layers: list[str]) -> None:
    model, inputs, target = make("tied")
    sizes = [parameter.numel() for parameter in model.parameters()]
    blocks = gradient_by_gradient(model, inputs, target).split(sizes, 1)
    names = [name for name, _ in model.named_parameters()]
    kept = torch.cat([block for name, block in zip(names, blocks, strict=True) if name.split(".")[0] in layers], 1)
    gradients = PerSampleGradients(model, layers)(inputs, target)
    torch.testing.assert_close(gradients.inner(gradients), kept @ kept.mT, **EXACT)


@pytest.mark.parametrize("name", ["tied", "tied large", "words"])
def test_derivatives_along_directions(name: str) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    expected = gradient_by_gradient(model, inputs, target)
    directions = torch.randn(3, expected.shape[1], dtype=torch.float64)
    found = torch.stack(
        [per_sample.directional_derivatives(x[None], c, directions) for x, c in zip(inputs, target, strict=True)]
    )
    torch.testing.assert_close(found.detach(), expected @ directions.mT, **EXACT)


def test_derivatives_along_directions_are_differentiable() -> None:
    model, inputs, target = make("tied large")
    per_sample = PerSampleGradients(model)
    directions = torch.randn(2, per_sample.n_parameters, dtype=torch.float64)
    sample = inputs[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: per_sample.directional_derivatives(x, target[0], directions), sample)


def test_the_model_is_as_before() -> None:
    model, inputs, target = make("tied")
    model.train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    frozen, trained = PerSampleGradients(model)(inputs, target), PerSampleGradients(make_like(model))(inputs, target)
    torch.testing.assert_close(frozen.inner(frozen), trained.inner(trained), **EXACT)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 7]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not frozen.dense.requires_grad


def make_like(model: nn.Module) -> nn.Module:
    twin = Tied().double()
    twin.load_state_dict(model.state_dict())
    return twin


def test_the_model_is_as_before_after_an_error() -> None:
    model, inputs, target = make("tied")
    model.conv.weight.requires_grad_(False)
    with pytest.raises(
        InvalidValueError, match=r"samples of .* must be such that the network takes them, got .* \(7, 1"
    ):
        PerSampleGradients(model.train())(inputs[:, :1], target)
    assert model.training
    assert not model.conv.weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_a_batch_norm_without_statistics_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2))
    with pytest.raises(
        InvalidValueError, match="model of PerSampleGradients must be a network whose samples do not int"
    ):
        PerSampleGradients(model)(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))


class Branching(nn.Module):
    """A network that uses another layer for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.large(x) if x.abs().max() > 1 else self.small(x)


def test_a_batch_on_another_branch() -> None:
    model = Branching().double()
    per_sample = PerSampleGradients(model)
    target = torch.zeros(5, dtype=torch.int64)
    small, large = torch.rand(5, 3, dtype=torch.float64) / 2, torch.rand(5, 3, dtype=torch.float64) + 2
    mixed = torch.cat([small[:2], large[2:]])
    for inputs in (small, large, mixed):
        expected = gradient_by_gradient(model, inputs, target)
        found = per_sample(inputs, target)
        torch.testing.assert_close(found.inner(found), expected @ expected.mT, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 5, 256, 700])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25, 0.0])
def test_norms_are_exact_where_squares_vanish_or_overflow(dtype: torch.dtype, size: int, scale: float) -> None:
    rows = (torch.randn(3, size, dtype=torch.float64) * scale).to(dtype)
    rows[1] = 1.0
    expected = torch.tensor([sum(value**2 for value in row) ** 0.5 for row in rows.double().tolist()])
    torch.testing.assert_close(exact_norms(rows).float(), expected.float(), rtol=1e-6, atol=0)


def test_rows_with_nan_or_infinity_are_found_and_large_sums_are_none() -> None:
    rows = torch.full((4, 9), 1e38)
    rows[1, 3], rows[2, 8] = torch.nan, torch.inf
    assert rows_are_finite(rows).tolist() == [True, False, False, True]


class TwoPrecisions(nn.Module):
    """A body in float64 and a head in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 30), nn.ReLU())
        self.body, self.fc = body.double(), nn.Linear(30, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.double()).float())


@pytest.mark.parametrize("prefers_outer", [lambda _: True, lambda _: False])
def test_parameters_of_two_precisions_have_gradients_of_the_higher_one(prefers_outer: Any) -> None:
    model, x, target = TwoPrecisions(), torch.randn(5, 2, 4, 4), torch.arange(5) % 4
    of_samples = PerSampleGradients(model, prefers_outer=prefers_outer)
    gradients = of_samples(x, target)
    expected = of_samples.flat(x, target)
    assert gradients.dense.dtype == torch.float64
    parts = [part for product in gradients.outer.values() for part in (product.left, product.right)]
    assert all(part.dtype == torch.float64 for part in parts)
    outer = {name: product.matrices() for name, product in gradients.outer.items()}
    torch.testing.assert_close(of_samples.flatten(gradients.dense, outer), expected, rtol=1e-5, atol=1e-7)
    along = of_samples.derivative_along(x[:1], target[0], of_samples.sum_of(gradients))
    torch.testing.assert_close(along, expected[0] @ expected.sum(0), rtol=1e-5, atol=1e-7)
