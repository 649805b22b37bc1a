"""Places between the features and the input where autograd, and no rule, hands relevance on."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from zennit.rules import Pass

from dualview_plugin.errors import ConservationWarning, InvalidValueError
from dualview_plugin.lrp.canonizers import layer_run
from dualview_plugin.lrp.conservation import levels_to_the_caller
from dualview_plugin.lrp.function_shares import absorbs_relevance, has_rule
from dualview_plugin.lrp.module_calls import ModuleCall

# Nodes that move values, pick some of them, average them, or make some of them zero.
# fmt: off
_ROUTES = {
    "Alias", "AsStrided", "Cat", "Clone", "Copy", "Copies", "Expand", "Flip", "Gather", "Identity", "Index",
    "IndexSelect", "MaskedFill", "MaskedSelect", "Permute", "Repeat", "Reshape", "ReshapeAlias", "Roll", "Select",
    "Slice", "Split", "SplitWithSizes", "SafeSplit", "Chunk", "Narrow", "Squeeze", "Stack", "T", "Take", "ToCopy",
    "Transpose", "Unbind", "Unflatten", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View", "Im2Col",
    "MovedimInt", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle", "ConstantPadNd", "ReflectionPad1D",
    "ReflectionPad2D", "ReflectionPad3D", "ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D", "Mean",
    "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D",
    "UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleBilinear2D", "UpsampleBicubic2D",
    "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Max", "Amax",
    "Maximum", "Relu", "Where",
}
# fmt: on
_SUMS = {"Add", "Sub", "Rsub"}
_ONE_OPERAND = {"Mul", "Div"}
_PHRASES = {
    "sum": "adds branches in {n} place(s) that no rule sees{where}: each branch gets all of the relevance there, so "
    "that it about doubles every time. Give the composite a canonizer that makes modules of these sums: "
    "dualview_plugin.lrp.propose_canonizers(model) knows the ResNets of torchvision, and FunctionRules() all others",
    "product": "multiplies branches in {n} place(s) that no rule sees{where} ({kinds}): the relevance of both factors "
    "is not conserved there. The canonizer dualview_plugin.lrp.FunctionRules() has a rule for it",
    "scale": "multiplies by constants in {n} place(s) that no rule sees{where} ({kinds}): relevance is multiplied by "
    "them. Inputs are better normalised before the network than in it",
    "moved": "gives the output of {n} layer(s) to batch norms in part or in another order{where}: they are not merged, "
    "so that rules see these layers without them. Normalise first, and rearrange what comes behind",
    "other": "computes {kinds} in {n} place(s) that no rule sees{where}: relevance is multiplied by derivatives there "
    "and is not conserved. The canonizer dualview_plugin.lrp.FunctionRules() has rules for softmax, norms, activations",
}


@dataclass(frozen=True)
class RelevanceGraph:
    """The part of the autograd graph between the features and the input.

    Attributes:
        nodes: those through which the features depend on the input.
        users: for each node those that take its output, once for each use.
    """

    nodes: set[Any]
    users: dict[Any, list[Any]]

    @classmethod
    def between(cls, features: Tensor, point: Tensor) -> RelevanceGraph:
        """The graph of ``features`` as far as it leads to the leaf ``point``."""
        users: dict[Any, list[Any]] = defaultdict(list)
        waiting, seen = [get_gradient_edge(features).node], {get_gradient_edge(features).node, None}
        while waiting:
            node: Any = waiting.pop()
            for child, _ in node.next_functions:
                users[child].append(node)
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
        waiting, nodes = [get_gradient_edge(point).node], set[Any]()
        while waiting:
            node = waiting.pop()
            if node not in nodes:
                nodes.add(node)
                waiting += users.get(node, [])
        return cls(nodes, {node: [user for user in users.get(node, []) if user in nodes] for node in nodes})

    def has_added_constants(self) -> bool:
        """Whether constants absorb relevance: a softmax's expansion, or parts beside the input (a class token)."""
        return any(
            absorbs_relevance(node) or (kind_of(node) == "Cat" and self.n_dependent(node) < len(node.next_functions))
            for node in self.nodes
        )

    def n_dependent(self, node: Any) -> int:
        """How many operands of a node depend on the input; the parts of a stack count one by one."""
        children = [child for child, _ in node.next_functions]
        if kind_of(node) == "Sum" and children[0] is not None and kind_of(children[0]) == "Stack":
            children = [child for child, _ in children[0].next_functions]
        return sum(child in self.nodes for child in children)


def kind_of(node: Any) -> str:
    """A node's operation: ``Mul`` for ``MulBackward0``."""
    name: str = node.name().rpartition("::")[2]
    return name.partition("Backward")[0]


