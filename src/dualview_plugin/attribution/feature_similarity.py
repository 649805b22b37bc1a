"""Similarity of penultimate features: a baseline that knows no training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.batches import Batch
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.validation import check_option

Similarity = Literal["cosine", "dot", "l2"]


class FeatureSimilarity(DataAttribution):
    """τ_i(x) = s(φ(x), φ(x_i)) for the cosine, the inner product or minus the Euclidean distance s.

    The explained class has no influence, nor have the training labels.

    Args:
        model, train_dataset, **common: see :class:`DataAttribution`.
        final_fc_layer: the module whose flattened input is φ(x): the last layer, or any other.
        similarity: ``"cosine"``, zero where a vector is zero; ``"dot"``; ``"l2"``, −‖φ(x) − φ(x_i)‖.

    Attributes:
        features_: φ(x_i), (n_train, n_features).

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint.

    Source: Caruana et al. 1999; the baselines of Hanawa et al. 2021 (arXiv 2006.04528) and of arXiv 2402.12118 v3.
    Captum's ``SimilarityInfluence`` is the same for a layer's output.

    Cost: fit: a forward pass over the training set. attribute: n_test · n_train · n_features.

    Example:
        >>> import torch
        >>> from dualview_plugin import FeatureSimilarity
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = FeatureSimilarity(network, "0", train, show_progress=False)
        >>> method.attribute(torch.eye(4)[:1])[0, :4].tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    features_: Tensor

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        similarity: Similarity = "cosine",
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        self.similarity = check_option(similarity, "similarity", self.get_name(), ("cosine", "dot", "l2"))

    def _fit(self) -> None:
        self.features_ = self._training_features().features

    def _vectors(self, inputs: Batch) -> Tensor:
        """What is compared of a block of test points, (n_block, size); differentiable."""
        return self._block_features(inputs)

    def _training_vectors(self, stream: RangeStream | None = None) -> Iterator[Tensor]:  # noqa: ARG002
        """What is compared of all training points in order, or of those in a stream, in parts (n, size)."""
        yield self.features_

    def _vectors_at(self, indices: Tensor) -> Tensor:
        """What is compared of these training points, (n, size)."""
        return self.features_[indices]

    def _test_state(self, inputs: Batch, target: Tensor) -> Tensor:  # noqa: ARG002
        return self._vectors(inputs)

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return (_all_pairs(self.similarity, state, train) for train in self._training_vectors(stream))

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return (_pairs(self.similarity, train, train) for train in self._training_vectors(stream))

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:  # noqa: ARG002
        test = self._vectors(inputs)
        train = self._vectors_at(train_indices.flatten()).view(*train_indices.shape, -1)
        return _pairs(self.similarity, test[:, None], train)


def _all_pairs(similarity: str, test: Tensor, train: Tensor) -> Tensor:
    """Similarities (n_test, n_train)."""
    if similarity == "l2":
        return -torch.cdist(test, train, compute_mode="donot_use_mm_for_euclid_dist")
    if similarity == "cosine":
        test, train = _unit(test), _unit(train)
    return test @ train.mT


def _pairs(similarity: str, test: Tensor, train: Tensor) -> Tensor:
    """Similarities of vectors along the last axis, which is gone afterwards."""
    if similarity == "l2":
        distances: Tensor = torch.linalg.vector_norm(test - train, dim=-1)
        return -distances
    if similarity == "cosine":
        test, train = _unit(test), _unit(train)
    return (test * train).sum(-1)


def _unit(vectors: Tensor) -> Tensor:
    """The vectors with norm one; zero stays zero."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    unit: Tensor = vectors / torch.where(norms > 0, norms, 1.0)
    return unit
