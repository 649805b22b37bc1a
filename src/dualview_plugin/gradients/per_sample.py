"""The gradient of one logit per sample in all parameters, exact for every network whose samples do not interact."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients.autograd_fallback import looped_gradients, sample_gradients, vectorised_gradients
from dualview_plugin.gradients.layer_rules import prefers_outer
from dualview_plugin.gradients.parameter_uses import (
    LayerCall,
    count_uses,
    differentiable,
    recorded_calls,
    select_parameters,
)
from dualview_plugin.gradients.sample_gradients import OuterProducts, SampleGradients, sum_of
from dualview_plugin.network import evaluating

# Relative difference at which the vectorised gradients of the fallback count as those of the loop.
_VMAP_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Plan:
    """How each parameter's gradient is found; decided once, so that all batches come in the same form."""

    uses: Counter[str]  # edges to each parameter in autograd's graph
    outer: tuple[str, ...]  # by a rule, as outer products
    dense: tuple[str, ...]  # by a rule, as it is
    fallback: tuple[str, ...]  # by differentiating each sample
    vectorised: bool  # whether the fallback may use vmap


class PerSampleGradients:
    """Gradients ∇_θ f_c(x) of one logit per sample, in layer-wise factors.

    Linear layers, convolutions, embeddings and batch, group and layer norms have rules: one forward and one backward
    pass for a batch give all its gradients. A rule serves a parameter only if autograd's graph has no other use of it
    and if each of its layers sees one sample per entry of the first axis; every other parameter is differentiated
    sample by sample. A tied parameter's gradient is the sum over its uses.

    Args:
        model: the network, evaluated in eval mode; its parameters count whether they are frozen or not.
        layers: dotted names of the layers whose parameters θ count; None for all.

    Raises:
        InvalidValueError: a batch uses a parameter in other places than the first batch did, or a batch norm has no
            running statistics, so that its samples interact.

    Cost: one forward and one backward pass per batch; without a rule, one per sample.
    """

    def __init__(self, model: nn.Module, layers: Collection[str] | None = None) -> None:
        self._model = model
        self._parameters = select_parameters(model, layers)
        self._plan: _Plan | None = None

    @property
    def n_parameters(self) -> int:
        """Number of parameters that count, tied ones once."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def whole_from(self, dense: Tensor, outer: Mapping[str, Tensor]) -> Tensor:
        """Vectors in the layout of :class:`SampleGradients`, in the layout of :meth:`whole`; after the first batch.

        Args:
            dense: (n_vectors, n_dense).
            outer: name of a matrix parameter → (n_vectors, n_rows, n_columns).
        """
        names = () if self._plan is None else self._plan.dense + self._plan.fallback
        sizes = [self._parameters[name].numel() for name in names]
        parts = dict(zip(names, torch.split(dense, sizes, 1), strict=True))
        parts |= {name: matrices.flatten(1) for name, matrices in outer.items()}
        zeros = {name: dense.new_zeros(len(dense), parameter.numel()) for name, parameter in self._parameters.items()}
        return torch.cat(list((zeros | parts).values()), 1)

    def __call__(self, inputs: Tensor, target: Tensor) -> SampleGradients:
        """The gradients of logit ``target[i]`` (n_samples,) int64 for ``inputs[i]`` (n_samples, …), for each i."""
        with evaluating(self._model), differentiable(self._model, self._parameters):
            if self._plan is None:
                self._plan = self._make_plan(inputs[:1], target[:1])
            return self._gradients(inputs, target, self._plan)

    def whole(self, inputs: Tensor, target: Tensor) -> Tensor:
        """The gradients of few samples as one matrix (n_samples, n_parameters), parameters in the network's order."""
        with evaluating(self._model), differentiable(self._model, self._parameters):
            return looped_gradients(self._model, list(self._parameters.values()), inputs, target)

    def along(self, sample: Tensor, label: Tensor, directions: Tensor) -> Tensor:
        """Derivatives ⟨∇_θ f_c(x), v⟩ (n_directions,) along directions v in θ, themselves differentiable in x.

        Args:
            sample: x, one sample without an axis for samples.
            label: c, a scalar.
            directions: v (n_directions, n_parameters), as in ``whole``.
        """
        with evaluating(self._model), differentiable(self._model, self._parameters):
            gradients = sample_gradients(self._model, list(self._parameters.values()), sample, label, create_graph=True)
        return directions @ torch.cat([gradient.flatten() for gradient in gradients])

    def _gradients(self, inputs: Tensor, target: Tensor, plan: _Plan) -> SampleGradients:
        calls, deltas, uses = self._backward(inputs, target)
        if uses != plan.uses:
            changed = ", ".join(sorted(name for name in self._parameters if uses[name] != plan.uses[name]))
            constraint = "a network that uses its parameters in the same places for every batch"
            raise InvalidValueError("model", type(self).__name__, constraint, f"other uses of {changed}")
        by_name = _group(calls)
        outer = {name: _outer(by_name[name], deltas) for name in plan.outer}
        parts = [_dense(by_name[name], deltas) for name in plan.dense]
        if plan.fallback:
            parts.append(self._fallback(inputs, target, plan))
        dense = torch.cat(parts, 1) if parts else inputs.new_zeros(len(inputs), 0, dtype=_dtype(self._parameters))
        return SampleGradients(dense, outer)

    def _backward(self, inputs: Tensor, target: Tensor) -> tuple[list[LayerCall], list[Tensor], Counter[str]]:
        """The calls that the chosen logits depend on, the gradients at their outputs, and all uses of parameters."""
        with recorded_calls(self._model, self._parameters) as calls:
            chosen = self._model(inputs.clone()).gather(1, target[:, None]).sum()
        uses = count_uses(chosen, self._parameters)
        if not calls:
            return [], [], uses
        deltas = torch.autograd.grad(chosen, [call.output for call in calls], allow_unused=True)
        reached = [(call, delta) for call, delta in zip(calls, deltas, strict=True) if delta is not None]
        return [call for call, _ in reached], [delta for _, delta in reached], uses

    def _make_plan(self, sample: Tensor, target: Tensor) -> _Plan:
        """Decide with batches of two sizes, so that an axis that is not the samples' cannot pass for it by chance."""
        self._check_batch_norms()
        ruled = set(self._parameters)
        for size in (2, 3):
            calls, deltas, uses = self._backward(sample.expand(size, *sample.shape[1:]), target.expand(size))
            ruled &= _ruled(calls, uses, size)
        by_name = _group(calls)
        outer = tuple(name for name in self._parameters if name in ruled and _wants_outer(by_name[name], deltas))
        dense = tuple(name for name in self._parameters if name in ruled and name not in outer)
        fallback = tuple(name for name in self._parameters if uses[name] and name not in ruled)
        return _Plan(uses, outer, dense, fallback, self._vectorises(fallback, sample, target))

    def _check_batch_norms(self) -> None:
        for name, module in self._model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                constraint = "a network whose samples do not interact"
                raise InvalidValueError(
                    "model", type(self).__name__, constraint, f"{name!r} without running statistics"
                )

    def _fallback(self, inputs: Tensor, target: Tensor, plan: _Plan) -> Tensor:
        chosen = {name: self._parameters[name] for name in plan.fallback}
        if plan.vectorised:
            return vectorised_gradients(self._model, chosen, inputs, target)
        return looped_gradients(self._model, list(chosen.values()), inputs, target)

    def _vectorises(self, names: Sequence[str], sample: Tensor, target: Tensor) -> bool:
        """Whether vmap knows every operation of the network and every way it reaches its parameters."""
        chosen = {name: self._parameters[name] for name in names}
        if not chosen:
            return True
        expected = looped_gradients(self._model, list(chosen.values()), sample, target)
        try:
            found = vectorised_gradients(self._model, chosen, sample, target)
        except RuntimeError:  # what torch.func raises for control flow and operations without a batching rule
            return False
        return bool((found - expected).norm() <= _VMAP_TOLERANCE * expected.norm())


