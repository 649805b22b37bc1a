"""TRAK: the network linearised, and its least-squares influence in random projections."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.common.output_gradients import OutputGradients
from dualview_plugin.attribution.projected_gradient_similarity import ProjectedGradientSimilarity
from dualview_plugin.data import TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients import Margins, margins
from dualview_plugin.network import Caller
from dualview_plugin.validation import check_positive


class TRAK(OutputGradients, ProjectedGradientSimilarity):
    """τ_i(x, c) = φ_c(x)ᵀ (ΦᵀΦ + λI)⁻¹ φ_{y_i}(x_i) (1 − p_{y_i}(x_i)) with φ_c(x) = P ∇_θ log(p_c / (1 − p_c)).

    P is a Gaussian random projection; the rows of Φ are the training points' φ at their labels.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        n_components: rows of P; the source takes some thousands.
        damping: λ as a share of the mean eigenvalue of ΦᵀΦ; 0 as in the source, which then needs at least as many
            training points as components.
        seed, layers, memory_budget: see :class:`ProjectedGradientSimilarity`.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; ΦᵀΦ + λI is singular.

    Source: Park et al. 2023 (arXiv 2303.14186), equation 13 for one network.

    Differs: one network, where the source averages several. Entries of P are Gaussian, not ±1.

    Cost: that of :class:`ProjectedGradientSimilarity`, and n_train · n_components² + n_components³.

    Example:
        >>> import torch
        >>> from dualview_plugin import TRAK
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = TRAK(network, "0", train, n_components=4, show_progress=False)
        >>> method.attribute(torch.eye(4)[:1], target=0).shape
        torch.Size([1, 12])
    """

    _output: ClassVar[type[Caller]] = Margins
    _of_output: ClassVar[str] = f" of {Margins.__name__}"
    _own: Tensor

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        n_components: int = 2048,
        damping: float = 0.0,
        seed: int = 0,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            model,
            final_fc_layer,
            train_dataset,
            n_components=n_components,
            seed=seed,
            layers=layers,
            memory_budget=memory_budget,
            **common,
        )
        self.damping = check_positive(damping, "damping", self.get_name(), allow_zero=True)

    def _fit(self) -> None:
        super()._fit()
        projected = self.projected_gradients_.double()
        size = projected.shape[1]
        gram = projected.mT @ projected
        gram += self.damping * gram.trace() / size * torch.eye(size, dtype=gram.dtype, device=gram.device)
        self._check_rank(gram)
        weighted = torch.linalg.solve(gram, projected.mT).mT * self._kept("errors", self._errors)[:, None]
        self._own = (weighted * projected).sum(1)
        self.projected_gradients_ = weighted.to(self.projected_gradients_)

    def _check_rank(self, gram: Tensor) -> None:
        """Refuse a matrix whose inverse would be rounding."""
        values = torch.linalg.eigvalsh(gram)
        resolution = len(gram) * torch.finfo(self.projected_gradients_.dtype).eps ** 2
        if not bool(values[0] > resolution * values[-1]):
            constraint = "positive where the projected gradients of the training set do not span all components"
            got = f"{self.damping!r} with {len(gram)} components and {self.n_train_} training points"
            raise InvalidValueError("damping", self.get_name(), constraint, got)

    @torch.no_grad()
    def _errors(self) -> Tensor:
        """1 − p_{y_i}(x_i) in float64, without cancellation, (n_train,)."""
        parts = [
            torch.sigmoid(-margins(self.extractor(inputs)[1]).gather(1, labels[:, None])[:, 0].double())
            for inputs, labels in self._training_batches()
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _self_influence(self) -> Tensor:
        return self._own
