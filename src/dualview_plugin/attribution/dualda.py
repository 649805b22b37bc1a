"""DualDA: DualView in the settings of the authors' successor work."""

from __future__ import annotations

from typing import Any

from torch import nn

from dualview_plugin.attribution.dualview import DualView
from dualview_plugin.data import TrainData


def dualda(
    model: nn.Module, final_fc_layer: nn.Module | str, train_dataset: TrainData, C: float = 1e-3, **options: Any
) -> DualView:
    """A :class:`DualView` on raw features with an intercept, as the successor work's DualDA.

    Args:
        model: see :class:`DataAttribution`.
        final_fc_layer: see there.
        train_dataset: see there.
        C: weight of the margin violations; the successor work reports 1e-5, 1e-3 and 1e-1.
        **options: the other arguments of :class:`DualView`, except ``standardize`` and ``fit_intercept``.

    Returns:
        ``DualView(…, C=C, standardize=False, fit_intercept=True)``.

    Raises:
        TypeError: ``standardize`` or ``fit_intercept`` among the options.
        InvalidTypeError, InvalidValueError: as :class:`DualView`.

    Source: arXiv 2402.12118, v3, DualDA.
    Differs: the dual is solved to a relative gap of ``tol``, where liblinear stops at a tolerance of 1e-4. Each
        attribution includes its share of the intercept, α_ic; the package dualxda fits the intercept and drops it.

    Example:
        >>> import torch
        >>> from dualview_plugin import dualda
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
        >>> method = dualda(torch.nn.Sequential(torch.nn.Linear(4, 2)), "0", data, show_progress=False)
        >>> method.C, method.standardize, method.fit_intercept
        (0.001, False, True)
    """
    return DualView(model, final_fc_layer, train_dataset, C=C, standardize=False, fit_intercept=True, **options)
