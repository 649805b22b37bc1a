"""Influence functions on the last layer: how the test loss would change if a training point were left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.batches import Batch
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.last_layer import (
    CholeskyInverse,
    ConjugateGradientInverse,
    InverseCurvature,
    LinearLayer,
    LissaInverse,
    SoftmaxCurvature,
    residuals_of,
    softmax_residuals,
    total_memory,
    weight_gradients,
)
from dualview_plugin.validation import check_flag, check_integer, check_option, check_positive

# Memory that a block of test points may take, in bytes, less what products hold for a few training points.
_BLOCK_BYTES = 2**30 - 2**27
# Elements of the training gradients, or of scores of test points, that are held at a time: 16 MiB.
_SCORE_ELEMENTS = 2**21
# Vectors as large as the gradients of a block of test points that exist at a time: those of the solver, and their own.
_VECTORS = 7
# Training points on which the last layer is compared with the network's outputs.
_CHECKED_ROWS = 256


class InfluenceFunctions(DataAttribution):
    """τ_i(x, c) = ∇L(x, c)ᵀ (H + δI)⁻¹ ∇L(x_i, y_i), with gradients in the last layer's weights.

    L is the cross entropy and H the Hessian of the mean training loss. Positive: leaving the training point out would
    raise the test loss, by τ/n_train to first order; the point is helpful, a proponent.

    A point of which the network is sure has a gradient of e^(−gap) for a gap between its logits, and attributions are
    products of two such gradients. Logits, losses and products are therefore computed from the features in float64,
    whatever the network's precision. ``attribute`` rounds the result to it; ``influence(k)`` ranks before it rounds.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`. The final layer must be linear, or
            a 1 × 1 convolution, and its outputs the network's, or at several positions one of them or their mean.
        solver: how (H + δI)⁻¹ is applied.
            ``"auto"``: ``"exact"`` if its two matrices of (n_classes · n_features)² float64 numbers fit in
            ``memory_budget``, else ``"cg"``.
            ``"exact"``: one factorisation in float64, then matrix products. The choice as long as both matrices fit in
            memory.
            ``"cg"``: conjugate gradients on products with H, in float64, to a tolerance. For many classes or features.
            ``"lissa"``: the stochastic estimate that the paper used. To compare with published figures; the slowest.
        damping: δ, above zero. H alone is singular. Directions with an eigenvalue below δ, which few training points
            determine, are damped; larger values move the attributions towards plain gradient products, and make
            ``"cg"`` and ``"lissa"`` converge faster.
        include_bias: count the last layer's bias among its weights. The default does not, as the paper's networks
            have none.
        tol: relative residual at which ``"cg"`` (default 1e-6) and ``"lissa"`` (default 1e-3) stop.
        max_iter: iterations of ``"cg"`` (default 1000), steps of ``"lissa"`` (its depth, default 5000).
        scale: of ``"lissa"``: at least half the largest eigenvalue of H + δI; None: 1.1 times that eigenvalue,
            doubled where the batches make it diverge.
        seed: of ``"lissa"``: the order of the training points in its batches.
        memory_budget: bytes up to which ``"auto"`` is ``"exact"``; 1 GiB are 8192 weights.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; the final layer is not linear or not
            the network's last; ``"exact"`` needs more memory than the machine has.
        DivergenceError: ``"lissa"`` diverged; it never returns NaN.

    Warns:
        ConvergenceWarning: ``"cg"`` or ``"lissa"`` stopped before ``tol``; the message has the figures.
        PrecisionWarning: all attributions of a test point are below what the network's precision resolves, 1e-31 in
            float32.

    Source: Koh and Liang 2017 (arXiv 1703.04730), equation 2; the paper's reference implementation used LiSSA with
    damping 0.01 and scale 25.

    Differs: Koh and Liang's sign is the opposite one, and their H comes from all parameters.

    Cost: with m = n_classes · n_features weights: ``"exact"`` n_train · m²/2 + m³/3 for the fit, m² a test point;
    ``"cg"`` 2 · n_train · m for each iteration and test point; ``"lissa"`` 512 · m for each step and test point. Each
    adds n_train · m a test point for the products with the training gradients. Memory: 8 · n_train · n_classes bytes
    beside the features, and 16 · m² for ``"exact"``. A block of test points takes at most 1 GiB, or 56 · m bytes
    where one point needs more.

    Example:
        >>> import torch
        >>> from dualview_plugin import InfluenceFunctions
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = InfluenceFunctions(network, "0", train, damping=0.1, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> attributions.shape, bool(attributions[0, 0] > 0)
        (torch.Size([1, 12]), True)
    """

    _inverse: InverseCurvature
    _layer: LinearLayer

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        solver: Literal["auto", "exact", "cg", "lissa"] = "auto",
        damping: float = 0.01,
        include_bias: bool = False,
        tol: float | None = None,
        max_iter: int | None = None,
        scale: float | None = None,
        seed: int = 0,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        owner = self.get_name()
        self.solver = check_option(solver, "solver", owner, ("auto", "exact", "cg", "lissa"))
        self.damping = check_positive(damping, "damping", owner)
        self.include_bias = check_flag(include_bias, "include_bias", owner)
        self.tol = None if tol is None else check_positive(tol, "tol", owner)
        self.max_iter = None if max_iter is None else check_integer(max_iter, "max_iter", owner)
        self.scale = None if scale is None else check_positive(scale, "scale", owner)
        self.seed = check_integer(seed, "seed", owner, minimum=0)
        self.memory_budget = check_integer(memory_budget, "memory_budget", owner)

    def _check_probe(self, features: Tensor, logits: Tensor) -> None:
        """The final layer is the network's last, and its Hessian fits where it must."""
        layer = self._last_layer(features, logits)
        if self.include_bias and not layer.has_bias:
            constraint = "False for a final layer without a bias"
            raise InvalidValueError("include_bias", self.get_name(), constraint, True)
        memory = CholeskyInverse.memory(self._with_bias(features).shape[1] * logits.shape[1])
        if self.solver == "exact" and memory > total_memory(features.device):
            constraint = "'cg' or 'auto' where the matrices of 'exact' do not fit in the machine's memory"
            raise InvalidValueError("solver", self.get_name(), constraint, f"'exact' with {memory:.1e} bytes")

    def _last_layer(self, features: Tensor, logits: Tensor) -> LinearLayer:
        """The layer that maps these features to these logits."""
        extractor, owner = self.extractor, self.get_name()
        return LinearLayer.last_of(self.model, extractor.layer_name, features, logits, owner, extractor.call.output)

    def _fit(self) -> None:
        training = self._training_features(n_logits=_CHECKED_ROWS)
        self._layer = self._last_layer(training.features[:_CHECKED_ROWS], training.logits[:_CHECKED_ROWS])
        self._probabilities = self._layer.weight.new_empty(len(training.features), self.n_classes_)
        parts = torch.split(self._probabilities, self.batch_size)
        for rows, part in zip(torch.split(training.features, self.batch_size), parts, strict=True):
            part.copy_(self._layer(rows).softmax(1))
        self._features = self._with_bias(training.features)
        self._inverse = self._make_inverse()

    def _make_inverse(self) -> InverseCurvature:
        """(H + δI)⁻¹ by the chosen solver; LiSSA, whose noise is far above rounding, in the features' precision."""
        precision = self._features.dtype if self.solver == "lissa" else torch.float64
        unit = 2 if self._layer.doubled else 1  # H is that of both rows −w/2 and w/2
        damping, scale = unit * self.damping, None if self.scale is None else unit * self.scale
        curvature = SoftmaxCurvature(self._features, self._probabilities, damping, precision, self.get_name())
        if self.solver == "lissa":
            depth, tol = self.max_iter or 5000, self.tol or 1e-3
            return LissaInverse(
                curvature, scale, depth=depth, tol=tol, seed=self.seed, show_progress=self.show_progress
            )
        fits = CholeskyInverse.memory(self._n_weights) <= self.memory_budget
        if self.solver == "exact" or (self.solver == "auto" and fits):
            return self._kept("factor", lambda: self._factorised(curvature), sums=True)
        return ConjugateGradientInverse(curvature, self.tol or 1e-6, self.max_iter or 1000, self.show_progress)

    def _factorised(self, curvature: SoftmaxCurvature) -> CholeskyInverse:
        with self._summing(curvature) as total:
            return CholeskyInverse(curvature, total)

    @property
    def _n_weights(self) -> int:
        """The last layer's weights that count."""
        return self._features.shape[1] * self.n_classes_

    @property
    def block_size(self) -> int:
        """Test points whose gradients, solver's vectors and attributions take at most 1 GiB."""
        self.ensure_fitted()
        return max(1, _BLOCK_BYTES // (8 * (_VECTORS * self._n_weights + self.n_train_)))

    _sweeps = True
    _costly = True

    @property
    def _score_dtype(self) -> torch.dtype:
        return torch.float64

    @torch.no_grad()
    def _test_state(self, inputs: Batch, target: Tensor) -> Tensor:
        gradients, inverse = self._loss_gradients(self._block_features(inputs), target), self._inverse
        if not isinstance(inverse, ConjugateGradientInverse):
            return inverse.solve(gradients)
        with self._summing(inverse.curvature) as total:
            return inverse.solve(gradients, total)

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        ranges = [range(self.n_train_)] if stream is None else stream.unread()
        return (self._products(state, rows) for rows in ranges)

    @torch.no_grad()
    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        return self._products(self._test_state(inputs, target), range(self.n_train_))

    def _products(self, vectors: Tensor, among: range) -> Tensor:
        """⟨v, ∇L(x_i, y_i)⟩ (n_vectors, n) for v (n_vectors, n_classes, n_features) and training points of a range.

        For few vectors the factors of ∇L are multiplied one after the other; for many it is worth writing ∇L out.
        """
        n_vectors, n_classes, n_features = vectors.shape
        written = n_features <= n_vectors
        products = vectors.new_empty(n_vectors, len(among))
        size = max(1, _SCORE_ELEMENTS // (n_classes * (n_features if written else n_vectors)))
        for start in range(0, len(among), size):
            places = slice(start, start + size)
            rows = slice(among[places].start, among[places].stop)
            residuals, features = self._residuals_at(rows), self._features[rows].to(vectors.dtype)
            if written:
                products[:, places] = vectors.flatten(1) @ weight_gradients(residuals, features).flatten(1).mT
                continue
            scores = (vectors.flatten(0, 1) @ features.mT).view(n_vectors, n_classes, -1)
            products[:, places] = scores.mul_(residuals.mT).sum(1)
        return products

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        unique, position = torch.unique(train_indices, return_inverse=True)
        with torch.no_grad():
            solved = self._inverse.solve(self._gradients_at(unique))
        gradients = self._loss_gradients(self.extract(inputs)[0], target)
        return torch.einsum("bcf,bkcf->bk", gradients, solved[position])

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        for rows in [range(self.n_train_)] if stream is None else stream.unread():
            for indices in torch.split(torch.arange(rows.start, rows.stop, device=self.device), self.block_size):
                gradients = self._gradients_at(indices)
                yield torch.linalg.vecdot(self._inverse.solve(gradients).flatten(1), gradients.flatten(1))

    def _loss_gradients(self, features: Tensor, target: Tensor) -> Tensor:
        """∇L(x, c) (n, n_classes, n_features) in float64, differentiable in the features."""
        return weight_gradients(softmax_residuals(self._layer(features), target), self._with_bias(features))

    def _gradients_at(self, indices: Tensor) -> Tensor:
        """∇L(x_i, y_i) (n, n_classes, n_features) of these training points."""
        return weight_gradients(self._residuals_at(indices), self._features[indices])

    def _residuals_at(self, rows: Tensor | slice) -> Tensor:
        """∂L/∂logits (n, n_classes) of these training points."""
        return residuals_of(self._probabilities[rows], self.train_labels_[rows])

    def _with_bias(self, features: Tensor) -> Tensor:
        """The features, with a constant one for the bias if that counts."""
        return torch.cat([features, features.new_ones(len(features), 1)], 1) if self.include_bias else features
