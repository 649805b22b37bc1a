"""Rows of the attribution matrix from Captum's SimilarityInfluence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from captum.influence import SimilarityInfluence
from torch import Tensor, nn

from dualview_plugin.batches import n_rows, rows_of
from dualview_plugin.data import kept_generator, n_samples_in_order
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.sources.arrays import Array, TestArrays, logits_of, row_slices, to_array
from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.metrics.sources.influence_source import check_same_network
from dualview_plugin.network import guest


class SimilaritySource(AttributionSource):
    """Captum's SimilarityInfluence of one layer; the similarity does not depend on the explained class.

    Differs: its own ``influence`` fails with a single layer and reuses cached activations for another network, so the
    similarities are computed here from its parts (network, layer, data, metric, direction), with nothing on disk. A
    layer's output is copied when it is caught, because the next layer may overwrite it.

    Args:
        influence: of one layer, which runs once in a forward pass.
        model: the network that the metric was called with; None: the object's own.
        batch_size: test points in a block.
        owner: the metric, for error messages.

    Raises:
        InvalidValueError: several layers, or training data that are read in another order than their own; when called:
            the layer runs not exactly once, or its outputs are not one for each sample, or ``model`` is another
            network.

    Cost: one pass over the training data; its activations stay in memory, (n_train × the layer's size).
    """

    def __init__(self, influence: SimilarityInfluence, model: nn.Module | None, batch_size: int, owner: str) -> None:
        if len(influence.layers) != 1:
            raise InvalidValueError("explain_func", owner, "a SimilarityInfluence of one layer", influence.layers)
        self._influence, self._other, self._batch_size, self._owner = influence, model, batch_size, owner
        self._n_train = n_samples_in_order(influence.influence_src_dataloader, owner, "influence_src_dataset")
        self._sign = 1 if influence.similarity_direction == "max" else -1

    @property
    def n_train(self) -> int:
        """The number of samples in the object's source data."""
        return self._n_train

    def blocks(self, inputs: TestArrays, _target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train)."""
        check_same_network(self._influence.module, self._other, rows_of(inputs, slice(self._batch_size)), self._owner)
        train = self._train_activations()
        for rows in row_slices(n_rows(inputs), self._batch_size):
            test = self._activations(rows_of(inputs, rows))
            similarities = [self._influence.similarity_metric(test, part) for part in train]
            yield to_array(self._sign * torch.cat(similarities, dim=1))

    def _train_activations(self) -> list[Tensor]:
        """The layer's outputs for the source data, batch by batch."""
        loader = self._influence.influence_src_dataloader
        with guest(self._influence.module), kept_generator(loader):
            parts = [self._activations(_inputs_of(batch)) for batch in loader]
        count = sum(map(len, parts))
        if count != self._n_train:
            constraint = f"read whole: {self._n_train} samples"
            raise InvalidValueError("influence_src_dataset", self._owner, constraint, f"{count} samples")
        return parts

    @torch.no_grad()
    def _activations(self, inputs: Array | Tensor) -> Tensor:
        """The layer's outputs, (n_batch, …)."""
        model, name = self._influence.module, self._influence.layers[0]
        caught: list[Any] = []

        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            caught.append(output.clone() if isinstance(output, Tensor) else output)

        handle = model.get_submodule(name).register_forward_hook(catch)
        try:
            logits_of(model, inputs, self._owner)
        finally:
            handle.remove()
        self._check_caught(caught, len(inputs))
        activations: Tensor = caught[0]
        return activations

    def _check_caught(self, caught: list[Any], n_samples: int) -> None:
        """Refuse a layer whose outputs are not one tensor with a row for each sample."""
        name = self._influence.layers[0]
        if len(caught) != 1:
            constraint = "of a layer that runs exactly once in a forward pass"
            raise InvalidValueError("explain_func", self._owner, constraint, f"{name!r} with {len(caught)} runs")
        constraint = "of a layer whose output is one tensor with a row for each sample"
        if not isinstance(caught[0], Tensor):
            raise InvalidTypeError("explain_func", self._owner, constraint, f"{name!r}: {type(caught[0]).__name__}")
        if caught[0].ndim == 0 or len(caught[0]) != n_samples:
            shape = tuple(caught[0].shape)
            raise InvalidValueError("explain_func", self._owner, constraint, f"{name!r} with shape {shape}")


def _inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch of a dataset with or without labels."""
    inputs: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
    return inputs
