"""Per-sample parameter gradients of single layers, from a layer's input and the gradient at its output.

Every rule takes the module, its input (n_samples, …) and the output gradient δ (n_samples, …) of one call. A dense rule
returns gradients (n_samples, *parameter shape); an outer rule returns them as outer products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualview_plugin.gradients.sample_gradients import OuterProducts

# Elements of the patches of a convolution that are written out at a time, 16 MiB in float32.
_PATCH_ELEMENTS = 2**22

# Modules are of the types that the rules are registered for; Any spares a cast in each of them.
DenseRule = Callable[[Any, Tensor, Tensor], Tensor]
OuterRule = Callable[[Any, Tensor, Tensor], OuterProducts]


@dataclass(frozen=True)
class LayerRule:
    """How one type of layer turns its input and output gradient into the gradients of its weight and bias."""

    weight: DenseRule
    bias: DenseRule
    outer_weight: OuterRule | None = None

    def dense(self, slot: str) -> DenseRule:
        """The dense rule of the parameter called ``slot`` in the layer."""
        return self.weight if slot == "weight" else self.bias

    def takes(self, module: nn.Module, inputs: Tensor) -> bool:
        """Whether the input has an axis for samples before the axes that one sample must have."""
        return inputs.dim() > _sample_axes(module)


def rule_of(module: nn.Module) -> LayerRule | None:
    """The rule for a module, or None where only automatic differentiation of each sample knows the gradient.

    Subclasses get none, because their forward may differ; nor do layers with parameters beside weight and bias
    (weight normalisation), embeddings that rescale, and batch norms without running statistics.
    """
    rule = _RULES.get(type(module))
    if rule is None or not set(module._parameters) <= {"weight", "bias"}:
        return None
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq):
        return None
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return None
    if getattr(module, "groups", 1) != 1:  # the weight of a grouped convolution is no matrix of input x output
        return LayerRule(rule.weight, rule.bias)
    return rule


def _sample_axes(module: nn.Module) -> int:
    """How many axes one sample's input of a layer has at least."""
    if isinstance(module, nn.Embedding):
        return 0
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape)
    kernel = getattr(module, "kernel_size", None)
    return 1 if kernel is None else 1 + len(kernel)


def cheaper_inner_product(product: OuterProducts) -> bool:
    """Whether an inner product of two such sums of outer products costs less than that of the two matrices."""
    n_terms, n_columns = product.right.shape[1:]
    left_cost = 1 if product.one_hot else product.n_rows
    return bool(n_terms**2 * (left_cost + n_columns) <= product.n_rows * n_columns)


def _linear_outer(_: nn.Linear, inputs: Tensor, delta: Tensor) -> OuterProducts:
    return OuterProducts(_positions(delta), _positions(inputs), delta.shape[-1])


def _linear_weight(module: nn.Linear, inputs: Tensor, delta: Tensor) -> Tensor:
    return _linear_outer(module, inputs, delta).matrices()


def _linear_bias(_: nn.Linear, __: Tensor, delta: Tensor) -> Tensor:
    return _positions(delta).sum(1)


def _embedding_outer(module: nn.Embedding, inputs: Tensor, delta: Tensor) -> OuterProducts:
    if module.padding_idx is not None:
        delta = delta * (inputs != module.padding_idx)[..., None]
    rows = inputs.flatten(1) if inputs.dim() > 1 else inputs[:, None]
    return OuterProducts(rows.long(), _positions(delta), module.num_embeddings)


def _embedding_weight(module: nn.Embedding, inputs: Tensor, delta: Tensor) -> Tensor:
    return _embedding_outer(module, inputs, delta).matrices()


def _convolution_outer(module: Any, inputs: Tensor, delta: Tensor) -> OuterProducts:
    return OuterProducts(delta.flatten(2).mT, _patches(module, inputs, delta).flatten(1, 2).mT, delta.shape[1])


