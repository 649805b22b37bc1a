"""The Hessian of the cross entropy in the weights of a linear softmax layer, whole or as a product with vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.sums import Alone, Total

# Elements of the (vectors x classes x rows) scores that a product holds at a time: 16 MiB in float64.
_SCORE_ELEMENTS = 2**21
# Rows of the training features in one block of the assembly.
_ASSEMBLY_ROWS = 1024


class SoftmaxCurvature:
    """H + δI, with H the Hessian of the mean cross entropy in the weights of the last layer.

        H = (1/n) Σ_i (diag(p_i) − p_i p_iᵀ) ⊗ φ_i φ_iᵀ

    It does not depend on labels. H is positive semidefinite and singular (a shift common to all classes changes no
    loss); the damping δ makes the sum invertible and bounds the effect of its inverse by 1/δ.

    Args:
        features: φ (n_train, n_features).
        probabilities: p (n_train, n_classes), the softmax outputs of the layer.
        damping: δ, zero or more, added to the diagonal.
        dtype: precision of the computation; blocks of the features are converted to it, one at a time.
        owner: the class that was given the damping, for error messages.
    """

    def __init__(
        self,
        features: Tensor,
        probabilities: Tensor,
        damping: float,
        dtype: torch.dtype = torch.float64,
        owner: str = "SoftmaxCurvature",
    ) -> None:
        self.features = features
        self.probabilities = probabilities.to(dtype)
        self.damping = damping
        self.dtype = dtype
        self.owner = owner

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n_classes, n_features) of the weights."""
        return self.probabilities.shape[1], self.features.shape[1]

    def check_damping(self) -> None:
        """Refuse a damping below the rounding of H, which then has eigenvalues of both signs.

        Rounding is taken as n_classes · n_features · eps times the largest entry on the diagonal.
        """
        if not self.damping >= self._rounding():
            raise self.damping_error()

    def damping_error(self) -> InvalidValueError:
        """The refusal of a damping that does not make H positive definite."""
        constraint = f"above the rounding of the Hessian, {self._rounding():.1e}"
        return InvalidValueError("damping", self.owner, constraint, repr(self.damping))

    def _rounding(self) -> float:
        diagonal = torch.zeros(self.shape, dtype=self.dtype, device=self.features.device)
        for features, probabilities in self._blocks(_ASSEMBLY_ROWS, range(len(self.features))):
            diagonal.addmm_((probabilities * (1 - probabilities)).mT, features.square())
        largest = float(diagonal.max()) / len(self.features)
        return largest * diagonal.numel() * torch.finfo(self.dtype).eps

    def matrix(self, total: Total | None = None) -> Tensor:
        """H + δI as a matrix over the weights in row-major order, (n_classes · n_features) squared.

        Args:
            total: adds up :meth:`hessian_of`; None: this process alone.

        Cost: time n_train · (n_classes · n_features)²/2, memory the matrix and one block of rows.
        """
        n_classes, n_features = self.shape
        size = n_classes * n_features
        hessian = (total or Alone(self, len(self.features)))("hessian_of")
        hessian /= len(self.features)
        for start in range(0, size, n_features):  # below the diagonal: the transpose of what is above
            block = slice(start, start + n_features)
            hessian[start + n_features :, block] = hessian[block, start + n_features :].mT
        hessian.diagonal().add_(self.damping)
        return hessian

    def product(self, vectors: Tensor, rows: Tensor | None = None, total: Total | None = None) -> Tensor:
        """(H + δI) v for each vector (n_vectors, n_classes, n_features).

        H is the mean over all training points, or over the given ``rows`` alone.

        Args:
            vectors: v.
            rows: training points; None: all.
            total: adds up :meth:`product_of` over all training points; None: this process alone.

        Cost: time 2 · n_vectors · n_classes · n_features · n_rows, memory that of the vectors once more, and
        some 50 MiB.
        """
        if rows is None:
            n_rows = len(self.features)
            product = (total or Alone(self, n_rows))("product_of", vectors)
        else:
            product, n_rows = self.product_of(rows, vectors), len(rows)
        return product.div_(n_rows).add_(vectors, alpha=self.damping)

    def hessian_of(self, rows: range) -> Tensor:
        """The sum that is n_train · H, over a range of training points; with zeros below its diagonal blocks."""
        n_classes, n_features = self.shape
        size = n_classes * n_features
        hessian = torch.zeros(size, size, dtype=self.dtype, device=self.features.device)
        for features, probabilities in self._blocks(_ASSEMBLY_ROWS, rows):
            self._add_upper_blocks(hessian, features, probabilities)
        return hessian

    def product_of(self, rows: range | Tensor, vectors: Tensor) -> Tensor:
        """The sum that is n_train · H v for each vector, over some training points."""
        n_vectors, (n_classes, n_features) = len(vectors), self.shape
        step = max(1, _SCORE_ELEMENTS // max(1, n_vectors * n_classes))
        flat = vectors.reshape(-1, n_features)
        product = torch.zeros_like(flat)
        for features, probabilities in self._blocks(step, rows):
            scores = (flat @ features.mT).view(n_vectors, n_classes, -1)
            weighted = scores.mul_(probabilities.mT)
            weighted -= probabilities.mT * weighted.sum(1, keepdim=True)
            product.addmm_(weighted.view(n_vectors * n_classes, -1), features)
        return product.view_as(vectors)

    def largest_eigenvalue(self, *, seed: int = 0, tol: float = 1e-2, max_iter: int = 100) -> float:
        """The largest eigenvalue of H + δI, by power iteration; from below, to about the relative tolerance."""
        generator = torch.Generator("cpu").manual_seed(seed)
        vector = torch.randn(1, *self.shape, generator=generator, dtype=torch.float32, device="cpu")
        vector = vector.to(self.features.device, self.dtype)
        eigenvalue = 0.0
        for _ in range(max_iter):
            vector = self.product(vector / vector.norm())
            before, eigenvalue = eigenvalue, float(vector.norm())
            if eigenvalue - before <= tol * eigenvalue:
                break
        return eigenvalue

    def _add_upper_blocks(self, hessian: Tensor, features: Tensor, probabilities: Tensor) -> None:
        """Add Σ_i p_ic ([c = c'] − p_ic') φ_i φ_iᵀ to every block (c, c') with c ≤ c'."""
        n_classes, n_features = self.shape
        weighted = (probabilities[:, :, None] * features[:, None, :]).flatten(1)
        for c in range(n_classes):
            start, stop = c * n_features, (c + 1) * n_features
            own = weighted[:, start:stop]
            hessian[start:stop, start:].addmm_(own.mT, weighted[:, start:], alpha=-1)
            hessian[start:stop, start:stop].addmm_(own.mT, features)

    def _blocks(self, step: int, rows: range | Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of features and probabilities in the precision of the computation."""
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            block = slice(part.start, part.stop) if isinstance(part, range) else part
            yield self.features[block].to(self.dtype), self.probabilities[block]