def refuse_layers_without_a_rule(graph: RelevanceGraph, calls: Iterable[ModuleCall], owner: str) -> None:
    """Refuse attention without the rules of functions, and batch norms that normalise by the batch.

    Raises:
        InvalidValueError: such a layer lies between the features and the input; the message names it.
    """
    for call in calls:
        if isinstance(call.module, nn.MultiheadAttention) and isinstance(call.rule, (Pass, type(None))):
            if any(has_rule(node) for node in call.inner_nodes()):
                continue
            constraint = (
                "without attention, or under a composite with the canonizer dualview_plugin.lrp.FunctionRules()"
            )
        elif isinstance(call.module, nn.modules.batchnorm._BatchNorm) and call.module.running_mean is None:
            constraint = "with batch norms that keep running statistics (those of a batch tie its samples together)"
        else:
            continue
        if not call.inner_nodes().isdisjoint(graph.nodes):
            got = f"layer {call.name!r} ({type(call.module).__name__})"
            raise InvalidValueError("model", owner, constraint, got)


def warn_of_uncovered_places(graph: RelevanceGraph, calls: list[ModuleCall]) -> None:
    """One warning for each kind of place that no rule sees; nothing if no module has a rule, which is the gradient.

    Warns:
        ConservationWarning: what the network does there, how often, and in which modules.
    """
    if not any(call.rule is not None for call in calls):
        return
    place_of = _places(calls)
    found: dict[str, list[Any]] = defaultdict(list)
    for node in graph.nodes - _covered(calls):
        found[_phrase_of(node, graph)].append(node)
    found["moved"] = [node for node in graph.nodes if (run := layer_run(node)) is not None and run.moved]
    for phrase, text in _PHRASES.items():
        nodes = found.get(phrase)
        if nodes:
            kinds = ", ".join(sorted({kind_of(node) for node in nodes}))
            where = _in_words(sorted({place_of[node] for node in nodes if place_of.get(node)}))
            message = "the network " + text.format(n=len(nodes), where=where, kinds=kinds)
            warnings.warn(message, ConservationWarning, stacklevel=levels_to_the_caller())


def hand_on_through_negations(graph: RelevanceGraph, calls: list[ModuleCall]) -> None:
    """Let −x and c − x hand relevance on as it is; autograd alone turns its sign. Nothing if no module has a rule."""
    if any(call.rule is not None for call in calls):
        for node in graph.nodes - _covered(calls):
            if _is_negation(node, graph):
                node.register_hook(lambda grad_inputs, _: tuple(g if g is None else -g for g in grad_inputs))


def _is_negation(node: Any, graph: RelevanceGraph) -> bool:
    """−x, or c − x with c that does not depend on the input."""
    kind = kind_of(node)
    if kind not in ("Neg", "Sub", "Rsub") or graph.n_dependent(node) != 1 or getattr(node, "_saved_alpha", 1) != 1:
        return False
    first_depends = node.next_functions[0][0] in graph.nodes
    return kind == "Neg" or first_depends == (kind == "Rsub")


def _is_relu(node: Any) -> bool:
    """x.clamp(min=0), which is a ReLU in another spelling; a bound that is a tensor does not count."""
    if kind_of(node) not in ("Clamp", "ClampMin") or getattr(node, "_saved_max", None) is not None:
        return False
    return isinstance(node._saved_min, (int, float)) and node._saved_min == 0


def _covered(calls: Iterable[ModuleCall]) -> set[Any]:
    """The nodes inside of modules that have a rule."""
    return {node for call in calls if call.rule is not None for node in call.inner_nodes()}


def _phrase_of(node: Any, graph: RelevanceGraph) -> str:
    """The key of the phrase for a node that no rule covers; "" where relevance is handed on as it is."""
    kind, n_dependent = kind_of(node), graph.n_dependent(node)
    if (
        kind in _ROUTES
        or has_rule(node)
        or _is_negation(node, graph)
        or _is_relu(node)
        or not node.next_functions
        or kind == "AccumulateGrad"
    ):
        return ""
    if kind in _SUMS or kind == "Sum":
        if n_dependent > 1 or kind == "Sum":
            return "sum" if n_dependent > 1 else "other"
        minuend, *_ = (child for child, _ in node.next_functions)
        return "" if kind == "Add" or (kind == "Sub" and minuend in graph.nodes) else "other"
    if kind in _ONE_OPERAND:
        return "product" if n_dependent > 1 else "scale"
    return "product" if n_dependent > 1 else "other"


def _places(calls: list[ModuleCall]) -> dict[Any, str]:
    """For each node the innermost module that made it."""
    places: dict[Any, str] = {}
    for call in calls:  # inner modules come first
        for node in call.inner_nodes():
            places.setdefault(node, call.name)
    return places


def _in_words(names: list[str], most: int = 5) -> str:
    """The modules for a message."""
    shown = ", ".join(map(repr, names[:most]))
    return f", in {shown}{', …' if len(names) > most else ''}" if names else ""
