"""DualView: the support vectors of a multiclass machine that imitates the network's last layer."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.common.coefficients import SparseCoefficients
from dualview_plugin.attribution.common.margin_choice import chosen_solution
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.data import Inputs, TrainData, with_arguments
from dualview_plugin.features import Standardizer
from dualview_plugin.solver import CrammerSingerSolution, solve_crammer_singer
from dualview_plugin.validation import check_flag, check_fraction, check_integer, check_positive


class DualView(FeatureKernelAttribution):
    """τ_i(x, c) = α_ic ⟨φ(x_i), φ(x)⟩, with α from the dual of a Crammer–Singer machine on the penultimate features.

    The machine is a surrogate of the network's last layer: w_c = Σ_i α_ic φ(x_i), and a test point's attributions add
    up to the surrogate's logit exactly. Only training points on or inside the margin have α ≠ 0, so attributions are
    sparse.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`. Only features φ(x) are used: the
            final layer may be of any kind.
        C: weight of the margin violations, in (0, inf). Larger: a harder margin, fewer support points, a longer fit.
            Its unit is that of 1 / ‖φ‖². The default suits tens of thousands of points; small training sets need more.
            ``"auto"``: of the decades from 1e-6 to 10, the one whose surrogate decides as the network does on most
            training points, if at most a share of ``max_support`` of them are support points; ``solution_.C`` tells.
        max_support: for ``C="auto"``, in (0, 1]. None: a fifth; where no decade has as few support points, as with many
            wrong labels, the sparsest one is taken.
        standardize: features to zero mean and unit variance by the training statistics first; constant ones become
            zero.
        fit_intercept: append a constant feature 1. Each attribution then contains its share α_ic · 1; the shares add up
            to ``surrogate_bias_``, which completeness includes.
        tol: relative duality gap to reach.
        max_iter: screens of the training set by the solver at most; None: 1,000.
        time_limit: seconds for the solver, after which it returns what it has, feasible and certified; None: no limit.
            Hard margins on classes that do not separate can take minutes.

    Attributes:
        solution_: the solver's solution with its certificate: ``duality_gap``, objectives, ``n_iter``, ``converged``.
        support_indices_, support_features_, dual_coef_, surrogate_weight_, surrogate_bias_: see
            :class:`FeatureKernelAttribution`.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint.

    Warns:
        ConvergenceWarning: the solver stopped before ``tol``; the message says what to raise.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), equations for DV; Crammer and Singer 2001.

    Differs: standardising and C = 1e-3 follow the paper's reference implementation; its successor DualDA
    does not standardise and fits an intercept: ``standardize=False, fit_intercept=True``.

    Cost: fit: one forward pass over the training set and the solver (see :func:`solve_crammer_singer`), which solves
    eight problems with warm starts for ``C="auto"``. Memory: the features once, 4 · n_train · n_features bytes in
    float32, and about as much again in the solver or for the support points' own features. attribute: one forward pass,
    and for each test point a product with the support points of its class; sparse and ranked results never hold
    n_train columns.

    Example:
        >>> import torch
        >>> from dualview_plugin import DualView
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = DualView(network, "0", train, C=0.1, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> bool(torch.isclose(attributions.sum(), method.surrogate_logits(torch.eye(4)[:1])[0, 0], atol=1e-5))
        True
        >>> method.solution_.duality_gap <= method.tol
        True
    """

    solution_: CrammerSingerSolution

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        C: float | Literal["auto"] = 1e-3,
        max_support: float | None = None,
        standardize: bool = True,
        fit_intercept: bool = False,
        tol: float = 1e-6,
        max_iter: int | None = None,
        time_limit: float | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        owner = self.get_name()
        self.C: float | Literal["auto"] = "auto" if C == "auto" else check_positive(C, "C", owner)
        self.max_support = None if max_support is None else check_fraction(max_support, "max_support", owner)
        self.tol = check_positive(tol, "tol", owner)
        self.max_iter = None if max_iter is None else check_integer(max_iter, "max_iter", owner)
        self.time_limit = None if time_limit is None else check_positive(time_limit, "time_limit", owner)
        self.standardize = check_flag(standardize, "standardize", owner)
        self.fit_intercept = check_flag(fit_intercept, "fit_intercept", owner)

    def _fit(self) -> None:
        training = self._training_features(None if self.C == "auto" else 0)
        features = training.features
        if self.standardize:
            self._standardizer = Standardizer.from_features(features, self._probe_now().dtype)
            features = self._standardizer.in_place(features)
        else:
            self._standardizer = Standardizer.identity(features)
        decisions = training.logits.argmax(dim=1) if self.C == "auto" else None
        self.solution_ = self._kept("solution", lambda: self._solve(features, training.labels, decisions))
        self.kernel_offset_ = float(self.fit_intercept)
        coefficients = SparseCoefficients.from_csr(self.solution_.sparse_dual_coef, features)
        self._set_support(self.solution_.support, features, coefficients)
        self.surrogate_weight_ = torch.from_numpy(self.solution_.weight).to(features)
        self.surrogate_bias_ = torch.from_numpy(self.solution_.intercept).to(features)

    def _solve(self, features: Tensor, labels: Tensor, decisions: Tensor | None) -> CrammerSingerSolution:
        """The dual's solution for these features and parameters."""
        options: dict[str, Any] = {} if self.max_iter is None else {"max_iter": self.max_iter}
        options |= {
            "n_classes": self.n_classes_,
            "tol": self.tol,
            "fit_intercept": self.fit_intercept,
            "time_limit": self.time_limit,
            "show_progress": self.show_progress,
        }
        rows, classes = features.cpu().numpy(), labels.cpu().numpy()
        if self.C == "auto":
            assert decisions is not None
            return chosen_solution(rows, classes, decisions.cpu().numpy(), self.max_support, self.get_name(), **options)
        return solve_crammer_singer(rows, classes, self.C, **options)

    def attribute(
        self, inputs: Inputs, target: Target = None, additional_forward_args: Any = None, *, sparse: bool = False
    ) -> Tensor:
        """Attributions of every training point, (n_test, n_train); positive means proponent.

        Args:
            inputs: test inputs, as of :meth:`DataAttribution.attribute`.
            target: the explained class, as there.
            additional_forward_args: more inputs, as there.
            sparse: a CSR tensor of the values off zero in place of a dense one: memory (n_test × n_support).

        Returns:
            (n_test, n_train), as of :meth:`DataAttribution.attribute`; a CSR tensor if ``sparse``.

        Raises:
            InvalidTypeError, InvalidValueError: a shuffling loader, a target of the wrong length or out of range.
            StaleFitError: the network or the training data are no longer those of the fit.
        """
        inputs = with_arguments(inputs, additional_forward_args)
        if not sparse:
            return super().attribute(inputs, target)
        with self.visit():
            parts = list(self._test_features(self._fitted_for(inputs, target), target))
            features, classes = (torch.cat(part) for part in zip(*parts, strict=True))
            return self._kernel.sparse(features, classes)
