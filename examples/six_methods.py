"""The six methods of the comparison, with settings for the digits and the small network."""

from __future__ import annotations

from torch import nn
from torch.utils.data import Dataset

from dualview_plugin import (
    DataAttribution,
    DualView,
    GradientSimilarity,
    InfluenceFunctions,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
)


def six_methods(model: nn.Module, train_dataset: Dataset) -> dict[str, DataAttribution]:
    """One object for each method; nothing is computed before it is asked for attributions."""
    common = (model, "fc", train_dataset)
    return {
        "DualView": DualView(*common, C=0.05, show_progress=False),  # softer margins: more support points
        "Influence functions": InfluenceFunctions(*common, show_progress=False),
        "Representer points": RepresenterPoints(*common, show_progress=False),
        "Gradient similarity": GradientSimilarity(*common, show_progress=False),
        "Projected gradients": ProjectedGradientSimilarity(*common, n_components=128, show_progress=False),
        "Random": RandomAttribution(*common, show_progress=False),
    }
