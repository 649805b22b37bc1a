"""The cosine between gradients in all parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.batches import Batch, leaves, mapped
from dualview_plugin.data import TrainData


class GradCos(GradientSimilarity):
    """τ_i(x, c) = ⟨∇_θ f_c(x), ∇_θ f_{y_i}(x_i)⟩ / (‖∇_θ f_c(x)‖ ‖∇_θ f_{y_i}(x_i)‖), between −1 and 1.

    It ranks the training points of a test point as :class:`GradientSimilarity` does. Where one is zero,
    so is the attribution.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        layers, memory_budget: see :class:`GradientSimilarity`.

    Raises:
        InvalidTypeError, InvalidValueError: as :class:`GradientSimilarity`.

    Source: Charpiat et al. 2019 (arXiv 1907.03085), equation 11; GradCos in arXiv 2402.12118 v3.

    Cost: that of :class:`GradientSimilarity`.
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, layers=layers, memory_budget=memory_budget, **common)

    @torch.no_grad()
    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        test = self._gradients_of(inputs, target).normalised()
        return torch.cat([test.inner(train.normalised()) for train in self._training_gradients()], 1)

    @torch.no_grad()
    def _self_influence(self) -> Tensor:
        norms = torch.cat([train.norms() for train in self._training_gradients()])
        return (norms > 0).to(self._layout.dense.dtype)

    def _linearised(self, sample: Batch, label: Tensor, directions: Tensor) -> Tensor:
        """Cosines (k,) with the unit vectors d, and their slope: that of ⟨g, (d − cos · g/‖g‖) / ‖g‖⟩ at fixed d."""
        gradient = self._gradients.flat(mapped(torch.detach, sample), label[None])[0]
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64).to(gradient)
        unit = gradient / norm if norm > 0 else gradient
        cosines = directions @ unit
        if not norm > 0:
            slopes = [0 * leaf.sum() for leaf in leaves(sample) if leaf.requires_grad]
            return cosines + sum(slopes, cosines.new_zeros(()))  # no slope either, for want of a direction
        tangent = super()._linearised(sample, label, (directions - cosines[:, None] * unit) / norm)
        return cosines + tangent - tangent.detach()

    def _evidence(self, target: Tensor, train_indices: Tensor) -> Callable[[Batch], Tensor]:
        """The summed cosines of one test point, with their slope, as a function of the point."""
        directions = self._directions(train_indices.flatten())
        return lambda inputs: self._linearised(inputs, target[0], directions).sum()
