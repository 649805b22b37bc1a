"""Test texts above the training texts that speak most for and against the network's answer, tokens shaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots.heatmaps import color_map
from dualview_plugin.plots.image_grid import FONT_SIZE, FRAME_COLORS
from dualview_plugin.plots.images import as_array, check_points, label_text, point_title

_OWNER = "plot_training_texts"
_LINE = 0.2  # inches
_CHARACTER = 0.6 * FONT_SIZE / 72  # of a monospaced font, in inches
_TITLE_WIDTH = 24  # characters before each text
_MARGIN = 0.15  # inches

Tokens = Sequence[str]


@dataclass(frozen=True)
class _Line:
    """One line of the figure: a title, and tokens with their columns and shades."""

    title: str
    color: str
    tokens: list[tuple[int, str, float]] = field(default_factory=list)


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
            behind the last token are left out. The largest of each text gets the full colour. None: no shades.
        train_labels: labels or class names of all training points, (n_train,); None: attributions alone.
        test_labels: what to write before each test text, (n_test,); None: nothing.
        cmap: a colour map of Zennit: ``"bwr"``, ``"coldnhot"``, …; its middle is zero.
        width: characters in a line of text.

    Raises:
        InvalidValueError: indices, attributions or relevance that do not fit the test texts.

    Example:
        >>> figure = plot_training_texts([["a", "dog"]], [["no"], ["dogs"]], ([[1]], [[0.5]]), relevance=[[0.0, 1.0]])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['a', 'dog', '+0.500', 'dogs']
    """
    n_test = len(test_texts)
    groups = {"proponents": check_points(proponents, n_test, "proponents", _OWNER)}
    if opponents is not None:
        groups["opponents"] = check_points(opponents, n_test, "opponents", _OWNER)
    shades = _checked_relevance(relevance, test_texts)
    lines: list[_Line] = []
    for row, tokens in enumerate(test_texts):
        lines += _wrapped(label_text(test_labels, row), "black", tokens, shades[row], width)
        for name, (indices, scores) in groups.items():
            for index, score in zip(indices[row].tolist(), scores[row].tolist(), strict=True):
                if (score > 0) if name == "proponents" else (score < 0):
                    title = point_title(label_text(train_labels, index), score).replace("\n", "  ")
                    words = train_texts[index]
                    lines += _wrapped(title, FRAME_COLORS[name], words, np.zeros(len(words)), width)
        lines.append(_Line("", "black"))
    return _drawn(lines[:-1], color_map(cmap, _OWNER), width)


def _checked_relevance(relevance: Any, texts: Sequence[Tokens]) -> list[np.ndarray[Any, Any]]:
    """The relevance of each text's tokens, divided by its largest size; zeros where there is none."""
    if relevance is None:
        return [np.zeros(len(tokens)) for tokens in texts]
    values = as_array(relevance).astype(float)
    longest = max(map(len, texts))
    if values.ndim != 2 or len(values) != len(texts) or values.shape[1] < longest:
        constraint = f"of shape (n_test = {len(texts)}, n_tokens ≥ {longest})"
        raise InvalidValueError("relevance", _OWNER, constraint, f"shape {values.shape}")
    rows = [row[: len(tokens)] for row, tokens in zip(values, texts, strict=True)]
    return [row / max(float(np.abs(row).max(initial=0)), 1e-30) for row in rows]


def _wrapped(title: str, color: str, tokens: Tokens, shades: np.ndarray[Any, Any], width: int) -> list[_Line]:
    """A text as lines of at most ``width`` characters, the first with its title."""
    lines = [_Line(title[: _TITLE_WIDTH - 2], color)]
    column = 0
    for token, shade in zip(tokens, shades.tolist(), strict=True):
        if column and column + len(token) > width:
            lines.append(_Line("", color))
            column = 0
        lines[-1].tokens.append((column, token, shade))
        column += len(token) + 1
    return lines


def _drawn(lines: Sequence[_Line], colors: Colormap, width: int) -> Figure:
    """The figure of these lines, one place for each character."""
    n_columns = _TITLE_WIDTH + width
    size = n_columns * _CHARACTER + 2 * _MARGIN, len(lines) * _LINE + 2 * _MARGIN
    figure = Figure(figsize=size, dpi=100)
    inner = _MARGIN / size[0], _MARGIN / size[1], 1 - 2 * _MARGIN / size[0], 1 - 2 * _MARGIN / size[1]
    axes = figure.add_axes(inner, xlim=(0, n_columns), ylim=(len(lines), 0))
    axes.set_axis_off()
    for number, line in enumerate(lines):
        if line.title:
            _write(axes, 0, number, line.title, color=line.color, weight="bold")
        for column, token, shade in line.tokens:
            box = {"facecolor": colors((shade + 1) / 2), "edgecolor": "none", "alpha": 0.6, "pad": 1.5}
            _write(axes, _TITLE_WIDTH + column, number, token, **({"bbox": box} if shade else {}))
    return figure


def _write(axes: Axes, column: int, number: int, text: str, **style: Any) -> None:
    """A text that begins at this place; dollar signs are no formulas."""
    axes.text(
        column, number + 0.5, text, family="monospace", fontsize=FONT_SIZE, va="center", parse_math=False, **style
    )
