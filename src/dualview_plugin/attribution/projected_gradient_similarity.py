"""Gradient similarity after a random projection: the training gradients kept, a few numbers each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity
from dualview_plugin.batches import Batch
from dualview_plugin.data import RangeResult, RangeStream, TrainData
from dualview_plugin.features import in_precision
from dualview_plugin.gradients import (
    Direction,
    FactoredProjection,
    GaussianProjection,
    OuterProducts,
    SampleGradients,
    cheaper_projection,
)
from dualview_plugin.network import guest
from dualview_plugin.storage import Column, DamagedFileError
from dualview_plugin.validation import check_integer, check_option


class ProjectedGradientSimilarity(GradientSimilarity):
    """τ_i(x, c) = ⟨P ∇_θ f_c(x), P ∇_θ f_{y_i}(x_i)⟩ / ‖∇_θ f_{y_i}(x_i)‖ with a random P of ``n_components`` rows.

    The attributions are unbiased estimates of those of :class:`GradientSimilarity`. P comes from the seed and is never
    held whole; the fit keeps n_components numbers a training point.

    Args:
        model, final_fc_layer, train_dataset, normalize_train, layers, memory_budget, **common: see
            :class:`GradientSimilarity`. The norm is that of the gradient itself, not of its projection.
        n_components: rows of P.
        projection: what P is.
            ``"gaussian"``: independent entries N(0, 1/n_components), as in the paper. The variance is
            (‖g‖² ‖g_i‖² + ⟨g, g_i⟩²) / n_components before the division by ‖g_i‖.
            ``"factored"``: an outer product l ⊗ r of a layer becomes (A l) ∘ (B r) / √n_components, with Gaussian A and
            B of each layer. The variance is larger, by the sum that :class:`FactoredProjection` states, and nothing of
            n_parameters × n_components is drawn or multiplied. The choice for large networks.
        seed: of P, non-negative. The same seed gives the same P for every batch size and on every device.

    Attributes:
        projected_gradients_: P ∇_θ f_{y_i}(x_i), divided by the norm if ``normalize_train``, (n_train, n_components).
        gradient_norms_: ‖∇_θ f_{y_i}(x_i)‖, (n_train,).

    Raises:
        InvalidTypeError, InvalidValueError: as :class:`GradientSimilarity`.

    Source: Pruthi et al. 2020 (arXiv 2002.08484), section 3.4; Yolcu et al. 2024 (arXiv 2402.12118), SIM-rp.

    Cost: fit: a forward and a backward pass over the training set, the norms of the gradients, and their projections.
    ``"gaussian"``: n_train · n_parameters · n_components products less those with inactive units, and P generated once
    for each quarter of the memory budget of gradients in factors. ``"factored"``: n_terms · (n_rows + n_columns) ·
    n_components for each layer and training point, n_terms being 1 for a linear layer; n_rows · n_columns ·
    n_components where its gradient is held as a matrix. attribute: the same for the test points, and
    n_test · n_train · n_components.

    Example:
        >>> import torch
        >>> from dualview_plugin import ProjectedGradientSimilarity
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = ProjectedGradientSimilarity(network, "0", train, n_components=64, show_progress=False)
        >>> method.attribute(torch.eye(4)[:1], target=0).shape
        torch.Size([1, 12])
    """

    projected_gradients_: Tensor
    gradient_norms_: Tensor

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        n_components: int = 128,
        projection: Literal["gaussian", "factored"] = "gaussian",
        seed: int = 0,
        normalize_train: bool = True,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            model,
            final_fc_layer,
            train_dataset,
            normalize_train=normalize_train,
            layers=layers,
            memory_budget=memory_budget,
            **common,
        )
        self.n_components = check_integer(n_components, "n_components", self.get_name())
        self.projection = check_option(projection, "projection", self.get_name(), ("gaussian", "factored"))
        self.seed = check_integer(seed, "seed", self.get_name(), minimum=0)

    def _fit(self) -> None:
        super()._fit()
        self._projection, self._form = self._make_projection(), self._form_now()
        parameters: dict[str, object] = {
            "n_components": self.n_components,
            "projection": self.projection,
            "seed": self.seed,
            "layers": self.layers,
            "form": self._form,
        }
        kind = f"projected gradients{self._of_output}"
        stored = self._stored(kind, parameters, self._columns(), self._project_ranges)
        if stored is None:
            ((_, stored, _),) = self._project_ranges([range(self.n_train_)])
        self.gradient_norms_ = stored["norms"]
        self.projected_gradients_ = stored["projected"]
        if self.normalize_train:
            norms = self.gradient_norms_[:, None]
            self.projected_gradients_ = self.projected_gradients_ / torch.where(norms > 0, norms, 1.0)

    _sweeps = False  # the projections are kept

    _remade: ClassVar[frozenset[str]] = GradientSimilarity._remade | {"_projection"}

    def _resume(self) -> None:
        super()._resume()
        if vars(self).get("_form") != self._form_now():
            raise DamagedFileError("its gradients have another form than those of this network and this version")
        self._projection = self._make_projection()

    def _form_now(self) -> list[str]:
        """The matrices whose gradients are outer products: which number of P belongs to which entry hangs on them."""
        return list(self._layout.outer)

    def _prefers_outer(self, product: OuterProducts) -> bool:
        """In the form that the projection handles faster."""
        if self.projection == "factored":
            return cheaper_projection(product, self.n_components)
        return super()._prefers_outer(product)

    def _make_projection(self) -> GaussianProjection | FactoredProjection:
        """P, by the choice of ``projection``."""
        if self.projection == "factored":
            return FactoredProjection(self.n_components, self.seed, self._gradients.dense_shapes)
        return GaussianProjection(self.n_components, self.seed)

    def _columns(self) -> list[Column]:
        """What is stored of each training point."""
        computed = self._layout.like.dtype
        return [Column("projected", self._stored_dtype or computed, self.n_components), Column("norms", computed)]

    def _project_ranges(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """The projections (n, n_components) and the norms (n,) of the training gradients in ranges of positions."""
        stream = RangeStream(self._data, ranges)
        with guest(self.model):
            yield from stream.assembled(self._projected(stream))

    def _projected(self, stream: RangeStream) -> Iterator[dict[str, Tensor]]:
        """Projections and norms of one chunk after another."""
        for chunk in self._chunks(stream):
            projected, norms = self._projection(chunk), chunk.norms()
            yield {"projected": in_precision(projected, self._stored_dtype), "norms": norms.to(projected.dtype)}

    def _chunks(self, stream: RangeStream) -> Iterator[SampleGradients]:
        """The training gradients in chunks of a quarter of the memory budget; a Gaussian P is generated for each."""
        if self.projection == "factored":
            yield from self._training_gradients(stream)
            return
        size = self.memory_budget // (4 * max(1, self._layout.bytes_per_sample))
        held: list[SampleGradients] = []
        for gradients in self._training_gradients(stream):
            if held and sum(map(len, held)) + len(gradients) > size:
                yield SampleGradients.stack(held)
                held = []
            held.append(gradients)
        if held:
            yield SampleGradients.stack(held)

    @torch.no_grad()
    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        projected = self._projection(self._gradients_of(inputs, target))
        return projected @ self.projected_gradients_.mT

    @torch.no_grad()
    def _self_influence(self) -> Tensor:
        values = self.projected_gradients_.square().sum(1)
        return values * self.gradient_norms_ if self.normalize_train else values

    def _directions(self, train_indices: Tensor) -> Tensor:
        components = self.projected_gradients_[train_indices]
        return self._gradients.flatten(*self._projection.adjoint(components, self._layout))

    @torch.no_grad()
    def _direction_sum(self, train_indices: Tensor) -> Direction:
        components = self.projected_gradients_[train_indices].sum(0, keepdim=True)
        dense, outer = self._projection.adjoint(components, self._layout)
        return self._gradients.direction_of(dense[0], {name: matrices[0] for name, matrices in outer.items()})
