"""The figure holds both texts of each pair, with labels, attributions and shades."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots import plot_pairwise_texts
from dualview_plugin.plots.heatmaps import color_map
from tests.plots.test_training_texts import lines_of

TRAIN = ["a b", "c", "d e f", "g"]


def pairs(**changes: Any) -> SimpleNamespace:
    values = {
        "test_relevance": np.array([[1.0, -2.0, 0.0, 9.0], [3.0, 0.0, 0.0, 9.0], [0.0, 0.0, 5.0, 9.0]]),
        "train_relevance": np.array([[4.0, 1.0, 0.0], [2.0, 9.0, 9.0], [0.0, -1.0, 9.0]]),
        "attribution": [0.5, -3.0, 2.0],
        "train_indices": [2, 1, 0],
    }
    return SimpleNamespace(**{**values, **changes})


def test_each_pair_has_two_lines_and_the_strongest_comes_first() -> None:
    figure = plot_pairwise_texts(
        "the $5 cat", TRAIN, [pairs()], tokens=str.split, train_labels=list("wxyz"), test_label="said"
    )
    assert lines_of(figure) == [
        ["said", "the", "$5", "cat"],
        ["w  +2.000", "a", "b"],
        ["the", "$5", "cat"],
        ["y  +0.500", "d", "e", "f"],
        ["the", "$5", "cat"],
        ["x  -3.000", "c"],
        ["the", "$5", "cat"],
    ]


def test_tokens_of_both_texts_are_shaded_by_their_relevance() -> None:
    figure = plot_pairwise_texts(["the", "$5", "cat"], {2: ["d", "e", "f"]}, [pairs(**{
        name: value[:1] for name, value in vars(pairs()).items()
    })])  # fmt: skip
    colors = color_map("bwr", "test")
    boxes = [(text.get_text(), text.get_bbox_patch()) for text in figure.axes[0].texts]
    expected = [0, 0, 0, None, 1.0, 0.25, 0, 0.5, -1.0, 0]  # the test text, the title, the training text, the test text
    assert [text for text, _ in boxes] == ["the", "$5", "cat", "+0.500", "d", "e", "f", "the", "$5", "cat"]
    for (_, box), shade in zip(boxes, expected, strict=True):
        if shade:
            np.testing.assert_allclose(box.get_facecolor()[:3], colors((shade + 1) / 2)[:3])
        else:
            assert box is None


def test_labels_and_tokens_may_be_numbers() -> None:
    figure = plot_pairwise_texts([1, 2], [[3], [4], [5], [6]], [pairs(train_relevance=np.ones((3, 1)))], test_label=7)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:3] == ["7", "1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_relevance": np.ones((3, 1))}, r"relevance of plot_pairwise_texts must be of at least 2 tokens, .* 1"),
        (
            {"test_relevance": np.ones((3, 4, 2))},
            r"relevance of plot_pairwise_texts must be \(n_tokens,\) for each text",
        ),
        ({"attribution": np.zeros(3)}, "pairs of plot_pairwise_texts must be some, with an attribution"),
        ({"attribution": np.zeros((3, 1))}, "pairs of plot_pairwise_texts must be those of one test point"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        plot_pairwise_texts("the $5 cat", TRAIN, [pairs(**changes)], tokens=str.split)
