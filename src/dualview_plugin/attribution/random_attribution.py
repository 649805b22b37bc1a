"""The baseline: attributions that know nothing."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.attribution.targets import Target
from dualview_plugin.data import Inputs, TrainData
from dualview_plugin.network import fingerprint
from dualview_plugin.validation import check_integer


class RandomAttribution(DataAttribution):
    """τ_i(x, c) ~ N(0, 1), independent.

    The values are a function of seed, test input and class: the same test point gets the same row whatever batch it
        comes in.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        seed: non-negative.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), the baseline RAND.

    Cost: one pass over the dataset for its labels; (n_train) random numbers for each test point.
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

    def _attribute_block(self, inputs: Tensor, target: Tensor) -> Tensor:
        rows = zip(inputs, target, strict=True)
        return torch.stack([self._normal(self.n_train_, point, int(label)) for point, label in rows])

    def _pair_attribution(self, inputs: Tensor, target: Tensor, train_indices: Tensor) -> Tensor:
        return self._attribute_block(inputs, target).gather(1, train_indices)

    def _self_influence(self) -> Tensor:
        return self._normal(self.n_train_, "self-influence")

    def input_attribution(self, inputs: Inputs, target: Target = None, k: int = 1) -> Tensor:
        """Random values of the inputs' shape; noise has no gradient, and ``k`` no effect."""
        check_integer(k, "k", self.get_name())
        maps: list[Any] = []
        for batch, classes in self.blocks(inputs, target):
            rows = zip(batch, classes, strict=True)
            maps += [self._normal(point.numel(), "input", point, int(c)).reshape(point.shape) for point, c in rows]
        return torch.stack(maps)
