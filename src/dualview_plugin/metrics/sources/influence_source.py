"""Rows of the attribution matrix from the influence objects of Captum."""

from __future__ import annotations

from typing import Any

import torch
from captum.influence import SimilarityInfluence
from torch import Tensor

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.attribution_source import Array, AttributionSource, decisions, on_device_of, to_array
from dualview_plugin.network import evaluating


class InfluenceSource(AttributionSource):
    """An influence object that follows TracIn's call, ``influence((inputs, labels), k=None)``, as Captum's others do.

    The explained class stands for the label: the loss gradient that is compared is that of the explained class.
    """

    def __init__(self, influence: Any, batch_size: int) -> None:
        super().__init__(influence.model, batch_size)
        self._influence = influence

    def self_influence(self) -> Array | None:
        """The object's own, (n_train,); None if it has none."""
        if not hasattr(self._influence, "self_influence"):
            return None
        with evaluating(self._influence.model):
            return to_array(self._influence.self_influence())

    def _block(self, _rows: slice, inputs: Array, target: Array | None) -> Tensor:
        model = self._influence.model
        batch = on_device_of(model, inputs)
        labels = decisions(model, batch) if target is None else torch.as_tensor(target).to(batch.device)
        with evaluating(model):
            block: Tensor = self._influence.influence((batch, labels), k=None)
        return block


class SimilaritySource(AttributionSource):
    """Captum's SimilarityInfluence of one layer; the similarity does not depend on the explained class.

    Differs: its own ``influence`` fails with a single layer and reuses cached activations for another network, so the
    similarities are computed here from its parts (network, layer, data, metric, direction), with nothing on disk.

    Raises:
        InvalidValueError: several layers: which one's similarities should be scored?

    Cost: one pass over the training data; its activations stay in memory, (n_train × the layer's size).
    """

    def __init__(self, influence: SimilarityInfluence, batch_size: int) -> None:
        super().__init__(influence.module, batch_size)
        if len(influence.layers) != 1:
            constraint = "a SimilarityInfluence of one layer"
            raise InvalidValueError("explain_func", "a data attribution metric", constraint, influence.layers)
        self._influence = influence
        self._sign = 1 if influence.similarity_direction == "max" else -1
        self._train_activations: list[Tensor] = []

    def _block(self, _rows: slice, inputs: Array, _target: Array | None) -> Tensor:
        if not self._train_activations:
            batches = self._influence.influence_src_dataloader
            self._train_activations = [self._activations(_inputs_of(batch)) for batch in batches]
        test = self._activations(inputs)
        similarities = [self._influence.similarity_metric(test, train) for train in self._train_activations]
        return self._sign * torch.cat(similarities, dim=1)

    @torch.no_grad()
    def _activations(self, inputs: Array | Tensor) -> Tensor:
        """The layer's outputs, (n_batch, …)."""
        model, caught = self._influence.module, []
        layer = model.get_submodule(self._influence.layers[0])
        handle = layer.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        try:
            decisions(model, inputs)
        finally:
            handle.remove()
        activations: Tensor = caught[0]
        return activations


def _inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch of a dataset with or without labels."""
    inputs: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
    return inputs
