"""Heatmaps for the pairs of the page: the relevance of one attribution in both of its images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.errors import ConservationWarning
from dualview_plugin.lrp import PairwiseRelevance, RelevantPairs
from dualview_plugin.plots.heatmaps import color_map, overlay, pixel_relevance
from dualview_plugin.plots.images import ToDisplay, display_image
from dualview_plugin.report.images import data_uri

_OWNER = "write_report"


@dataclass(frozen=True)
class Heatmaps:
    """The heatmaps of one test point.

    Attributes:
        pairs: by the position of the training point.
        warning: why not to trust them; None: no reason was found.
    """

    pairs: dict[int, PairImages]
    warning: str | None = None


@dataclass(frozen=True)
class PairImages:
    """The heatmaps of one pair, as data URIs.

    Attributes:
        test: relevance in the test image.
        train: relevance in the training image.
        conservation: the share of the attribution that arrived in the test image and in the training image.
    """

    test: str
    train: str
    conservation: tuple[float, float]


def heatmaps(
    method: FeatureKernelAttribution,
    composite: Any,
    inputs: Tensor,
    target: Tensor,
    train_indices: list[list[int]],
    to_display: ToDisplay | None,
    advance: Callable[[], object],
) -> list[Heatmaps]:
    """The heatmaps of each test point.

    Args:
        method: the method whose attributions are carried to the pixels.
        composite: as :class:`PairwiseRelevance` takes it.
        inputs: test images, (n_test, channels, height, width).
        target: explained classes, (n_test,).
        train_indices: training points of each test point; a list may be empty.
        to_display: undoes the network's normalisation.
        advance: called after each test point.
    """
    relevance, colors = PairwiseRelevance(method, composite), color_map("bwr", _OWNER)
    found: list[Heatmaps] = []
    for test, indices in enumerate(train_indices):
        of_test: dict[int, PairImages] = {}
        warning = None
        if indices:
            points = torch.tensor([indices])
            pairs, warning = _quietly(relevance, inputs[test : test + 1], target[test : test + 1], points)
            test_image = display_image(inputs[test], to_display, _OWNER)
            train_inputs = method.training_inputs(points)
            for row, index in enumerate(indices):
                train_image = display_image(train_inputs[row], to_display, _OWNER)
                of_test_image, of_train_image = pairs.conservation[row].tolist()
                of_test[index] = PairImages(
                    data_uri(overlay(test_image, pixel_relevance(pairs.test_relevance[row], _OWNER), colors, _OWNER)),
                    data_uri(overlay(train_image, pixel_relevance(pairs.train_relevance[row], _OWNER), colors, _OWNER)),
                    (of_test_image, of_train_image),
                )
        found.append(Heatmaps(of_test, warning))
        advance()
    return found


def _quietly(
    relevance: PairwiseRelevance, inputs: Tensor, target: Tensor, points: Tensor
) -> tuple[RelevantPairs, str | None]:
    """The pairs of one test point, and the text of a ConservationWarning in place of the warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs = relevance.attribute(inputs, target, train_indices=points)[0]
    texts = [str(one.message) for one in caught if issubclass(one.category, ConservationWarning)]
    for one in caught:
        if not issubclass(one.category, ConservationWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return pairs, texts[0] if texts else None
