"""One forward and one backward pass of a batch: what the rules of layers need, and for which parameters they hold."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch
from dualview_plugin.gradients.autograd_fallback import at_least_float32, visit_gradients
from dualview_plugin.gradients.logits import Logits
from dualview_plugin.gradients.operations import count_operations
from dualview_plugin.gradients.parameter_uses import LayerCall, count_uses, recorded_calls
from dualview_plugin.gradients.sample_gradients import OuterProducts, exact_norms, sum_of

# The weighted sums of right gradients agree to this many times the square root of the rounding unit; wrong ones do not
# agree at all.
_ROUNDING = 10.0
_LARGEST_ROUNDING = 0.1


@dataclass(frozen=True)
class ParameterUse:
    """A call that uses a parameter.

    Args:
        call: the call.
        slot: the layer's own name of the parameter.
        delta: the gradient at the layer's output.
    """

    call: LayerCall
    slot: str
    delta: Tensor

    def dense(self) -> Tensor:
        """The gradients (n_samples, n_elements)."""
        rule = self.call.rule.dense(self.slot)
        return rule(self.call.module, *self._factors()).flatten(1)

    def outer(self) -> OuterProducts:
        """The gradients as outer products."""
        assert self.call.rule.outer_weight is not None  # see has_outer
        return self.call.rule.outer_weight(self.call.module, *self._factors())

    @property
    def has_outer(self) -> bool:
        """Whether there is a rule for outer products."""
        return self.slot == "weight" and self.call.rule.outer_weight is not None

    def _factors(self) -> tuple[Tensor, Tensor]:
        return at_least_float32(self.call.inputs), at_least_float32(self.delta)


class BatchPass:
    """The chosen logits of a batch with their graph, and the gradients at the outputs of layers that have a rule.

    Attributes:
        chosen: logit ``target[i]`` of sample i, (n_samples,).
        uses: how many edges of the graph lead to each parameter.
        operations: how many of each kind are in the graph of all logits.
    """

    def __init__(self, logits: Logits, parameters: Mapping[str, nn.Parameter], inputs: Batch, target: Tensor) -> None:
        self._logits, self._parameters = logits, parameters
        with recorded_calls(logits.model, parameters) as calls:
            outputs = logits(inputs)
        self.chosen = outputs.gather(1, target[:, None]).squeeze(1)
        self.operations: Counter[str] = count_operations(outputs)
        self.uses: Counter[str] = count_uses(self.chosen, parameters)
        self._by_name = self._group(calls) if calls and self.chosen.requires_grad else {}

    def _group(self, calls: Sequence[LayerCall]) -> Mapping[str, list[ParameterUse]]:
        """The uses of each parameter in the calls that the chosen logits depend on."""
        deltas = self._deltas(self.chosen.sum(), calls)
        by_name: defaultdict[str, list[ParameterUse]] = defaultdict(list)
        for call, delta in zip(calls, deltas, strict=True):
            if delta is not None:
                for slot, name in call.slots.items():
                    by_name[name].append(ParameterUse(call, slot, delta))
        return by_name

    @staticmethod
    def _deltas(value: Tensor, calls: Sequence[LayerCall]) -> tuple[Tensor | None, ...]:
        """The gradients of a value at the calls' outputs; None where it does not depend on them."""
        outputs = [call.output for call in calls]
        return torch.autograd.grad(value, outputs, allow_unused=True, retain_graph=True)

    def covered(self) -> set[str]:
        """The parameters that calls with one row for each sample use, and nothing else does."""
        n_samples = len(self.chosen)
        return {
            name
            for name, own in self._by_name.items()
            if len(own) == self.uses[name]
            and all(use.call.has_rows(n_samples) and len(use.delta) == n_samples for use in own)
        }

    def wants_outer(self, name: str, prefers_outer: Callable[[OuterProducts], bool]) -> bool:
        """Whether all uses of a parameter have an outer rule of one kind, and it is preferred to the dense one."""
        uses = self._by_name[name]
        if not all(use.has_outer for use in uses):
            return False
        products = [use.outer() for use in uses]
        return len({product.one_hot for product in products}) == 1 and prefers_outer(sum_of(products))

    def dense(self, name: str) -> Tensor:
        """The gradients (n_samples, n_elements) of a parameter by rules, summed over its uses."""
        first, *others = (use.dense() for use in self._by_name[name])
        return first if not others else torch.stack([first, *others]).sum(0)

    def outer(self, name: str) -> OuterProducts:
        """The gradients of a parameter by rules as outer products, summed over its uses."""
        return sum_of([use.outer() for use in self._by_name[name]])

    def in_order(self, names: Collection[str]) -> set[str]:
        """The parameters whose layers see sample i in row i, in every call.

        The gradient at a layer's output is linear in the logits' weights: with random weights, row i is w_i times the
        one with weights of one, unless it belongs to another sample, or to several.

        Cost: one backward pass to the layers' outputs, without gradients in parameters.
        """
        weights = self._weights()
        uses = {id(use.call): use for name in names for use in self._by_name[name]}  # one of each call
        deltas = self._deltas((weights * self.chosen).sum(), [use.call for use in uses.values()])
        wrong = {
            call
            for (call, use), found in zip(uses.items(), deltas, strict=True)
            if found is None or not _are_scaled(found, use.delta, weights, self.chosen.dtype)
        }
        return {name for name in names if not any(id(use.call) in wrong for use in self._by_name[name])}

    def _weights(self) -> Tensor:
        """A random weight for each sample, between a half and one and a half."""
        generator = torch.Generator("cpu").manual_seed(0)
        weights = torch.rand(len(self.chosen), generator=generator, dtype=torch.float32, device="cpu") + 0.5
        return weights.to(self.chosen)

    def confirmed(self, gradients: Mapping[str, Tensor | OuterProducts]) -> set[str]:
        """The parameters whose per-sample gradients have the weighted sum that autograd finds.

        With random weights, gradients in another order, of other samples or with samples counted twice have another
        sum, although an unweighted one may be the same.

        Cost: one backward pass.
        """
        weights = self._weights()
        parameters = {name: self._parameters[name] for name in gradients}
        agree: set[str] = set()

        def compare(name: str, expected: Tensor) -> None:
            if _agree(gradients[name], weights, expected, self.chosen.dtype):
                agree.add(name)

        visit_gradients(self._logits, (weights * self.chosen).sum(), parameters, compare)
        return agree


