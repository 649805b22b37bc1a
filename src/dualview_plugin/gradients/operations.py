"""The operations in autograd's graph, and which of them leave the samples of a batch in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor

from dualview_plugin.gradients.parameter_uses import followed_edges

# Of which it is known that rows stay where they are, whatever their values.
_IN_ORDER: frozenset[str] = frozenset().union(
    (
        "Addmm",
        "Mm",
        "Bmm",
        "Baddbmm",
        "Mv",
        "Dot",
        "Convolution",
        "MkldnnConvolution",
        "MkldnnLinear",
        "Embedding",
        "ScaledDotProductFlashAttentionForCpu",
    ),
    (
        "NativeBatchNorm",
        "CudnnBatchNorm",
        "NativeGroupNorm",
        "NativeLayerNorm",
    ),
    (
        "Relu",
        "LeakyRelu",
        "Prelu",
        "PreluKernel",
        "Elu",
        "Gelu",
        "Silu",
        "Mish",
        "Sigmoid",
        "LogSigmoid",
        "Tanh",
        "Hardtanh",
        "Hardswish",
        "Hardsigmoid",
        "Softplus",
        "Threshold",
        "Clamp",
        "ClampMin",
        "ClampMax",
        "Softmax",
        "LogSoftmax",
    ),
    (
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "AvgPool2D",
        "AvgPool3D",
        "AdaptiveAvgPool2D",
        "MkldnnAdaptiveAvgPool2D",
        "Mean",
        "Sum",
        "Norm",
        "LinalgVectorNorm",
        "UpsampleNearest2D",
        "UpsampleBilinear2D",
    ),
    (
        "Add",
        "Sub",
        "Rsub",
        "Mul",
        "Div",
        "Neg",
        "Exp",
        "Log",
        "Pow",
        "Sqrt",
        "Rsqrt",
        "Abs",
    ),
    (
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "T",
        "Transpose",
        "Permute",
        "Expand",
        "Squeeze",
        "Unsqueeze",
        "Alias",
        "Clone",
        "ToCopy",
        "ConstantPadNd",
    ),
    ("AccumulateGrad",),
)


# Which mix rows, as a permutation matrix does, unless a factor is a parameter.
_OF_WEIGHTS = frozenset(("Addmm", "Mm", "Embedding"))


def count_operations(output: Tensor) -> Counter[str]:
    """How often each kind of operation occurs in the graph of ``output``, by its name."""
    nodes = {following for following in followed_edges(output) if not hasattr(following, "variable")}
    return Counter(_name(node) for node in {output.grad_fn, *nodes} if node is not None)


def may_move_rows(operations: Collection[str]) -> bool:
    """Whether there is an operation of which it is not known that it leaves the samples in their order.

    Some, as of views, may change the order too, but in the same way for all batches of a size.
    """
    return not set(operations) <= _IN_ORDER


def _name(node: Any) -> str:
    """The operation's name; of a product, whether it is one with a parameter."""
    name: str = node.name().split("Backward")[0]
    if name not in _OF_WEIGHTS or any(map(_is_weight, node.next_functions[name == "Addmm" :])):
        return name
    return f"{name} without a parameter"


def _is_weight(edge: tuple[Any, int]) -> bool:
    """Whether an edge leads to a parameter, or to the transpose of one."""
    node = edge[0]
    if node is not None and node.name() in ("TBackward0", "TransposeBackward0"):
        node = node.next_functions[0][0]
    return hasattr(node, "variable")
