"""The gradient of one logit per sample in all parameters, exact for every network whose samples do not interact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch, concatenated, mapped, rows_of
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients.autograd_fallback import looped_gradients, vectorised_gradients, visit_gradients
from dualview_plugin.gradients.batch_pass import BatchPass
from dualview_plugin.gradients.direction import Direction, summed
from dualview_plugin.gradients.layer_rules import cheaper_inner_product
from dualview_plugin.gradients.logits import Logits
from dualview_plugin.gradients.operations import may_move_rows
from dualview_plugin.gradients.parameter_uses import differentiable, select_parameters, twice_differentiable
from dualview_plugin.gradients.sample_gradients import OuterProducts, SampleGradients
from dualview_plugin.network import Caller, evaluating

# Relative difference at which the vectorised gradients of the fallback count as those of the loop.
_VMAP_TOLERANCE = 1e-3
# What torch.func raises for control flow, for operations without a batching rule, and for samples without numbers.
_VMAP_ERRORS = (RuntimeError, TypeError, ValueError, IndexError)


@dataclass(frozen=True)
class _Plan:
    """In which form each parameter's gradient comes, decided once, so that batches stack."""

    uses: Counter[str]  # edges to each parameter in autograd's graph
    outer: Mapping[str, bool]  # as outer products; whether their left factors are row numbers
    dense: tuple[str, ...]  # as it is


