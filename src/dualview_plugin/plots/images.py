"""Images, labels and attributions of any origin as the figures take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dualview_plugin.errors import InvalidValueError

Image: TypeAlias = "np.ndarray[Any, Any]"
ToDisplay: TypeAlias = "Callable[[Any], Any]"


def display_image(image: Tensor | Image, to_display: ToDisplay | None, owner: str) -> Image:
    """An image (channels, height, width) or (height, width) as ``imshow`` takes it, with values in [0, 1].

    Args:
        image: grey (no channel axis, or one channel) or colour (three channels).
        to_display: undoes the network's normalisation, image to image with values in [0, 1]; None: an image that
            leaves [0, 1] is stretched to it.
        owner: the function that asks, for the error message.

    Returns:
        (height, width) for grey, (height, width, 3) for colour.

    Raises:
        InvalidValueError: any other shape.
    """
    shown = as_array(image if to_display is None else to_display(image)).astype(float)
    if shown.ndim == 3 and shown.shape[0] in (1, 3):
        shown = shown[0] if shown.shape[0] == 1 else shown.transpose(1, 2, 0)
    elif shown.ndim != 2:
        constraint = "of shape (height, width), (1, height, width) or (3, height, width) each"
        raise InvalidValueError("images", owner, constraint, str(shown.shape))
    if not shown.size:
        raise InvalidValueError("images", owner, "of at least one pixel", f"shape {shown.shape}")
    check_finite("images", shown, owner)
    if to_display is None and (shown.min() < 0 or shown.max() > 1):
        shown = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12)
    return shown.clip(0, 1)


def as_array(values: Any) -> Image:
    """A NumPy array of a tensor on any device, or of anything that NumPy reads."""
    if not isinstance(values, Tensor):
        if isinstance(values, (list, tuple)) and any(isinstance(part, Tensor) for part in values):
            values = [as_array(part) for part in values]
        return np.asarray(values)
    tensor = values.detach().cpu()
    return tensor.float().numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()  # NumPy has no bfloat16


def image_at(images: Any, index: int) -> Tensor | Image:
    """The image at a position of an array, of a sequence, or of a dataset of ``(image, label)`` pairs."""
    item = images[index]
    image: Tensor | Image = item[0] if isinstance(item, (tuple, list)) else item
    return image


def label_text(labels: Sequence[object] | Tensor | None, index: int) -> str:
    """The label at a position as text; nothing where there are no labels."""
    if labels is None:
        return ""
    label = labels[index]
    return str(label.item() if isinstance(label, (Tensor, np.generic)) else label)


def point_title(label: str, attribution: float) -> str:
    """A training point's label above its signed attribution, three digits behind the point or as many that count."""
    size = abs(attribution)
    number = f"{attribution:+.3f}" if size == 0 or 1e-3 <= size < 1e4 else f"{attribution:+.1e}"
    return f"{label}\n{number}" if label else number


def check_points(
    points: tuple[Any, Any], n_test: int, training: Any, parameter: str, owner: str
) -> tuple[Image, Image]:
    """Indices of training points and finite attributions as arrays (n_test, k), the strongest first.

    Args:
        points: indices and attributions.
        n_test: number of test points.
        training: all training points; its length, if it has one, bounds the indices.
        parameter: ``"proponents"``, whose highest attributions are the strongest, or ``"opponents"``.
        owner: the function that asks.

    Raises:
        InvalidValueError: they are of other shapes, no positions of training points, or not finite.
    """
    try:
        indices, scores = (as_array(part) for part in points)
    except (TypeError, ValueError) as error:
        constraint = f"indices and attributions of one shape (n_test = {n_test}, k)"
        raise InvalidValueError(parameter, owner, constraint, str(error)) from error
    if indices.ndim != 2 or len(indices) != n_test or indices.shape != scores.shape:
        constraint = f"indices and attributions of one shape (n_test = {n_test}, k)"
        raise InvalidValueError(parameter, owner, constraint, f"shapes {indices.shape} and {scores.shape}")
    check_indices(indices, training, parameter, owner)
    check_finite(parameter, scores, owner)
    order = np.argsort(-scores if parameter == "proponents" else scores, axis=1, kind="stable")
    return np.take_along_axis(indices, order, 1), np.take_along_axis(scores, order, 1)


def check_indices(indices: Image, training: Any, parameter: str, owner: str) -> None:
    """Refuse what is no position of a training point."""
    if not np.issubdtype(indices.dtype, np.integer):
        raise InvalidValueError(parameter, owner, "indices that are integers", str(indices.dtype))
    n_train = _length(training)
    if indices.size and (indices.min() < 0 or (n_train is not None and indices.max() >= n_train)):
        constraint = "indices of training points, from 0 on" + ("" if n_train is None else f" to {n_train - 1}")
        raise InvalidValueError(parameter, owner, constraint, f"{indices.min()} to {indices.max()}")


def check_finite(parameter: str, values: Image, owner: str) -> None:
    """Refuse NaN and infinity, which have no place in a figure."""
    if not np.isfinite(values).all():
        raise InvalidValueError(parameter, owner, "finite", "NaN or infinity")


def check_labels(labels: Any, points: Any, parameter: str, owner: str) -> None:
    """Refuse labels that are more or fewer than the points, where both have a length."""
    found, wanted = _length(labels), _length(points)
    if found is not None and wanted is not None and found != wanted:
        raise InvalidValueError(parameter, owner, f"one for each of {wanted} points", f"{found}")


def _length(values: Any) -> int | None:
    """The length; None of what has none, and of a mapping, which may hold some positions only."""
    return len(values) if hasattr(values, "__len__") and not isinstance(values, Mapping) else None
