"""Test texts above the training texts that speak most for and against the network's answer, tokens shaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots.heatmaps import color_map
from dualview_plugin.plots.image_grid import FRAME_COLORS
from dualview_plugin.plots.images import as_array, check_finite, check_labels, check_points, label_text, point_title
from dualview_plugin.plots.text_lines import TextLine, Tokens, drawn, scaled_shades, wrapped

_OWNER = "plot_training_texts"


def plot_training_texts(
    test_texts: Sequence[Tokens],
    train_texts: Sequence[Tokens],
    proponents: tuple[Any, Any],
    opponents: tuple[Any, Any] | None = None,
    *,
    relevance: Any = None,
    train_labels: Sequence[object] | Tensor | None = None,
    test_labels: Sequence[object] | Tensor | None = None,
    cmap: str = "bwr",
    width: int = 90,
) -> Figure:
    """A figure with each test text, its tokens shaded, and below it its strongest proponents and opponents.

    Before each training text stand its label and its attribution, proponents red, opponents blue, the strongest first.
    A proponent with an attribution ≤ 0 is left out, and so is an opponent with one ≥ 0.

    Args:
        test_texts: the tokens of each test text, as strings, (n_test).
        train_texts: what gives the tokens of training point i as ``train_texts[i]``.
        proponents: indices and attributions, both (n_test, k), as ``influence(inputs, k)`` returns them.
        opponents: likewise, as ``influence(inputs, k, proponents=False)`` returns them; None: none are shown.
        relevance: of the test tokens, (n_test, n_tokens), as ``input_attribution(inputs, at=…)`` returns it; entries
            behind the last token are left out, and so are zeros in front of the first, of a text padded there. The
            largest of each text gets the full colour. None: no shades.
        train_labels: labels or class names of all training points, (n_train,); None: attributions alone.
        test_labels: what to write before each test text, (n_test,); None: nothing.
        cmap: a colour map of Zennit: ``"bwr"``, ``"coldnhot"``, …; its middle is zero.
        width: characters in a line of text.

    Raises:
        InvalidValueError: indices, attributions, labels or relevance that do not fit the texts, or NaN.

    Example:
        >>> from dualview_plugin import plot_training_texts
        >>> figure = plot_training_texts([["a", "dog"]], [["no"], ["dogs"]], ([[1]], [[0.5]]), relevance=[[0.0, 1.0]])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['a', 'dog', '+0.500', 'dogs']
    """
    n_test = len(test_texts)
    check_labels(test_labels, test_texts, "test_labels", _OWNER)
    check_labels(train_labels, train_texts, "train_labels", _OWNER)
    groups = {"proponents": check_points(proponents, n_test, train_texts, "proponents", _OWNER)}
    if opponents is not None:
        groups["opponents"] = check_points(opponents, n_test, train_texts, "opponents", _OWNER)
    shades = _checked_relevance(relevance, test_texts)
    lines: list[TextLine] = []
    for row, tokens in enumerate(test_texts):
        lines += wrapped(label_text(test_labels, row), "black", tokens, shades[row], width)
        for name, (indices, scores) in groups.items():
            for index, score in zip(indices[row].tolist(), scores[row].tolist(), strict=True):
                if (score > 0) if name == "proponents" else (score < 0):
                    title = point_title(label_text(train_labels, index), score).replace("\n", "  ")
                    words = train_texts[index]
                    lines += wrapped(title, FRAME_COLORS[name], words, np.zeros(len(words)), width)
        lines.append(TextLine())
    return drawn(lines[:-1], color_map(cmap, _OWNER), width)


def _checked_relevance(relevance: Any, texts: Sequence[Tokens]) -> list[np.ndarray[Any, Any]]:
    """The relevance of each text's tokens, divided by its largest size; zeros where there is none."""
    if relevance is None:
        return [np.zeros(len(tokens)) for tokens in texts]
    values = as_array(relevance).astype(float)
    longest = max(map(len, texts), default=0)
    if values.ndim != 2 or len(values) != len(texts) or values.shape[1] < longest:
        constraint = f"of shape (n_test = {len(texts)}, n_tokens ≥ {longest})"
        raise InvalidValueError("relevance", _OWNER, constraint, f"shape {values.shape}")
    check_finite("relevance", values, _OWNER)
    return [scaled_shades(row, len(tokens)) for row, tokens in zip(values, texts, strict=True)]
