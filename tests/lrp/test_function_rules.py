"""Each rule for functions beside its formula, entry by entry; and the functions compute what they compute without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from zennit.composites import EpsilonPlus
from zennit.core import Composite

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.lrp import FunctionRules

CLOSE = {"rtol": 1e-6, "atol": 1e-9}
STABILIZER = 1e-12  # as good as none: the formulas have none


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Function(nn.Module):
    """A network that is one function, and the layer that it calls."""

    def __init__(self, function: Callable[..., Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, *operands: Tensor) -> Tensor:
        return self.function(*operands)


def relevance(
    function: Callable[..., Tensor],
    *operands: Tensor,
    start: Tensor | None = None,
    layer: nn.Module | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Output, the relevance that starts there and that of the operands."""
    net, points = Function(function, layer), [operand.clone().requires_grad_() for operand in operands]
    with Composite(canonizers=[FunctionRules(stabilizer=STABILIZER, **options)]).context(net):
        output = net(*points)
    start = drawn(output.numel(), seed=9).reshape(output.shape) if start is None else start
    return output.detach(), start, torch.autograd.grad(output, points, start, materialize_grads=True)


A, B = drawn(3, 4, seed=1), drawn(3, 4, seed=2)


def add_in_place(a: Tensor, b: Tensor) -> Tensor:
    result = a.clone()
    result += b
    return result


@pytest.mark.parametrize(
    ("function", "signs"),
    [
        (lambda a, b: a + b, (1, 1)),
        (torch.add, (1, 1)),
        (add_in_place, (1, 1)),
        (lambda a, b: a - b, (1, -1)),
        (lambda a, b: torch.rsub(a, b), (-1, 1)),
        (lambda a, b: torch.stack([a, b]).sum(0), (1, 1)),
        (lambda a, b: torch.stack([a, b]).mean(dim=0), (1, 1)),
        (lambda a, b: a.add(b, alpha=2) + 0.5, (1, 2)),
    ],
)
def test_sums_share_by_contributions(function: Callable[..., Tensor], signs: tuple[int, int]) -> None:
    _, start, found = relevance(function, A, B)
    total = signs[0] * A + signs[1] * B
    for operand, sign, share in zip((A, B), signs, found, strict=True):
        torch.testing.assert_close(share, sign * operand / total * start, **CLOSE)


def test_a_sum_of_unlike_shapes_adds_up_the_shares_of_what_is_repeated() -> None:
    row = drawn(4, seed=3)
    _, start, (of_a, of_row) = relevance(torch.add, A, row)
    torch.testing.assert_close(of_a, A / (A + row) * start, **CLOSE)
    torch.testing.assert_close(of_row, (row / (A + row) * start).sum(0), **CLOSE)


@pytest.mark.parametrize("function", [lambda z: z.mean(1), lambda z: z.sum(1), lambda z: F.avg_pool1d(z, 4)[:, 0]])
def test_means_share_by_contributions(function: Callable[..., Tensor]) -> None:
    _, start, (found,) = relevance(function, A)
    torch.testing.assert_close(found, A / A.sum(1, keepdim=True) * start[:, None], **CLOSE)


