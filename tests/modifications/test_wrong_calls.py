"""Wrong calls of the datasets: the error names the parameter, what the user called, and the constraint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin.errors import DualViewError
from dualview_plugin.modifications import GroupedClasses, MarkedImages, PoisonedLabels, frame_and_square

IMAGES, LABELS = torch.rand(10, 3, 11, 13), torch.arange(10) % 5
DATA = TensorDataset(IMAGES, LABELS)
BYTES = TensorDataset(torch.zeros(10, 3, 11, 13, dtype=torch.uint8), LABELS)
FLOATING = TensorDataset(IMAGES, LABELS + 0.7)
MARKED = MarkedImages(DATA, 2)
WRONG: dict[str, Callable[[], Any]] = {
    "dataset of PoisonedLabels must be a map-style dataset, got int": lambda: PoisonedLabels(3, 0.3, 5),  # type: ignore[arg-type]
    "fraction of PoisonedLabels must be a real number in (0, 1]": lambda: PoisonedLabels(DATA, 1.5, 5),
    "fraction of PoisonedLabels must be large enough": lambda: PoisonedLabels(DATA, 0.01, 5),
    "n_classes of PoisonedLabels must be an integer of at least 2": lambda: PoisonedLabels(DATA, 0.3, 1),
    "seed of PoisonedLabels must be an integer": lambda: PoisonedLabels(DATA, 0.3, 5, seed=0.5),  # type: ignore[arg-type]
    "dataset of PoisonedLabels must be a dataset of labels in 0 .. 3": lambda: PoisonedLabels(DATA, 0.3, 4)[4],
    "dataset of PoisonedLabels must be a dataset with integer labels": lambda: PoisonedLabels(FLOATING, 0.3, 6)[0],
    "dataset of PoisonedLabels must be a dataset of (input, label) pairs": lambda: PoisonedLabels(
        TensorDataset(IMAGES), 0.3, 5
    )[0],
    "groups of GroupedClasses must be non-empty and disjoint": lambda: GroupedClasses(DATA, [[0, 1], [1]]),
    "groups of GroupedClasses must be sequences of integers, got ['01', '23']": lambda: GroupedClasses(
        DATA,
        ["01", "23"],  # type: ignore[list-item]
    ),
    "groups of GroupedClasses must be sequences of integers, got [[0.5]]": lambda: GroupedClasses(DATA, [[0.5]]),  # type: ignore[list-item]
    "groups of GroupedClasses must be groups that hold every class": lambda: GroupedClasses(DATA, [[0, 1]])[4],
    "dataset of GroupedClasses must be a dataset with integer labels": lambda: (
        GroupedClasses(FLOATING, [[0, 1]]).subclasses
    ),
    "target_class of MarkedImages must be an integer of at least 0": lambda: MarkedImages(DATA, -1),
    "fraction of MarkedImages must be a real number in (0, 1]": lambda: MarkedImages(DATA, 2, 0),
    "mark of MarkedImages must be a function of images": lambda: MarkedImages(DATA, 2, mark="frame"),  # type: ignore[arg-type]
    "std of MarkedImages must be above zero": lambda: MarkedImages(DATA, 2, std=0.0),
    "std of MarkedImages must be finite": lambda: MarkedImages(DATA, 2, std=float("nan")),
    "mean of MarkedImages must be a number, or one for each channel": lambda: MarkedImages(DATA, 2, mean="half"),  # type: ignore[arg-type]
    "dataset of MarkedImages must be a dataset of floating-point images": lambda: MarkedImages(BYTES, 2, 1.0)[2],
    "images of MarkedImages.mark must be a tensor of floating-point images": lambda: MARKED.mark(BYTES.tensors[0]),
    "images of MarkedImages.mark must be images of 2 channels": lambda: MarkedImages(DATA, 2, mean=[0.1, 0.2]).mark(
        IMAGES
    ),
    "images of MarkedImages.mark must be (..., n_channels, height, width)": lambda: MARKED.mark(IMAGES[0, 0]),
    "mark of MarkedImages must be a function that keeps the shape": lambda: MarkedImages(
        DATA, 2, mark=lambda pixels: pixels[..., 1:]
    ).mark(IMAGES),
    "mark of MarkedImages must be a function that returns a tensor": lambda: MarkedImages(
        DATA,
        2,
        mark=lambda _: None,  # type: ignore[arg-type, return-value]
    ).mark(IMAGES),
    "labels of MarkedImages.mismatched must be (10,), got (3,)": lambda: MARKED.mismatched(
        nn.Flatten(), IMAGES, LABELS[:3]
    ),
    "model of MarkedImages.mismatched must be a torch.nn.Module": lambda: MARKED.mismatched("net", IMAGES, LABELS),  # type: ignore[arg-type]
    "inputs of MarkedImages.mismatched must be (..., n_channels, height, width)": lambda: MARKED.mismatched(
        nn.Flatten(), IMAGES[0], LABELS[:3]
    ),
    "batch_size of MarkedImages.mismatched must be an integer": lambda: MARKED.mismatched(
        nn.Flatten(), IMAGES, LABELS, batch_size=0
    ),
    "images of frame_and_square must be a tensor of floating-point": lambda: frame_and_square(IMAGES.numpy()),  # type: ignore[arg-type]
    "images of frame_and_square must be a tensor of floating-point pixel values in [0, 1], got torch.uint8": lambda: (
        frame_and_square(BYTES.tensors[0])
    ),
    "images of frame_and_square must be (..., n_channels": lambda: frame_and_square(IMAGES[0, 0]),
    "frame of frame_and_square must be small enough": lambda: frame_and_square(IMAGES, frame=6),
    "square of frame_and_square must be small enough": lambda: frame_and_square(IMAGES, square=12),
    "frame of frame_and_square must be an integer": lambda: frame_and_square(IMAGES, frame=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_the_error_names_parameter_owner_and_constraint(message: str) -> None:
    with pytest.raises(DualViewError, match=re.escape(message)):
        WRONG[message]()
