"""The figure holds the texts, in their places, with labels, attributions and shades."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots import plot_training_texts
from dualview_plugin.plots.heatmaps import color_map
from dualview_plugin.plots.text_lines import scaled_shades

TEST = [["the", "cat", "sat"], ["$5", "off"]]
TRAIN = [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
PROPONENTS = torch.tensor([[2, 1], [0, 3]]), torch.tensor([[2.0, 1.0], [0.5, 0.0]])
OPPONENTS = torch.tensor([[3], [2]]), torch.tensor([[-1.0], [-2.0]])


def lines_of(figure: Figure) -> list[list[str]]:
    """The texts of each line, from left to right."""
    figure.canvas.draw()
    rows: dict[float, list[tuple[float, str]]] = {}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        rows.setdefault(y, []).append((x, text.get_text()))
    return [[text for _, text in sorted(rows[y])] for y in sorted(rows)]


def test_each_line_holds_label_attribution_and_tokens() -> None:
    figure = plot_training_texts(
        TEST, TRAIN, PROPONENTS, OPPONENTS, train_labels=list("wxyz"), test_labels=["first", "second"]
    )
    assert lines_of(figure) == [
        ["first", "the", "cat", "sat"],
        ["y  +2.000", "d", "e", "f"],
        ["x  +1.000", "c"],
        ["z  -1.000", "g"],
        ["second", "$5", "off"],
        ["w  +0.500", "a", "b"],
        ["y  -2.000", "d", "e", "f"],
    ]


def test_tokens_are_shaded_by_their_relevance() -> None:
    relevance = np.array([[4.0, -2.0, 0.0, 9.0], [1.0, 1.0, 9.0, 9.0]])  # behind the last token is padding
    figure = plot_training_texts(TEST, TRAIN, PROPONENTS, relevance=relevance)
    boxes = {text.get_text(): text.get_bbox_patch() for text in figure.axes[0].texts}
    colors = color_map("bwr", "test")
    for token, shade in (("the", 1.0), ("cat", -0.5), ("$5", 1.0), ("off", 1.0)):
        np.testing.assert_allclose(boxes[token].get_facecolor()[:3], colors((shade + 1) / 2)[:3])
    assert boxes["sat"] is None
    assert boxes["d"] is None


def test_long_texts_are_wrapped_between_tokens() -> None:
    figure = plot_training_texts([["aaaa", "bbbb", "cccc"]], TRAIN, (np.zeros((1, 1), int), np.zeros((1, 1))), width=10)
    assert lines_of(figure) == [["aaaa", "bbbb"], ["cccc"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevance": np.zeros((2, 2))}, r"relevance of plot_training_texts must be of shape \(n_test = 2, n_tokens"),
        ({"opponents": (np.zeros((1, 2)), np.zeros((1, 2)))}, "opponents of plot_training_texts"),
        ({"cmap": "jet"}, "cmap of plot_training_texts must be one of 'bwr'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        plot_training_texts(TEST, TRAIN, PROPONENTS, **options)


@pytest.mark.parametrize(
    ("relevance", "shades"),
    [
        ([0.0, 0.9], [0.0, 1.0]),
        ([0.5, -1.0, 0.3], [0.5, -1.0]),
        ([0.0, 0.5, -1.0], [0.5, -1.0]),
        ([0.0] * 3, [0.0] * 2),
    ],
)
def test_zeros_in_front_of_a_text_are_its_padding(relevance: list[float], shades: list[float]) -> None:
    np.testing.assert_allclose(scaled_shades(np.array(relevance), 2), shades)
