"""What each module of a network does in one forward pass, as nodes of the autograd graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from zennit.core import Hook


@dataclass(frozen=True)
class ModuleCall:
    """One run of one module: its name, its rule if it has one, and the graph's nodes at its two ends."""

    name: str
    module: nn.Module
    rule: Any
    input_nodes: frozenset[Any]
    output_nodes: frozenset[Any]

    def inner_nodes(self) -> set[Any]:
        """The nodes that the run made: from its outputs down to its inputs, without those of the inputs."""
        inner, waiting = set[Any](), [node for node in self.output_nodes if node not in self.input_nodes]
        while waiting:
            node = waiting.pop()
            if node not in inner:
                inner.add(node)
                children = (child for child, _ in node.next_functions)
                waiting += [child for child in children if child is not None and child not in self.input_nodes]
        return inner


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[ModuleCall]]:
    """A list that gets every run of a module in the block, inner modules first.

    Enter it after the rules are registered: their nodes in front of a module then count as its input.
    """
    calls: list[ModuleCall] = []
    inputs: list[frozenset[Any]] = []
    handles = []
    for name, module in model.named_modules():

        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            inputs.append(nodes_of([args, kwargs]))

        def after(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
            calls.append(ModuleCall(name, module, rule_of(module), inputs.pop(), nodes_of(output)))

        handles += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def rule_of(module: nn.Module) -> Any:
    """The hook of Zennit on a module, the last one registered that is not idle, or None."""
    owners = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
    rules = (owner for owner in reversed(owners) if isinstance(owner, Hook) and not getattr(owner, "idle", False))
    return next(rules, None)


def nodes_of(value: Any) -> frozenset[Any]:
    """The graph's nodes of all tensors in nested tuples, lists and dictionaries."""
    return frozenset(get_gradient_edge(tensor).node for tensor in _tensors(value) if tensor.requires_grad)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for part in parts:
            yield from _tensors(part)