POOLINGS: list[Callable[[Tensor], Tensor]] = [
    lambda z: z.mean((2, 3)),
    lambda z: F.adaptive_avg_pool2d(z, 1).flatten(1),
    lambda z: F.avg_pool2d(z, 5).flatten(1),
]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_by_function_is_explained_like_the_module(pooling: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(1, 4, 2).double(), drawn(3, 1, 6, 6)
    by_module = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    by_function, maps = nn.Sequential(layer, nn.ReLU(), Function(pooling)), []
    for net, canonizers in ((by_module, []), (by_function, [FunctionRules()])):
        point = x.clone().requires_grad_()
        with EpsilonPlus(canonizers=canonizers).context(net):
            maps += torch.autograd.grad(net(point), point, drawn(3, 4, seed=9))
    torch.testing.assert_close(*maps)


def test_matrix_products_give_half_to_each_factor() -> None:
    values = drawn(4, 2, seed=3)
    for function in (torch.matmul, torch.mm, lambda a, v: torch.einsum("jp,pk->jk", a, v), lambda a, v: a @ v):
        output, start, (of_a, of_v) = relevance(function, A, values)
        expected_a, expected_v = torch.zeros_like(A), torch.zeros_like(values)
        for j in range(3):
            for i in range(4):
                for p in range(2):
                    share = A[j, i] * values[i, p] / (2 * output[j, p]) * start[j, p]
                    expected_a[j, i] += share
                    expected_v[i, p] += share
        torch.testing.assert_close(of_a, expected_a, **CLOSE)
        torch.testing.assert_close(of_v, expected_v, **CLOSE)


def mul_in_place(a: Tensor, b: Tensor) -> Tensor:
    result = a.clone()
    result *= b
    return result


@pytest.mark.parametrize("function", [lambda a, b: a * b, torch.mul, mul_in_place])
def test_gates_give_half_to_each_factor(function: Callable[..., Tensor]) -> None:
    _, start, found = relevance(function, A, B)
    for share in found:
        torch.testing.assert_close(share, start / 2, **CLOSE)


def test_a_gated_linear_unit_is_a_product_with_an_activation() -> None:
    _, start, (found,) = relevance(lambda z: F.glu(z, 1), A)
    torch.testing.assert_close(found, torch.cat([start, start], dim=1) / 2, **CLOSE)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: 3 * z,
        lambda z: z * B,
        lambda z: z / B,
        lambda z: z / 7,
        lambda z: z / z.detach().norm(),
        lambda z: z / z.norm(dim=1, keepdim=True),
        lambda z: F.normalize(z, dim=1),
        lambda z: z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-5),
        lambda z: F.rms_norm(z, (4,), B[0], 1e-3),
        lambda z: F.rms_norm(z, (4,)),
        F.gelu,
        F.silu,
        torch.tanh,
        torch.sigmoid,
        F.elu,
        F.relu,
        lambda z: F.leaky_relu(z, 0.3),
        lambda z: F.prelu(z, torch.full((1,), 0.3, dtype=z.dtype)),
        F.relu6,
        F.hardtanh,
        lambda z: F.threshold(z, 0.1, 0.2),
        lambda z: z.clamp(-0.2, 0.3),
        lambda z: torch.clip(z, max=0.3),
        lambda z: F.leaky_relu(z + 1, 0.3, inplace=True),
        lambda z: (z + 1).clamp_(0, 0.3),
        lambda z: (z + 1).tanh_(),
        lambda z: z + 3,
        lambda z: B - z,
        lambda z: z**3,
        torch.square,
        lambda z: z * (z.pow(2).mean(1, keepdim=True) + 1e-5).pow(-0.5),
        lambda z: 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.044715 * z.pow(3)))),
        lambda z: 3 - z,
        lambda z: -z,
    ],
)
def test_constant_factors_normalisers_and_activations_hand_relevance_on(function: Callable[..., Tensor]) -> None:
    output, start, (found,) = relevance(function, A)
    torch.testing.assert_close(output, function(A))
    torch.testing.assert_close(found, start, **CLOSE)


@pytest.mark.parametrize("inplace", [nn.ReLU(inplace=True), nn.LeakyReLU(0.3, inplace=True), nn.SiLU(inplace=True)])
def test_what_an_activation_writes_to_its_input_stays_there(inplace: nn.Module) -> None:
    def residual(z: Tensor) -> Tensor:
        doubled = 2 * z
        return inplace(doubled) + doubled  # twice the activation

    output, start, (found,) = relevance(residual, A)
    torch.testing.assert_close(output, residual(A))
    arrives = output != 0  # a sum of zeros has no contributions
    torch.testing.assert_close(found[arrives], start[arrives], **CLOSE)


def test_bounds_that_depend_on_the_input_have_no_rule() -> None:
    output, start, found = relevance(lambda a, b: torch.clamp(a, max=b), A, B)
    torch.testing.assert_close(output, torch.minimum(A, B))
    torch.testing.assert_close(found[0] + found[1], start)  # the gradient


def softmax_rule(logits: Tensor, start: Tensor) -> Tensor:
    """R_i = x_i (R_i − s_i Σ_j R_j), one entry at a time, for each row."""
    result = torch.zeros_like(logits)
    for row in range(len(logits)):
        weights = torch.exp(logits[row]) / torch.exp(logits[row]).sum()
        for i in range(logits.shape[1]):
            if weights[i] > 0:
                result[row, i] = logits[row, i] * (start[row, i] - weights[i] * start[row].sum())
    return result


