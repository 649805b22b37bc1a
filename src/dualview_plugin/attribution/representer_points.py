"""Representer point selection: the last layer retrained so that its weights are a sum over training points."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.data import TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.features import Standardizer, TrainingFeatures
from dualview_plugin.last_layer import LinearLayer, SoftmaxRegression, fit_softmax_regression
from dualview_plugin.validation import check_integer, check_positive

# Training points on which the last layer is compared with the network's outputs.
_CHECKED_ROWS = 256


class RepresenterPoints(FeatureKernelAttribution):
    """τ_i(x, c) = α_ic ⟨φ(x_i), φ(x)⟩ with α_ic = (t_ic − p_ic) / (2λ n_train).

    t are the network's softmax outputs on the training set and p those of the last layer V after retraining it with
    the cross entropy to t and the penalty λ‖V‖². Where the gradient vanishes, V = Σ_i α_i φ(x_i)ᵀ, so that a test
    point's attributions add up to the retrained logit.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`. The final layer must be linear, or
            a 1 × 1 convolution, and its outputs the network's, or at several positions one of them or their mean.
        weight_decay: λ, above zero. Larger: weights that are smaller and further from the network's.
        tol: stationarity ‖∇‖ / (2λ‖V‖) to reach, which is the relative error of the reconstruction Σ_i α_i φ(x_i)ᵀ of
            V.
        max_iter: Newton steps at most.

    Attributes:
        regression_: the retrained layer: ``weight``, ``stationarity``, ``n_iter``.
        support_indices_, support_features_, dual_coef_, surrogate_weight_, surrogate_bias_: see
            :class:`FeatureKernelAttribution`; every training point is a support point, and the bias is zero.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; the final layer is not linear or not
            the network's last.

    Warns:
        ConvergenceWarning: the fit stopped before ``tol``; the message has its figures.

    Source: Yeh et al. 2018 (arXiv 1811.09720), theorem 3.1; λ = 0.003 as in the paper's reference implementation.

    Differs: Newton's method to a small tolerance in place of gradient descent to 1/200 of the first gradient. The
    retrained layer has no bias, also where the network's has one.

    Cost: fit: one forward pass over the training set, then about ten Newton steps; each conjugate gradient iteration in
    them 4 · n_train · n_features · n_classes flops. attribute: n_test · n_train · n_features.

    Example:
        >>> import torch
        >>> from dualview_plugin import RepresenterPoints
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = RepresenterPoints(network, "0", train, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1])
        >>> logit = method.surrogate_logits(torch.eye(4)[:1])[0, network(torch.eye(4)[:1]).argmax()]
        >>> bool(torch.isclose(attributions.sum(), logit, atol=1e-5))
        True
    """

    regression_: SoftmaxRegression

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        weight_decay: float = 0.003,
        tol: float = 1e-6,
        max_iter: int = 100,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        owner = self.get_name()
        self.weight_decay = check_positive(weight_decay, "weight_decay", owner)
        self.tol = check_positive(tol, "tol", owner)
        self.max_iter = check_integer(max_iter, "max_iter", owner)

    def _check_probe(self, features: Tensor, logits: Tensor) -> None:
        """The final layer is the network's last."""
        self._last_layer(features, logits)

    def _last_layer(self, features: Tensor, logits: Tensor) -> LinearLayer:
        """The layer that maps these features to these logits."""
        extractor, owner = self.extractor, self.get_name()
        return LinearLayer.last_of(self.model, extractor.layer_name, features, logits, owner, extractor.call.output)

    def _fit(self) -> None:
        training = self._training_features()
        targets = self._targets(training)
        start = self._last_layer(training.features[:_CHECKED_ROWS], training.logits[:_CHECKED_ROWS]).weight
        self.regression_ = self._kept("weights", lambda: self._retrain(training.features, targets, start), sums=True)
        alpha = (targets - self.regression_.probabilities) / (2 * self.weight_decay * len(targets))
        self._standardizer = Standardizer.identity(training.features)
        self._set_support(torch.arange(len(alpha), device="cpu"), training.features, alpha)
        self._check_coefficients(targets)
        self.surrogate_weight_ = self.regression_.weight.to(training.features)
        self.surrogate_bias_ = self.surrogate_weight_.new_zeros(self.n_classes_)

    def _check_coefficients(self, targets: Tensor) -> None:
        """Refuse a network without a preference, and a penalty for which coefficients overflow or vanish."""
        if bool((targets == targets[:, :1]).all()):
            constraint = "a network that prefers some class at some training point: no point explains equal logits"
            raise InvalidValueError("model", self.get_name(), constraint, "the same logit for every class")
        if not (bool(self.dual_coef_.isfinite().all()) and bool(self.dual_coef_.any())):
            constraint = f"of a size for which coefficients neither overflow nor vanish in {self.dual_coef_.dtype}"
            raise InvalidValueError("weight_decay", self.get_name(), constraint, repr(self.weight_decay))

    def _targets(self, training: TrainingFeatures) -> Tensor:
        """What the last layer is retrained to: t, (n_train, n_classes), in double precision."""
        return training.logits.double().softmax(1)

    def _retrain(self, features: Tensor, targets: Tensor, start: Tensor) -> SoftmaxRegression:
        """The retrained layer, from the network's own weights, which are near the minimum as a rule."""
        return fit_softmax_regression(
            features,
            targets,
            self.weight_decay,
            start=start,
            tol=self.tol,
            max_iter=self.max_iter,
            summing=self._summing,
        )
