"""Which canonizers a network needs before rules of LRP mean what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from zennit.canonizers import Canonizer
from zennit.rules import Pass
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer
from zennit.types import BatchNorm, ConvolutionTranspose, Linear

from dualview_plugin.lrp.function_rules import FunctionRules, Softmax
from dualview_plugin.lrp.module_calls import rule_of

_CALL = "dualview_plugin.lrp: run of a layer"
# Nodes that may hand a layer's output to a batch norm with its channels; whether they do is seen by the values.
_COPIES = {
    "Alias", "AsStrided", "Cat", "Clone", "ConstantPadNd", "Contiguous", "Expand", "Identity", "Permute", "Reshape",
    "ReshapeAlias", "Slice", "Squeeze", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip


def propose_canonizers(model: nn.Module, softmax: Softmax = "constant") -> list[Canonizer]:
    """The canonizers for a network: batch norms, residual sums of torchvision's ResNets, attention and other norms.

    Args:
        model: the network; it is only looked at.
        softmax: how attention weights share relevance out, as of :class:`FunctionRules`.

    Returns:
        A :class:`MergeBatchNorms` if the network has linear layers and batch norms. If it has residual blocks of
        torchvision's ResNets, also those of Zennit that make modules of their sums. If it has attention layers, or
        layer, group or root-mean-square norms, also :class:`FunctionRules`. Else ``[]``.

    Note:
        What other networks compute by functions, such as residual sums, is not found here. :class:`PairwiseRelevance`
        warns of it; give the composite a :class:`FunctionRules` then.

    Example:
        >>> from torch import nn
        >>> from torchvision.models import resnet18
        >>> from dualview_plugin import propose_canonizers
        >>> [type(canonizer).__name__ for canonizer in propose_canonizers(resnet18())]
        ['MergeBatchNorms', 'ResNetBasicBlockCanonizer']
        >>> propose_canonizers(nn.TransformerEncoderLayer(8, 2))
        [FunctionRules(softmax='constant', stabilizer=1e-06)]
    """
    kinds: list[tuple[Any, Any]] = [
        (Bottleneck, ResNetBottleneckCanonizer),
        (BasicBlock, ResNetBasicBlockCanonizer),
    ]
    modules = list(model.modules())
    has_pair = all(any(isinstance(module, kind) for module in modules) for kind in (Linear, BatchNorm))
    merge: list[Canonizer] = [MergeBatchNorms()] if has_pair else []
    of_sums = [make() for kind, make in kinds if any(isinstance(module, kind) for module in modules)]
    of_functions = [FunctionRules(softmax)] if any(map(_works_by_functions, modules)) else []
    return [*merge, *of_sums, *of_functions]


def _works_by_functions(module: nn.Module) -> bool:
    """Whether a module is attention or a norm of each sample, of torch or by the name that libraries give it."""
    kinds = (nn.MultiheadAttention, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, kinds) or type(module).__name__.endswith("RMSNorm")


class MergeBatchNorms(Canonizer):  # type: ignore[misc]
    """Rules see a linear layer and the batch norm behind it as one layer.

    A batch norm is merged into a layer if its input is that layer's output in the pass itself. The order in which
    modules were assigned has no say, nor has a copy, a transposition or a reshaping in between that keeps channels
    apart. The forward pass is left as it is: the layer has the merged weights only while its rule is evaluated in the
    backward pass, and the batch norm hands relevance through.

    A batch norm that is not merged keeps the composite's rule. Zennit's is ``Pass``, which is exact where biases absorb
    nothing: each output of a batch norm has a single input.

    Differs: Zennit's ``SequentialMergeBatchNorm`` goes by the order of assignment, and the batch norm that it leaves
    behind still divides by √(1 + eps).
    """

    def __init__(self) -> None:
        self.handles: list[Any] = []

    def apply(self, root_module: nn.Module) -> list[Canonizer]:
        """Hooks on all linear layers and batch norms, held by a copy of this canonizer."""
        instance = self.copy()
        instance.register(root_module)
        return [instance]

    def register(self, root_module: nn.Module) -> None:
        """Put the hooks in."""
        for module in root_module.modules():
            if isinstance(module, Linear):
                self.handles.append(module.register_forward_hook(self._after_layer))
            elif _has_statistics(module):
                hook = _PassIfMerged()
                self.handles += [hook, hook.register(module)]

    def remove(self) -> None:
        """Take the hooks out."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def _after_layer(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Merged weights for the time between the layer's own backward pass and the end of its rule's."""
        identity = _zennits_identity(args[0])
        if rule_of(layer) is None or output.grad_fn is None or identity is None:
            return
        run = LayerRun(layer, output.detach())
        metadata: Any = output.grad_fn.metadata  # a dictionary, declared as a method
        metadata[_CALL] = run
        output.grad_fn.register_hook(lambda *_: run.merge())
        identity.register_hook(lambda *_: run.restore())


