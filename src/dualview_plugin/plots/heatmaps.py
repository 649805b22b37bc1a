"""Signed heatmaps over images, in Zennit's colour maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots.images import Image, as_array, check_finite

# Zennit's own, from zero relevance in the middle to the largest on either side: (position, colour).
COLOR_MAPS = {
    "bwr": [(0.0, "#0000ff"), (128 / 255, "#ffffff"), (1.0, "#ff0000")],
    "france": [(0.0, "#0055a4"), (128 / 255, "#ffffff"), (1.0, "#ef4135")],
    "seismic": [(0.0, "#0000d0"), (128 / 255, "#d0d0d0"), (1.0, "#d00000")],
    "coolio": [(0.0, "#00d0d0"), (128 / 255, "#d0d0d0"), (1.0, "#d000d0")],
    "coleus": [(0.0, "#00d000"), (128 / 255, "#d0d0d0"), (1.0, "#d000d0")],
    "coldnhot": [
        (0.0, "#00ffff"),
        (64 / 255, "#0000ff"),
        (128 / 255, "#000000"),
        (170 / 255, "#ff0000"),
        (212 / 255, "#ffff00"),
        (1.0, "#ffffff"),
    ],
}


def color_map(name: str, owner: str) -> Colormap:
    """The colour map of this name, as Zennit draws it."""
    if not isinstance(name, str) or name not in COLOR_MAPS:
        raise InvalidValueError("cmap", owner, "one of " + ", ".join(map(repr, COLOR_MAPS)), repr(name))
    return LinearSegmentedColormap.from_list(name, COLOR_MAPS[name], N=256)


def pixel_relevance(relevance: Any, owner: str) -> Image:
    """Relevance of each pixel, summed over channels and divided by its largest size: (height, width) in [−1, 1]."""
    values = as_array(relevance).astype(float)
    if values.ndim == 3:
        values = values.sum(axis=0)
    if values.ndim != 2:
        raise InvalidValueError("relevance", owner, "(channels, height, width) for each image", str(values.shape))
    check_finite("relevance", values, owner)
    return values / max(float(np.abs(values).max()), 1e-30)


def overlay(image: Image, relevance: Image, colors: Colormap, owner: str) -> Image:
    """The heatmap over the faint, grey image: (height, width, 3). Where relevance is small, the image shows through.

    Args:
        image: as :func:`display_image` returns it.
        relevance: as :func:`pixel_relevance` returns it.
        colors: a colour map whose middle means zero.
        owner: the function that asks, for error messages.
    """
    if relevance.shape != image.shape[:2]:
        constraint = f"of the image's height and width, {image.shape[:2]}"
        raise InvalidValueError("relevance", owner, constraint, str(relevance.shape))
    grey = image if image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114])
    middle = np.asarray(colors(0.5))[:3]
    background = middle + 0.4 * (grey[:, :, None] - middle)
    opacity = np.sqrt(np.abs(relevance))[:, :, None]
    blended: Image = opacity * colors((relevance + 1) / 2)[:, :, :3] + (1 - opacity) * background
    return blended.clip(0, 1)
