"""Influence functions in the leading eigenvectors of the whole network's Hessian, found by a Krylov space."""

from __future__ import annotations

from collections.abc import Collection
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.common.output_gradients import OutputGradients
from dualview_plugin.batches import Batch
from dualview_plugin.data import TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients import Direction, Logits, select_parameters, twice_differentiable
from dualview_plugin.validation import check_integer, check_positive

# A Krylov space is complete when its next vector is shorter than this share of the largest one.
_COMPLETE = {torch.float32: 1e-5, torch.float64: 1e-12}


class ArnoldiInfluence(OutputGradients):
    """τ_i(x, c) = Σ_k ⟨∇L(x, c), v_k⟩ ⟨v_k, ∇L(x_i, y_i)⟩ / (λ_k + damping), L the cross entropy.

    (λ_k, v_k) are the leading positive eigenpairs of the Hessian of the mean training loss, as far as a Krylov space of
    ``arnoldi_dim`` dimensions knows them. The Hessian is symmetric, so that Arnoldi's iteration is Lanczos', here with
    every vector orthogonalised twice against all others.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        n_components: eigenpairs at most; negative eigenvalues and zeros are left out.
        arnoldi_dim: Hessian-vector products, each a pass over the training set.
        damping: added to each eigenvalue.
        seed: of the first vector of the Krylov space.
        layers, memory_budget: see :class:`GradientSimilarity`.

    Attributes:
        eigenvalues_: λ_k, (n_found,), descending.
        embeddings_: ⟨v_k, ∇L(x_i, y_i)⟩, (n_train, n_found).

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; no eigenvalue is positive.

    Source: Schioppa et al. 2022 (arXiv 2112.03052).

    Differs: Captum's ``ArnoldiInfluenceFunction`` takes the Hessian of the summed loss: its attributions are n_train
    times smaller, and its ``hessian_reg`` is n_train · ``damping``.

    Cost: fit: ``arnoldi_dim`` times two backward passes over the training set, and memory for as many vectors of the
    network's size. attribute: n_test · n_train · n_components.

    Example:
        >>> import torch
        >>> from dualview_plugin import ArnoldiInfluence
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = ArnoldiInfluence(network, "0", train, arnoldi_dim=10, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> attributions.shape, bool(attributions[0, 0] > 0)
        (torch.Size([1, 12]), True)
    """

    eigenvalues_: Tensor
    embeddings_: Tensor
    _basis: Tensor

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        n_components: int = 50,
        arnoldi_dim: int = 200,
        damping: float = 1e-3,
        seed: int = 0,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, layers=layers, memory_budget=memory_budget, **common)
        owner = self.get_name()
        self.n_components = check_integer(n_components, "n_components", owner)
        self.arnoldi_dim = check_integer(arnoldi_dim, "arnoldi_dim", owner)
        self.damping = check_positive(damping, "damping", owner, allow_zero=True)
        self.seed = check_integer(seed, "seed", owner, minimum=0)

    def _fit(self) -> None:
        super()._fit()
        self.eigenvalues_, self._basis, self.embeddings_ = self._kept("eigenpairs", self._embedded)
        self._weighted = self.embeddings_ / (self.eigenvalues_ + self.damping)

    _sweeps = False  # the embeddings are kept

    def _embedded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The leading eigenvalues and eigenvectors, and the training gradients along them."""
        values, basis = self._eigenpairs()
        return values, basis, torch.cat([self._flat(part) @ basis for part in self._training_gradients()])

    def _eigenpairs(self) -> tuple[Tensor, Tensor]:
        """The leading eigenvalues (n_found,) and eigenvectors (n_parameters, n_found) of the Hessian."""
        basis, tridiagonal = self._krylov()
        values, vectors = torch.linalg.eigh(tridiagonal)
        smallest = _COMPLETE[basis.dtype] * float(values.abs().max())
        leading = torch.nonzero(values > smallest).flatten().flip(0)[: self.n_components]
        if not len(leading):
            constraint = "a network at which the training loss has a positive curvature"
            raise InvalidValueError("model", self.get_name(), constraint, "none")
        return values[leading].to(basis), basis.mT @ vectors[:, leading].to(basis)

    def _krylov(self) -> tuple[Tensor, Tensor]:
        """An orthonormal basis (n_dim, n_parameters) of the Krylov space, and the Hessian in it, in float64."""
        size, dtype = self._gradients.n_parameters, self._layout.like.dtype
        generator = torch.Generator().manual_seed(self.seed)
        vector = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").to(self.device, dtype)
        basis = vector.new_zeros(min(self.arnoldi_dim, size), size)
        images = torch.zeros_like(basis)
        steps = tqdm(range(len(basis)), desc="Hessian-vector products", disable=not self.show_progress, leave=False)
        length, largest = torch.linalg.vector_norm(vector), 0.0
        count = 0
        for step in steps:
            basis[step] = vector / length
            images[step] = self._hessian_times(basis[step])
            count, vector = step + 1, images[step]
            for _ in range(2):
                vector = vector - (basis[:count] @ vector) @ basis[:count]
            length = torch.linalg.vector_norm(vector)
            largest = max(largest, float(torch.linalg.vector_norm(images[step])))
            if not float(length) > _COMPLETE[dtype] * largest:
                break
        projected = (basis[:count] @ images[:count].mT).double()
        return basis[:count], (projected + projected.mT) / 2

    def _hessian_times(self, vector: Tensor) -> Tensor:
        """The Hessian of the mean training loss times a vector (n_parameters,)."""
        chosen = select_parameters(self.model, self._counted_layers(), self.get_name())
        parameters = list(chosen.values())
        parts = torch.split(vector, [parameter.numel() for parameter in parameters])
        directions = [part.view_as(own) for part, own in zip(parts, parameters, strict=True)]
        total = torch.zeros_like(vector)
        logits_of = Logits(self.extractor.call, self.extractor.doubles_single)
        with twice_differentiable(self.model, chosen):
            for rows, inputs, labels in self._numbered_batches():
                loss = cross_entropy(logits_of(inputs), labels, reduction="sum")
                slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
                slope = torch.stack([(a * b).sum() for a, b in zip(slopes, directions, strict=True)]).sum()
                second = torch.autograd.grad(slope, parameters, materialize_grads=True)
                total += torch.cat([part.detach().flatten() for part in second])
                self._check_finite_training(total, rows)
        return total / self.n_train_

    @torch.no_grad()
    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        embedded = torch.cat([part @ self._basis for part in self._flat_parts(inputs, target)])
        return embedded @ self._weighted.mT

    @torch.no_grad()
    def _self_influence(self) -> Tensor:
        return (self.embeddings_ * self._weighted).sum(1)

    def _directions(self, train_indices: Tensor) -> Tensor:
        return self._weighted[train_indices] @ self._basis.mT

    def _direction_sum(self, train_indices: Tensor) -> Direction:
        return self._gradients.split_vector(self._basis @ self._weighted[train_indices].sum(0))
