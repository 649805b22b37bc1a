"""The cosine between gradients in all parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.batches import Batch, mapped
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.gradients import Direction, SampleGradients


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

    Example:
        >>> import torch
        >>> from dualview_plugin import GradCos
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = GradCos(network, "0", train, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> [round(value, 3) for value in attributions[0, :3].tolist()]  # the same input, another label, the same label
        [1.0, 0.0, 0.5]
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

    def _test_state(self, inputs: Batch, target: Tensor) -> SampleGradients:
        return self._gradients_of(inputs, target).normalised()

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return ((train.norms() > 0).to(self._score_dtype) for train in self._training_gradients(stream))

    def _linearised(self, sample: Batch, label: Tensor, directions: Tensor) -> Tensor:
        cosines, tangents = self._tangents(sample, label, directions)
        slope = super()._linearised(sample, label, tangents)
        return cosines + slope - slope.detach()

    def _evidence(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Callable[[Batch], Tensor]:
        tangent = self._tangent(inputs, target, self._direction_sum(train_indices.flatten()))
        return lambda point: self._gradients.derivative_along(point, target[0], tangent)

    @torch.no_grad()
    def _tangent(self, inputs: Batch, target: Tensor, direction: Direction) -> Direction:
        """The gradient of ⟨d, g / ‖g‖⟩ in g, as in :meth:`_tangents`, in factors."""
        gradient = self._gradients(inputs, target)
        norm = gradient.norms()[0]
        if not norm > 0:
            return direction.scaled(gradient.like.new_zeros(()))
        product = self._gradients.derivative_along(inputs, target[0], direction).detach()
        unit = self._gradients.sum_of(gradient.normalised())
        size = norm.to(product)
        return direction.plus(unit.scaled(-product / size)).scaled(1 / size)

    def _tangents(self, sample: Batch, label: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """⟨d, u⟩ of directions d (k, n_parameters) with u = g / ‖g‖, and its gradients in g, (d − ⟨d, u⟩ u) / ‖g‖."""
        gradient = self._gradients.flat(mapped(Tensor.detach, sample), label[None])[0]
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64).to(gradient)
        if not norm > 0:
            return directions.new_zeros(len(directions)), torch.zeros_like(directions)
        cosines = directions @ (gradient / norm)
        return cosines, (directions - cosines[:, None] * gradient / norm) / norm
