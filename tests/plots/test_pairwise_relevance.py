"""The figure holds what the arrays say: images, heatmaps, labels, attributions; colours are Zennit's and symmetric."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from zennit.image import palette

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.plots import plot_pairwise_relevance
from dualview_plugin.plots.heatmaps import COLOR_MAPS, color_map, overlay, pixel_relevance

N_TRAIN, HEIGHT, WIDTH = 11, 5, 7
ATTRIBUTION, INDICES = [0.5, 2.0, -0.25, 0.0, -3.0], [3, 1, 10, 7, 0]


def pairs_of(channels: int, which: slice = slice(None)) -> SimpleNamespace:
    shape = (len(INDICES), channels, HEIGHT, WIDTH)
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        test_relevance=torch.randn(shape, generator=generator)[which],
        train_relevance=torch.randn(shape, generator=generator)[which],
        attribution=torch.tensor(ATTRIBUTION)[which],
        train_indices=torch.tensor(INDICES)[which],
    )


def cells_of(figure) -> dict[tuple[int, ...], object]:
    labels = [(axes.get_label(), axes) for axes in figure.axes if "," in axes.get_label()]
    return {tuple(map(int, label.split(","))): axes for label, axes in labels}


def shown(axes) -> np.ndarray:
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("split", [False, True], ids=["one group", "two groups"])
def test_each_cell_holds_its_image_or_heatmap(channels, split):
    test, train = torch.rand(channels, HEIGHT, WIDTH), torch.rand(N_TRAIN, channels, HEIGHT, WIDTH)
    pairs = pairs_of(channels)
    groups = [pairs_of(channels, slice(2)), pairs_of(channels, slice(2, None))] if split else [pairs]
    figure = plot_pairwise_relevance(test, train, groups, train_labels=range(20, 20 + N_TRAIN), test_label="said 9")
    cells = cells_of(figure)
    expected = {(0, 0): 1, (0, 1): 0, (3, 0): 4, (3, 1): 2}  # (first row of the band, column): position in the pairs
    rows = {(first + row, 1, column) for first, column in expected for row in range(3)}
    assert cells.keys() == {(0, 0, 0)} | rows
    assert cells[0, 0, 0].get_title() == "said 9"
    colors = color_map("bwr", "test")
    for (first, column), position in expected.items():
        index, image = INDICES[position], train[INDICES[position]]
        assert cells[first, 1, column].get_title() == f"{20 + index}\n{ATTRIBUTION[position]:+.3f}"
        as_shown = image[0] if channels == 1 else image.permute(1, 2, 0)
        np.testing.assert_allclose(shown(cells[first, 1, column]), as_shown, rtol=1e-5)
        for row, background, relevance in ((1, image, pairs.train_relevance), (2, test, pairs.test_relevance)):
            plain = (background[0] if channels == 1 else background.permute(1, 2, 0)).numpy().astype(float)
            heatmap = overlay(plain, pixel_relevance(relevance[position], "test"), colors, "test")
            np.testing.assert_allclose(shown(cells[first + row, 1, column]), heatmap, rtol=1e-5)


def test_headings_and_notes():
    train = torch.rand(N_TRAIN, 1, HEIGHT, WIDTH)
    texts = [text.get_text() for text in plot_pairwise_relevance(train[0], train, [pairs_of(1)]).texts]
    assert [text for text in texts if "relevance" not in text] == ["proponents", "opponents"]
    positive = plot_pairwise_relevance(train[0], train, [pairs_of(1, slice(2))])
    assert [text.get_text() for text in positive.texts if "relevance" not in text.get_text()] == ["proponents"]


def test_titles_images_and_bar_do_not_overlap():
    train = torch.rand(N_TRAIN, 1, HEIGHT, WIDTH)
    labels = [f"class {index}" for index in range(N_TRAIN)]
    figure = plot_pairwise_relevance(train[0], train, [pairs_of(1)], train_labels=labels, test_label="is 7\nsaid 9")
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    boxes += [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_colour_maps_are_zennits(name):
    found = np.asarray(color_map(name, "test")(np.arange(256)))[:, :3]
    expected = np.asarray(palette(name)).reshape(256, 3) / 255
    np.testing.assert_allclose(found, expected, atol=2.5 / 255)


def test_heatmaps_are_symmetric_around_zero():
    relevance = torch.tensor([[[-4.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(pixel_relevance(relevance, "test"), [[-1, 0.5], [0, 0.25]])
    assert not pixel_relevance(torch.zeros(3, 2, 2), "test").any()
    red = overlay(np.ones((1, 2)), np.array([[-1.0, 1.0]]), color_map("bwr", "test"), "test")
    np.testing.assert_allclose(red, [[[0, 0, 1], [1, 0, 0]]], atol=1e-6)
    np.testing.assert_allclose(red[0, 0], red[0, 1, ::-1], atol=1e-6)


def test_where_there_is_no_relevance_the_faint_image_shows():
    image = np.array([[0.0, 1.0]])
    for name in COLOR_MAPS:
        dark, light = overlay(image, np.zeros((1, 2)), color_map(name, "test"), "test")[0]
        assert (light > dark).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cmap": "jet"}, r"cmap of plot_pairwise_relevance must be one of 'bwr', .*, got 'jet'"),
        ({"cmap": ["bwr"]}, r"cmap of plot_pairwise_relevance must be one of 'bwr', .*, got \['bwr'\]"),
        ({"pairs": [pairs_of(1, slice(3, 4))]}, r"pairs of plot_pairwise_relevance must be some, .*, got none"),
        ({"pairs": []}, r"got none"),
        ({"pairs": [pairs_of(1, None)]}, r"must be those of one test point"),
    ],
)
def test_refusals(change, message):
    train = torch.rand(N_TRAIN, 1, HEIGHT, WIDTH)
    arguments = {"test_image": train[0], "train_images": train, "pairs": [pairs_of(1)], **change}
    with pytest.raises(InvalidValueError, match=message):
        plot_pairwise_relevance(**arguments)


def test_one_group_stands_in_a_list() -> None:
    train = torch.rand(N_TRAIN, 1, HEIGHT, WIDTH)
    with pytest.raises(InvalidTypeError, match=r"must be a list of groups of pairs: write \[pairs\]"):
        plot_pairwise_relevance(train[0], train, pairs_of(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_relevance": torch.full((1, 1, 3, 3), torch.nan)}, "relevance of .* must be finite"),
        ({"attribution": torch.tensor([torch.nan])}, "pairs of .* must be finite"),
        ({"train_indices": torch.tensor([7])}, "pairs of .* must be indices of training points, from 0 on to 3"),
        ({"train_relevance": torch.ones(2, 1, 3, 3)}, "pairs of .* must be with relevance of each of 1 pairs"),
        ({"train_relevance": torch.ones(1, 1, 2, 3)}, r"relevance of .* must be of the image's height and width"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    fits = {"test_relevance": torch.ones(1, 1, 3, 3), "train_relevance": torch.ones(1, 1, 3, 3)}
    fits |= {"attribution": torch.tensor([0.5]), "train_indices": torch.tensor([1])}
    images = torch.rand(4, 1, 3, 3)
    plot_pairwise_relevance(images[0], images, [SimpleNamespace(**fits)])
    with pytest.raises(InvalidValueError, match=message):
        plot_pairwise_relevance(images[0], images, [SimpleNamespace(**{**fits, **change})])
