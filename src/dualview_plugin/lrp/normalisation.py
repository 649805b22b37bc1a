"""Layer, group and root-mean-square norms as linear maps, whose normaliser is a constant for the rules of LRP."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from dualview_plugin.lrp.function_shares import share


def layer_norm(
    x: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    stabilizer: float,
) -> Tensor:
    """γ (x − μ) / σ + β over the last axes; σ is a constant, and β absorbs nothing."""
    axes = tuple(range(-len(normalized_shape), 0))
    scale = (x.detach().var(axes, correction=0, keepdim=True) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    normed = share(lambda z: (z - z.mean(axes, keepdim=True)) * scale, [x], stabilizer=stabilizer)
    return normed if bias is None else normed + bias


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, stabilizer: float
) -> Tensor:
    """γ (x − μ) / σ + β over each group of channels, axis 1, and all positions; σ is a constant."""
    grouped, per_channel = (len(x), num_groups, prod(x.shape[1:]) // num_groups), (1, -1, *[1] * (x.ndim - 2))
    variance = x.detach().reshape(grouped).var(2, correction=0, keepdim=True)
    factor = torch.ones_like(x[:1]) if weight is None else weight.reshape(per_channel).expand_as(x[:1])
    scale = ((variance + eps).rsqrt().expand(grouped).reshape(x.shape)) * factor

    def linear_part(z: Tensor) -> Tensor:
        groups = z.reshape(grouped)
        return (groups - groups.mean(2, keepdim=True)).reshape(z.shape) * scale

    normed = share(linear_part, [x], stabilizer=stabilizer)
    return normed if bias is None else normed + bias.reshape(per_channel)


def rms_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None, eps: float | None, stabilizer: float
) -> Tensor:
    """γ x / √(mean of x²) over the last axes; the root is a constant."""
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scale = (x.detach().square().mean(axes, keepdim=True) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return share(lambda z: z * scale, [x], stabilizer=stabilizer)
