"""A dataset in which some labels are wrong, and it is known which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.modifications.modified_dataset import ModifiedDataset
from dualview_plugin.validation import check_fraction, check_integer


class PoisonedLabels(ModifiedDataset):
    """A view of a dataset with a fraction of its labels changed to another class, uniformly at random.

    Which points are poisoned and by how much their labels move, ``y -> (y + shift) mod n_classes`` with a shift in
    1 .. n_classes - 1, is drawn from the seed when the view is built, so no label is read before its item is asked for.

    Train the network on this view, and pass the same view as ``train_dataset`` of the method that is scored.

    Args:
        dataset: a map-style dataset of (input, label) pairs, labels in 0 .. n_classes - 1.
        fraction: share of the points that get a wrong label, in (0, 1]; rounded to the nearest number of points.
        n_classes: number of classes.
        seed: of the draw; one seed is one poisoning of a dataset of this length.

    Attributes:
        poisoned_indices: the indices of the poisoned points, ascending, (n_poisoned,) int64.

    Raises:
        InvalidValueError: a parameter outside its range, a fraction that poisons no point, or, when an item is read,
            a label outside 0 .. n_classes - 1.

    Source: arXiv 2402.12118, "Label Poisoning"; its reference code poisons 0.3 of MNIST.
    Cost: O(n_poisoned) memory beside the wrapped dataset.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from dualview_plugin import PoisonedLabels
        >>> clean = TensorDataset(torch.zeros(5, 2), torch.tensor([0, 1, 2, 0, 1]))
        >>> poisoned = PoisonedLabels(clean, fraction=0.4, n_classes=3, seed=0)
        >>> [index for index in range(5) if poisoned[index][1] != clean[index][1]] == poisoned.poisoned_indices.tolist()
        True
    """

    def __init__(self, dataset: Dataset[Any], fraction: float, n_classes: int, seed: int = 0) -> None:
        super().__init__(dataset)
        self.fraction = check_fraction(fraction, "fraction", self._owner)
        self.n_classes = check_integer(n_classes, "n_classes", self._owner, minimum=2)
        self.seed = check_integer(seed, "seed", self._owner, minimum=0)
        n_poisoned = round(self.fraction * len(self))
        if n_poisoned == 0:
            constraint = f"large enough to poison one of {len(self)} points"
            raise InvalidValueError("fraction", self._owner, constraint, repr(fraction))
        generator = np.random.default_rng(self.seed)
        self.poisoned_indices: NDArray[np.int64] = np.sort(generator.permutation(len(self))[:n_poisoned])
        shifts = generator.integers(1, self.n_classes, size=n_poisoned)
        self._shift_of = dict(zip(self.poisoned_indices.tolist(), shifts.tolist(), strict=True))

    def _modify(self, index: int, inputs: Any, label: int) -> tuple[Any, int]:
        if not 0 <= label < self.n_classes:
            constraint = f"a dataset of labels in 0 .. {self.n_classes - 1}"
            raise InvalidValueError("dataset", self._owner, constraint, f"label {label} at index {index}")
        return inputs, (label + self._shift_of.get(index, 0)) % self.n_classes
