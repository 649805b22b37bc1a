"""A figure of small images in rows, its columns in groups with a heading each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualview_plugin.plots.images import Image

# Zennit's colour maps show positive relevance red and negative blue: so do the frames.
FRAME_COLORS = {"proponents": "#c0392b", "opponents": "#2c6fbb"}
FONT_SIZE = 8


class ImageGrid:
    """Square cells of one inch in ``n_rows`` rows; a gap separates the groups of columns.

    Args:
        n_rows: number of rows.
        group_sizes: number of columns of each group.
        title_height: room above each cell for its title, in inches.
    """

    def __init__(self, n_rows: int, group_sizes: Sequence[int], title_height: float = 0.36) -> None:
        self._gap, self._spacing, self._margin, self._heading = 0.3, 0.1, 0.1, 0.3
        self._title_height = title_height
        sizes = np.asarray(group_sizes, dtype=int)
        widths = sizes + self._spacing * (sizes - 1)
        self._lefts = self._margin + np.concatenate([[0.0], np.cumsum(widths + self._gap)[:-1]])
        self._widths = widths
        self._width = float(self._lefts[-1] + widths[-1] + self._margin)
        self._height = self._heading + n_rows * (1 + title_height + self._spacing) + self._margin
        self.figure = Figure(figsize=(self._width, self._height), dpi=100)

    def cell(self, row: int, group: int, column: int) -> Axes:
        """New axes at this place, without ticks and frame."""
        left = self._lefts[group] + column * (1 + self._spacing)
        bottom = self._height - self._heading - (row + 1) * (1 + self._title_height) - row * self._spacing
        axes = self.figure.add_axes(
            (left / self._width, bottom / self._height, 1 / self._width, 1 / self._height),
            label=f"{row},{group},{column}",
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def show(self, axes: Axes, image: Image, title: str, frame_color: str | None = None) -> None:
        """Draw an image with values in [0, 1], with its title and a coloured frame if a colour is given."""
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_title(title, fontsize=FONT_SIZE, pad=3)
        if frame_color is not None:
            axes.spines[:].set(visible=True, color=frame_color, linewidth=1.6)

    def heading(self, group: int, text: str, color: str = "black") -> None:
        """Write a heading over the columns of a group."""
        center = self._lefts[group] + self._widths[group] / 2
        y = 1 - 0.5 * self._heading / self._height
        self.figure.text(
            center / self._width, y, text, color=color, fontsize=FONT_SIZE + 1, weight="bold", ha="center", va="center"
        )
