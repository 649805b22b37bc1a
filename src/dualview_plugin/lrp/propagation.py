"""Relevance from the penultimate features back to the input, by whatever rules a composite puts into the network."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import BasicHook, Composite, RemovableHandleList

from dualview_plugin.batches import Batch, n_rows, rows_of
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp.canonizers import layer_run
from dualview_plugin.lrp.conservation import SideBalance, biases_take_part
from dualview_plugin.lrp.function_rules import FunctionRules
from dualview_plugin.lrp.layer_calls import DIFFERENTIABLE, other_layers, ready_for_rules, refuse_other_layers
from dualview_plugin.lrp.module_calls import nodes_of, recorded_calls, rule_of
from dualview_plugin.lrp.plain_weights import plain_weights
from dualview_plugin.lrp.same_function import N_PROBES, recorded_outputs, relative_difference, responsible_layers
from dualview_plugin.lrp.uncovered import (
    RelevanceGraph,
    hand_on_through_negations,
    refuse_layers_without_a_rule,
    warn_of_uncovered_places,
)
from dualview_plugin.network import coarsest_type, differentiable_at, guest, only_point, restored, rules_set_aside


def propagate(
    extractor: FeatureExtractor, inputs: Tensor, start: Callable[[Tensor], Tensor], composite: Composite
) -> Tensor:
    """One pass of :class:`Propagation`, with its checks."""
    return Propagation(extractor, composite, "propagate")(inputs, start)


class Propagation:
    """Passes of LRP through one network under one composite; the first one is checked.

    The final layer's input is caught inside the graph, so that the network need not be cut in two, and the pass starts
    there: neither the final layer nor anything behind it takes part.

    Args:
        extractor: of the network; it is as before after every pass, also after an error.
        composite: a copy of it is registered on the network for each pass. Rules that the user has registered are set
            aside meanwhile.
        owner: the class that asks, for error messages.
        at: a layer by its dotted name, at whose output the pass ends; None: at the inputs.

    Attributes:
        with_biases: whether biases absorb relevance under the composite; known after the first pass.
        with_constants: whether other constants do, such as a class token; likewise.

    Cost: for each pass one forward and one backward pass, where most rules repeat each layer's forward pass; for the
    first one also a forward pass of two samples.
    """

    def __init__(self, extractor: FeatureExtractor, composite: Composite, owner: str, at: str | None = None) -> None:
        self.extractor, self.composite, self.owner, self.at = extractor, composite, owner, at
        self.with_biases = self.with_constants = False
        self._checked = False

    def __call__(self, inputs: Batch, start: Callable[[Tensor], Tensor]) -> Tensor:
        """Relevance of the inputs: what the backward pass carries from the penultimate features.

        Args:
            inputs: (n, …), floating; with ``at`` of any structure.
            start: from penultimate features (n, n_features) to their relevance, same shape.

        Returns:
            The inputs' shape, signed; with ``at`` that of the layer's output, less its last axis, which is summed.

        Raises:
            InvalidTypeError: inputs that are not floating, or the output of ``at`` is no floating tensor.
            InvalidValueError: the composite changes what the network computes, or a layer has no rule; ``at`` runs more
                than once in a forward pass, or the features do not depend on its output.

        Warns:
            ConservationWarning: the network does something that no rule sees.
        """
        check_carries(inputs, self.owner, self.at)
        model = self.extractor.model
        with guest(model), rules_set_aside(model), plain_weights(model, self.owner):
            return self._pass(inputs, start)

    def balanced(self, inputs: Batch, start: Callable[[Tensor], Tensor]) -> tuple[Tensor, SideBalance]:
        """The relevance as of a call, and how much started and arrived for each input."""
        begun: list[tuple[Tensor, Tensor]] = []

        def recorded(features: Tensor) -> Tensor:
            shares = start(features)
            begun.append((shares, features == 0))
            return shares

        maps = self(inputs, recorded)
        ((shares, inactive),) = begun
        arrived = maps.flatten(start_dim=1).sum(dim=1)
        sizes = shares.abs()
        return maps, SideBalance(shares.sum(dim=1), sizes.sum(dim=1), (sizes * inactive).sum(dim=1), arrived)

    def _pass(self, inputs: Batch, start: Callable[[Tensor], Tensor]) -> Tensor:
        """The pass on a prepared network."""
        probes: Batch = rows_of(inputs, slice(N_PROBES))
        plain = None if self._checked else self._plain(probes)
        model, owner = self.extractor.model, self.owner
        with _registered(self.composite, model), ready_for_rules(model, owner), torch.enable_grad():
            with recorded_calls(model) as calls, other_layers(model, plain is not None) as others:
                features, point = self._features_and_point(inputs)
            graph = RelevanceGraph.between(features, point) if features.requires_grad else None
            if graph is None or not graph.nodes.intersection(nodes_of(features)):
                self._refuse_without_graph()
            assert graph is not None  # else refused
            refuse_other_layers(others, owner)
            if plain is not None:
                refuse_layers_without_a_rule(graph, calls, self.owner)
                self._refuse_another_function(probes, features[:N_PROBES].detach(), *plain)
                warn_of_uncovered_places(graph, calls)
                self.with_biases, self.with_constants = biases_take_part(calls), graph.has_added_constants()
                self._checked = True
            hand_on_through_negations(graph, calls)
            _unmerge_shared_outputs(graph)
            start_relevance = start(features.detach()).to(features)
            (relevance,) = torch.autograd.grad(features, point, grad_outputs=start_relevance)
        return (relevance if self.at is None else relevance.sum(-1)[: n_rows(inputs)]).detach()

    def _features_and_point(self, inputs: Batch) -> tuple[Tensor, Tensor]:
        """The features, and what relevance is asked of: the inputs, or the output of a layer."""
        if self.at is None:
            assert isinstance(inputs, Tensor)  # as check_carries has found
            point = inputs.detach().clone().requires_grad_()
            return self.extractor(point)[0], point
        with differentiable_at(self.extractor.model, self.at, self.owner) as points:
            features, _ = self.extractor(inputs)
        return features, only_point(points, self.at, self.owner)

    def _refuse_without_graph(self) -> None:
        """Say why no relevance arrives.

        Raises:
            InvalidValueError: always.
        """
        if self.at is not None:
            constraint = f"a layer on whose output the features depend, in a network that is {DIFFERENTIABLE}"
            raise InvalidValueError("at", self.owner, constraint, repr(self.at))
        if any(isinstance(part, FunctionRules) and part.softmax == "constant" for part in self.composite.canonizers):
            constraint = f"{DIFFERENTIABLE}; not by a softmax alone, which this composite takes for a constant"
            raise InvalidValueError("model", self.owner, constraint, "features without a graph to the inputs")
        raise InvalidValueError("model", self.owner, DIFFERENTIABLE, "features without a graph to the inputs")

    @torch.no_grad()
    def _plain(self, inputs: Batch) -> tuple[Tensor, dict[Any, Tensor]]:
        """The features without the composite, and the outputs of all modules."""
        with recorded_outputs(self.extractor.model) as outputs:
            features, _ = self.extractor(inputs)
        return features, outputs

    @torch.no_grad()
    def _refuse_another_function(
        self, inputs: Batch, found: Tensor, expected: Tensor, without: dict[Any, Tensor]
    ) -> None:
        """Raise if the features under the composite differ; one more pass then finds the layers that do."""
        error = relative_difference(found, expected, coarsest_type(self.extractor.model))
        if error:
            with recorded_outputs(self.extractor.model) as with_rules:
                self.extractor(inputs)
            constraint = "such that the network computes under it what it computes without it"
            layers = responsible_layers(with_rules, without)
            got = f"features off by {error:.2g} of their largest value; the first layers that differ: {layers}"
            raise InvalidValueError("composite", self.owner, constraint, got)


def check_carries(inputs: Any, owner: str, at: str | None = None) -> None:
    """Refuse inputs that relevance is not carried to: several tensors, and integers, unless it ends at a layer."""
    if at is not None:
        return
    if not isinstance(inputs, Tensor):
        constraint = (
            "one tensor: relevance is not carried to tuples and dictionaries; pass at=, a layer such as the embedding "
            "of tokens, at whose output it ends"
        )
        raise InvalidTypeError("inputs", owner, constraint, type(inputs).__name__)
    if not inputs.is_floating_point():
        constraint = "floating to be differentiated; of tokens pass at=, the embedding, at whose output relevance ends"
        raise InvalidTypeError("inputs", owner, constraint, str(inputs.dtype))


@contextmanager
def _registered(composite: Composite, model: nn.Module) -> Iterator[None]:
    """A copy of the composite on the model; afterwards the model is as before, even if a canonizer failed half-way.

    A copy, since a composite that the user has registered forgets that when it is registered again.
    """
    own = copy.copy(composite)
    own.handles, own.hook_refs = RemovableHandleList(), weakref.WeakSet()
    with restored(model):
        try:
            own.register(model)
            _keep_the_input_of_each_run(model)
            yield
        finally:
            own.remove()


def _keep_the_input_of_each_run(model: nn.Module) -> None:
    """Give a rule the input of the run that the backward pass is at; Zennit's rules know that of the last run only."""
    for module in model.modules():
        rule = rule_of(module)
        if isinstance(rule, BasicHook):

            def keep(_: nn.Module, args: Any, output: Any, rule: Any = rule) -> None:
                for node in nodes_of(output):
                    node.register_hook(lambda *_: rule.stored_tensors.update(input=args))

            module.register_forward_hook(keep)


def _unmerge_shared_outputs(graph: RelevanceGraph) -> None:
    """Merge no batch norm into a layer whose output something else takes too."""
    for node in graph.nodes:
        run = layer_run(node)
        if run is not None and any(len(graph.users[part]) > 1 for part in (node, *run.copies) if part in graph.nodes):
            run.norms.clear()