@pytest.mark.parametrize("function", [lambda z: z.softmax(-1), nn.Softmax(dim=1), lambda z: torch.softmax(z, 1)])
def test_softmax_by_its_expansion(function: Callable[..., Tensor]) -> None:
    _, start, (found,) = relevance(function, A)
    torch.testing.assert_close(found, softmax_rule(A, start), **CLOSE)


def test_softmax_is_gradient_times_input_of_what_stands_above() -> None:
    """R_i = x_i ∂(Σ_j s_j g_j)/∂x_i for R_j = s_j g_j, by autograd."""
    factors, point = drawn(3, 4, seed=5), A.clone().requires_grad_()
    weights = point.softmax(1)
    (gradient,) = torch.autograd.grad((weights * factors).sum(), point)
    _, _, (found,) = relevance(lambda z: z.softmax(1), A, start=(weights * factors).detach())
    torch.testing.assert_close(found, A * gradient, **CLOSE)


def test_masked_logits_get_no_relevance() -> None:
    mask = torch.zeros(4, dtype=torch.float64).index_fill(0, torch.tensor([1]), -torch.inf)
    _, start, (found,) = relevance(lambda z: (z + mask).softmax(1), A)
    assert not found[:, 1].any()
    _, start, (found,) = relevance(lambda z: (z + mask).softmax(1), A, start=start.index_fill(1, torch.tensor([1]), 0))
    expected = softmax_rule(A[:, [0, 2, 3]], start[:, [0, 2, 3]])
    torch.testing.assert_close(found[:, [0, 2, 3]], expected, **CLOSE)


def test_constant_softmax_gives_all_to_the_values() -> None:
    values = drawn(4, 2, seed=3)
    output, start, (of_logits, of_values) = relevance(lambda z, v: z.softmax(1) @ v, A, values, softmax="constant")
    weights = A.softmax(1)
    expected = torch.einsum("ji,ip,jp->ip", weights, values, start / output)
    torch.testing.assert_close(of_values, expected, **CLOSE)
    assert not of_logits.any()


def norm_rule(x: Tensor, gamma: Tensor, eps: float, start: Tensor) -> Tensor:
    """Contribution of x_i to y_j: γ_j (δ_ij − 1/d) x_i / σ, relative to their sum, for a vector x."""
    d = len(x)
    sigma = torch.sqrt(((x - x.mean()) ** 2).mean() + eps)
    contributions = torch.tensor(
        [[float(gamma[j] * ((i == j) - 1 / d) * x[i] / sigma) for i in range(d)] for j in range(d)], dtype=x.dtype
    )
    return (contributions / contributions.sum(1, keepdim=True) * start[:, None]).sum(0)


def test_layer_norm_is_linear_with_a_constant_normaliser() -> None:
    gamma, beta = drawn(4, seed=5), drawn(4, seed=6)
    for function in (F.layer_norm, torch.layer_norm):
        output, start, (found,) = relevance(lambda z, f=function: f(z, (4,), gamma, beta, 0.1), A)
        torch.testing.assert_close(output, F.layer_norm(A, (4,), gamma, beta, 0.1))
        expected = torch.stack([norm_rule(x, gamma, 0.1, r) for x, r in zip(A, start, strict=True)])
        torch.testing.assert_close(found, expected, **CLOSE)


def test_group_norm_is_a_layer_norm_of_each_group() -> None:
    x, gamma, beta = drawn(2, 6, 2, 1, seed=4), drawn(6, seed=5), drawn(6, seed=6)
    output, start, (found,) = relevance(lambda z: F.group_norm(z, 3, gamma, beta, 0.1), x)
    torch.testing.assert_close(output, F.group_norm(x, 3, gamma, beta, 0.1))
    for n in range(2):
        for group in (slice(0, 2), slice(2, 4), slice(4, 6)):
            of_entry = gamma[group].repeat_interleave(2)
            expected = norm_rule(x[n, group].flatten(), of_entry, 0.1, start[n, group].flatten())
            torch.testing.assert_close(found[n, group].flatten(), expected, **CLOSE)