_Use = tuple[int, LayerCall, str]  # position in the list of calls, the call, and the layer's own name of the parameter


def _group(calls: Sequence[LayerCall]) -> Mapping[str, list[_Use]]:
    """The uses of each parameter in the calls."""
    by_name: defaultdict[str, list[_Use]] = defaultdict(list)
    for position, call in enumerate(calls):
        for slot, name in call.slots.items():
            by_name[name].append((position, call, slot))
    return by_name


def _ruled(calls: Sequence[LayerCall], uses: Counter[str], n_samples: int) -> set[str]:
    """The parameters that calls with one sample per entry of the first axis use, and nothing else does."""
    by_name = _group(calls)
    return {
        name
        for name, own in by_name.items()
        if len(own) == uses[name] and all(call.inputs.shape[:1] == (n_samples,) for _, call, _ in own)
    }


def _wants_outer(uses: Sequence[_Use], deltas: Sequence[Tensor]) -> bool:
    """Whether all uses of a parameter have an outer rule of one kind that is cheaper than the dense one."""
    if any(slot != "weight" or call.rule.outer_weight is None for _, call, slot in uses):
        return False
    products = [_outer([use], deltas) for use in uses]
    if len({product.one_hot for product in products}) > 1:
        return False
    return prefers_outer(sum_of(products))


def _outer(uses: Sequence[_Use], deltas: Sequence[Tensor]) -> OuterProducts:
    """The gradients of a parameter as outer products, summed over its uses."""
    terms = []
    for position, call, _ in uses:
        if call.rule.outer_weight is not None:
            terms.append(call.rule.outer_weight(call.module, call.inputs, deltas[position]))
    return sum_of(terms)


def _dense(uses: Sequence[_Use], deltas: Sequence[Tensor]) -> Tensor:
    """The gradients (n_samples, n_elements) of a parameter, summed over its uses."""
    terms = [call.rule.dense(slot)(call.module, call.inputs, deltas[position]) for position, call, slot in uses]
    return torch.stack(terms).sum(0).flatten(1) if len(terms) > 1 else terms[0].flatten(1)


def _dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the gradients."""
    return next((parameter.dtype for parameter in parameters.values()), torch.get_default_dtype())
