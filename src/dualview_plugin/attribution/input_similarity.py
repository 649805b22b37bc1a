"""Similarity of the inputs themselves: a baseline that knows no network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dualview_plugin.attribution.feature_similarity import FeatureSimilarity
from dualview_plugin.batches import Batch, leaves, shapes
from dualview_plugin.data import RangeStream
from dualview_plugin.errors import InvalidTypeError, InvalidValueError


class InputSimilarity(FeatureSimilarity):
    """τ_i(x) = s(x, x_i), of the inputs as the network gets them, flattened; neither network nor labels have a say.

    Args:
        model, final_fc_layer, train_dataset, similarity, **common: see :class:`FeatureSimilarity`.

    Raises:
        InvalidTypeError: inputs that are no floating tensor, such as tokens.
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint.

    Source: the baseline of arXiv 2402.12118 v3.

    Cost: a reading of the training set for each block of test points, and n_test · n_train · size.

    Example:
        >>> import torch
        >>> from dualview_plugin import InputSimilarity
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = InputSimilarity(network, "0", train, show_progress=False)
        >>> method.attribute(torch.eye(4)[:1])[0, :4].tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def _fit(self) -> None:
        self._vectors(self._probe_now().inputs, "train_dataset")
        self._training_labels()

    def _vectors(self, inputs: Batch, parameter: str = "inputs") -> Tensor:
        parts, owner = leaves(inputs), self.get_name()
        if not all(part.is_floating_point() for part in parts):
            raise InvalidTypeError(parameter, owner, "of floating tensors, to be compared", shapes(inputs))
        own, expected = (
            [tuple(part.shape[1:]) for part in leaves(batch)] for batch in (inputs, self._probe_now().inputs)
        )
        if own != expected:
            constraint = f"of samples of one shape, to be compared: {_text(expected)}"
            raise InvalidValueError(parameter, owner, constraint, _text(own))
        return torch.cat([part.flatten(1) for part in parts], 1)

    _sweeps = True
    _costly = True

    def _training_vectors(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        for rows, inputs, _ in self._numbered_batches(stream):
            vectors = self._vectors(inputs, "train_dataset")
            finite = vectors.isfinite().all(1)
            if not bool(finite.all()):
                position = rows.start + int(torch.nonzero(~finite)[0])
                constraint = "a dataset with finite inputs"
                raise InvalidValueError("train_dataset", self.get_name(), constraint, f"NaN or inf at {position}")
            yield vectors

    def _vectors_at(self, indices: Tensor) -> Tensor:
        return self._vectors(self.training_inputs(indices), "train_dataset")


def _text(shapes_of_parts: list[tuple[int, ...]]) -> str:
    """The shapes of a sample's tensors."""
    return ", ".join(map(str, shapes_of_parts))
