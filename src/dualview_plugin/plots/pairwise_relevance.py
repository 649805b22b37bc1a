"""Why these training images? Heatmaps over both images of each pair, proponents above and opponents below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

from dualview_plugin.plots.heatmaps import color_map, overlay, pixel_relevance
from dualview_plugin.plots.image_grid import FONT_SIZE, FRAME_COLORS, HEADING, TITLE, ImageGrid, show_image
from dualview_plugin.plots.images import (
    Image,
    ToDisplay,
    check_labels,
    display_image,
    image_at,
    label_text,
    point_title,
)
from dualview_plugin.plots.pairs import Pairs, bands

_OWNER = "plot_pairwise_relevance"
_STRIP = 0.5  # room for the colour bar, in inches


def plot_pairwise_relevance(
    test_image: Tensor | Image,
    train_images: Any,
    pairs: Sequence[Pairs],
    *,
    train_labels: Sequence[object] | Tensor | None = None,
    test_label: str = "",
    to_display: ToDisplay | None = None,
    cmap: str = "bwr",
) -> Figure:
    """A figure of one test image and its training images, with the relevance of the attribution in both.

    For each training image, below one another: the image with its label and its attribution; the relevance over it; the
    relevance over the test image. Proponents stand above, opponents below, the strongest first. Each heatmap is summed
    over channels and scaled by its own largest size, symmetric around zero: colours compare places, not images.

    Args:
        test_image: (channels, height, width), or (height, width) for grey.
        train_images: what gives the image of training point i as ``train_images[i]``: an array, or a dataset, whose
            ``(image, label)`` pairs are taken apart.
        pairs: one or more groups of pairs of this test image, such as ``[strongest[0], weakest[0]]`` for the results
            of ``PairwiseRelevance.attribute`` with and without ``proponents``; the sign of its attribution says what
            a point is, and zero leaves it out.
        train_labels: labels or class names of all training points, (n_train,); None: attributions alone.
        test_label: what to write above the test image, such as the explained class.
        to_display: undoes the network's normalisation: an image (channels, height, width) to one with values in [0, 1].
            None: an image outside [0, 1] is stretched to it.
        cmap: Zennit's name of a colour map: ``"bwr"``, ``"coldnhot"``, ``"france"``, ``"seismic"``, ``"coolio"`` or
            ``"coleus"``.

    Raises:
        InvalidValueError: an unknown colour map, images or relevance of another shape, indices or labels that do not
            fit the images, NaN, or no pair with an attribution.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), figure 4.

    Example:
        >>> import torch
        >>> from dualview_plugin import DualView, PairwiseRelevance, plot_pairwise_relevance
        >>> _ = torch.manual_seed(0)
        >>> images = torch.rand(6, 1, 5, 5)
        >>> data = torch.utils.data.TensorDataset(images, torch.arange(6) % 2)
        >>> layers = (torch.nn.Flatten(), torch.nn.Linear(25, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> method = DualView(torch.nn.Sequential(*layers), "3", data, C=1.0, standardize=False, show_progress=False)
        >>> pairs = PairwiseRelevance(method, "epsilon_plus").attribute(images[:1], k=2)
        >>> len(plot_pairwise_relevance(images[0], data, [pairs[0]]).axes) > 6
        True
    """
    colors = color_map(cmap, _OWNER)
    check_labels(train_labels, train_images, "train_labels", _OWNER)
    by_sign = bands(pairs, train_images, partial(pixel_relevance, owner=_OWNER), _OWNER)
    grid = ImageGrid([HEADING + TITLE, 0.0, 0.0] * len(by_sign), [1, max(map(len, by_sign.values()))], bottom=_STRIP)
    test_shown = display_image(test_image, to_display, _OWNER)
    show_image(grid.cell(0, 0, 0), test_shown, test_label)
    for first, (name, band) in zip(range(0, 3 * len(by_sign), 3), by_sign.items(), strict=True):
        grid.heading(first, 1, name, FRAME_COLORS[name])
        grid.note(first + 1, 0, "relevance in the\ntraining image")
        grid.note(first + 2, 0, "relevance in the\ntest image")
        for column, pair in enumerate(band):
            train_shown = display_image(image_at(train_images, pair.train_index), to_display, _OWNER)
            title = point_title(label_text(train_labels, pair.train_index), pair.attribution)
            show_image(grid.cell(first, 1, column), train_shown, title, FRAME_COLORS[name])
            show_image(grid.cell(first + 1, 1, column), overlay(train_shown, pair.train_relevance, colors, _OWNER))
            show_image(grid.cell(first + 2, 1, column), overlay(test_shown, pair.test_relevance, colors, _OWNER))
    _draw_color_bar(grid, colors)
    return grid.figure


def _draw_color_bar(grid: ImageGrid, colors: Colormap) -> None:
    """Draw the bar that says what the colours of the heatmaps mean."""
    axes = grid.strip(1, 0.28, "colour bar")
    axes.imshow(np.linspace(-1, 1, 256)[None], cmap=colors, aspect="auto", extent=(-1, 1, 0, 1))
    axes.set(yticks=[], xticks=[-1, 0, 1])
    axes.set_xticklabels(["against", "0", "for"], fontsize=FONT_SIZE)
    axes.tick_params(length=2, pad=2)
