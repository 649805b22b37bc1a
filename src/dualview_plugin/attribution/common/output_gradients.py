"""Gradients of log-probabilities or margins in the place of logits, for the methods that compare losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.batches import Batch, split
from dualview_plugin.data import TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients import LogProbabilities, SampleGradients
from dualview_plugin.network import Caller, are_probabilities


class OutputGradients(GradientSimilarity):
    """A :class:`GradientSimilarity` whose gradients are those of another output than the logit.

    The gradient of log p_c is minus that of the cross entropy; a product of two of them is that of the losses.

    Training gradients keep their norms: the options are those of the base but for ``normalize_train``.

    Note:
        A subclass names the output as ``_output``, and the modules whose parameters count by ``_counted_layers``.
    """

    _output: ClassVar[type[Caller]] = LogProbabilities
    _of_output: ClassVar[str] = f" of {LogProbabilities.__name__}"

    def __init__(
        self, model: nn.Module, final_fc_layer: nn.Module | str, train_dataset: TrainData, **options: Any
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, normalize_train=False, **options)

    def _check_probe(self, features: Tensor, logits: Tensor) -> None:
        """Log-probabilities need logits, and a second class."""
        super()._check_probe(features, logits)
        if are_probabilities(logits):
            constraint = (
                "a network whose outputs are logits: take the softmax off, or pass"
                " forward=lambda model, batch: model(batch).log()"
            )
            raise InvalidValueError("model", self.get_name(), constraint, "probabilities, which add up to 1")
        if logits.shape[1] < 2:
            raise InvalidValueError("model", self.get_name(), "a network of at least two classes", "one")

    def _check_finite_training(self, values: Tensor, rows: range) -> None:
        """Refuse training data whose values at these positions are NaN or infinite."""
        if not bool(values.isfinite().all()):
            got = f"NaN or inf at one of the positions {rows.start} to {rows.stop - 1}"
            raise InvalidValueError("train_dataset", self.get_name(), "data with finite gradients", got)

    def _differentiated(self) -> Caller:
        call = self.extractor.call
        return self._output(call.model, call.owner, call.forward, call.output)

    @property
    def _pass_size(self) -> int:
        """Samples in a pass, so that their gradients as whole vectors take at most a quarter of the budget."""
        each = self._gradients.n_parameters * self._layout.like.element_size()
        return max(1, min(super()._pass_size, self.memory_budget // (4 * each)))

    def _flat(self, gradients: SampleGradients) -> Tensor:
        """The gradients as whole vectors (n, n_parameters), parameters in the network's order."""
        outer = {name: product.matrices() for name, product in gradients.outer.items()}
        return self._gradients.flatten(gradients.dense, outer)

    def _flat_parts(self, inputs: Batch, target: Tensor) -> Iterator[Tensor]:
        """The gradients of a block of test points as whole vectors, pass by pass."""
        size = self._pass_size
        for part in zip(split(inputs, size), split(target, size), strict=True):
            yield self._flat(self._gradients(*part))
