"""Coefficients times a feature kernel: the form that DualView and representer points share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor

from dualview_plugin.attribution.base import DataAttribution
from dualview_plugin.attribution.common.class_blocks import ClassKernel
from dualview_plugin.attribution.common.coefficients import Coefficients, DenseCoefficients
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.batches import Batch
from dualview_plugin.data import Inputs, TestInputs
from dualview_plugin.features import Standardizer

# Rows of the support that are squared at a time.
_ROWS = 4096
# Test points that are attributed together.
_TEST_POINTS = 4096


class FeatureKernelAttribution(DataAttribution):
    """τ_i(x, c) = α_ic (⟨φ_i, φ(x)⟩ + offset), with one coefficient α_ic for each support point and class.

    The coefficients define a surrogate classifier with weights w_c = Σ_i α_ic φ_i. The attributions of a test point add
    up to its logit: Σ_i τ_i(x, c) = ⟨w_c, φ(x)⟩ + b_c (completeness).

    Attributes:
        support_indices_: training points with a coefficient that is not zero, (n_support,), ascending.
        support_features_: their features as the kernel uses them, (n_support, n_features).
        coefficients_: α by class; ``dual_coef_`` is the matrix, (n_support, n_classes).
        surrogate_weight_: w, (n_classes, n_features), for the features as the kernel uses them.
        surrogate_bias_: b, (n_classes,): the intercept's share of every logit; zeros where there is no intercept.
        kernel_offset_: 1.0 with an intercept (a constant feature), else 0.0.
    """

    support_indices_: Tensor
    support_features_: Tensor
    coefficients_: Coefficients
    surrogate_weight_: Tensor
    surrogate_bias_: Tensor
    kernel_offset_: float = 0.0
    _standardizer: Standardizer

    def transform_features(self, features: Tensor) -> Tensor:
        """Penultimate features as the kernel uses them, (n, n_features); differentiable."""
        return self._standardizer(features)

    @property
    def dual_coef_(self) -> Tensor:
        """α as a matrix, (n_support, n_classes); made anew where it is kept sparse."""
        return self.coefficients_.dense()

    def coefficients(self, train_indices: Tensor, target: Tensor) -> Tensor:
        """α_ic of the training points ``train_indices``, (n, k), for the classes ``target``, (n,); else 0."""
        self.ensure_fitted()
        position = self._support_positions()[train_indices]
        values = self.coefficients_.at(position.clamp(min=0), target[:, None].expand_as(position))
        return torch.where(position >= 0, values, 0.0)

    def feature_shares(self, features: Tensor, target: Tensor, train_indices: Tensor) -> Tensor:
        """What each penultimate feature contributes to each attribution, α_ic φ_im φ_m(x): (n, k, n_features).

        Args:
            features: raw penultimate features of the test points, (n, n_features); the result is differentiable in
                them.
            target: classes c, (n,).
            train_indices: training points i, (n, k); those without a coefficient contribute zeros.

        Returns:
            Shares that add up to the attribution τ_i(x, c), less the intercept's share α_ic if there is an intercept.
        """
        self.ensure_fitted()
        rows = self._support_positions()[train_indices].clamp(min=0)
        kernel = self.transform_features(features)[:, None] * self.support_features_[rows]
        return self.coefficients(train_indices, target)[:, :, None] * kernel

    @torch.no_grad()
    def surrogate_logits(self, inputs: Inputs) -> Tensor:
        """The surrogate's logits ⟨w_c, φ(x)⟩ + b_c, (n_test, n_classes), to compare with the network's."""
        with self.visit():
            self.ensure_fitted()
            parts = []
            for batch, _ in self.blocks(inputs, 0):
                features, _ = self.extract(batch)
                parts.append(self.transform_features(features) @ self.surrogate_weight_.T + self.surrogate_bias_)
        return torch.cat(parts)

    def _support_positions(self) -> Tensor:
        """For each training point its row in the support, or −1, (n_train,)."""
        positions = torch.full((self.n_train_,), -1, dtype=torch.int64, device=self.device)
        positions[self.support_indices_] = torch.arange(len(self.support_indices_), device=self.device)
        return positions

    @property
    def _kernel(self) -> ClassKernel:
        """The coefficients and the features that they belong to."""
        return ClassKernel(
            self.coefficients_, self.support_features_, self.support_indices_, self.kernel_offset_, self.n_train_
        )

    @torch.no_grad()
    def _kernel_features(self, inputs: Batch) -> Tensor:
        """Features of test points as the kernel uses them, (n_block, n_features)."""
        return self.transform_features(self._block_features(inputs))

    @torch.no_grad()
    def _test_features(self, test: TestInputs, target: Target) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and classes of many test points at a time: support points are gathered once for each."""
        held: list[tuple[Tensor, Tensor]] = []
        for inputs, classes in self.blocks(test, target):
            held.append((self._kernel_features(inputs), classes))
            if sum(len(classes) for _, classes in held) >= _TEST_POINTS:
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)

    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        features = self._kernel_features(inputs)
        result = features.new_zeros(len(features), self.n_train_)
        self._kernel.fill(result, features, target)
        return result

    def _attribute_all(self, test: TestInputs, target: Target) -> Tensor:
        result = self.support_features_.new_zeros(len(test), self.n_train_)
        start, kernel = 0, self._kernel
        for features, classes in self._test_features(test, target):
            kernel.fill(result[start : start + len(classes)], features, classes)
            start += len(classes)
        return result

    def _strongest_of(
        self, test: TestInputs, target: Target, k: int, proponents: bool, update: Callable[[int], object]
    ) -> KMostInfluentialResults:
        parts, kernel = [], self._kernel
        for features, classes in self._test_features(test, target):
            parts.append(kernel.strongest(features, classes, k, proponents))
            update(len(classes))
        indices, values = (torch.cat(part) for part in zip(*parts, strict=True))
        return KMostInfluentialResults(indices, values)

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        features, _ = self.extract(inputs)
        shares = self.feature_shares(features, target, train_indices)
        return shares.sum(dim=2) + self.kernel_offset_ * self.coefficients(train_indices, target)

    def _self_influence(self) -> Tensor:
        labels = self.train_labels_[self.support_indices_]
        own = self.coefficients_.at(torch.arange(len(labels), device=labels.device), labels)
        squares = torch.cat([part.square().sum(dim=1) for part in torch.split(self.support_features_, _ROWS)])
        values = own * (squares + self.kernel_offset_)
        return values.new_zeros(self.n_train_).index_copy_(0, self.support_indices_, values)

    def _set_support(self, indices: Any, features: Tensor, coefficients: Coefficients | Tensor) -> None:
        """Store the learned state from coefficients and the kernel's features of the whole training set."""
        self.support_indices_ = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        whole = len(self.support_indices_) == len(features)
        self.support_features_ = features if whole else self._rows_like_the_store(features, self.support_indices_)
        if isinstance(coefficients, Tensor):
            coefficients = DenseCoefficients(coefficients.to(features))
        self.coefficients_ = coefficients


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Consecutive features and classes as one."""
    features, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, classes
