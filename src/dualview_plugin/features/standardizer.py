"""Zero mean and unit variance for each feature, by the training set's statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A feature whose deviation is at most this many rounding units of its mean counts as constant. A layer that subtracts
# large numbers leaves a rounding of tens of units; half precision has too few digits to allow for that.
_ROUNDING_UNITS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}

# Features that are converted to float64 at a time, 8 MiB.
_ELEMENTS = 2**20


@dataclass(frozen=True)
class Standardizer:
    """The map φ ↦ (φ − mean) · scale, where scale is 1 / standard deviation, and 0 for a feature constant in training.

    A constant feature therefore stays at zero for every point, training or test, instead of turning into NaN. A feature
    is constant if its deviation is at most 64 eps · |mean|, eps being the rounding unit of its precision: 7.6e-6 times
    the mean in float32. In half precision it is 4 eps · |mean|.

    Attributes:
        mean: (n_features,).
        scale: (n_features,).

    Example:
        >>> import torch
        >>> from dualview_plugin.features import Standardizer
        >>> features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> Standardizer.from_features(features)(features)
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def from_features(cls, features: Tensor, precision: torch.dtype | None = None) -> Standardizer:
        """The training statistics of ``features``, (n_train, n_features), computed in float64.

        Args:
            features: φ.
            precision: in which the network computed them; None: their own.
        """
        precision = precision or features.dtype
        mean, deviation = _statistics(features)
        constant = deviation <= _ROUNDING_UNITS[precision] * torch.finfo(precision).eps * mean.abs()
        scale = torch.where(constant, 0.0, 1.0 / torch.where(constant, 1.0, deviation))
        return cls(mean.to(features.dtype), scale.to(features.dtype))

    @classmethod
    def identity(cls, features: Tensor) -> Standardizer:
        """The map that changes nothing, for features of this width, dtype and device."""
        n_features = features.shape[1]
        return cls(features.new_zeros(n_features), features.new_ones(n_features))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardised features, same shape, differentiable."""
        return (features - self.mean) * self.scale

    def in_place(self, features: Tensor) -> Tensor:
        """The features themselves, standardised."""
        return features.sub_(self.mean).mul_(self.scale)


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature in float64, from two passes over a few rows at a time.

    The rows are converted in one buffer: new memory for each part would leave the process with holes as large as it.
    """
    n_rows, n_features = features.shape
    parts = torch.split(features, max(1, _ELEMENTS // max(1, n_features)))
    buffer = torch.empty(parts[0].shape, dtype=torch.float64, device=features.device)
    total, squares = buffer.new_zeros(n_features), buffer.new_zeros(n_features)
    for part in parts:
        total += buffer[: len(part)].copy_(part).sum(0)
    mean = total / n_rows
    for part in parts:
        squares += buffer[: len(part)].copy_(part).sub_(mean).square_().sum(0)
    return mean, (squares / n_rows).sqrt()
