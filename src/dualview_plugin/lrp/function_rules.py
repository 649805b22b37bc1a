"""Rules of LRP for sums, products, attention, norms and activations that a network computes by functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from zennit.canonizers import Canonizer
from zennit.rules import Pass

from dualview_plugin.lrp.function_shares import identity, share, softmax
from dualview_plugin.lrp.normalisation import group_norm, layer_norm, rms_norm
from dualview_plugin.validation import check_option

_SUMS = {"add", "sub", "subtract", "rsub", "__rsub__"}
_MEANS = {
    "mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
}  # fmt: skip
_PRODUCTS = {"mul", "multiply", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "mv", "einsum"}
_QUOTIENTS = {"div", "divide", "true_divide"}
_ACTIVATIONS = {
    "gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "hardswish", "sigmoid",
    "hardsigmoid", "tanh", "softsign", "relu", "leaky_relu", "prelu", "rrelu", "relu6", "hardtanh", "clamp", "clip",
    "clamp_min", "clamp_max", "threshold", "_threshold",
}  # fmt: skip
_IN_PLACE = {
    "add_": Tensor.add, "sub_": Tensor.sub, "mul_": Tensor.mul, "div_": Tensor.div, "tanh_": Tensor.tanh,
    "sigmoid_": Tensor.sigmoid, "relu_": Tensor.relu, "leaky_relu_": F.leaky_relu, "hardtanh_": F.hardtanh,
    "threshold_": F.threshold, "clamp_": Tensor.clamp, "clip_": Tensor.clip, "clamp_min_": Tensor.clamp_min,
    "clamp_max_": Tensor.clamp_max,
}  # fmt: skip

Softmax = Literal["taylor", "constant"]


class FunctionRules(Canonizer):  # type: ignore[misc]
    """Rules of AttnLRP for what a composite does not see, since the network computes it by functions and operators.

    - Residual and other sums, and means over positions: by contributions (epsilon rule).
    - Matrix products, elementwise products and gates: half of the relevance to each factor (uniform rule). A constant
      factor, such as a layer scale or 1/√d, gets none.
    - Softmax: R_i = x_i (R_i − s_i Σ_j R_j), by its Taylor expansion, whose constant absorbs the rest.
    - Layer, group and root-mean-square norms, and quotients: the normaliser is a constant, and what is left is linear.
    - GELU, SiLU, ReLU, leaky ReLU, clamps and other activations: the identity rule.
    - Linear maps by function, such as the projections of ``nn.MultiheadAttention``: the epsilon rule.

    Layers that are modules keep the composite's rule. The network computes what it computes without.

    Args:
        softmax: ``"taylor"``; or ``"constant"``: attention weights are constants, and all relevance goes to the values
            (Ali et al. 2022), so that nothing is absorbed: what :func:`named_composite` takes.
        stabilizer: what is added to denominators, with their sign.

    Raises:
        InvalidValueError: another value of ``softmax``.

    Source: Achtibat et al. 2024, AttnLRP (arXiv 2402.05602); Ali et al. 2022 (arXiv 2202.07304).

    Differs: a constant that is added, such as a bias or a position embedding, gets no relevance here.

    Cost: in the backward pass these functions run once more. A pass of torchvision's ConvNeXt-T takes 1.3 times that
    without these rules (measured on one core).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zennit.composites import EpsilonPlus
        >>> from dualview_plugin import FunctionRules
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU()).double()
        >>> x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64, requires_grad=True)
        >>> with EpsilonPlus(zero_params="bias", canonizers=[FunctionRules()]).context(network):
        ...     output = network(x)
        ...     (relevance,) = torch.autograd.grad(output, x, output)
        >>> torch.allclose(relevance.sum(), output.sum(), rtol=1e-3)
        True
    """

    def __init__(self, softmax: Softmax = "taylor", stabilizer: float = 1e-6) -> None:
        check_option(softmax, "softmax", type(self).__name__, ("taylor", "constant"))
        self.softmax, self.stabilizer = softmax, stabilizer
        self._root: nn.Module | None = None
        self._own_forward: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(softmax={self.softmax!r}, stabilizer={self.stabilizer!r})"

    def copy(self) -> FunctionRules:
        """A canonizer with the same options that is not applied."""
        return FunctionRules(self.softmax, self.stabilizer)

    def apply(self, root_module: nn.Module) -> list[Canonizer]:
        """Put the rules around the network's forward pass, by a copy of this canonizer."""
        instance = self.copy()
        instance.register(root_module)
        return [instance]

    def register(self, root_module: nn.Module) -> None:
        """Put the rules around the network's forward pass."""
        forward = root_module.forward
        self._root, self._own_forward = root_module, vars(root_module).get("forward")

        def under_rules(*args: Any, **kwargs: Any) -> Any:
            _leave_attention_to_functions(root_module)
            with _constant_parameters(root_module), _Functions(self.softmax == "constant", self.stabilizer):
                return forward(*args, **kwargs)

        vars(root_module)["forward"] = under_rules

    def remove(self) -> None:
        """Give the network its own forward pass back."""
        if self._root is not None:
            attributes = vars(self._root)
            attributes.pop("forward", None)
            if self._own_forward is not None:
                attributes["forward"] = self._own_forward
            self._root = None


