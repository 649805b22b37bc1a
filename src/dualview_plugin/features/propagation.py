"""Relevance from the penultimate features back to the input, by whatever rules a composite puts into the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from dualview_plugin.errors import ConservationWarning
from dualview_plugin.features.extraction import FeatureExtractor
from dualview_plugin.network import evaluating, restored


class Composite(Protocol):
    """What a composite of Zennit offers: hooks and canonizers that it puts into a network and takes out again."""

    def register(self, module: nn.Module) -> None:
        """Put them in."""

    def remove(self) -> None:
        """Take them out."""


def propagate(
    extractor: FeatureExtractor, inputs: Tensor, start: Callable[[Tensor], Tensor], composite: Composite
) -> Tensor:
    """Relevance of the inputs: what the backward pass carries from the penultimate features under the composite.

    The final layer's input is caught inside the graph, so that the network need not be cut in two, and the pass starts
    there: neither the final layer nor anything behind it takes part.

    Args:
        extractor: of the network; it is as before afterwards, also after an error.
        inputs: (n, …), floating.
        start: from penultimate features (n, n_features) to their relevance, same shape.
        composite: registered on the network for this one pass.

    Returns:
        The inputs' shape, signed.

    Warns:
        ConservationWarning: the network adds branches in places that no canonizer has made a module of.

    Cost: one forward and one backward pass; most rules of LRP repeat each layer's forward pass in the backward one.
    """
    with evaluating(extractor.model), _registered(composite, extractor.model), torch.enable_grad():
        point = inputs.detach().clone().requires_grad_()
        features, _ = extractor(point)
        _warn_of_bare_sums(features, point)
        (relevance,) = torch.autograd.grad(features, point, grad_outputs=start(features.detach()).to(features))
    return relevance.detach()


@contextmanager
def _registered(composite: Composite, model: nn.Module) -> Iterator[None]:
    """The composite on the model; afterwards the model is as before, even if a canonizer failed half-way."""
    with restored(model):
        try:
            composite.register(model)
            yield
        finally:
            composite.remove()


def _warn_of_bare_sums(features: Tensor, point: Tensor) -> None:
    """Warn if autograd, and no rule, will hand relevance through a sum of branches: to each branch in full."""
    reaching = _nodes_between(features, point)
    n_sums = sum(_is_bare_sum(node, reaching) for node in reaching)
    if n_sums:
        warnings.warn(
            f"the network adds branches in {n_sums} place(s) that no rule sees: each branch gets all of the relevance "
            f"there, so that it about doubles every time. Give the composite a canonizer that makes modules of these "
            f"sums: dualview_plugin.lrp.propose_canonizers(model) knows the ResNets of torchvision",
            ConservationWarning,
            stacklevel=3,
        )


def _nodes_between(features: Tensor, point: Tensor) -> set[Any]:
    """The nodes of the graph of ``features`` through which it depends on the leaf ``point``."""
    users: dict[Any, list[Any]] = {}
    waiting, seen = [features.grad_fn], {features.grad_fn, None}
    while waiting:
        node: Any = waiting.pop()
        for child, _ in node.next_functions if node is not None else ():
            users.setdefault(child, []).append(node)
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    waiting, reaching = [get_gradient_edge(point).node], set[Any]()
    while waiting:
        node = waiting.pop()
        if node not in reaching:
            reaching.add(node)
            waiting += users.get(node, [])
    return reaching


def _is_bare_sum(node: Any, reaching: set[Any]) -> bool:
    """A sum of two branches by ``+`` or ``-``, or of stacked ones without the module that a rule could hook."""
    children = [child for child, _ in node.next_functions]
    if node.name().startswith("SumBackward") and children[0].name() == "StackBackward0":
        children = [child for child, _ in children[0].next_functions]
    elif node.name() not in ("AddBackward0", "SubBackward0"):
        return False
    return sum(child in reaching for child in children) > 1
