"""The lines of the figure are the curves, between the best and the worst, and the legend has the metric's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics import LabelPoisoning, label_poisoning, poisoning_curve
from dualview_plugin.plots import plot_poisoning_curves

N_TRAIN, N_POISONED = 13, 5
POISONED = np.arange(N_TRAIN) % 3 == 1
POISONED[-1] = True
RANKINGS = {name: np.random.default_rng(seed).normal(size=N_TRAIN) for name, seed in (("a", 0), ("b", 1), ("c", 5))}
CURVES = {name: poisoning_curve(ranking, POISONED) for name, ranking in RANKINGS.items()}


def lines(figure: Any) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_xydata() for line in figure.axes[0].get_lines()}


def test_every_curve_is_drawn_with_the_metrics_score_best_method_first() -> None:
    assert POISONED.sum() == N_POISONED
    drawn = lines(plot_poisoning_curves(CURVES, N_POISONED))
    assert list(drawn)[:3] == ["best", "random ranking", "worst"]
    scores = {name: label_poisoning(ranking, POISONED) for name, ranking in RANKINGS.items()}
    assert list(drawn)[3:] == [f"{name}, {scores[name]:.3f}" for name in sorted(scores, key=scores.__getitem__)[::-1]]
    for name, curve in CURVES.items():
        points = drawn[f"{name}, {scores[name]:.3f}"]
        np.testing.assert_allclose(points, np.stack([np.arange(N_TRAIN + 1) / N_TRAIN, curve], axis=1))


def test_the_bounds_are_the_curves_of_the_best_the_worst_and_the_undecided_ranking() -> None:
    drawn = lines(plot_poisoning_curves(CURVES, N_POISONED))
    for label, ranking in (("best", POISONED), ("worst", ~POISONED), ("random ranking", np.zeros(N_TRAIN))):
        np.testing.assert_allclose(drawn[label][:, 1], poisoning_curve(ranking, POISONED))


def test_serves_quantus_plot(tmp_path: Any) -> None:
    metric = LabelPoisoning(POISONED)
    attributions = np.random.default_rng(0).normal(size=(3, N_TRAIN))
    metric(None, np.zeros((3, 2, 2)), np.zeros(3, int), a_batch=attributions)
    axes = plt.figure().gca()
    arguments: dict[str, Any] = {"curves": metric.curves, "n_poisoned": N_POISONED, "axes": axes}
    metric.plot(plot_poisoning_curves, show=False, path_to_save=str(tmp_path / "curves.png"), **arguments)
    plt.close()
    assert len(axes.get_lines()) == 4
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_opens_no_figure_of_pyplot() -> None:
    before = plt.get_fignums()
    plot_poisoning_curves(CURVES, N_POISONED)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "one or more of one length"),
        ({"a": [0, 1], "b": [0, 0.5, 1]}, "one or more of one length"),
        ({"a": [[0, 1]]}, "one or more of one length"),
        ({"a": [0, 2, 1]}, "shares in"),
        ({"a": [0, np.nan, 1]}, "shares in"),
        ({"a": [0, [1, 2]]}, "one or more of numbers"),
        ({"a": ["x", "y"]}, "one or more of numbers"),
    ],
)
def test_refuses_what_are_no_curves(curves: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"curves of plot_poisoning_curves must be {message}"):
        plot_poisoning_curves(curves, 1)


def test_refuses_curves_without_names() -> None:
    with pytest.raises(InvalidTypeError, match="curves of plot_poisoning_curves must be a dictionary"):
        plot_poisoning_curves([[0, 0.5, 1, 1]], 2)  # type: ignore[arg-type]


def test_takes_tensors_of_any_kind() -> None:
    values = torch.tensor([0, 0.5, 1, 1])
    for curve in (values.bfloat16(), values.clone().requires_grad_()):
        line = plot_poisoning_curves({"one": curve}, 2).axes[0].lines[-1]
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_refuses_impossible_numbers_of_poisoned_points() -> None:
    for n_poisoned in (0, N_TRAIN):
        with pytest.raises(InvalidValueError, match="n_poisoned of plot_poisoning_curves must be"):
            plot_poisoning_curves(CURVES, n_poisoned)
    with pytest.raises(InvalidTypeError, match="n_poisoned of plot_poisoning_curves must be an integer"):
        plot_poisoning_curves(CURVES, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "curve", [[0, 0.5, 0.4, 1], [0, 0.9, 1, 1], [0, 0, 0, 1], [0.1, 0.5, 1, 1], [0, 0.5, 0.9, 0.9]]
)
def test_refuses_curves_of_no_ranking(curve: list[float]) -> None:
    with pytest.raises(InvalidValueError, match=r"never falling, between the worst and the best, got another for one"):
        plot_poisoning_curves({"one": curve}, 2)
