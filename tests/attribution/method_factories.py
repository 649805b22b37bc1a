"""Every attribution class, made for a small world: the contract suite runs over this table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dualview_plugin.attribution import (
    TRAK,
    ArnoldiInfluence,
    DataAttribution,
    DualView,
    EKFACInfluence,
    FeatureSimilarity,
    GradCos,
    GradientSimilarity,
    InfluenceFunctions,
    InputSimilarity,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
    TracIn,
)
from tests.worlds import World

Factory = Callable[..., DataAttribution]


def _factory(cls: type[DataAttribution], **defaults: Any) -> Factory:
    def make(world: World, train: Any = None, **options: Any) -> DataAttribution:
        data = world.train if train is None else train
        return cls(world.model, world.final_fc_layer, data, **{"show_progress": False, **defaults, **options})

    return make


METHODS: dict[str, Factory] = {
    "DualView": _factory(DualView, C=0.05),
    "DualView hard": _factory(DualView, C=10.0, fit_intercept=True, standardize=False),
    "GradientSimilarity": _factory(GradientSimilarity),
    "GradientSimilarity of layers, plain": _factory(GradientSimilarity, normalize_train=False, layers=["conv", "fc"]),
    "InfluenceFunctions": _factory(InfluenceFunctions),
    "InfluenceFunctions by cg": _factory(InfluenceFunctions, solver="cg", include_bias=True, tol=1e-12),
    "InfluenceFunctions by lissa": _factory(InfluenceFunctions, solver="lissa", damping=0.1, tol=1e-5),
    "ProjectedGradientSimilarity": _factory(ProjectedGradientSimilarity, n_components=17, seed=3),
    "ProjectedGradientSimilarity, factored": _factory(
        ProjectedGradientSimilarity, n_components=17, projection="factored"
    ),
    "RepresenterPoints": _factory(RepresenterPoints),
    "RandomAttribution": _factory(RandomAttribution, seed=3),
    "ArnoldiInfluence": _factory(ArnoldiInfluence, n_components=5, arnoldi_dim=40, layers=["fc"]),
    "EKFACInfluence": _factory(EKFACInfluence, damping=3.0),
    "FeatureSimilarity": _factory(FeatureSimilarity),
    "FeatureSimilarity, l2": _factory(FeatureSimilarity, similarity="l2"),
    "GradCos": _factory(GradCos),
    "InputSimilarity, dot": _factory(InputSimilarity, similarity="dot"),
    "TRAK": _factory(TRAK, n_components=5, seed=3),
    "TracIn": _factory(TracIn),
    "TracIn, projected": _factory(TracIn, n_components=17, seed=3),
}

# The fast suite leaves these out here: methods that iterate or derive from another one, and second variants of a class.
SLOW = {
    "ArnoldiInfluence",
    "DualView hard",
    "EKFACInfluence",
    "FeatureSimilarity, l2",
    "GradCos",
    "GradientSimilarity of layers, plain",
    "InfluenceFunctions by cg",
    "InfluenceFunctions by lissa",
    "ProjectedGradientSimilarity, factored",
    "TRAK",
    "TracIn",
    "TracIn, projected",
}

# Methods whose columns do not follow a permutation of the training set.
NOT_EQUIVARIANT = {"RandomAttribution"}
# Methods whose attribution has no gradient with respect to the input.
NOT_DIFFERENTIABLE = {"RandomAttribution"}

# Methods that do not look at the network.
NETWORK_FREE = {"RandomAttribution", "InputSimilarity, dot"}

# How far two fits on the same data may differ, relative to the largest attribution: rounding, and for the methods that
# iterate the tolerance to which they do.
FIT_TOLERANCES: dict[str, float] = {
    "ArnoldiInfluence": 2e-3,
    "DualView": 2e-3,
    "EKFACInfluence": 1e-4,
    "FeatureSimilarity": 2e-6,
    "GradCos": 2e-6,
    "GradientSimilarity": 2e-6,
    "InfluenceFunctions": 2e-5,
    "InputSimilarity": 2e-6,
    "ProjectedGradientSimilarity": 2e-6,
    "RandomAttribution": 0.0,
    "RepresenterPoints": 2e-5,
    "TRAK": 1e-4,
    "TracIn": 2e-6,
}
LISSA_TOLERANCE = 1e-2


def over(*excluded: set[str]) -> pytest.MarkDecorator:
    """Run a test over every method, less the excluded ones."""
    kept = [name for name in METHODS if not any(name in names for names in excluded)]
    marks = {name: [pytest.mark.slow] if name in SLOW else [] for name in kept}
    return pytest.mark.parametrize("make", [pytest.param(METHODS[name], id=name, marks=marks[name]) for name in kept])


def fit_tolerance(method: DataAttribution) -> float:
    """The tolerance of this method."""
    is_lissa = getattr(method, "solver", None) == "lissa"
    return LISSA_TOLERANCE if is_lissa else FIT_TOLERANCES[method.get_name()]
