"""Class by class beside the formula written out: every support point, every class, every training point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random
from torch import Tensor

from dualview_plugin.attribution.common import class_blocks
from dualview_plugin.attribution.common.class_blocks import ClassKernel
from dualview_plugin.attribution.common.coefficients import DenseCoefficients, SparseCoefficients

N_TRAIN, N_SUPPORT, N_TEST, N_CLASSES, N_FEATURES = 31, 19, 13, 5, 7


def drawn(seed: int, density: float, offset: float = 0.0) -> tuple[ClassKernel, Tensor, Tensor, Tensor]:
    """A kernel, test features, their classes, and the attributions written out, (n_test, n_train)."""
    rng = np.random.default_rng(seed)
    alpha = csr_array(random(N_SUPPORT, N_CLASSES, density=density, random_state=rng))
    support, test = torch.from_numpy(rng.normal(size=(N_SUPPORT, N_FEATURES))), rng.normal(size=(N_TEST, N_FEATURES))
    features = torch.from_numpy(test)
    indices = torch.from_numpy(np.sort(rng.permutation(N_TRAIN)[:N_SUPPORT]))
    target = torch.from_numpy(rng.integers(N_CLASSES, size=N_TEST))
    expected = torch.zeros(N_TEST, N_TRAIN, dtype=torch.float64)
    for t in range(N_TEST):
        for i in range(N_SUPPORT):
            product = float(support[i] @ features[t]) + offset
            expected[t, indices[i]] = float(alpha[i, int(target[t])]) * product
    kernel = ClassKernel(SparseCoefficients.from_csr(alpha, support), support, indices, offset, N_TRAIN)
    return kernel, features, target, expected


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("k", [1, 4, N_TRAIN])
def test_dense_sparse_and_strongest_are_the_formula(density: float, offset: float, k: int) -> None:
    kernel, features, target, expected = drawn(3, density, offset)
    dense = torch.zeros(N_TEST, N_TRAIN, dtype=torch.float64)
    kernel.fill(dense, features, target)
    torch.testing.assert_close(dense, expected)
    sparse = kernel.sparse(features, target)
    torch.sparse_csr_tensor(
        sparse.crow_indices(), sparse.col_indices(), sparse.values(), size=sparse.shape, check_invariants=True
    )
    torch.testing.assert_close(sparse.to_dense(), expected)
    for proponents in (True, False):
        indices, values = kernel.strongest(features, target, k, proponents)
        torch.testing.assert_close(values, expected.topk(k, dim=1, largest=proponents).values)
        torch.testing.assert_close(expected.gather(1, indices), values)
        assert all(len(set(row)) == k for row in indices.tolist())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 1), k=st.integers(1, N_TRAIN), proponents=st.booleans())
def test_the_strongest_are_those_of_the_whole_row(seed: int, density: float, k: int, proponents: bool) -> None:
    kernel, features, target, expected = drawn(seed, density)
    indices, values = kernel.strongest(features, target, k, proponents)
    torch.testing.assert_close(values, expected.topk(k, dim=1, largest=proponents).values)
    torch.testing.assert_close(expected.gather(1, indices), values)


def test_coefficients_by_class_and_by_pair_are_the_matrix() -> None:
    alpha = csr_array(random(N_SUPPORT, N_CLASSES, density=0.3, random_state=np.random.default_rng(1)))
    matrix = torch.from_numpy(alpha.toarray())
    for coefficients in (SparseCoefficients.from_csr(alpha, matrix), DenseCoefficients(matrix)):
        assert torch.equal(coefficients.dense(), matrix)
        rows, classes = torch.meshgrid(torch.arange(N_SUPPORT), torch.arange(N_CLASSES), indexing="ij")
        assert torch.equal(coefficients.at(rows, classes), matrix)
        for label in range(N_CLASSES):
            own, values = coefficients.of_class(label)
            column = torch.zeros(N_SUPPORT, dtype=torch.float64)
            column[slice(None) if own is None else own] = values
            assert torch.equal(column, matrix[:, label])


def test_blocks_stay_within_their_size() -> None:
    kernel, features, target, _ = drawn(5, 1.0)
    many, classes = features.repeat(100, 1), target.repeat(100)
    sizes = [block.values.numel() for block in kernel.blocks(many, classes)]
    assert max(sizes) <= class_blocks._BLOCK_ELEMENTS
    assert sum(sizes) == N_SUPPORT * len(many)


def test_nothing_is_as_large_as_support_points_times_classes() -> None:
    """50,000 support points of 20,000 classes: the matrix would take 4 GB."""
    n_support, n_classes = 50_000, 20_000
    labels = np.arange(n_support) % n_classes
    rows = np.repeat(np.arange(n_support), 2)
    columns = np.stack([labels, (labels + 1) % n_classes], axis=1).ravel()
    values = np.tile([1.0, -1.0], n_support)
    alpha = csr_array((values, (rows, columns)), shape=(n_support, n_classes))
    support = torch.randn(n_support, 3)
    coefficients = SparseCoefficients.from_csr(alpha, support)
    kernel = ClassKernel(coefficients, support, torch.arange(n_support), 0.0, n_support)
    target = torch.tensor([0, 19_999, 7])
    indices, scores = kernel.strongest(torch.randn(3, 3), target, 10, True)
    assert indices.shape == scores.shape == (3, 10)
    assert len(kernel.sparse(torch.randn(3, 3), target).values()) == 15
