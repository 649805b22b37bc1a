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
from torch.nn.attention import SDPBackend, sdpa_kernel

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients.layer_rules import LayerRule, rule_of
from dualview_plugin.network import evaluating


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that has a rule.

    Args:
        module: the layer.
        rule: how its gradients follow from its input and output gradient.
        slots: the layer's own name of a parameter ("weight") → the network's.
        inputs: what the layer saw.
        version: of ``inputs`` at the call; another one afterwards means that they were overwritten.
        output: the edge of the graph at the layer's output; it stays right when a later layer overwrites the output.
    """

    module: nn.Module
    rule: LayerRule
    slots: Mapping[str, str]
    inputs: Tensor
    version: int
    output: GradientEdge

    def has_rows(self, n_samples: int) -> bool:
        """Whether the input is still as it was and has the form of one entry of its first axis for each sample."""
        intact = self.inputs._version == self.version
        return intact and self.inputs.shape[:1] == (n_samples,) and self.rule.takes(self.module, self.inputs)


def select_parameters(model: nn.Module, layers: Collection[str] | None, owner: str) -> dict[str, nn.Parameter]:
    """The floating parameters in the named layers (None: in the whole network), each tied one once.

    Raises:
        InvalidValueError: there are none, or autograd cannot differentiate in them.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.dtype.is_floating_point}
    if layers is not None:
        chosen = {id(parameter) for layer in layers for parameter in model.get_submodule(layer).parameters()}
        named = {name: parameter for name, parameter in named.items() if id(parameter) in chosen}
    if not named:
        raise InvalidValueError("model", owner, "a network with floating parameters to differentiate", "none")
    if any(parameter.is_complex() for parameter in model.parameters()):
        raise InvalidValueError("model", owner, "a network with real parameters", "complex ones")
    if any(parameter.is_inference() for parameter in model.parameters()):
        constraint = "a network whose parameters were made outside torch.inference_mode()"
        raise InvalidValueError("model", owner, constraint, "inference tensors")
    return named


@contextmanager
def differentiable(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Gradients for the given parameters and no others, frozen or not; afterwards everything requires what it did.

    In the block no inference mode holds, and recurrent layers run without cuDNN, which differentiates them in train
    mode alone.
    """
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(parameter) for parameter in parameters.values()}
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn.enabled and not recurrent
    try:
        for parameter, _ in required:
            if parameter.dtype.is_floating_point:
                parameter.requires_grad_(id(parameter) in chosen)
        with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=cudnn):
            yield
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)


@contextmanager
def twice_differentiable(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """As :func:`differentiable`, for gradients of gradients in eval mode: attention's fast kernels have none."""
    with evaluating(model), differentiable(model, parameters), sdpa_kernel(SDPBackend.MATH):
        yield


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
    leaves = (id(getattr(following, "variable", None)) for following in followed_edges(output))
    return Counter(names[leaf] for leaf in leaves if leaf in names)


def followed_edges(output: Tensor) -> Iterator[Any]:
    """The node behind each edge of the graph of ``output``."""
    seen, waiting = {output.grad_fn}, [output.grad_fn]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is not None:
                yield following
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)


def _recorder(calls: list[LayerCall], rule: LayerRule, slots: Mapping[str, str]) -> Any:
    """A forward hook that appends the call, if a gradient will reach it."""

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        if output.requires_grad:
            output = output.clone() if output._is_view() else output  # a view that is overwritten loses its edge
            inputs = (args[0] if args else kwargs["input"]).detach()
            calls.append(LayerCall(module, rule, slots, inputs, inputs._version, get_gradient_edge(output)))
        return output

    return record