class _PassIfMerged(Pass):  # type: ignore[misc]
    """Hands relevance through a batch norm whose input is a linear layer's output; else it does nothing."""

    def pre_forward(self, module: nn.Module, input: Any) -> Any:
        """Take note of the pair, and put Zennit's identity in front of the batch norm."""
        run, copies = _run_behind_copies(input[0].grad_fn)
        self.idle = run is None or not run.gives_channels_of(input[0])
        if run is not None and self.idle and copies:
            run.moved.append(module)
        if run is None or self.idle:
            return None
        run.norms.append(module)
        run.copies += copies
        return super().pre_forward(module, input)


@dataclass
class LayerRun:
    """One run of a linear layer, its output without the graph, and the batch norms that take it."""

    layer: nn.Module
    output: Tensor
    norms: list[nn.Module] = field(default_factory=list)
    copies: list[Any] = field(default_factory=list)  # the graph's nodes between the layer and the batch norms
    moved: list[nn.Module] = field(default_factory=list)  # batch norms that take the output in part or mixed up
    original: dict[str, Any] | None = None

    def gives_channels_of(self, norm_input: Tensor) -> bool:
        """Whether a batch norm's channels are the layer's, with their values in the layer's order."""
        own, normed = self.output.movedim(-1 if isinstance(self.layer, nn.Linear) else 1, 0), norm_input.movedim(1, 0)
        return torch.equal(own.reshape(len(own), -1), normed.reshape(len(normed), -1))

    def merge(self) -> None:
        """Give the layer weights that include the batch norm, if exactly one takes its output."""
        if len(self.norms) == 1:
            own = self.layer._parameters
            self.original = {name: own[name] for name in ("weight", "bias")}
            weight, bias = merged(self.layer, self.norms[0])
            own["weight"], own["bias"] = nn.Parameter(weight), nn.Parameter(bias)

    def restore(self) -> None:
        """Give the layer its own weights back."""
        if self.original is not None:
            self.layer._parameters.update(self.original)
            self.original = None


def layer_run(node: Any) -> LayerRun | None:
    """The run of a linear layer that ends at this node of the graph, if a canonizer has noted one."""
    return None if node is None else node.metadata.get(_CALL)


def _run_behind_copies(node: Any) -> tuple[LayerRun | None, list[Any]]:
    """The run whose output, or a copy of it, ends at this node of the graph, and the nodes of copies in between."""
    copies: list[Any] = []
    while node is not None and layer_run(node) is None:
        kind = node.name().rpartition("::")[2].partition("Backward")[0]
        if kind not in _COPIES or len(node.next_functions) != 1:
            return None, []
        copies.append(node)
        node = node.next_functions[0][0]
    return layer_run(node), copies


@torch.no_grad()
def merged(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer that computes what ``layer`` and the batch norm behind it compute."""
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias
    weight: Tensor = layer.weight
    if isinstance(layer, ConvolutionTranspose):  # (in, out / groups, …)
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        factor = scale.reshape(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * factor).flatten(0, 1), bias
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias


def _zennits_identity(layer_input: Tensor) -> Any:
    """The node in front of a layer whose hook evaluates the layer's rule: Zennit puts it there, and a clone behind."""
    clone = layer_input.grad_fn
    return clone.next_functions[0][0] if clone is not None and clone.next_functions else None


def _has_statistics(module: Any) -> bool:
    """A batch norm that normalises by running statistics, so that it is affine."""
    return isinstance(module, BatchNorm) and module.running_mean is not None