@pytest.mark.parametrize("affine", [True, False])
def test_norm_layers_compute_the_same(affine: bool) -> None:
    layers = [nn.LayerNorm((4, 5), elementwise_affine=affine), nn.GroupNorm(2, 6, affine=affine)]
    for layer in (*layers, nn.RMSNorm((4, 5), elementwise_affine=affine)):
        layer.double()
        output, _, _ = relevance(layer, drawn(3, 6, 4, 5))
        torch.testing.assert_close(output, layer(drawn(3, 6, 4, 5)))


def linear_rule(x: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    """R_i = Σ_j w_ji x_i / z_j · R_j."""
    return torch.einsum("...i,ji,...j->...i", x, weight, start / (x @ weight.T))


def test_linear_maps_by_function() -> None:
    weight, bias = drawn(2, 4, seed=5), drawn(2, seed=6)
    for function in (
        lambda z: F.linear(z, weight, bias),
        lambda z: torch.addmm(bias, z, weight.T),
        lambda z: torch.baddbmm(bias, z[None], weight.T[None], beta=2, alpha=3)[0],
        lambda z: z @ weight.T + bias,
    ):
        output, start, (found,) = relevance(function, A)
        torch.testing.assert_close(output, function(A))
        torch.testing.assert_close(found, linear_rule(A, weight, start), **CLOSE)


def attention_rule(q: Tensor, k: Tensor, v: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    """The rules of one head in turn, (positions, width) each."""
    logits = q @ k.T / q.shape[1] ** 0.5
    weights = logits.softmax(1)
    ratio = start / (weights @ v)
    of_weights = weights * (ratio @ v.T) / 2
    of_values = v * (weights.T @ ratio) / 2
    ratio = softmax_rule(logits, of_weights) / (q @ k.T)
    return q * (ratio @ k) / 2, k * (ratio.T @ q) / 2, of_values


def test_attention_by_function_is_its_parts_in_turn() -> None:
    q, k, v = (drawn(3, 4, seed=seed) for seed in (1, 2, 3))
    _, start, found = relevance(F.scaled_dot_product_attention, q, k, v)
    for share, expected in zip(found, attention_rule(q, k, v, start), strict=True):
        torch.testing.assert_close(share, expected, **CLOSE)


def test_an_attention_layer_is_projections_and_heads_in_turn() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x, w_in, w_out = drawn(1, 3, 4, seed=7), layer.in_proj_weight.detach(), layer.out_proj.weight.detach()
    for need_weights in (False, True):
        _, start, (found,) = relevance(
            lambda z, need=need_weights: layer(z, z, z, need_weights=need)[0], x, layer=layer
        )
        q, k, v = (x[0] @ w.T for w in w_in.chunk(3))
        heads = [[t[:, :2], t[:, 2:]] for t in (q, k, v)]
        mixed = torch.cat([F.scaled_dot_product_attention(*(t[h] for t in heads)) for h in (0, 1)], dim=1)
        of_mixed = linear_rule(mixed, w_out, start[0])
        parts = [attention_rule(*(t[h] for t in heads), of_mixed[:, 2 * h : 2 * h + 2]) for h in (0, 1)]
        shares = [torch.cat([parts[h][i] for h in (0, 1)], dim=1) for i in range(3)]
        expected = sum(linear_rule(x[0], w, share) for w, share in zip(w_in.chunk(3), shares, strict=True))
        torch.testing.assert_close(found[0], expected, **CLOSE)


Q = drawn(2, 4, 5, 6)
SAME: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "causal": (lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True), Q),
    "boolean mask": (lambda z: F.scaled_dot_product_attention(z, z, z, torch.ones(5, 5).tril().bool()), Q),
    "added mask": (lambda z: F.scaled_dot_product_attention(z, z, z, drawn(5, 5)), Q),
    "scale": (lambda z: F.scaled_dot_product_attention(z, z, z, scale=0.3), Q),
    "grouped queries": (lambda z: F.scaled_dot_product_attention(z, z[:, :2], z[:, 2:], enable_gqa=True), Q),
    "other type": (lambda z: z.softmax(-1, dtype=torch.float32).double(), Q),
    "type by position": (lambda z: torch.softmax(z, -1, torch.float32).double(), Q),
    "constant of a larger shape": (lambda z: z[:1] + Q, Q),
    "silu in place": (lambda z: F.silu(z.clone(), inplace=True), Q),
    "in place": (lambda z: add_in_place(z, z.roll(1)).mul_(z).div_(2).sub_(z), Q),
    "no axis": (lambda z: z.mean(), Q),
    "quotient of a constant": (lambda z: 1 / (3 + z.abs()), Q),
    "rounded": (lambda z: torch.div(z, 0.3, rounding_mode="floor") + z, Q),
}


