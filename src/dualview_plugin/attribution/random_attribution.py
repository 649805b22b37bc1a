"""The baseline: random attributions."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.batches import Batch, concatenated, leaves, mapped, samples
from dualview_plugin.data import TrainData
from dualview_plugin.network import differentiable_at, fingerprint, only_point
from dualview_plugin.validation import check_integer


class RandomAttribution(DataAttribution):
    """τ_i(x, c) ~ N(0, 1), independent.

    The values are a function of seed, test input and class: the same test point gets the same row whatever batch it
    comes in, if it is padded to the same length.

    :meth:`self_influence` ranks the training points at random: n_train values N(0, 1), a function of the seed and of
    n_train alone. They are not what :meth:`attribute` gives for training point i at itself, as those of other methods
    are: that would take n_train² / 2 random numbers for the same distribution.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        seed: non-negative.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), the baseline RAND.

    Cost: one pass over the dataset for its labels; (n_train) random numbers for each test point, and as many for
    :meth:`self_influence`.

    Example:
        >>> import torch
        >>> from dualview_plugin import RandomAttribution
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = RandomAttribution(network, "0", train, show_progress=False)
        >>> method.attribute(torch.eye(4)[:1]).shape
        torch.Size([1, 12])
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        seed: int = 0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        self.seed = check_integer(seed, "seed", self.get_name(), minimum=0)

    def _fit(self) -> None:
        self._training_labels()

    def _normal(self, size: int, *origin: object) -> Tensor:
        """Standard normal values that depend on the seed and on ``origin`` alone, (size,)."""
        seed = int(fingerprint(self.seed, *origin), 16)
        values = np.random.default_rng(seed).standard_normal(size, dtype=np.float32)
        return torch.from_numpy(values).to(self.device)

    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        rows = zip(samples(inputs), target, strict=True)
        return torch.stack([self._normal(self.n_train_, *_values(point), int(label)) for point, label in rows])

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        return self._attribute_block(inputs, target).gather(1, train_indices)

    def _self_influence(self) -> Tensor:
        """A random ranking of its own: the diagonal would take a row for each training point."""
        return self._normal(self.n_train_, "self-influence")

    def _block_maps(self, inputs: Batch, target: Tensor, train_indices: Tensor, at: str | None) -> Batch:
        """Random values of the shape of a map; noise has no gradient."""
        del train_indices
        if at is not None:
            with torch.no_grad(), differentiable_at(self.model, at, self.get_name()) as points:
                self.extract(inputs)
            shape = only_point(points, at, self.get_name()).shape[1:-1]
            rows = zip(samples(inputs), target, strict=True)
            return torch.stack([self._map(shape, "input", *_values(point), int(c)) for point, c in rows])
        maps = []
        for point, label in zip(samples(inputs), target, strict=True):
            random_map = partial(self._leaf_map, ("input", *_values(point), int(label)))
            maps.append(mapped(random_map, point))
        joined: Batch = concatenated(maps)
        return joined

    def _leaf_map(self, origin: tuple[object, ...], leaf: Tensor) -> Tensor:
        """The map of one tensor of a sample, (1, …)."""
        return self._map(leaf.shape[1:], *origin)[None]

    def _map(self, shape: torch.Size, *origin: object) -> Tensor:
        """Standard normal values of this shape."""
        return self._normal(shape.numel(), *origin).reshape(shape)


def _values(sample: Batch) -> list[Tensor]:
    """The tensors of a batch of one sample, without its batch axis."""
    return [leaf[0] for leaf in leaves(sample)]
