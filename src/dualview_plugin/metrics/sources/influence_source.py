"""Rows of the attribution matrix from the influence objects of Captum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dualview_plugin.batches import Batch, leaves, n_rows, rows_of
from dualview_plugin.data import n_samples_in_order
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.sources.arrays import (
    Array,
    TestArrays,
    decisions,
    logits_of,
    on_device_of,
    row_slices,
    to_array,
)
from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.network import guest, kept_weights, model_fingerprint


class InfluenceSource(AttributionSource):
    """An influence object that follows TracIn's call, ``influence((inputs, labels), k=None)``, as Captum's others do.

    The explained class stands for the label: the loss gradient that is compared is that of the explained class.

    Args:
        influence: its network has its own weights again after every call, although Captum loads checkpoints into it.
        model: the network that the metric was called with; None: the object's own.
        batch_size: test points in a block.
        owner: the metric, for error messages.

    Raises:
        InvalidValueError: the training data are read in another order than their own, or in part; when called: the
            object has another number of training points, or another network than the metric was called with.
    """

    def __init__(self, influence: Any, model: nn.Module | None, batch_size: int, owner: str) -> None:
        own = getattr(influence, "model", None)  # the user's own objects may have none
        self._influence, self._batch_size, self._owner = influence, batch_size, owner
        self._model: nn.Module | None = model if own is None else own
        self._other: nn.Module | None = model
        loader = getattr(influence, "train_dataloader", None)
        self._n_train = n_samples_in_order(loader, owner, "train_dataset") if isinstance(loader, DataLoader) else None

    @property
    def n_train(self) -> int | None:
        """The number of training points behind the object's loader, if it has one."""
        return self._n_train

    def blocks(self, inputs: TestArrays, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train)."""
        check_same_network(self._model, self._other, rows_of(inputs, slice(self._batch_size)), self._owner)
        for rows in row_slices(n_rows(inputs), self._batch_size):
            block = self._block(rows_of(inputs, rows), None if target is None else torch.as_tensor(target[rows]))
            self._check_count(block.shape[-1])
            yield block

    def self_influence(self) -> Array | None:
        """The object's own, (n_train,); None if it has none."""
        if not hasattr(self._influence, "self_influence"):
            return None
        check_same_network(self._model, self._other, None, self._owner)
        with self._untouched():
            return to_array(self._influence.self_influence())

    def _block(self, inputs: Array, target: Tensor | None) -> Array:
        """The rows of these test points."""
        if self._model is None:
            batch: Batch = torch.as_tensor(inputs)
            if target is None:
                raise InvalidValueError("model", self._owner, "given for explained_class='decision'", None)
        else:
            batch = on_device_of(self._model, inputs, self._owner)
            target = decisions(self._model, batch, self._owner) if target is None else target
        with self._untouched():
            return to_array(self._influence.influence((batch, target.to(leaves(batch)[0].device)), k=None))

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """The network in eval mode, and afterwards as it was, like the random state."""
        with ExitStack() as stack:
            if self._model is not None:
                stack.enter_context(kept_weights(self._model))
                stack.enter_context(guest(self._model))
            yield

    def _check_count(self, n_columns: int) -> None:
        """Refuse a matrix that lacks training points."""
        if self._n_train not in (None, n_columns):
            constraint = f"one column for each of the {self._n_train} training points"
            raise InvalidValueError("attributions", self._owner, constraint, f"{n_columns} columns")


def check_same_network(own: nn.Module | None, other: nn.Module | None, inputs: Array | None, owner: str) -> None:
    """Refuse another network than the one that an influence object explains.

    Args:
        own: the object's network.
        other: the network that the metric was called with; None: the same.
        inputs: a few test inputs, for which the outputs must be equal too; None: only the weights are compared.
        owner: the metric, for the error message.

    Raises:
        InvalidValueError: its weights or its outputs are others.
    """
    if other is None or own is None or other is own:
        return
    equal = isinstance(other, nn.Module) and model_fingerprint(own) == model_fingerprint(other)
    if equal and inputs is not None:
        equal = torch.equal(logits_of(own, inputs, owner).cpu(), logits_of(other, inputs, owner).cpu())
    if not equal:
        constraint = "the network of the influence object, which explains no other: make the object for this network"
        raise InvalidValueError("model", owner, constraint, f"another {type(other).__name__}")
