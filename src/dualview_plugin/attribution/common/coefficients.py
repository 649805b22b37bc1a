"""The coefficients α of a feature kernel, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from scipy.sparse import csr_array
from torch import Tensor


class Coefficients(Protocol):
    """α (n_support, n_classes), read by class or by pair."""

    def of_class(self, label: int) -> tuple[Tensor | None, Tensor]:
        """The support points with a coefficient for the class, ascending (None: all), and their coefficients."""

    def at(self, rows: Tensor, label: Tensor) -> Tensor:
        """α of the support points ``rows`` for the classes ``label``, of one shape."""

    def dense(self) -> Tensor:
        """α as a matrix, (n_support, n_classes)."""


@dataclass(frozen=True)
class DenseCoefficients:
    """Every support point has a coefficient for every class."""

    values: Tensor

    def of_class(self, label: int) -> tuple[Tensor | None, Tensor]:
        """All support points, and their coefficients for the class."""
        return None, self.values[:, label]

    def at(self, rows: Tensor, label: Tensor) -> Tensor:
        """α at the pairs."""
        return self.values[rows, label]

    def dense(self) -> Tensor:
        """α itself."""
        return self.values


@dataclass(frozen=True)
class SparseCoefficients:
    """Coefficients in the order of classes, and in each class of support points.

    Args:
        starts: where each class begins, (n_classes + 1,).
        rows: support points, (n_nonzero,), ascending within each class.
        values: their coefficients, (n_nonzero,).
        n_support: number of support points.
    """

    starts: Tensor
    rows: Tensor
    values: Tensor
    n_support: int

    @classmethod
    def from_csr(cls, alpha: csr_array, like: Tensor) -> SparseCoefficients:
        """Of a matrix (n_support, n_classes), in the type and on the device of ``like``."""
        columns: Any = alpha.tocsc()
        columns.sort_indices()
        starts, rows = (
            torch.from_numpy(part).to(like.device, torch.int64) for part in (columns.indptr, columns.indices)
        )
        return cls(starts.cpu(), rows, torch.from_numpy(columns.data).to(like), alpha.shape[0])

    def of_class(self, label: int) -> tuple[Tensor | None, Tensor]:
        """The support points with a coefficient for the class, and their coefficients."""
        part = slice(int(self.starts[label]), int(self.starts[label + 1]))
        return self.rows[part], self.values[part]

    def at(self, rows: Tensor, label: Tensor) -> Tensor:
        """α at the pairs, by a search in the order of classes and support points."""
        if not len(self.rows):
            return self.values.new_zeros(rows.shape)
        keys = self._classes() * self.n_support + self.rows
        wanted = label * self.n_support + rows
        place = torch.searchsorted(keys, wanted.contiguous()).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, self.values[place], 0.0)

    def dense(self) -> Tensor:
        """α as a matrix, made anew."""
        matrix = self.values.new_zeros(self.n_support, len(self.starts) - 1)
        matrix[self.rows, self._classes()] = self.values
        return matrix

    def _classes(self) -> Tensor:
        """The class of each coefficient."""
        sizes = self.starts.diff().to(self.rows.device)
        return torch.repeat_interleave(torch.arange(len(sizes), device=self.rows.device), sizes)
