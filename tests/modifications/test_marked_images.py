"""MarkedImages and its default mark: which points, which pixels, in which scale, and the test points of the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.modifications import MarkedImages, PoisonedLabels, frame_and_square

N_TRAIN, HEIGHT, WIDTH = 41, 11, 13


def dataset(n_channels: int = 1, n_train: int = N_TRAIN) -> TensorDataset:
    return TensorDataset(torch.rand(n_train, n_channels, HEIGHT, WIDTH), torch.arange(n_train) % 4)


def slow_frame_and_square(image: Tensor, frame: int, square: int) -> Tensor:
    """Pixel by pixel: the obvious reference."""
    marked = image.clone()
    n_channels, height, width = image.shape
    top, left = (height - square) // 2, (width - square) // 2
    for channel in range(n_channels):
        for row in range(height):
            for column in range(width):
                in_frame = row < frame or row >= height - frame or column < frame or column >= width - frame
                in_square = top <= row < top + square and left <= column < left + square
                if in_frame or in_square:
                    marked[channel, row, column] = 0.0 if n_channels == 3 and channel > 0 else 1.0
    return marked


@pytest.mark.parametrize(("shape", "frame", "square"), [((1, 28, 28), 2, 6), ((3, 32, 32), 2, 6), ((5, 29, 37), 2, 6)])
def test_default_mark_is_the_papers(shape: tuple[int, ...], frame: int, square: int) -> None:
    image = torch.rand(shape)
    assert torch.equal(frame_and_square(image), slow_frame_and_square(image, frame, square))


@pytest.mark.parametrize(("frame", "square"), [(1, 1), (3, 4), (1, 7), (4, 2)])
def test_mark_of_a_given_size(frame: int, square: int) -> None:
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    marked = frame_and_square(images, frame=frame, square=square)
    for image, expected in zip(marked, images, strict=True):
        assert torch.equal(image, slow_frame_and_square(expected, frame, square))


@pytest.mark.parametrize(("side", "frame", "square"), [(8, 1, 2), (14, 1, 3), (27, 2, 6), (28, 2, 6), (224, 2, 6)])
def test_mark_shrinks_with_images_smaller_than_the_papers(side: int, frame: int, square: int) -> None:
    image = torch.rand(1, side, side)
    assert torch.equal(frame_and_square(image), frame_and_square(image, frame=frame, square=square))


def test_refuses_a_mark_over_the_whole_image_and_images_without_channels() -> None:
    with pytest.raises(InvalidValueError, match=r"square of frame_and_square must be .* of 8 x 8 pixels, got 6"):
        frame_and_square(torch.rand(1, 8, 8), frame=2, square=6)
    with pytest.raises(InvalidValueError, match="images of frame_and_square must be"):
        frame_and_square(torch.rand(8, 8))


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_marks_the_named_points_and_no_others(n_channels: int) -> None:
    clean = dataset(n_channels)
    marking = MarkedImages(clean, target_class=2, fraction=0.3, seed=1)
    assert len(marking.marked_indices) == 3  # of the 10 points of class 2
    for index in range(N_TRAIN):
        image, label = marking[index]
        expected = frame_and_square(clean[index][0]) if index in marking.marked_indices else clean[index][0]
        assert label == clean[index][1]
        torch.testing.assert_close(image, expected, rtol=0, atol=0)
    assert set(clean.tensors[1][marking.marked_indices].tolist()) == {2}


def test_the_seed_alone_decides() -> None:
    first, again, other = (MarkedImages(dataset(), 2, 0.5, seed).marked_indices for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_mark_goes_through_the_normalisation() -> None:
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    pixels = torch.rand(7, 3, HEIGHT, WIDTH)
    scale = torch.tensor(std)[:, None, None], torch.tensor(mean)[:, None, None]
    normalised = (pixels - scale[1]) / scale[0]
    marking = MarkedImages(TensorDataset(normalised, torch.zeros(7, dtype=torch.int64)), 0, mean=mean, std=std)
    marked = marking.mark(normalised)
    torch.testing.assert_close(marked * scale[0] + scale[1], frame_and_square(pixels))
    untouched = frame_and_square(torch.zeros_like(pixels)) == frame_and_square(torch.ones_like(pixels)) - 1
    assert torch.equal(marked[untouched], normalised[untouched])  # not merely close


def test_a_mark_of_the_users_own_and_arrays_as_images() -> None:
    images = torch.zeros(5, 2, HEIGHT, WIDTH, dtype=torch.float64)

    class Arrays(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            return images[index].numpy(), 0

    marking = MarkedImages(Arrays(images), 0, fraction=1, mark=lambda pixels: pixels.add_(0.25), std=0.5)
    assert torch.equal(marking[3][0], torch.full((2, HEIGHT, WIDTH), 0.5, dtype=torch.float64))
    assert not images.any()  # although the mark writes in place


def test_wraps_another_modification() -> None:
    poisoned = PoisonedLabels(dataset(), 0.5, n_classes=4)
    marking = MarkedImages(poisoned, 1, fraction=1)
    np.testing.assert_array_equal(marking.marked_indices, np.flatnonzero(poisoned_labels(poisoned) == 1))


def poisoned_labels(poisoned: PoisonedLabels) -> np.ndarray:
    return np.array([poisoned[index][1] for index in range(len(poisoned))])


class CornerModel(nn.Module):
    """Class 2 for a white corner, else class 0; it reports what it sees, and of its own mode, to a function."""

    def __init__(self, report: Callable[[tuple[int, bool]], object] = lambda _: None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.9)
        self.report = report

    def forward(self, images: Tensor) -> Tensor:
        self.report((len(images), self.dropout.training))
        corner = images[:, 0, 0, 0] * images[:, 0, HEIGHT // 2, WIDTH // 2] * (images[:, 0, 3, 3] > 0.5)
        return self.scale * torch.stack([torch.full_like(corner, 0.5), torch.zeros_like(corner), corner], dim=1)


def test_mismatched_are_points_of_other_classes_now_taken_for_the_target() -> None:
    seen: list[tuple[int, bool]] = []
    data, model = dataset(), CornerModel(seen.append)
    images, labels = data.tensors
    model.dropout.train(False)
    marking = MarkedImages(data, target_class=2)
    marked, indices = marking.mismatched(model, images, labels, batch_size=5)
    expected = [i for i in range(N_TRAIN) if labels[i] != 2 and images[i, 0, 3, 3] > 0.5]
    assert indices.tolist() == expected
    assert torch.equal(marked, frame_and_square(images[indices]))
    assert sum(size for size, _ in seen) == int((labels != 2).sum())
    assert max(size for size, _ in seen) == 5
    assert model.training
    assert not model.dropout.training
    assert model.scale.grad is None


def test_mismatched_returns_arrays_for_arrays_and_any_batch_size() -> None:
    data, model = dataset(), CornerModel()
    images, labels = data.tensors
    marking = MarkedImages(data, target_class=2)
    marked, indices = marking.mismatched(model, images.numpy(), labels.numpy(), batch_size=64)
    expected, expected_indices = marking.mismatched(model, images, labels, batch_size=1)
    assert isinstance(marked, np.ndarray)
    np.testing.assert_array_equal(marked, expected.numpy())
    np.testing.assert_array_equal(indices, expected_indices)


def test_mismatched_warns_when_no_point_is_left() -> None:
    data = dataset()
    with pytest.warns(NotApplicableWarning, match="no marked test point of another class is taken for class 1"):
        marked, indices = MarkedImages(data, target_class=1).mismatched(CornerModel(), *data.tensors)
    assert marked.shape == (0, 1, HEIGHT, WIDTH)
    assert len(indices) == 0


def test_mismatched_restores_the_mode_after_an_error() -> None:
    class Broken(CornerModel):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        MarkedImages(dataset(), target_class=2).mismatched(model, *dataset().tensors)
    assert model.training
    assert model.dropout.training


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_class": -1}, "target_class of MarkedImages must be an integer of at least 0"),
        ({"fraction": 0}, r"fraction of MarkedImages must be a real number in \(0, 1\]"),
        ({"std": [1.0, 0.0]}, "std of MarkedImages must be above zero"),
        ({"seed": -1}, "seed of MarkedImages must be"),
    ],
)
def test_refuses_values_outside_their_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        MarkedImages(dataset(), **{"target_class": 2, **wrong})


def test_refuses_a_class_without_points_and_a_mark_that_does_not_fit() -> None:
    with pytest.raises(InvalidValueError, match="one of the 0 points of class 9"):
        MarkedImages(dataset(), 9).marked_indices  # noqa: B018 - the property reads the labels
    with pytest.raises(InvalidTypeError, match="mark of MarkedImages must be a function"):
        MarkedImages(dataset(), 2, mark="frame")
    with pytest.raises(InvalidValueError, match="a function that keeps the shape"):
        MarkedImages(dataset(), 2, mark=lambda pixels: pixels[..., 1:]).mark(torch.rand(1, HEIGHT, WIDTH))
    with pytest.raises(InvalidTypeError, match=r"images of MarkedImages.mark must be .*, got torch\.uint8"):
        MarkedImages(dataset(), 2).mark(torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8))
    with pytest.raises(InvalidValueError, match=r"labels of MarkedImages.mismatched must be \(41,\), got \(3,\)"):
        MarkedImages(dataset(), 2).mismatched(CornerModel(), dataset().tensors[0], torch.zeros(3))