def _are_scaled(found: Tensor, rows: Tensor, weights: Tensor, precision: torch.dtype) -> bool:
    """Whether each row of a batch is its weight times another one, up to rounding in this precision and its own.

    Rows that are not finite cannot be compared, and pass.
    """
    if found.shape != rows.shape:
        return False
    expected = rows.flatten(1) * weights.to(rows)[:, None]
    errors = torch.linalg.vector_norm(found.flatten(1) - expected, dim=1, dtype=torch.float64)
    sizes = torch.linalg.vector_norm(expected, dim=1, dtype=torch.float64)
    known = (errors + sizes).isfinite()
    floor = _rounding(found.dtype, precision) * torch.where(known, sizes, 0.0).max()  # what is below is rounding
    return bool(((errors <= _tolerance(found.dtype, precision) * sizes + floor) | ~known).all())


def _rounding(*dtypes: torch.dtype) -> float:
    """The rounding unit of the coarsest type."""
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _tolerance(*dtypes: torch.dtype) -> float:
    """The relative difference that rounding in these types may make."""
    return min(_LARGEST_ROUNDING, _ROUNDING * math.sqrt(_rounding(*dtypes)))


def _agree(found: Tensor | OuterProducts, weights: Tensor, expected: Tensor, precision: torch.dtype) -> bool:
    """Whether the weighted sum of the gradients is the expected one, up to rounding of terms of their size.

    Rounding is that of the coarser of their type and this precision.

    Gradients that are not finite cannot be compared, and pass.
    """
    if isinstance(found, OuterProducts):
        sizes = found.squared_norms().sqrt()
        error = found.distance(weights, expected)
    else:
        sums, sizes = weights.to(found) @ found, exact_norms(found)
        error = torch.linalg.vector_norm(sums - expected.flatten(), dtype=torch.float64)
    return bool((error <= _tolerance(expected.dtype, precision) * sizes.sum()) | ~sizes.isfinite().all())
