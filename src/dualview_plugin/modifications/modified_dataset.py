"""The wrapper that every modification is: a view of a labelled dataset, read lazily, that changes nothing in it."""

from __future__ import annotations

import operator
from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError


class ModifiedDataset(Dataset[tuple[Any, int]]):
    """A map-style view of a labelled dataset: item ``i`` of the wrapped one, changed when it is asked for.

    A metric that knows the change needs a network that was trained on the view. The method gets the same view as its
    ``train_dataset``.

    Args:
        dataset: a map-style dataset of (input, label) pairs; labels are integers.

    Raises:
        InvalidTypeError: the dataset has no length or cannot be indexed; when an item is read: it is no pair with an
            integer label.
        InvalidValueError: the dataset is empty.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset: Any = dataset
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise InvalidTypeError("dataset", self._owner, "a map-style dataset", type(dataset).__name__)
        if len(self) == 0:
            raise InvalidValueError("dataset", self._owner, "a dataset with at least one item", "an empty one")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        position = operator.index(index)
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} is out of range for a dataset of {len(self)} items")
        inputs, label = self._pair(position)
        return self._modify(position, inputs, label)

    @cached_property
    def original_labels(self) -> NDArray[np.int64]:
        """The wrapped dataset's own labels, (n_train,); read on first use, item by item if need be."""
        if (
            type(self.dataset) is TensorDataset
            and len(self.dataset.tensors) == 2
            and _is_integer(self.dataset.tensors[-1])
        ):
            return np.asarray(self.dataset.tensors[-1].cpu(), np.int64)
        return np.fromiter((self._pair(index)[1] for index in range(len(self))), np.int64, len(self))

    def _pair(self, position: int) -> tuple[Any, int]:
        """The item at a position that exists, if it is an input with an integer label."""
        item = self.dataset[position]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            got = f"a {type(item).__name__} at index {position}"
            raise InvalidTypeError("dataset", self._owner, "a dataset of (input, label) pairs", got)
        inputs, label = item
        try:
            return inputs, operator.index(label)
        except TypeError as error:
            got = f"the label {label!r} at index {position}"
            raise InvalidTypeError("dataset", self._owner, "a dataset with integer labels", got) from error

    @abstractmethod
    def _modify(self, index: int, inputs: Any, label: int) -> tuple[Any, int]:
        """The changed item; ``inputs`` belongs to the wrapped dataset and must not be written to."""

    @property
    def _owner(self) -> str:
        return type(self).__name__


def _is_integer(labels: Tensor) -> bool:
    """Whether these are one integer for each item."""
    return labels.ndim == 1 and not (labels.is_floating_point() or labels.is_complex())