def _convolution_weight(module: Any, inputs: Tensor, delta: Tensor) -> Tensor:
    """One matrix product for each sample, on the patches of few samples at a time; or one for each offset."""
    if _prefers_offsets(module, delta):
        return _weight_by_offsets(module, inputs, delta)
    n_samples, groups, n_positions = len(delta), module.groups, delta[:1, 0].numel()
    rows = delta.reshape(n_samples, groups, module.out_channels // groups, n_positions)
    weights = delta.new_empty(n_samples, *rows.shape[1:3], module.weight[0].numel())
    step = max(1, _PATCH_ELEMENTS // max(1, module.weight[0].numel() * groups * n_positions))
    for start in range(0, n_samples, step):
        part = slice(start, start + step)
        patches = _patches(module, inputs[part], delta[part]).reshape(-1, groups, weights.shape[-1], n_positions)
        torch.matmul(rows[part], patches.mT, out=weights[part])
    return weights.view(n_samples, *module.weight.shape)


def _prefers_offsets(module: Any, delta: Tensor) -> bool:
    """Whether a matrix product for each offset in the kernel is faster than one on patches: the figures are measured.

    Patches cost n_offsets · in_channels · n_positions numbers to write, the products of all offsets
    n_offsets · in_channels · out_channels.
    """
    few_channels = 4 * module.out_channels <= delta[0, 0].numel() and module.out_channels <= 2 * module.in_channels
    return few_channels and module.groups == 1 and set(module.stride) == {1} and module.weight[0, 0].numel() > 1


def _weight_by_offsets(module: Any, inputs: Tensor, delta: Tensor) -> Tensor:
    """For each offset in the kernel the product of δ with what the offset sees, which is not copied.

    With δ filled up by zeros to the rows of the padded input, what an offset sees is a stretch of the flat input.
    """
    weights = delta.new_empty(len(delta), *module.weight.shape)
    whole = _pad(module, inputs[:1]).shape[2:]
    strides = [math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
    length = 1 + sum((size - 1) * stride for size, stride in zip(delta.shape[2:], strides, strict=True))
    missing = [after for axis in range(len(whole) - 1, 0, -1) for after in (0, whole[axis] - delta.shape[2 + axis])]
    step = max(1, _PATCH_ELEMENTS // (math.prod(whole) * max(module.in_channels, module.out_channels)))
    for start in range(0, len(delta), step):
        part = slice(start, start + step)
        rows = functional.pad(delta[part], missing).flatten(2)[:, :, :length]
        columns = _pad(module, inputs[part]).flatten(2)
        for offset in itertools.product(*map(range, module.kernel_size)):
            first = sum(map(math.prod, zip(offset, module.dilation, strides, strict=True)))
            place: tuple[Any, ...] = (part, slice(None), slice(None), *offset)
            weights[place] = rows @ columns[:, :, first : first + length].mT
    return weights


def _patches(module: Any, inputs: Tensor, delta: Tensor) -> Tensor:
    """What each offset in the kernel sees: (n_samples, in_channels, n_offsets, n_positions)."""
    return torch.stack(list(_windows(module, inputs, delta)), 2).flatten(3)


def _windows(module: Any, inputs: Tensor, delta: Tensor) -> Iterator[Tensor]:
    """For each offset in the kernel, what it sees: (n_samples, in_channels, *output positions), a view."""
    padded = _pad(module, inputs.contiguous())  # of channels_last, copies by channels are several times slower
    sizes = delta.shape[2:]
    for offset in itertools.product(*map(range, module.kernel_size)):
        starts = [position * dilation for position, dilation in zip(offset, module.dilation, strict=True)]
        spans = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, module.stride, strict=True)
        ]
        yield padded[(slice(None), slice(None), *spans)]


def _pad(module: Any, inputs: Tensor) -> Tensor:
    """The input with the padding that the convolution adds."""
    if isinstance(module.padding, str):
        totals = [
            d * (k - 1) if module.padding == "same" else 0
            for d, k in zip(module.dilation, module.kernel_size, strict=True)
        ]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(padding, padding) for padding in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    flat = [side for pair in reversed(sides) for side in pair]
    return functional.pad(inputs, flat, mode=mode) if any(flat) else inputs


def _channels(_: Any, __: Tensor, delta: Tensor) -> Tensor:
    """The bias of a layer with channels: δ summed over all positions."""
    return delta.flatten(2).sum(2) if delta.dim() > 2 else delta


def _batch_norm_weight(module: Any, inputs: Tensor, delta: Tensor) -> Tensor:
    mean, variance = module.running_mean.to(inputs), module.running_var.to(inputs)
    normalised = functional.batch_norm(inputs, mean, variance, eps=module.eps)
    return _channels(module, inputs, delta * normalised)


def _group_norm_weight(module: nn.GroupNorm, inputs: Tensor, delta: Tensor) -> Tensor:
    return _channels(module, inputs, delta * functional.group_norm(inputs, module.num_groups, eps=module.eps))


def _layer_norm_weight(module: nn.LayerNorm, inputs: Tensor, delta: Tensor) -> Tensor:
    shape = list(module.normalized_shape)
    return _layer_norm_bias(module, inputs, delta * functional.layer_norm(inputs, shape, eps=module.eps))


def _layer_norm_bias(module: nn.LayerNorm, _: Tensor, delta: Tensor) -> Tensor:
    positions = delta.dim() - 1 - len(module.normalized_shape)
    return delta.flatten(1, positions).sum(1) if positions else delta


def _positions(values: Tensor) -> Tensor:
    """(n_samples, …, size) → (n_samples, n_positions, size)."""
    return values.flatten(1, -2) if values.dim() > 2 else values[:, None]


_CONVOLUTION = LayerRule(_convolution_weight, _channels, _convolution_outer)
_BATCH_NORM = LayerRule(_batch_norm_weight, _channels)
_RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: LayerRule(_linear_weight, _linear_bias, _linear_outer),
    nn.Embedding: LayerRule(_embedding_weight, _linear_bias, _embedding_outer),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONVOLUTION),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _BATCH_NORM),
    nn.GroupNorm: LayerRule(_group_norm_weight, _channels),
    nn.LayerNorm: LayerRule(_layer_norm_weight, _layer_norm_bias),
}
