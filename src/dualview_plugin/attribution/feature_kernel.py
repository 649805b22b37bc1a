"""Coefficients times a feature kernel: the form that DualView and representer points share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dualview_plugin.attribution.base import DataAttribution
from dualview_plugin.data import Inputs, input_batches
from dualview_plugin.features import Standardizer


class FeatureKernelAttribution(DataAttribution):
    """τ_i(x, c) = α_ic (⟨φ_i, φ(x)⟩ + offset), with one coefficient α_ic for each support point and class.

    A surrogate classifier stands behind the coefficients, with weights w_c = Σ_i α_ic φ_i, and the attributions of a
    test point add up to its logit: Σ_i τ_i(x, c) = ⟨w_c, φ(x)⟩ + b_c (completeness).

    Attributes:
        support_indices_: training points with a coefficient that is not zero, (n_support,), ascending.
        support_features_: their features as the kernel uses them, (n_support, n_features).
        dual_coef_: α, (n_support, n_classes).
        surrogate_weight_: w, (n_classes, n_features), for the features as the kernel uses them.
        surrogate_bias_: b, (n_classes,): the intercept's share of every logit; zeros where there is no intercept.
        kernel_offset_: 1.0 with an intercept (a constant feature), else 0.0.
    """

    support_indices_: Tensor
    support_features_: Tensor
    dual_coef_: Tensor
    surrogate_weight_: Tensor
    surrogate_bias_: Tensor
    kernel_offset_: float = 0.0
    _standardizer: Standardizer

    def transform_features(self, features: Tensor) -> Tensor:
        """Penultimate features as the kernel uses them, (n, n_features); differentiable."""
        return self._standardizer(features)

    def coefficients(self, train_indices: Tensor, target: Tensor) -> Tensor:
        """α_ic of the training points ``train_indices``, (n, k), for the classes ``target``, (n,); else 0."""
        self._ensure_fitted()
        position = self._support_positions()[train_indices]
        values = self.dual_coef_[position.clamp(min=0), target[:, None]]
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
        self._ensure_fitted()
        rows = self._support_positions()[train_indices].clamp(min=0)
        kernel = self.transform_features(features)[:, None] * self.support_features_[rows]
        return self.coefficients(train_indices, target)[:, :, None] * kernel

    @torch.no_grad()
    def surrogate_logits(self, inputs: Inputs) -> Tensor:
        """The surrogate's logits ⟨w_c, φ(x)⟩ + b_c, (n_test, n_classes), to compare with the network's."""
        self._ensure_fitted()
        parts = []
        for batch in input_batches(inputs, self.batch_size, self.get_name()):
            features, _ = self._extractor(batch.to(self.device))
            parts.append(self.transform_features(features) @ self.surrogate_weight_.T + self.surrogate_bias_)
        return torch.cat(parts)

    def _support_positions(self) -> Tensor:
        """For each training point its row in the support, or −1, (n_train,)."""
        positions = torch.full((self.n_train_,), -1, dtype=torch.int64, device=self.device)
        positions[self.support_indices_] = torch.arange(len(self.support_indices_), device=self.device)
        return positions

    @torch.no_grad()
    def _support_attribution(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Attributions of the support points alone, (n_block, n_support), by one matrix product."""
        features, _ = self._extractor(inputs)
        kernel = self.transform_features(features) @ self.support_features_.T
        return (kernel + self.kernel_offset_) * self.dual_coef_.T[target]

    def _attribute_block(self, inputs: Tensor, target: Tensor) -> Tensor:
        values = self._support_attribution(inputs, target)
        return values.new_zeros(len(inputs), self.n_train_).index_copy_(1, self.support_indices_, values)

    def _pair_attribution(self, inputs: Tensor, target: Tensor, train_indices: Tensor) -> Tensor:
        features, _ = self._extractor(inputs)
        shares = self.feature_shares(features, target, train_indices)
        return shares.sum(dim=2) + self.kernel_offset_ * self.coefficients(train_indices, target)

    def _self_influence(self) -> Tensor:
        labels = self.train_labels_[self.support_indices_]
        own = self.dual_coef_.gather(1, labels[:, None]).squeeze(1)
        values = own * (self.support_features_.square().sum(dim=1) + self.kernel_offset_)
        return values.new_zeros(self.n_train_).index_copy_(0, self.support_indices_, values)

    def _set_support(self, indices: Any, features: Tensor, dual_coef: Tensor) -> None:
        """Store the learned state from coefficients and the kernel's features of the whole training set."""
        self.support_indices_ = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        self.support_features_ = features[self.support_indices_]
        self.dual_coef_ = dual_coef.to(features)
