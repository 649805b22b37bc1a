"""Which of the final layer's inputs are φ(x), where it sees several positions of a sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Relative difference up to which the mean of the layer's outputs is the network's output.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_LOW_PRECISION = 3e-2


def n_features_of(layer: nn.Module) -> int | None:
    """The features of one sample that a layer expects; None if it does not say."""
    expected: int | None = getattr(layer, "in_features", getattr(layer, "in_channels", None))
    return expected


def is_flat(layer: nn.Module, layer_input: Tensor) -> bool:
    """Whether a layer's input is one feature vector for each sample."""
    expected = n_features_of(layer)
    return expected is None or layer_input[:1].numel() == expected


def pooled_features(layer: nn.Module, layer_input: Tensor, layer_output: Tensor, outputs: Tensor) -> Tensor | None:
    """φ (n, n_features) of a layer that is applied at each position; None if positions have no such layer.

    If the network's output is the layer's at one position of each sample, as with a token that stands for the sequence,
    φ is the layer's input there. If it is the mean of the layer's outputs, or if the layer is a 1 × 1 convolution, φ is
    the mean of its inputs.

    Args:
        layer: linear in the last axis, or a 1 × 1 convolution.
        layer_input: (n, …, n_features) or (n, n_features, …).
        layer_output: of the layer, likewise.
        outputs: of the network, (n, n_outputs).
    """
    convolution = _is_pointwise_convolution(layer)
    if convolution:
        layer_input, layer_output = layer_input.flatten(2).mT, layer_output.flatten(2).mT
    elif layer_input.ndim < 3 or layer_input.shape[-1] != n_features_of(layer):
        return None
    else:
        layer_input, layer_output = layer_input.flatten(1, -2), layer_output.flatten(1, -2)
    if layer_output.shape[0] != len(outputs) or layer_output.shape[2] != outputs.shape[1]:
        return None
    found = (layer_output.to(outputs) == outputs[:, None]).all(2)
    if bool(found.any(1).all()):
        return _at_one_position(layer_input, found)
    mean = layer_output.to(outputs).mean(1)
    scale = outputs.abs().amax(1, keepdim=True)
    is_mean = bool(((mean - outputs).abs() <= _ROUNDING.get(layer_output.dtype, _LOW_PRECISION) * scale).all())
    return layer_input.mean(1) if convolution or is_mean else None


def _at_one_position(layer_input: Tensor, found: Tensor) -> Tensor | None:
    """The input at the last position that was found, (n, n_features); None if positions disagree."""
    rows = torch.arange(len(found), device=found.device)
    last = found.shape[1] - 1 - found.flip(1).to(torch.int8).argmax(1)
    chosen = layer_input[rows, last]
    others = ((layer_input != chosen[:, None]).any(2) & found).any()
    return None if bool(others) else chosen


def _is_pointwise_convolution(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that sees one position at a time."""
    return (
        isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        and set(layer.kernel_size) == {1} == set(layer.stride)
        and set(layer.padding) == {0}
        and layer.groups == 1
    )
