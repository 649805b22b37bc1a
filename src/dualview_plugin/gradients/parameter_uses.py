"""Where a forward pass uses its parameters: the calls of known layers, and autograd's graph to prove them complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dualview_plugin.gradients.layer_rules import LayerRule, rule_of


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that has a rule.

    Args:
        module: the layer.
        rule: how its gradients follow from its input and output gradient.
        slots: the layer's own name of a parameter ("weight") → the network's.
        inputs: what the layer saw.
        output: the edge of the graph at the layer's output; it stays right when a later layer overwrites the output.
    """

    module: nn.Module
    rule: LayerRule
    slots: Mapping[str, str]
    inputs: Tensor
    output: GradientEdge


def select_parameters(model: nn.Module, layers: Collection[str] | None) -> dict[str, nn.Parameter]:
    """The parameters in the named layers (None: in the whole network), each tied one once."""
    if layers is None:
        return dict(model.named_parameters())
    chosen = {id(parameter) for layer in layers for parameter in model.get_submodule(layer).parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in chosen}


@contextmanager
def differentiable(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Gradients for the given parameters and no others, frozen or not; afterwards everything requires what it did."""
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(parameter) for parameter in parameters.values()}
    try:
        for parameter, _ in required:
            parameter.requires_grad_(id(parameter) in chosen)
        with torch.enable_grad():
            yield
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)


@contextmanager
def recorded_calls(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[list[LayerCall]]:
    """The calls of layers with a rule and a chosen parameter, in the order of the forward passes inside the block."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    calls: list[LayerCall] = []
    handles = []
    try:
        for module in model.modules():
            slots = {slot: names[id(own)] for slot, own in module._parameters.items() if id(own) in names}
            rule = rule_of(module) if slots else None
            if rule is not None:
                hook = _recorder(calls, rule, slots)
                handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def count_uses(output: Tensor, parameters: Mapping[str, nn.Parameter]) -> Counter[str]:
    """How many edges of the graph of ``output`` lead to each parameter: one for each use, whatever uses it."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    uses: Counter[str] = Counter()
    seen, waiting = {output.grad_fn}, [output.grad_fn]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions if node is not None else ():
            leaf = getattr(following, "variable", None)
            if leaf is not None and id(leaf) in names:
                uses[names[id(leaf)]] += 1
            elif following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return uses


def _recorder(calls: list[LayerCall], rule: LayerRule, slots: Mapping[str, str]) -> Any:
    """A forward hook that appends the call, if a gradient will reach it."""

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        if output.requires_grad:
            output = output.clone() if output._is_view() else output  # a view that is overwritten loses its edge
            inputs = args[0] if args else kwargs["input"]
            calls.append(LayerCall(module, rule, slots, inputs.detach(), get_gradient_edge(output)))
        return output

    return record