@pytest.mark.parametrize(("function", "x"), SAME.values(), ids=SAME)
def test_functions_compute_what_they_compute_without(function: Callable[..., Tensor], x: Tensor) -> None:
    output, _, (found,) = relevance(function, x)
    torch.testing.assert_close(output, function(x))
    assert found.isfinite().all()


MASK = torch.tensor([[False] * 5, [False, False, False, True, True]])
LAYERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "weights": ({}, {"need_weights": True}),
    "padding": ({}, {"key_padding_mask": MASK, "need_weights": True}),
    "padding without weights": ({"batch_first": True}, {"key_padding_mask": MASK}),
    "added keys": ({"add_bias_kv": True, "add_zero_attn": True, "bias": False}, {"key_padding_mask": MASK}),
    "mask": ({}, {"attn_mask": torch.ones(5, 5).triu(1).bool()}),
}


@pytest.mark.parametrize(("options", "call"), LAYERS.values(), ids=LAYERS)
def test_attention_layers_compute_what_they_compute_without(options: dict[str, Any], call: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, **{"batch_first": True, **options}).double()
    x = drawn(2, 5, 6)
    call = {"need_weights": False, **call}
    output, _, (found,) = relevance(lambda z: layer(z, z.flip(1), z + 1, **call)[0], x, layer=layer)
    torch.testing.assert_close(output, layer(x, x.flip(1), x + 1, **call)[0])
    assert found.isfinite().all()


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_as_before(fails: bool) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2), Function(lambda z: z[0] * (1 // (not fails))))
    net[0].bias.requires_grad_(False)
    net[2].forward = net[2].forward  # an attribute of the user's
    before = [parameter.requires_grad for parameter in net.parameters()]
    hooked = EpsilonPlus(canonizers=[FunctionRules()])

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.net[0](x)
            return self.net[2](self.net[1](hidden, hidden, hidden))

    root = Wrapped()
    with hooked.context(root):
        if fails:
            with pytest.raises(ZeroDivisionError):
                root(torch.rand(3, 4, requires_grad=True))
        else:
            root(torch.rand(3, 4, requires_grad=True)).sum().backward()
    assert "forward" not in vars(root)
    assert "forward" in vars(net[2])
    assert [parameter.requires_grad for parameter in net.parameters()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in root.modules())


def test_a_forward_of_the_users_own_comes_back() -> None:
    net = Function(lambda z: z)
    own = net.forward = lambda z: z + z.roll(1, 0)
    with Composite(canonizers=[FunctionRules()]).context(net):
        assert net.forward is not own
    assert net.forward is own


def test_another_softmax_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="softmax of FunctionRules must be one of"):
        FunctionRules("uniform")


@pytest.mark.parametrize("softmax", ["constant", "taylor"])
def test_queries_that_see_no_key_have_no_output_and_no_relevance(softmax: str) -> None:
    """Padding in front of a sequence, under a causal mask."""
    mask = torch.ones(5, 5).tril().bool()
    mask[:, :2] = False  # two tokens of padding: the first two queries see nothing
    q, k, v = drawn(2, 3, 5, 4, seed=1), drawn(2, 3, 5, 4, seed=2), drawn(2, 3, 5, 4, seed=3)
    start = drawn(2, 3, 5, 4, seed=4)
    inside = [tensor[:, :, 2:] for tensor in (q, k, v)]
    output, _, found = relevance(
        lambda *z: F.scaled_dot_product_attention(*z, mask), q, k, v, start=start, softmax=softmax
    )
    expected_output, _, expected = relevance(
        lambda *z: F.scaled_dot_product_attention(*z, is_causal=True), *inside, start=start[:, :, 2:], softmax=softmax
    )
    torch.testing.assert_close(output[:, :, 2:], expected_output, **CLOSE)
    assert not output[:, :, :2].any()
    for of_operand, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(of_operand[:, :, 2:], alone, **CLOSE)
        assert not of_operand[:, :, :2].any()
