"""Why these training texts? The tokens of both texts of each pair, shaded, proponents above and opponents below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.plots.heatmaps import color_map
from dualview_plugin.plots.image_grid import FRAME_COLORS
from dualview_plugin.plots.images import Image, as_array, check_finite, check_labels, label_text, point_title
from dualview_plugin.plots.pairs import Pairs, bands
from dualview_plugin.plots.text_lines import TextLine, Tokens, drawn, scaled_shades, wrapped

_OWNER = "plot_pairwise_texts"


def plot_pairwise_texts(
    test_text: Any,
    train_texts: Any,
    pairs: Sequence[Pairs],
    *,
    tokens: Callable[[Any], Tokens] = list,
    train_labels: Sequence[object] | Tensor | None = None,
    test_label: str = "",
    cmap: str = "bwr",
    width: int = 90,
) -> Figure:
    """A figure of one test text and its training texts, with the relevance of the attribution in the tokens of both.

    Two lines for each training text, the strongest first: the training text, after its label and its attribution, and
    the test text, each with its tokens shaded. Proponents, in red, stand above opponents, in blue. The largest
    relevance of each text gets the full colour: colours compare tokens, not texts.

    Args:
        test_text: what ``tokens`` takes, such as a sample of a dataset.
        train_texts: what gives the text of training point i as ``train_texts[i]``, such as the training dataset.
        pairs: one or more groups of pairs of this test text, such as ``[strongest[0], weakest[0]]`` for the results of
            ``PairwiseRelevance.attribute(…, at=…)`` with and without ``proponents``. Relevance behind the last token of
            a text is left out, as that of padding, and so are zeros in front of the first, of a text padded there.
        tokens: a function from a text to its tokens, as strings; by default texts are sequences of strings.
        train_labels: labels or class names of all training points, (n_train,); None: attributions alone.
        test_label: what to write before the test text, such as the explained class.
        cmap: a colour map of Zennit: ``"bwr"``, ``"coldnhot"``, …; its middle is zero.
        width: characters in a line of text.

    Raises:
        InvalidValueError: an unknown colour map, relevance of fewer tokens than a text has, indices or labels that do
            not fit the texts, NaN, or no pair with an attribution.

    Example:
        >>> from types import SimpleNamespace
        >>> from dualview_plugin import plot_pairwise_texts
        >>> pairs = SimpleNamespace(
        ...     test_relevance=[[0.0, 1.0]], train_relevance=[[2.0]], attribution=[0.5], train_indices=[1]
        ... )
        >>> figure = plot_pairwise_texts("a dog", ["no", "dogs"], [pairs], tokens=str.split, test_label="said dog")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['said dog', 'a', 'dog', '+0.500', 'dogs', 'a', 'dog']
    """
    colors = color_map(cmap, _OWNER)
    check_labels(train_labels, train_texts, "train_labels", _OWNER)
    own = tokens(test_text)
    lines = wrapped(str(test_label), "black", own, np.zeros(len(own)), width)
    for name, band in bands(pairs, train_texts, _relevance_of_tokens, _OWNER).items():
        for pair in band:
            title = point_title(label_text(train_labels, pair.train_index), pair.attribution).replace("\n", "  ")
            words = tokens(train_texts[pair.train_index])
            lines.append(TextLine())
            lines += wrapped(title, FRAME_COLORS[name], words, _shades(pair.train_relevance, words), width)
            lines += wrapped("", "black", own, _shades(pair.test_relevance, own), width)
    return drawn(lines, colors, width)


def _relevance_of_tokens(relevance: Any) -> Image:
    """The relevance of one text's tokens, (n_tokens,)."""
    values = as_array(relevance).astype(float)
    if values.ndim != 1:
        constraint = "(n_tokens,) for each text, as at=, a layer, makes it"
        raise InvalidValueError("relevance", _OWNER, constraint, str(values.shape))
    check_finite("relevance", values, _OWNER)
    return values


def _shades(relevance: Image, words: Tokens) -> Image:
    """The shades of a text, which has no more tokens than there is relevance of."""
    if len(words) > len(relevance):
        constraint = f"of at least {len(words)} tokens, as many as the text has"
        raise InvalidValueError("relevance", _OWNER, constraint, f"of {len(relevance)}")
    return scaled_shades(relevance, len(words))
