"""One forward and one backward pass of a batch: what the rules of layers need, and for which parameters they hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch
from dualview_plugin.gradients.autograd_fallback import at_least_float32, visit_gradients
from dualview_plugin.gradients.logits import Logits
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
    """

    def __init__(self, logits: Logits, parameters: Mapping[str, nn.Parameter], inputs: Batch, target: Tensor) -> None:
        self._logits, self._parameters = logits, parameters
        with recorded_calls(logits.model, parameters) as calls:
            self.chosen = logits(inputs).gather(1, target[:, None]).squeeze(1)
        self.uses: Counter[str] = count_uses(self.chosen, parameters)
        self._by_name = self._group(calls) if calls and self.chosen.requires_grad else {}

    def _group(self, calls: Sequence[LayerCall]) -> Mapping[str, list[ParameterUse]]:
        """The uses of each parameter in the calls that the chosen logits depend on."""
        outputs = [call.output for call in calls]
        deltas = torch.autograd.grad(self.chosen.sum(), outputs, allow_unused=True, retain_graph=True)
        by_name: defaultdict[str, list[ParameterUse]] = defaultdict(list)
        for call, delta in zip(calls, deltas, strict=True):
            if delta is not None:
                for slot, name in call.slots.items():
                    by_name[name].append(ParameterUse(call, slot, delta))
        return by_name

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

    def confirmed(self, gradients: Mapping[str, Tensor | OuterProducts]) -> set[str]:
        """The parameters whose per-sample gradients have the weighted sum that autograd finds.

        With random weights, gradients in another order, of other samples or with samples counted twice have another
        sum, although an unweighted one may be the same.

        Cost: one backward pass.
        """
        generator = torch.Generator("cpu").manual_seed(0)
        weights = torch.rand(len(self.chosen), generator=generator, dtype=torch.float32, device="cpu") + 0.5
        weights = weights.to(self.chosen)
        parameters = {name: self._parameters[name] for name in gradients}
        agree: set[str] = set()

        def compare(name: str, expected: Tensor) -> None:
            if _agree(gradients[name], weights, expected):
                agree.add(name)

        visit_gradients(self._logits, (weights * self.chosen).sum(), parameters, compare)
        return agree


def _agree(found: Tensor | OuterProducts, weights: Tensor, expected: Tensor) -> bool:
    """Whether the weighted sum of the gradients is the expected one, up to rounding of terms of their size.

    Gradients that are not finite cannot be compared, and pass.
    """
    tolerance = min(_LARGEST_ROUNDING, _ROUNDING * torch.finfo(expected.dtype).eps ** 0.5)
    if isinstance(found, OuterProducts):
        sizes = found.squared_norms().sqrt()
        error = found.distance(weights, expected)
    else:
        sums, sizes = weights.to(found) @ found, exact_norms(found)
        error = torch.linalg.vector_norm(sums - expected.flatten(), dtype=torch.float64)
    return bool((error <= tolerance * sizes.sum()) | ~sizes.isfinite().all())
