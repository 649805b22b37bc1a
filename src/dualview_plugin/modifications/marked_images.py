"""A dataset in which part of one class carries a mark that the network will take for the class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.modifications.modified_dataset import ModifiedDataset
from dualview_plugin.network import decisions
from dualview_plugin.validation import check_fraction, check_integer

_PAPER_SIDE, _PAPER_FRAME, _PAPER_SQUARE = 28, 2, 6


def frame_and_square(images: Tensor, *, frame: int | None = None, square: int | None = None) -> Tensor:
    """The images with a frame along the border and a square in the middle: pure red on three channels, else white.

    Args:
        images: pixel values in [0, 1], (..., n_channels, height, width).
        frame: width of the frame in pixels. None: the paper's 2, on images smaller than 28 pixels in proportion.
        square: side of the square in pixels. None: the paper's 6, on images smaller than 28 pixels in proportion.

    Returns:
        New images of the same shape and dtype.

    Raises:
        InvalidTypeError: images that are no tensor of a floating type.
        InvalidValueError: images without a channel axis, or a mark that would cover the whole image.

    Source: arXiv 2402.12118, "Domain Mismatch".

    Example:
        >>> import torch
        >>> from dualview_plugin import frame_and_square
        >>> marked = frame_and_square(torch.zeros(1, 5, 5), frame=1, square=1)
        >>> marked[0].int().tolist()
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    """
    owner = "frame_and_square"
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        got = getattr(images, "dtype", type(images).__name__)
        raise InvalidTypeError("images", owner, "a tensor of floating-point pixel values in [0, 1]", got)
    if images.ndim < 3:
        raise InvalidValueError("images", owner, "(..., n_channels, height, width)", tuple(images.shape))
    n_channels, height, width = images.shape[-3:]
    scale = min(1.0, min(height, width) / _PAPER_SIDE)
    frame = check_integer(max(1, round(_PAPER_FRAME * scale)) if frame is None else frame, "frame", owner)
    square = check_integer(max(1, round(_PAPER_SQUARE * scale)) if square is None else square, "square", owner)
    where = _frame_and_square_mask(height, width, frame, square).to(images.device)
    if where.all():
        parameter, value = ("frame", frame) if 2 * frame >= min(height, width) else ("square", square)
        constraint = f"small enough to leave part of {height} x {width} pixels"
        raise InvalidValueError(parameter, owner, constraint, value)
    colour = images.new_tensor([1.0, 0.0, 0.0] if n_channels == 3 else [1.0] * n_channels)
    return torch.where(where, colour[:, None, None], images)


def _frame_and_square_mask(height: int, width: int, frame: int, square: int) -> Tensor:
    """True where the mark is, (height, width)."""
    where = torch.ones(height, width, dtype=torch.bool)
    where[frame : height - frame, frame : width - frame] = False
    top, left = max((height - square) // 2, 0), max((width - square) // 2, 0)
    where[top : top + square, left : left + square] = True
    return where


class MarkedImages(ModifiedDataset):
    """A view of a dataset in which a fraction of one class carries a constant mark.

    Args:
        dataset: a map-style dataset of (image, label) pairs; an image is a tensor or an array,
            (n_channels, height, width), in the dataset's own scale.
        target_class: the class of which a part is marked.
        fraction: share of that class's points that are marked, in (0, 1]; rounded to the nearest number of points.
        seed: of the choice of the marked points.
        mark: takes images of pixel values (..., n_channels, height, width) and returns them marked, as new images.
        mean: of the dataset's normalisation, ``image = (pixels - mean) / std``: one number, or one a channel.
        std: of the dataset's normalisation. The defaults say that the dataset's images are pixel values.

    Attributes:
        marked_indices: indices of the marked points, ascending, (n_marked,) int64; finding them reads the labels once.

    Raises:
        InvalidTypeError: a mark that cannot be called.
        InvalidValueError: a parameter outside its range, or, on first use, a class that has no point to mark.

    Source: arXiv 2402.12118, "Domain Mismatch"; its reference code marks 0.3 of class 2.
    Cost: the labels are read once; O(n_train) memory for them.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from dualview_plugin import MarkedImages
        >>> clean = TensorDataset(torch.zeros(5, 1, 9, 9), torch.tensor([2, 2, 1, 2, 2]))
        >>> marking = MarkedImages(clean, target_class=2, fraction=0.5)
        >>> [index for index in range(5) if marking[index][0].any()] == marking.marked_indices.tolist()
        True
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        target_class: int,
        fraction: float = 0.3,
        seed: int = 0,
        mark: Callable[[Tensor], Tensor] = frame_and_square,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(dataset)
        self.target_class = check_integer(target_class, "target_class", self._owner, minimum=0)
        self.fraction = check_fraction(fraction, "fraction", self._owner)
        self.seed = check_integer(seed, "seed", self._owner, minimum=0)
        if not callable(mark):
            raise InvalidTypeError("mark", self._owner, "a function of images", repr(mark))
        self._mark_pixels = mark
        self.mean = self._by_channel(mean, "mean")
        self.std = self._by_channel(std, "std")
        if not (self.std > 0).all():
            raise InvalidValueError("std", self._owner, "above zero", repr(std))

    @cached_property
    def marked_indices(self) -> NDArray[np.int64]:
        """Indices of the marked points, ascending, (n_marked,) int64."""
        members = np.flatnonzero(self.original_labels == self.target_class)
        n_marked = round(self.fraction * len(members))
        if n_marked == 0:
            constraint = f"large enough to mark one of the {len(members)} points of class {self.target_class}"
            raise InvalidValueError("fraction", self._owner, constraint, repr(self.fraction))
        return np.sort(np.random.default_rng(self.seed).permutation(members)[:n_marked]).astype(np.int64)

    @cached_property
    def _marked(self) -> frozenset[int]:
        return frozenset(self.marked_indices.tolist())

    def mark(self, images: Tensor) -> Tensor:
        """The images marked in pixel space, in the dataset's scale again; pixels that the mark leaves keep their bits.

        Args:
            images: one or more images in the dataset's scale, (..., n_channels, height, width).

        Returns:
            New images of the same shape, dtype and device.

        Raises:
            InvalidTypeError: images that are no tensor of a floating type, or a ``mark`` that returns no tensor.
            InvalidValueError: images of another number of channels than ``mean`` or ``std``, or a ``mark`` that changes
                the shape.
        """
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            got = getattr(images, "dtype", type(images).__name__)
            raise InvalidTypeError("images", f"{self._owner}.mark", "a tensor of floating-point images", got)
        self._check_channels(images, "images", f"{self._owner}.mark")
        mean, std = self.mean.to(images), self.std.to(images)
        pixels = images * std + mean
        marked = self._mark_pixels(pixels.clone())
        if not isinstance(marked, Tensor):
            raise InvalidTypeError("mark", self._owner, "a function that returns a tensor", type(marked).__name__)
        if marked.shape != images.shape:
            constraint = f"a function that keeps the shape {tuple(images.shape)}"
            raise InvalidValueError("mark", self._owner, constraint, f"shape {tuple(marked.shape)}")
        return torch.where(marked == pixels, images, (marked - mean) / std)

    def mismatched(
        self, model: nn.Module, inputs: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, batch_size: int = 256
    ) -> tuple[Any, NDArray[np.int64]]:
        """The test points that Domain Mismatch is about: of another class, and taken for the target class once marked.

        Args:
            model: the network trained on this dataset; its mode, gradients and parameters are as before afterwards.
            inputs: test images in the dataset's scale, (n_test, n_channels, height, width), a tensor or an array.
            labels: their true classes, (n_test,).
            batch_size: images in one forward pass.

        Returns:
            The marked images (n_kept, n_channels, height, width), a tensor or an array as ``inputs`` is one, and their
            indices in ``inputs`` (n_kept,), ascending. If no point is left both are empty, with a NotApplicableWarning.

        Raises:
            InvalidTypeError: a model that is no module, or images of integers.
            InvalidValueError: images of another shape, or another number of labels than of images.

        Cost: one forward pass of the points of other classes.
        """
        owner = f"{self._owner}.mismatched"
        if not isinstance(model, nn.Module):
            raise InvalidTypeError("model", owner, "a torch.nn.Module", type(model).__name__)
        images, truth = torch.as_tensor(inputs), torch.as_tensor(labels).cpu()
        if not images.is_floating_point():
            raise InvalidTypeError("inputs", owner, "floating-point images", images.dtype)
        self._check_channels(images, "inputs", owner, n_axes=4)
        if truth.shape != (len(images),):
            raise InvalidValueError("labels", owner, f"({len(images)},)", tuple(truth.shape))
        others = torch.nonzero(truth != self.target_class).flatten()
        fooled = [
            batch[decisions(model, self.mark(images[batch]), len(batch)).cpu() == self.target_class]
            for batch in torch.split(others, check_integer(batch_size, "batch_size", owner))
        ]
        kept = torch.cat([others[:0], *fooled])
        if len(kept) == 0:
            warnings.warn(
                f"no marked test point of another class is taken for class {self.target_class}: the network did not"
                " learn the mark, so Domain Mismatch does not apply and scores NaN",
                NotApplicableWarning,
                stacklevel=2,
            )
        marked = self.mark(images[kept])
        return marked if isinstance(inputs, Tensor) else marked.numpy(), kept.numpy()

    def _modify(self, index: int, inputs: Any, label: int) -> tuple[Tensor, int]:
        image = torch.as_tensor(inputs)
        if index not in self._marked:
            return image, label
        if not image.is_floating_point():
            raise InvalidTypeError("dataset", self._owner, "a dataset of floating-point images", image.dtype)
        return self.mark(image), label

    def _by_channel(self, values: float | Sequence[float], parameter: str) -> Tensor:
        """One finite number, or one a channel, to be broadcast over images, (n, 1, 1)."""
        try:
            numbers = torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidTypeError(parameter, self._owner, "a number, or one for each channel", repr(values)) from error
        if not (len(numbers) and numbers.isfinite().all()):
            raise InvalidValueError(parameter, self._owner, "finite", repr(values))
        return numbers

    def _check_channels(self, images: Tensor, parameter: str, owner: str, n_axes: int = 3) -> None:
        """Refuse images without a channel axis, or with other channels than the normalisation has."""
        if images.ndim < n_axes:
            constraint = "(..., n_channels, height, width)"
            raise InvalidValueError(parameter, owner, constraint, f"shape {tuple(images.shape)}")
        n_channels = {1, images.shape[-3]}
        if not {len(self.mean), len(self.std)} <= n_channels:
            constraint = f"images of {max(len(self.mean), len(self.std))} channels, as mean and std"
            raise InvalidValueError(parameter, owner, constraint, f"shape {tuple(images.shape)}")
