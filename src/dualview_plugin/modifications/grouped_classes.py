"""A dataset whose classes are merged into superclasses, with the classes kept for the score."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.modifications.modified_dataset import ModifiedDataset


class GroupedClasses(ModifiedDataset):
    """A view of a dataset whose labels are superclasses: the label of an item is the position of its class's group.

    Args:
        dataset: a map-style dataset of (input, label) pairs.
        groups: the classes of each superclass; groups are disjoint and together hold every label of the dataset.
            The paper's, for ten classes: ``[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]``.

    Attributes:
        n_classes: number of superclasses.
        subclasses: the original label of each item, (n_train,) int64; read from the dataset on first use.

    Raises:
        InvalidTypeError: a group that is no sequence of integers.
        InvalidValueError: no group, an empty group, a class in two groups, or, when an item is read, a class in none.

    Source: arXiv 2402.12118, "Identical Subclass".
    Cost: no memory beside the wrapped dataset, but for ``subclasses``.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from dualview_plugin import GroupedClasses
        >>> digits = TensorDataset(torch.zeros(4, 2), torch.tensor([0, 1, 2, 3]))
        >>> grouped = GroupedClasses(digits, groups=[[0, 3], [1, 2]])
        >>> [grouped[index][1] for index in range(4)], grouped.subclasses.tolist()
        ([0, 1, 1, 0], [0, 1, 2, 3])
    """

    def __init__(self, dataset: Dataset[Any], groups: Sequence[Iterable[int]]) -> None:
        super().__init__(dataset)
        self.groups = self._checked(groups)
        self.n_classes = len(self.groups)
        self._superclass_of = {member: position for position, group in enumerate(self.groups) for member in group}

    @property
    def subclasses(self) -> NDArray[np.int64]:
        """The original label of each item, (n_train,) int64."""
        return self.original_labels

    def superclass(self, label: int) -> int:
        """The superclass that an original label belongs to: also for the labels of test points."""
        if int(label) not in self._superclass_of:
            raise InvalidValueError("groups", self._owner, "groups that hold every class", f"no group with {label}")
        return self._superclass_of[int(label)]

    def _modify(self, _index: int, inputs: Any, label: int) -> tuple[Any, int]:
        return inputs, self.superclass(label)

    def _checked(self, groups: Sequence[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
        """The groups as tuples, if they are non-empty, disjoint and made of integers."""
        try:
            checked = tuple(tuple(operator.index(member) for member in group) for group in groups)
        except TypeError as error:
            raise InvalidTypeError("groups", self._owner, "sequences of integers", repr(groups)) from error
        members = [member for group in checked for member in group]
        if not checked or not all(checked) or len(set(members)) != len(members):
            raise InvalidValueError("groups", self._owner, "non-empty and disjoint", repr(groups))
        return checked
