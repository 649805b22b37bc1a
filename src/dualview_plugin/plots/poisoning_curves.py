"""How fast each method finds the wrong labels: all curves in one figure, between the best and the worst ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.plots.images import as_array
from dualview_plugin.validation import check_integer

_OWNER = "plot_poisoning_curves"
_ROUNDING = 1e-6  # of curves in float32


def plot_poisoning_curves(curves: Mapping[str, ArrayLike], n_poisoned: int, *, axes: Axes | None = None) -> Figure:
    """A figure of the share of poisoned points found over the share of training points looked at.

    The best ranking (all poisoned points first), the worst (all of them last) and a random one are drawn dashed; the
    methods follow in the order of their scores, which stand in the legend: the area, rescaled to 1 for the best ranking
    and 0 for the worst.

    Args:
        curves: by method, the share found among the first m training points, (n_train + 1,), as ``curves`` of the
            metric LabelPoisoning holds them.
        n_poisoned: number of poisoned points, P.
        axes: where to draw, as ``pyplot.gca()`` for Quantus' ``metric.plot``; None: a new figure outside of pyplot.

    Raises:
        InvalidTypeError, InvalidValueError: no curve, curves of different lengths or of no ranking, or
            an ``n_poisoned`` that is no integer in 1 .. n_train − 1.

    Source: arXiv 2402.12118, figure 3.

    Example:
        >>> from dualview_plugin import plot_poisoning_curves
        >>> figure = plot_poisoning_curves({"DualView": [0, 0.5, 1, 1], "Random": [0, 1 / 3, 2 / 3, 1]}, n_poisoned=2)
        >>> figure.axes[0].get_legend_handles_labels()[1]
        ['best', 'random ranking', 'worst', 'DualView, 1.000', 'Random, 0.500']
    """
    if not isinstance(curves, Mapping):
        raise InvalidTypeError("curves", _OWNER, "a dictionary of curves by the methods' names", type(curves).__name__)
    try:
        checked = {name: as_array(curve).astype(np.float64) for name, curve in curves.items()}
    except (TypeError, ValueError) as error:
        raise InvalidValueError("curves", _OWNER, "one or more of numbers, (n_train + 1,)", str(error)) from error
    n_train = _check_curves(checked, n_poisoned)
    looked_at = np.linspace(0, 1, n_train + 1)
    best, worst = _bounds(n_train, n_poisoned)
    for name, curve in checked.items():
        if (np.diff(curve) < -_ROUNDING).any() or (curve > best + _ROUNDING).any() or (curve < worst - _ROUNDING).any():
            constraint = f"shares of {n_poisoned} poisoned points found: never falling, between the worst and the best"
            raise InvalidValueError("curves", _OWNER, constraint, f"another for {name}")
    beside: dict[str, Any] = {} if axes is not None else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes = Figure(figsize=(7, 4), layout="constrained").add_subplot() if axes is None else axes
    for label, curve, color in (("best", best, "0.2"), ("random ranking", looked_at, "0.5"), ("worst", worst, "0.8")):
        axes.plot(looked_at, curve, color=color, linestyle="--", linewidth=1, label=label)
    scores = {name: _rescaled(curve, best, worst) for name, curve in checked.items()}
    for name in sorted(checked, key=lambda name: -scores[name]):
        axes.plot(looked_at, checked[name], label=f"{name}, {scores[name]:.3f}")
    axes.set(xlabel="share of training points looked at", ylabel="share of poisoned points found")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.legend(fontsize="small", **beside)
    figure: Any = axes.figure
    return figure  # type: ignore[no-any-return]


def _bounds(n_train: int, n_poisoned: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curves of the best and of the worst ranking, (n_train + 1,) each."""
    looked_at = np.arange(n_train + 1)
    best = np.minimum(looked_at / n_poisoned, 1.0)
    worst = np.maximum((looked_at - (n_train - n_poisoned)) / n_poisoned, 0.0)
    return best, worst


def _rescaled(curve: NDArray[np.float64], best: NDArray[np.float64], worst: NDArray[np.float64]) -> float:
    """The area under the curve, 1 for the best and 0 for the worst."""
    return float((curve - worst)[1:].sum() / (best - worst)[1:].sum())


def _check_curves(curves: Mapping[str, NDArray[np.float64]], n_poisoned: int) -> int:
    """The number of training points, if the curves are some, of one length, and shares."""
    lengths = {curve.shape for curve in curves.values()}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise InvalidValueError("curves", _OWNER, "one or more of one length (n_train + 1,)", sorted(lengths))
    for name, curve in curves.items():
        if not (np.isfinite(curve).all() and curve.min() >= 0 and curve.max() <= 1):
            raise InvalidValueError("curves", _OWNER, "shares in [0, 1]", f"others for {name}")
    n_train = int(next(iter(lengths))[0]) - 1
    if check_integer(n_poisoned, "n_poisoned", _OWNER) >= n_train:
        raise InvalidValueError("n_poisoned", _OWNER, f"below the number of training points, {n_train}", n_poisoned)
    return n_train