def _leave_attention_to_functions(root: nn.Module) -> None:
    """Take Zennit's ``Pass`` off attention layers, which Zennit counts among the activations."""
    for module in root.modules():
        if isinstance(module, nn.MultiheadAttention):
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key, hook in list(hooks.items()):
                    if type(getattr(hook, "__self__", None)) is Pass:
                        del hooks[key]


@contextmanager
def _constant_parameters(root: nn.Module) -> Iterator[None]:
    """Parameters need no gradient in the block, so that a tensor that needs one depends on the input."""
    parameters = [parameter for parameter in root.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class _Functions(TorchFunctionMode):
    """Functions that are called in the block carry relevance by their rules, where they depend on the input."""

    def __init__(self, constant_softmax: bool, stabilizer: float) -> None:
        super().__init__()
        self.constant_softmax, self.stabilizer = constant_softmax, stabilizer
        of_function: list[tuple[set[str], Callable[..., Any]]] = [
            (_SUMS, self._sum),
            (_MEANS, self._linear_map),
            (_PRODUCTS, self._product),
            (_QUOTIENTS, self._quotient),
            (_ACTIVATIONS | {"neg", "negative"}, self._activation),
            ({"linear"}, self._linear),
            ({"addmm", "baddbmm"}, self._added_product),
            ({"softmax"}, self._softmax),
            ({"scaled_dot_product_attention"}, self._attention),
            (set(_BY_PARTS), self._by_parts),
            ({"glu"}, self._gate),
            ({"layer_norm"}, self._layer_norm),
            ({"group_norm"}, self._group_norm),
            ({"rms_norm"}, self._rms_norm),
            ({"rsqrt"}, self._normaliser),
            ({"pow", "square"}, self._power),
        ]
        self._rules = {name: rule for names, rule in of_function for name in names}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's result; in the graph by a rule if there is one and the result depends on the input."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if (
            not torch.is_grad_enabled()
            or not (name in self._rules or name in _IN_PLACE)
            or not _dependent(args, kwargs)
        ):
            return func(*args, **kwargs)
        in_place = kwargs.pop("inplace", False)
        if in_place or name in _IN_PLACE:  # on a copy, since the rule keeps what it takes
            func, target = _IN_PLACE.get(name, func), args[0]
            return target.copy_(self._rules[func.__name__](func, target.clone(), *args[1:], **kwargs))
        return self._rules[name](func, *args, **kwargs)

    def _linear_map(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Linear in all that depends on the input at once."""
        return share(*_as_function(func, args, kwargs), stabilizer=self.stabilizer)

    def _sum(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """A sum or a difference; beside a constant, the other operand gets all."""
        compute, operands = _as_function(func, args, kwargs)
        if len(operands) > 1:
            return share(compute, operands, stabilizer=self.stabilizer)
        (operand,) = operands
        shapes = [leaf.shape for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        is_repeated = torch.broadcast_shapes(*shapes) != operand.shape  # type: ignore[no-untyped-call]
        return func(*args, **kwargs) if is_repeated else identity(compute, operand)

    def _product(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Linear in each factor."""
        compute, operands = _as_function(func, args, kwargs)
        return share(compute, operands, n_factors=len(operands), stabilizer=self.stabilizer)

    def _quotient(self, func: Any, input: Any, other: Any, **kwargs: Any) -> Any:
        """The denominator is a constant."""
        if kwargs or not _dependent(input):
            return func(input, other, **kwargs)
        return self._linear_map(func, input, other.detach() if isinstance(other, Tensor) else other)

    def _normaliser(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """1 / √x is a constant: it is there to normalise."""
        return func(*args, **kwargs).detach()

    def _power(self, func: Any, input: Any, exponent: Any = 2) -> Any:
        """A product of equal factors, or a normaliser if the exponent is negative."""
        if isinstance(exponent, Tensor) or not isinstance(input, Tensor):
            return func(input, exponent)
        args = (input,) if func.__name__ == "square" else (input, exponent)
        return self._activation(func, *args) if exponent > 0 else self._normaliser(func, *args)

    def _activation(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Elementwise, on a copy, since some may write to their input."""
        compute, operands = _as_function(func, args, kwargs)
        if len(operands) > 1:  # a slope or a bound that depends on the input too
            return func(*args, **kwargs)
        return identity(lambda x: compute(x.clone()), *operands)

    def _linear(self, _: Any, input: Any, weight: Any, bias: Any = None) -> Any:
        """A linear map by function. In a layer that has a rule, that rule counts."""
        product = self._product(F.linear, input, weight)
        return product if bias is None else self._sum(torch.add, product, bias)

    def _added_product(self, _: Any, input: Any, first: Any, second: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        """β · input + α · first @ second."""
        with self:
            product = first @ second
            return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)

    def _softmax(self, func: Any, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Softmax over an axis."""
        if dim is None:
            return func(input, dim, *args, **kwargs)
        dtypes = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
        logits = input.to(dtypes[0]) if dtypes else input
        return logits.detach().softmax(dim) if self.constant_softmax else softmax(logits, dim)

    def _attention(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """softmax(Q Kᵀ · scale + mask) V, by its parts."""
        if dropout_p:
            return func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        with self:
            logits = query @ key.mT * factor
            if is_causal:
                attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                logits = logits.masked_fill(~attn_mask, -torch.inf)
            elif attn_mask is not None:
                logits = logits + attn_mask
            unseeing = (logits.detach() == -torch.inf).all(-1, keepdim=True)  # as padding in front, under a causal mask
            weights = logits.masked_fill(unseeing, 0.0).softmax(-1).masked_fill(unseeing, 0.0)
            return weights @ value

    def _by_parts(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """The function of torch itself, with these rules for its parts."""
        with self:
            return _BY_PARTS[func.__name__](*args, **kwargs)

    def _gate(self, _: Any, input: Tensor, dim: int = -1) -> Any:
        """A gated linear unit: a · sigmoid(b)."""
        first, second = input.chunk(2, dim)
        with self:
            return first * second.sigmoid()

    def _layer_norm(
        self,
        _: Any,
        input: Tensor,
        normalized_shape: Any,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
        *__: Any,
    ) -> Tensor:
        return layer_norm(input, normalized_shape, weight, bias, eps, self.stabilizer)

    def _group_norm(
        self, _: Any, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *__: Any
    ) -> Tensor:
        return group_norm(input, num_groups, weight, bias, eps, self.stabilizer)

    def _rms_norm(
        self, _: Any, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
    ) -> Tensor:
        return rms_norm(input, normalized_shape, weight, eps, self.stabilizer)


def _dependent(*values: Any) -> list[Tensor]:
    """The tensors in nested arguments that depend on the input."""
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]


def _as_function(func: Any, args: Any, kwargs: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The call as a function of what depends on the input, and that."""
    leaves, structure = tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]

    def compute(*operands: Tensor) -> Tensor:
        filled = list(leaves)
        for place, operand in zip(places, operands, strict=True):
            filled[place] = operand
        own_args, own_kwargs = tree_unflatten(filled, structure)
        result: Tensor = func(*own_args, **own_kwargs)
        return result

    return compute, [leaves[place] for place in places]


def _by_parts(function: Any) -> Any:
    """A function of torch whose parts are seen by a mode; torch's own hides them behind its name."""
    own_globals = {**function.__globals__, **dict.fromkeys(_GUARDS, lambda *_: False)}
    copied = FunctionType(
        function.__code__, own_globals, function.__name__, function.__defaults__, function.__closure__
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


_GUARDS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_BY_PARTS = {function.__name__: _by_parts(function) for function in (F.multi_head_attention_forward, F.normalize)}