class PerSampleGradients:
    """Gradients ∇_θ f_c(x) of one logit per sample, in layer-wise factors.

    Linear layers, convolutions, embeddings and batch, group and layer norms have rules: one forward and one backward
    pass for a batch give all its gradients. A rule serves a parameter in a batch if autograd's graph has no other use
    of it and if each of its layers sees one row for each sample, still as it was. Every other parameter is
    differentiated sample by sample, such as those of layers that see a selection of samples. A tied parameter's
    gradient is the sum over its uses.

    Rows in another order have the right number. Therefore the first batch compares a randomly weighted sum of the
    gradients with that of autograd; a parameter whose sums differ loses its rule. Batches 2, 4, 8, … compare the
    gradients at the layers' outputs for weighted and for unweighted samples, row by row; another order is refused. So
    does every batch in which an operation may move samples by their values, as sorting does, and every batch of a size
    or of operations that are new.

    A batch that uses its parameters in other places than the first one, as packed sequences of other lengths, is
    differentiated sample by sample.

    Args:
        model: the network, or the map from a batch to its logits, evaluated in eval mode; its parameters count whether
            they are frozen or not.
        layers: dotted names of the layers whose parameters θ count; None for all.
        owner: the class that asks, for error messages.
        doubles_single: pass a batch of one twice, for a network that squeezes its batch axis away.
        prefers_outer: whether outer products like these are worth more than their sum, the matrix. By default whether
            inner products of them cost less.

    Raises:
        InvalidValueError: the output is no matrix, or does not depend on the parameters in a way that autograd can
            differentiate; a batch norm has no running statistics, so that its samples interact; a rule failed after it
            had served other batches.

    Cost: one forward and one backward pass per batch, and a second backward pass for the batches that are compared, of
    which all but the first leave the parameters out; without a rule, one of each per sample. Gradients are in float32
    at least. Parameters that no sample uses are held as zeros.
    """

    def __init__(
        self,
        model: nn.Module | Caller,
        layers: Collection[str] | None = None,
        *,
        owner: str = "PerSampleGradients",
        doubles_single: bool = False,
        prefers_outer: Callable[[OuterProducts], bool] = cheaper_inner_product,
    ) -> None:
        call = model if isinstance(model, Caller) else Caller(model, owner)
        self._parameters = select_parameters(call.model, layers, owner)
        self._logits = Logits(call, doubles_single)
        self._model, self._owner, self._prefers_outer = call.model, owner, prefers_outer
        self._plan: _Plan | None = None
        self._with_rule: set[str] = set()
        self._vectorises: dict[tuple[str, ...], bool] = {}
        self._n_batches = 0
        self._graphs: set[tuple[int, frozenset[tuple[str, int]]]] = set()  # of batches whose order was tested

    @property
    def n_parameters(self) -> int:
        """Number of parameters that count, tied ones once."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    @property
    def dense_shapes(self) -> list[torch.Size]:
        """The shapes of the parameters whose gradients are held as they are, in their order; after the first batch."""
        return [] if self._plan is None else [self._parameters[name].shape for name in self._plan.dense]

    @property
    def parameters_with_rule(self) -> set[str]:
        """The parameters that rules serve, after the first batch."""
        return set(self._with_rule)

    def flatten(self, dense: Tensor, outer: Mapping[str, Tensor]) -> Tensor:
        """Vectors in the layout of :class:`SampleGradients`, in the layout of :meth:`flat`; after the first batch.

        Args:
            dense: (n_vectors, n_dense).
            outer: name of a matrix parameter → (n_vectors, n_rows, n_columns).
        """
        names = () if self._plan is None else self._plan.dense
        sizes = [self._parameters[name].numel() for name in names]
        parts = dict(zip(names, torch.split(dense, sizes, 1), strict=True))
        parts |= {name: matrices.flatten(1) for name, matrices in outer.items()}
        return torch.cat([parts[name] for name in self._parameters], 1)

    def __call__(self, inputs: Batch, target: Tensor) -> SampleGradients:
        """The gradients of logit ``target[i]`` (n_samples,) int64 for ``inputs[i]`` (n_samples, …), for each i."""
        if len(target) == 1 and self._logits.doubles_single:
            return self(concatenated([inputs, inputs]), torch.cat([target, target])).first(1)
        with evaluating(self._model), differentiable(self._model, self._parameters):
            inputs, target = (
                mapped(torch.clone, inputs),
                target.clone(),
            )  # no inference tensors, which autograd does not save
            batch = self._pass(inputs, target)
            if self._plan is None:
                self._plan = self._make_plan(batch, rows_of(inputs, slice(1)), target[:1])
            return self._gradients(batch, inputs, target, self._plan)

    def flat(self, inputs: Batch, target: Tensor) -> Tensor:
        """The gradients of few samples as one matrix (n_samples, n_parameters), parameters in the network's order."""
        with evaluating(self._model), differentiable(self._model, self._parameters):
            copy = mapped(torch.clone, inputs)
            return looped_gradients(self._logits, list(self._parameters.values()), copy, target.clone())

    def directional_derivatives(self, sample: Batch, label: Tensor, directions: Tensor) -> Tensor:
        """Derivatives ⟨∇_θ f_c(x), v⟩ (n_directions,) along directions v in θ, themselves differentiable in x.

        Args:
            sample: x, a batch of one sample.
            label: c, a scalar.
            directions: v (n_directions, n_parameters), as in ``flat``.
        """
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        parts = dict(zip(self._parameters, torch.split(directions, sizes, 1), strict=True))
        products = self._products(sample, label, lambda name, gradient: parts[name] @ gradient.flatten())
        return sum(products, directions.new_zeros(len(directions)))

    def derivative_along(self, sample: Batch, label: Tensor, direction: Direction) -> Tensor:
        """The derivative ⟨∇_θ f_c(x), v⟩, a scalar, along one direction v in θ, itself differentiable in x.

        Memory: the largest parameter, beside the activations; the gradient is never held whole.

        Args:
            sample: x, a batch of one sample.
            label: c, a scalar.
            direction: v.
        """
        products = self._products(sample, label, direction.along)
        return sum(products, next(iter(self._parameters.values())).new_zeros((), dtype=self._dtype()))

    def _products(self, sample: Batch, label: Tensor, product: Callable[[str, Tensor], Tensor]) -> list[Tensor]:
        """The products of ∇_θ f_c(x) in each parameter, with their graph."""
        products: list[Tensor] = []
        with twice_differentiable(self._model, self._parameters):
            logit = self._logits(sample).gather(1, label.clone()[None, None]).sum()

            def visit(name: str, gradient: Tensor) -> None:
                products.append(product(name, gradient.to(self._dtype())))

            if logit.requires_grad:
                visit_gradients(self._logits, logit, self._parameters, visit, create_graph=True)
        return products

    def direction_of(self, dense: Tensor, outer: Mapping[str, Tensor | OuterProducts]) -> Direction:
        """A direction from its parts in the layout of :class:`SampleGradients`; after the first batch.

        Args:
            dense: (n_dense,).
            outer: name of a matrix parameter → its part.
        """
        names = () if self._plan is None else self._plan.dense
        sizes = [self._parameters[name].numel() for name in names]
        parts = {**dict(zip(names, torch.split(dense, sizes), strict=True)), **outer}
        return Direction({name: parts[name] for name in self._parameters})

    def split_vector(self, vector: Tensor) -> Direction:
        """The direction of a vector (n_parameters,), as in ``flat``."""
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        return Direction(dict(zip(self._parameters, torch.split(vector, sizes), strict=True)))

    def sum_of(self, gradients: SampleGradients) -> Direction:
        """The sum of gradients over their samples."""
        sums = [part.sum(0) for part in gradients.parts]
        dense = torch.cat([gradients.like.new_zeros(0), *sums])
        return self.direction_of(dense, {name: summed(product) for name, product in gradients.outer.items()})

    def _pass(self, inputs: Batch, target: Tensor) -> BatchPass:
        return BatchPass(self._logits, self._parameters, inputs, target)

    def _make_plan(self, batch: BatchPass, sample: Batch, target: Tensor) -> _Plan:
        """Decide with batches of several sizes, so that no other axis passes for that of the samples by chance."""
        self._check_network(batch)
        few = [self._pass(concatenated([sample] * size), target.expand(size)) for size in (2, 3)]
        self._with_rule = batch.covered() & few[0].covered() & few[1].covered()
        served = [name for name in self._parameters if name in self._with_rule]
        wants = [name for name in served if few[0].wants_outer(name, self._prefers_outer)]
        outer = {name: few[0].outer(name).one_hot for name in wants}
        return _Plan(batch.uses, outer, tuple(name for name in self._parameters if name not in outer))

    def _check_network(self, batch: BatchPass) -> None:
        """Refuse a network with batch statistics, and one in which no chosen parameter gets a gradient."""
        for name, module in self._model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                got = f"{name!r} without running statistics"
                raise InvalidValueError("model", self._owner, "a network whose samples do not interact", got)
        if not batch.uses:
            constraint = "a network whose outputs autograd can differentiate in the chosen parameters"
            got = "outputs without a gradient, as under torch.no_grad() or after detach()"
            raise InvalidValueError("model", self._owner, constraint, got)

    def _gradients(self, batch: BatchPass, inputs: Batch, target: Tensor, plan: _Plan) -> SampleGradients:
        found: dict[str, Tensor | OuterProducts] = {}
        if batch.uses == plan.uses:
            found = self._by_rules(batch, plan)
        others = [name for name in self._parameters if name not in found]
        if batch.uses == plan.uses:
            others = [name for name in others if batch.uses[name]]
        found |= self._by_autograd(others, inputs, target, plan)
        return self._in_layout(found, len(target), plan)

    def _by_rules(self, batch: BatchPass, plan: _Plan) -> dict[str, Tensor | OuterProducts]:
        """The gradients that rules give, some of them after a comparison with autograd."""
        self._with_rule &= batch.covered()
        found = {
            name: batch.outer(name) if name in plan.outer else batch.dense(name)
            for name in self._parameters
            if name in self._with_rule
        }
        self._n_batches += 1
        if found and self._is_due(batch):
            confirmed = batch.confirmed(found) if self._n_batches == 1 else batch.in_order(found.keys())
            self._drop_rules(found.keys() - confirmed)
            found = {name: gradients for name, gradients in found.items() if name in confirmed}
        return found

    def _is_due(self, batch: BatchPass) -> bool:
        """Whether the order of samples in a batch is tested.

        It is in batches 1, 2, 4, 8, …, where an operation may move samples by their values, and where the network
        computes otherwise than in every batch of that size before.
        """
        graph = len(batch.chosen), frozenset(batch.operations.items())
        known = graph in self._graphs
        self._graphs.add(graph)
        is_power = self._n_batches & (self._n_batches - 1) == 0
        return is_power or not known or may_move_rows(batch.operations)

    def _drop_rules(self, names: Iterable[str]) -> None:
        """No more rules for these parameters, if no other batch has relied on them."""
        wrong = sorted(names)
        if wrong and self._n_batches > 1:
            constraint = "a network whose layers see the samples of every batch in their order"
            got = f"a batch in which those of {', '.join(wrong)} see others"
            raise InvalidValueError("model", self._owner, constraint, got)
        self._with_rule -= set(wrong)

    def _by_autograd(
        self, names: Sequence[str], inputs: Batch, target: Tensor, plan: _Plan
    ) -> dict[str, Tensor | OuterProducts]:
        """The gradients in these parameters by differentiating each sample, in the form of the plan."""
        if not names:
            return {}
        sizes = [self._parameters[name].numel() for name in names]
        parts = torch.split(self._fallback(tuple(names), inputs, target), sizes, 1)
        found: dict[str, Tensor | OuterProducts] = dict(zip(names, parts, strict=True))
        for name, part in zip(names, parts, strict=True):
            if name in plan.outer:
                n_rows = len(self._parameters[name])
                found[name] = OuterProducts.from_matrices(part.reshape(len(part), n_rows, -1), one_hot=plan.outer[name])
        return found

    def _fallback(self, names: tuple[str, ...], inputs: Batch, target: Tensor) -> Tensor:
        """The gradients (n_samples, n_elements) side by side, vectorised if that gives what a loop gives."""
        chosen = {name: self._parameters[name] for name in names}
        if names not in self._vectorises:
            self._vectorises[names] = self._vmap_works(chosen, rows_of(inputs, slice(2)), target[:2])
        if self._vectorises[names]:
            try:
                return vectorised_gradients(self._logits, chosen, inputs, target)
            except _VMAP_ERRORS:  # another branch of the network
                self._vectorises[names] = False
        return looped_gradients(self._logits, list(chosen.values()), inputs, target)

    def _vmap_works(self, chosen: Mapping[str, Tensor], inputs: Batch, target: Tensor) -> bool:
        """Whether vmap knows every operation of the network and every way it reaches its parameters."""
        expected = looped_gradients(self._logits, list(chosen.values()), inputs, target)
        try:
            found = vectorised_gradients(self._logits, chosen, inputs, target)
        except _VMAP_ERRORS:
            return False
        return bool((found - expected).norm() <= _VMAP_TOLERANCE * expected.norm())

    def _in_layout(self, found: Mapping[str, Tensor | OuterProducts], n_samples: int, plan: _Plan) -> SampleGradients:
        """The gradients in the form of the plan; zeros for parameters that the batch does not use."""
        like = torch.empty(0, dtype=self._dtype(), device=next(iter(self._parameters.values())).device)
        parts, outer = [], {}
        for name, parameter in self._parameters.items():
            gradients = found.get(name)
            if isinstance(gradients, OuterProducts):
                outer[name] = gradients.to(like.dtype)
            elif name in plan.outer:
                shape = n_samples, len(parameter), parameter[0].numel()
                outer[name] = OuterProducts.zeros(shape, like, one_hot=plan.outer[name])
            else:
                part = like.new_zeros(n_samples, parameter.numel()) if gradients is None else gradients
                parts.append(part.detach().to(like.dtype))
        return SampleGradients(parts, outer)

    def _dtype(self) -> torch.dtype:
        """The precision of the gradients: float32, or float64 if a parameter has it."""
        double = any(parameter.dtype == torch.float64 for parameter in self._parameters.values())
        return torch.float64 if double else torch.float32
