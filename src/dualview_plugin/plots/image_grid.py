"""A figure of small images in rows, its columns in groups, with headings and titles at known places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualview_plugin.plots.images import Image

# Zennit's colour maps show positive relevance red and negative blue: so do the frames.
FRAME_COLORS = {"proponents": "#c0392b", "opponents": "#2c6fbb"}
FONT_SIZE = 8
TITLE, HEADING = 0.36, 0.3  # room for two lines above an image, and for a heading above those, in inches
_GAP, _SPACING, _MARGIN = 0.3, 0.1, 0.1


class ImageGrid:
    """Square cells of one inch; a gap separates the groups of columns.

    Args:
        rooms: room above each row, in inches: for titles, and for a heading above those.
        group_sizes: number of columns of each group.
        bottom: room below the last row, in inches.
    """

    def __init__(self, rooms: Sequence[float], group_sizes: Sequence[int], bottom: float = 0.0) -> None:
        sizes, self._rooms = np.asarray(group_sizes, dtype=int), list(rooms)
        self._group_widths = sizes + _SPACING * (sizes - 1)
        self._lefts = _MARGIN + np.concatenate([[0.0], np.cumsum(self._group_widths + _GAP)[:-1]])
        self._width = float(self._lefts[-1] + self._group_widths[-1] + _MARGIN)
        self._height = sum(rooms) + len(rooms) + _SPACING * (len(rooms) - 1) + _MARGIN + bottom
        self._tops = self._height - np.cumsum(self._rooms) - (1 + _SPACING) * np.arange(len(rooms))
        self.figure = Figure(figsize=(self._width, self._height), dpi=100)

    def cell(self, row: int, group: int, column: int) -> Axes:
        """New axes at this place, without ticks and frame."""
        left = self._lefts[group] + column * (1 + _SPACING)
        axes = self._axes(left, self._tops[row] - 1, 1.0, 1.0, f"{row},{group},{column}")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def strip(self, group: int, bottom: float, label: str) -> Axes:
        """New flat axes below the last row, in the middle of a group, ``bottom`` inches above the figure's edge."""
        center = self._lefts[group] + self._group_widths[group] / 2
        return self._axes(center - 1, bottom, 2.0, 0.1, label)

    def heading(self, row: int, group: int, text: str, color: str = "black") -> None:
        """Write a heading over the columns of a group, at the top of the room above a row."""
        self._text(row, group, self._rooms[row] - HEADING / 2, text, color=color, weight="bold", size=FONT_SIZE + 1)

    def note(self, row: int, group: int, text: str) -> None:
        """Write a text in the middle of a group, beside the images of a row."""
        self._text(row, group, -0.5, text, color="black", weight="normal", size=FONT_SIZE)

    def _text(self, row: int, group: int, above: float, text: str, *, color: str, weight: str, size: int) -> None:
        """Write a text centred in a group, ``above`` inches over the top of a row."""
        x = (self._lefts[group] + self._group_widths[group] / 2) / self._width
        y = (self._tops[row] + above) / self._height
        style: dict[str, Any] = {"color": color, "weight": weight, "fontsize": size}
        self.figure.text(x, y, text, ha="center", va="center", parse_math=False, **style)

    def _axes(self, left: float, bottom: float, width: float, height: float, label: str) -> Axes:
        """New axes at this place, in inches."""
        place = left / self._width, bottom / self._height, width / self._width, height / self._height
        return self.figure.add_axes(place, label=label)


def show_image(axes: Axes, image: Image, title: str = "", frame_color: str | None = None) -> None:
    """Draw an image with values in [0, 1], with its title and a coloured frame if a colour is given."""
    axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_title(title, fontsize=FONT_SIZE, pad=3, parse_math=False)
    if frame_color is not None:
        axes.spines[:].set(visible=True, color=frame_color, linewidth=1.6)
