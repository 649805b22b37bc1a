"""Random projections of outer products by their factors, so that nothing as large as a matrix is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.gradients.sample_gradients import OuterProducts, SampleGradients

# Matrices of at most as many entries are projected like vectors: that has less variance, and costs no more.
_SMALL = 4096
# Elements of the projected factors that are held at a time, 16 MiB in float32.
_FACTOR_ELEMENTS = 2**22


@dataclass(frozen=True)
class _Factors:
    """The projection of one matrix parameter: a, (n_rows, k), and b, (n_columns, k)."""

    rows: Tensor
    columns: Tensor

    def of_terms(self, product: OuterProducts) -> Tensor:
        """Σ_l (aᵀ left_l) ∘ (bᵀ right_l), (n_samples, k)."""
        n_terms, n_components = product.right.shape[1], self.columns.shape[1]
        step = max(1, _FACTOR_ELEMENTS // max(1, n_terms * n_components))
        parts = []
        for part in product.split(step):
            left = self.rows[part.left] if part.one_hot else part.left @ self.rows
            parts.append((left * (part.right @ self.columns)).sum(1))
        return torch.cat(parts)

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """diag(aᵀ M b) for each matrix M, (n_samples, n_rows, n_columns): (n_samples, k)."""
        step = max(1, _FACTOR_ELEMENTS // self.rows.numel())
        parts = [(part @ self.columns).mul_(self.rows).sum(1) for part in torch.split(matrices, step)]
        return torch.cat(parts)

    def adjoint(self, components: Tensor) -> Tensor:
        """The matrix a diag(z) bᵀ for each z: (n_vectors, n_rows, n_columns)."""
        return (self.rows * components[:, None]) @ self.columns.mT


@dataclass(frozen=True)
class _Whole:
    """The projection of a vector or a small matrix: one Gaussian matrix, (n_elements, k)."""

    entries: Tensor

    def of_terms(self, product: OuterProducts) -> Tensor:
        """As of the matrices."""
        return torch.cat([self.of_matrices(part.matrices()) for part in product.split(self._step)])

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """(n_samples, k) of gradients (n_samples, …)."""
        return matrices.flatten(1) @ self.entries

    def adjoint(self, components: Tensor) -> Tensor:
        """(n_vectors, n_elements) of z (n_vectors, k)."""
        return components @ self.entries.mT

    @property
    def _step(self) -> int:
        return max(1, _FACTOR_ELEMENTS // len(self.entries))


def cheaper_projection(product: OuterProducts, n_components: int) -> bool:
    """Whether projection and norm of a sample's outer products cost less than those of their sum, the matrix."""
    n_terms, n_columns = product.right.shape[1:]
    size = product.n_rows * n_columns
    if size <= _SMALL:
        return False
    factors = n_columns + (1 if product.one_hot else product.n_rows)
    in_factors = n_terms * factors * (n_components + n_terms)
    summed_up = n_terms * (n_columns if product.one_hot else size)
    return bool(in_factors <= summed_up + size * (n_components + 1))


class FactoredProjection:
    """A random linear map P from gradients to k = ``n_components`` numbers that acts on the factors of matrices.

    An outer product l ⊗ r of a layer becomes (A l) ∘ (B r) / √k, and a sum of outer products the sum of theirs, with
    independent entries N(0, 1) in A, (k, n_rows), and B, (k, n_columns), of each layer. Vectors, and matrices of at
    most 4096 entries, are multiplied by a Gaussian matrix with entries N(0, 1/k).

    ⟨P g, P g'⟩ estimates ⟨g, g'⟩ without bias. With M and N the parts of g and g' in each factored layer, k times the
    variance is

        ‖g‖² ‖g'‖² + ⟨g, g'⟩² + 2 Σ_layers (‖MᵀN‖² + ‖MNᵀ‖² + tr (MNᵀ)²).

    The first two terms are those of :class:`GaussianProjection`. If g and g' are one and the same outer product of one
    layer, the variance is four times the Gaussian's; the more layers share the gradient, the less the sum adds.

    The entries come from the seed and the layout alone, drawn on the CPU in float32.

    Args:
        n_components: k.
        seed: of the entries.
        dense_shapes: the shapes of the parameters of ``SampleGradients.parts``.

    Cost: for a layer with n_terms outer products a sample, n_terms · (n_rows + n_columns) · k products; where a layer's
    gradients are held as matrices, n_rows · n_columns · k. Memory: (n_rows + n_columns) · k numbers a layer.
    """

    def __init__(self, n_components: int, seed: int, dense_shapes: Sequence[torch.Size]) -> None:
        self._n_components = n_components
        self._seed = seed
        self._dense_shapes = [tuple(shape) for shape in dense_shapes]
        self._drawn: tuple[list[_Factors | _Whole], dict[str, _Factors | _Whole]] | None = None

    def __call__(self, gradients: SampleGradients) -> Tensor:
        """P g for each of the gradients: (n_samples, n_components)."""
        dense_maps, outer_maps = self._maps(gradients)
        projected = gradients.like.new_zeros(len(gradients), self._n_components)
        for part, shape, own in zip(gradients.parts, self._dense_shapes, dense_maps, strict=True):
            matrices = part.view(len(part), shape[0], -1) if isinstance(own, _Factors) else part
            projected += own.of_matrices(matrices)
        for name, product in gradients.outer.items():
            projected += outer_maps[name].of_terms(product)
        return projected

    def adjoint(self, components: Tensor, like: SampleGradients) -> tuple[Tensor, dict[str, Tensor]]:
        """Pᵀ z for each z (n_vectors, n_components), so that ⟨P g, z⟩ = ⟨g, Pᵀ z⟩.

        Args:
            components: z.
            like: gradients of any samples, for the layout.

        Returns:
            (n_vectors, n_dense), and name of a matrix parameter → (n_vectors, n_rows, n_columns).
        """
        dense_maps, outer_maps = self._maps(like)
        dense = [components.new_zeros(len(components), 0), *(own.adjoint(components).flatten(1) for own in dense_maps)]
        outer = {
            name: outer_maps[name].adjoint(components).view(len(components), product.n_rows, -1)
            for name, product in like.outer.items()
        }
        return torch.cat(dense, 1), outer

    def _maps(self, like: SampleGradients) -> tuple[list[_Factors | _Whole], dict[str, _Factors | _Whole]]:
        """The random entries, drawn at the first call: of the parameters held as they are, then of the others."""
        if self._drawn is None:
            generator = torch.Generator("cpu").manual_seed(self._seed)
            dense = [self._draw(shape, generator, like.like) for shape in self._dense_shapes]
            outer = {
                name: self._draw((product.n_rows, product.right.shape[-1]), generator, like.like)
                for name, product in like.outer.items()
            }
            self._drawn = dense, outer
        return self._drawn

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> _Factors | _Whole:
        def normal(size: int, deviation: float) -> Tensor:
            entries = torch.randn(size, self._n_components, generator=generator, dtype=torch.float32, device="cpu")
            return entries.mul_(deviation).to(like)

        size, scale = torch.Size(shape).numel(), float(self._n_components) ** -0.5
        if len(shape) < 2 or size <= _SMALL:
            return _Whole(normal(size, scale))
        return _Factors(normal(shape[0], scale), normal(size // shape[0], 1.0))
