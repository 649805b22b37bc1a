"""The figure holds what the arrays say: which images, in which place, with which label and attribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.influence._utils.common import KMostInfluentialResults
from matplotlib import colors
from torch.utils.data import TensorDataset

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots import plot_training_points

N_TEST, N_TRAIN, K, HEIGHT, WIDTH = 2, 11, 3, 5, 7
PROPONENTS = KMostInfluentialResults(
    torch.tensor([[4, 0, 7], [2, 5, 1]]), torch.tensor([[3.0, 2.0, 1.0], [0.5, 0.25, 0.0]])
)
OPPONENTS = KMostInfluentialResults(
    torch.tensor([[1, 3, 10], [8, 6, 0]]), torch.tensor([[-0.5, -0.25, -0.125], [-3e-5, 0.0, 0.1]])
)


def _images(n: int, channels: int) -> torch.Tensor:
    return torch.rand(n, channels, HEIGHT, WIDTH)


def _cells(figure):
    return {tuple(map(int, axes.get_label().split(","))): axes for axes in figure.axes}


@pytest.mark.parametrize("channels", [1, 3])
def test_each_cell_holds_its_image_label_and_attribution(channels):
    test, train, labels = _images(N_TEST, channels), _images(N_TRAIN, channels), torch.arange(N_TRAIN) + 20
    figure = plot_training_points(test, train, PROPONENTS, OPPONENTS, train_labels=labels, test_labels=["a", "b"])
    cells = _cells(figure)
    for row in range(N_TEST):
        assert cells[row, 0, 0].get_title() == "ab"[row]
        _assert_shows(cells[row, 0, 0], test[row])
        for group, points in ((1, PROPONENTS), (2, OPPONENTS)):
            for column, (index, score) in enumerate(zip(*(part[row].tolist() for part in points), strict=True)):
                if (score > 0) == (group == 1) and score != 0:
                    _assert_shows(cells[row, group, column], train[index])
                    assert cells[row, group, column].get_title().split("\n")[0] == str(20 + index)
                    assert float(cells[row, group, column].get_title().split("\n")[1]) == pytest.approx(score, abs=1e-3)
                else:
                    assert (row, group, column) not in cells
    assert cells[1, 2, 0].get_title() == "28\n-3.0e-05"


def _assert_shows(axes, image):
    (shown,) = axes.get_images()
    expected = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    np.testing.assert_allclose(shown.get_array(), expected.numpy(), rtol=1e-5)


def test_proponents_are_framed_red_and_opponents_blue():
    cells = _cells(plot_training_points(_images(N_TEST, 1), _images(N_TRAIN, 1), PROPONENTS, OPPONENTS))
    red, _, blue = colors.to_rgb(cells[0, 1, 0].spines["left"].get_edgecolor())
    assert red > blue
    red, _, blue = colors.to_rgb(cells[0, 2, 0].spines["left"].get_edgecolor())
    assert blue > red
    assert not cells[0, 0, 0].spines["left"].get_visible()


def test_headings_name_the_groups_that_are_there():
    test, train = _images(N_TEST, 1), _images(N_TRAIN, 1)
    assert [text.get_text() for text in plot_training_points(test, train, PROPONENTS).texts] == ["proponents"]
    figure = plot_training_points(test, train, PROPONENTS, OPPONENTS)
    assert [text.get_text() for text in figure.texts] == ["proponents", "opponents"]


def test_a_dataset_an_array_and_a_list_give_one_figure():
    test, train = _images(N_TEST, 1), _images(N_TRAIN, 1)
    dataset = TensorDataset(train, torch.zeros(N_TRAIN))
    figures = [
        plot_training_points(test, form, PROPONENTS) for form in (train, train[:, 0].numpy(), dataset, list(train))
    ]
    for figure in figures:
        _assert_shows(_cells(figure)[1, 1, 0], train[2])


def test_normalisation_is_undone_for_display():
    test, train = _images(N_TEST, 3), _images(N_TRAIN, 3)
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.25])[:, None, None]
    normalised = (test - mean) / std, (train - mean) / std
    figure = plot_training_points(*normalised, PROPONENTS, to_display=lambda image: image * std + mean)
    _assert_shows(_cells(figure)[0, 0, 0], test[0])
    _assert_shows(_cells(figure)[0, 1, 1], train[0])
    stretched = _cells(plot_training_points(*normalised, PROPONENTS))[0, 0, 0].get_images()[0].get_array()
    assert (stretched.min(), stretched.max()) == (0, 1)


def test_titles_and_images_do_not_overlap():
    labels = [f"class {index}" for index in range(N_TRAIN)]
    figure = plot_training_points(_images(N_TEST, 1), _images(N_TRAIN, 1), PROPONENTS, OPPONENTS, train_labels=labels)
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    boxes += [axes.get_window_extent() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            (torch.zeros(3, 2), torch.zeros(3, 2)),
            r"proponents of plot_training_points must be indices and attributions of",
        ),
        ((torch.zeros(2, 2), torch.zeros(2, 3)), r"got shapes \(2, 2\) and \(2, 3\)"),
    ],
)
def test_points_that_do_not_fit_the_test_images_are_refused(points, message):
    with pytest.raises(InvalidValueError, match=message):
        plot_training_points(_images(N_TEST, 1), _images(N_TRAIN, 1), points)


def test_the_strongest_come_first_in_whatever_order_they_are_given() -> None:
    images = _images(4, 1)
    figure = plot_training_points(images[:1], images, ([[1, 3]], [[0.1, 0.5]]), ([[0, 2]], [[-0.1, -0.5]]))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["+0.500", "+0.100", "-0.500", "-0.100"]


def test_test_images_may_be_a_dataset() -> None:
    images = torch.as_tensor(_images(4, 1))
    data = torch.utils.data.TensorDataset(images[:1], torch.zeros(1))
    figures = [plot_training_points(test, images, ([[1]], [[0.5]])) for test in (images[:1], data)]
    shown = [figure.axes[0].images[0].get_array() for figure in figures]
    np.testing.assert_array_equal(*shown)


def test_images_without_pixels_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="images of plot_training_points must be of at least one pixel"):
        plot_training_points(np.zeros((1, 0, 7)), _images(3, 1), ([[1]], [[0.5]]))


def test_images_of_another_shape_are_refused():
    with pytest.raises(InvalidValueError, match=r"images of plot_training_points must be of shape .* got \(2, 5, 7\)"):
        plot_training_points(_images(N_TEST, 2), _images(N_TRAIN, 2), PROPONENTS)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (([[-1]], [[0.5]]), {}, r"proponents of plot_training_points must be indices .* to 2, got -1 to -1"),
        (([[3]], [[0.5]]), {}, r"proponents of plot_training_points must be indices .* to 2, got 3 to 3"),
        (([[1.0]], [[0.5]]), {}, "proponents of plot_training_points must be indices that are integers, got float64"),
        (
            ([[1], [2, 3]], [[0.5]]),
            {},
            "proponents of plot_training_points must be indices and attributions of one shape",
        ),
        (([[1]], [[np.nan]]), {}, "proponents of plot_training_points must be finite"),
        (([[1]], [[0.5]]), {"train_labels": "ab"}, "train_labels of plot_training_points must be one for each of 3"),
        (([[1]], [[0.5]]), {"train_labels": "abcd"}, "train_labels of plot_training_points must be one for each of 3"),
        (([[1]], [[0.5]]), {"test_labels": "ab"}, "test_labels of plot_training_points must be one for each of 1"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(points, options, message):
    with pytest.raises(InvalidValueError, match=message):
        plot_training_points(_images(1, 1), _images(3, 1), points, **options)


def test_images_with_nan_are_refused():
    with pytest.raises(InvalidValueError, match="images of plot_training_points must be finite"):
        plot_training_points(torch.full((1, 1, 3, 3), torch.nan), _images(3, 1), ([[1]], [[0.5]]))
