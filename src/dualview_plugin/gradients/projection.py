"""Gaussian projections of per-sample gradients, generated block by block from a seed and never held whole."""

from __future__ import annotations

import torch
from torch import Tensor

from dualview_plugin.gradients.sample_gradients import OuterProducts, SampleGradients

# Parameters in one block of the projection of what is held as it is; changing it changes what a seed gives.
_DENSE_BLOCK = 4096
# Terms of outer products that are multiplied at a time: few enough that a copy of them stays in the cache.
_TERMS = 2048


class GaussianProjection:
    """A random linear map P from gradients to ``n_components`` numbers, with independent entries N(0, 1/n_components).

    ⟨P g, P g'⟩ estimates ⟨g, g'⟩ without bias, with variance (‖g‖² ‖g'‖² + ⟨g, g'⟩²) / n_components. The entries come
    from the seed alone, drawn on the CPU in float32: they depend neither on the batches nor on the device, and not
    on torch's defaults.

    Args:
        n_components: numbers that are left of a gradient.
        seed: of the entries.

    Cost: n_parameters · n_components random numbers for each call, and as many multiplications for each sample, less
    the rows of matrices in which its gradient is zero (inactive units). Memory: one row of a matrix or 4096
    parameters, times n_components.
    """

    def __init__(self, n_components: int, seed: int) -> None:
        self._n_components = n_components
        self._seed = seed

    def __call__(self, gradients: SampleGradients) -> Tensor:
        """P g for each of the gradients: (n_samples, n_components)."""
        dense = gradients.dense
        projected = dense.new_zeros(len(gradients), self._n_components)
        blocks = self._blocks(dense)
        for part in torch.split(dense, _DENSE_BLOCK, 1) if dense.shape[1] else ():
            projected.addmm_(part, blocks(part.shape[1]))
        for product in gradients.outer.values():
            for row in range(product.n_rows):
                _add_row(projected, product, row, blocks(product.right.shape[-1]))
        return projected

    def adjoint(self, components: Tensor, like: SampleGradients) -> tuple[Tensor, dict[str, Tensor]]:
        """Pᵀ z for each z (n_vectors, n_components), so that ⟨P g, z⟩ = ⟨g, Pᵀ z⟩.

        Args:
            components: z.
            like: gradients of any samples, for the layout.

        Returns:
            (n_vectors, n_dense), and name of a matrix parameter → (n_vectors, n_rows, n_columns).
        """
        blocks, n_dense = self._blocks(components), sum(part.shape[1] for part in like.parts)
        sizes = [min(_DENSE_BLOCK, n_dense - start) for start in range(0, n_dense, _DENSE_BLOCK)]
        dense = [components.new_zeros(len(components), 0), *(components @ blocks(size).mT for size in sizes)]
        outer = {
            name: torch.stack([components @ blocks(part.right.shape[-1]).mT for _ in range(part.n_rows)], 1)
            for name, part in like.outer.items()
        }
        return torch.cat(dense, 1), outer

    def _blocks(self, like: Tensor) -> _Blocks:
        return _Blocks(self._n_components, self._seed, like)


class _Blocks:
    """Consecutive blocks of Pᵀ, always the same ones for a seed."""

    def __init__(self, n_components: int, seed: int, like: Tensor) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._n_components = n_components
        self._like = like

    def __call__(self, n_parameters: int) -> Tensor:
        """The next (n_parameters, n_components) entries."""
        size = n_parameters, self._n_components
        block = torch.randn(size, generator=self._generator, dtype=torch.float32, device="cpu")
        return block.mul_(self._n_components**-0.5).to(self._like)


def _add_row(projected: Tensor, product: OuterProducts, row: int, block: Tensor) -> None:
    """Add what a row of a matrix contributes: Σ_l left_l[row] · (right_l @ block), over terms that are not zero."""
    step = max(1, _TERMS // max(1, product.right.shape[1]))
    for target, part in zip(torch.split(projected, step), product.split(step), strict=True):
        left = (part.left == row).to(block.dtype) if part.one_hot else part.left[..., row]
        active = left.flatten().nonzero()[:, 0]
        right = part.right.flatten(0, 1).index_select(0, active)
        scaled = (right @ block).mul_(left.flatten()[active, None])
        target.index_add_(0, active // left.shape[1], scaled)
