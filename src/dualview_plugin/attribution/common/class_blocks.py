"""Attributions of a feature kernel class by class: only support points with a coefficient are multiplied."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.attribution.common.coefficients import Coefficients

# Elements of a block of attributions, 64 MiB in float32.
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class ClassBlock:
    """The attributions of some test points, all of one explained class, that can be other than zero.

    Attributes:
        test: positions of the test points, (n_rows,).
        train: training points, (n_columns,), ascending.
        values: attributions, (n_rows, n_columns).
    """

    test: Tensor
    train: Tensor
    values: Tensor


@dataclass(frozen=True)
class ClassKernel:
    """α_ic (⟨φ_i, φ⟩ + offset) over the support points.

    Args:
        coefficients: α.
        features: φ_i of the support points, (n_support, n_features).
        indices: the support points among the training points, (n_support,), ascending.
        offset: the constant feature's product.
        n_train: number of training points.
    """

    coefficients: Coefficients
    features: Tensor
    indices: Tensor
    offset: float
    n_train: int

    def blocks(self, features: Tensor, target: Tensor) -> Iterator[ClassBlock]:
        """All attributions other than zero of test points (n, n_features) to the classes ``target``, (n,).

        Cost: for each test point one product with the support points of its class.
        """
        order = torch.argsort(target, stable=True)
        labels, sizes = torch.unique_consecutive(target[order], return_counts=True)
        for label, test in zip(labels.tolist(), torch.split(order, sizes.tolist()), strict=True):
            rows, alpha = self.coefficients.of_class(label)
            train = self.indices if rows is None else self.indices[rows]
            support = self.features if rows is None else self.features.index_select(0, rows)
            fold = len(test) > support.shape[1]  # into the smaller factor: the support, or the products
            right = (support * alpha[:, None]).mT if fold else support.mT
            for part in torch.split(test, max(1, _BLOCK_ELEMENTS // max(1, len(train)))):
                values = features[part] @ right
                if fold and self.offset:
                    values.add_(alpha, alpha=self.offset)
                elif not fold:
                    values.add_(self.offset).mul_(alpha)
                yield ClassBlock(part, train, values)

    def fill(self, result: Tensor, features: Tensor, target: Tensor) -> None:
        """Write the attributions into rows of zeros, (n, n_train)."""
        for block in self.blocks(features, target):
            if len(block.train) == self.n_train:
                result[block.test] = block.values
                continue
            for row, values in zip(block.test.tolist(), block.values, strict=True):
                result[row].index_copy_(0, block.train, values)

    def strongest(self, features: Tensor, target: Tensor, k: int, proponents: bool) -> tuple[Tensor, Tensor]:
        """The ``k`` highest or lowest attributions of each row, zeros included: training points and values, (n, k)."""
        indices = torch.empty(len(features), k, dtype=torch.int64, device=features.device)
        values = features.new_empty(len(features), k)
        for block in self.blocks(features, target):
            train = block.train
            top = block.values.topk(min(k, len(train)), dim=1, largest=proponents)
            if len(train) < k or not bool((top.values > 0 if proponents else top.values < 0).all()):
                zeros = _first_without(train, k, self.n_train)
                train = torch.cat([train, zeros])
                padded = torch.nn.functional.pad(block.values, (0, len(zeros)))
                top = padded.topk(k, dim=1, largest=proponents)
            indices[block.test], values[block.test] = train[top.indices], top.values
        return indices, values

    def sparse(self, features: Tensor, target: Tensor) -> Tensor:
        """The attributions as a CSR tensor, (n, n_train); entries are those with a coefficient."""
        rows: list[Tensor] = [features[:0, 0]] * len(features)
        columns: list[Tensor] = [self.indices[:0]] * len(features)
        for block in self.blocks(features, target):
            for row, values in zip(block.test.tolist(), block.values, strict=True):
                rows[row], columns[row] = values, block.train
        starts = torch.tensor([0, *itertools.accumulate(map(len, rows))], device=features.device)
        size = len(features), self.n_train
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                starts, torch.cat(columns), torch.cat(rows), size=size, check_invariants=False
            )


def _first_without(taken: Tensor, k: int, n_train: int) -> Tensor:
    """The first ``k`` training points, or as many as there are, that are not in ``taken``, which ascends."""
    candidates = torch.arange(min(n_train, len(taken) + k), device=taken.device)
    return candidates[~torch.isin(candidates, taken, assume_unique=True)][:k]
