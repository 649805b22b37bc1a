"""Test images beside the training images that speak most for and against the network's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dualview_plugin.plots.image_grid import FRAME_COLORS, HEADING, TITLE, ImageGrid, show_image
from dualview_plugin.plots.images import (
    Image,
    ToDisplay,
    check_labels,
    check_points,
    display_image,
    image_at,
    label_text,
    point_title,
)

_OWNER = "plot_training_points"


def plot_training_points(
    test_images: Tensor | Image,
    train_images: Any,
    proponents: tuple[Any, Any],
    opponents: tuple[Any, Any] | None = None,
    *,
    train_labels: Sequence[object] | Tensor | None = None,
    test_labels: Sequence[object] | Tensor | None = None,
    to_display: ToDisplay | None = None,
) -> Figure:
    r"""A figure with one row for each test image: the image, its strongest proponents, its strongest opponents.

    Above each training image stand its label and its attribution, proponents framed red, opponents blue, the strongest
    first. A proponent with an attribution ≤ 0 is not drawn, nor is an opponent with one ≥ 0. So a sparse method may
    show fewer than k.

    Args:
        test_images: (n_test, channels, height, width), or (n_test, height, width) for grey; or a dataset.
        train_images: what gives the image of training point i as ``train_images[i]``: an array, or a dataset, whose
            ``(image, label)`` pairs are taken apart.
        proponents: indices and attributions, both (n_test, k), as ``influence(inputs, k)`` returns them.
        opponents: likewise, as ``influence(inputs, k, proponents=False)`` returns them; None: none are drawn.
        train_labels: labels or class names of all training points, (n_train,); None: attributions alone.
        test_labels: what to write above each test image, (n_test,), such as the explained class; None: nothing.
        to_display: undoes the network's normalisation: an image (channels, height, width) to one with values in [0, 1].
            None: an image outside [0, 1] is stretched to it.

    Raises:
        InvalidValueError: indices, attributions or labels that do not fit the images, images of another shape, NaN.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), figures 1 and 2.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import plot_training_points
        >>> images = np.linspace(0, 1, 5 * 7 * 7).reshape(5, 7, 7)
        >>> figure = plot_training_points(images[:1], images, ([[3, 1]], [[0.5, 0.2]]), train_labels=list("abcde"))
        >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
        ['d\n+0.500', 'b\n+0.200']
    """
    n_test = len(test_images)
    check_labels(test_labels, test_images, "test_labels", _OWNER)
    check_labels(train_labels, train_images, "train_labels", _OWNER)
    groups = {"proponents": check_points(proponents, n_test, train_images, "proponents", _OWNER)}
    if opponents is not None:
        groups["opponents"] = check_points(opponents, n_test, train_images, "opponents", _OWNER)
    rooms = [HEADING + TITLE, *[TITLE] * (n_test - 1)]
    grid = ImageGrid(rooms, [1, *(indices.shape[1] for indices, _ in groups.values())])
    for row in range(n_test):
        image = display_image(image_at(test_images, row), to_display, _OWNER)
        show_image(grid.cell(row, 0, 0), image, label_text(test_labels, row))
    for group, (name, (indices, scores)) in enumerate(groups.items(), start=1):
        grid.heading(0, group, name, FRAME_COLORS[name])
        for row, column in np.argwhere(scores > 0 if name == "proponents" else scores < 0):
            index, score = int(indices[row, column]), float(scores[row, column])
            image = display_image(image_at(train_images, index), to_display, _OWNER)
            title = point_title(label_text(train_labels, index), score)
            show_image(grid.cell(row, group, column), image, title, FRAME_COLORS[name])
    return grid.figure
