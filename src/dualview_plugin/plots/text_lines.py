"""Lines of text whose tokens are shaded by their relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from dualview_plugin.plots.image_grid import FONT_SIZE
from dualview_plugin.plots.images import Image

_LINE = 0.2  # inches
_CHARACTER = 0.6 * FONT_SIZE / 72  # of a monospaced font, in inches
_TITLE_WIDTH = 24  # characters before each text
_MARGIN = 0.15  # inches

Tokens = Sequence[str]


@dataclass(frozen=True)
class TextLine:
    """One line of the figure: a title, and tokens with their columns and shades."""

    title: str = ""
    color: str = "black"
    tokens: list[tuple[int, str, float]] = field(default_factory=list)


def scaled_shades(relevance: Image, n_tokens: int) -> Image:
    """The relevance of a text's tokens, divided by its largest size: (n_tokens,) in [−1, 1].

    Of more entries than tokens the first count, or the last where all in front of them are zero, as of padding there.
    """
    n_more = len(relevance) - n_tokens
    padded_in_front = relevance[n_tokens:].any() and not relevance[:n_more].any()
    values = relevance[n_more:] if padded_in_front else relevance[:n_tokens]
    return values / max(float(np.abs(values).max(initial=0)), 1e-30)


def wrapped(title: str, color: str, tokens: Tokens, shades: Image, width: int) -> list[TextLine]:
    """A text as lines of at most ``width`` characters, the first with its title."""
    lines = [TextLine(title[: _TITLE_WIDTH - 2], color)]
    column = 0
    for token, shade in zip(map(str, tokens), shades.tolist(), strict=True):
        if column and column + len(token) > width:
            lines.append(TextLine("", color))
            column = 0
        lines[-1].tokens.append((column, token, shade))
        column += len(token) + 1
    return lines


def drawn(lines: Sequence[TextLine], colors: Colormap, width: int) -> Figure:
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
