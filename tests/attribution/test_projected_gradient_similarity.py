"""ProjectedGradientSimilarity: unbiased, reproducible, the same for every batch size and memory budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dualview_plugin.attribution import GradientSimilarity, ProjectedGradientSimilarity
from dualview_plugin.errors import InvalidValueError
from tests.worlds import N_TRAIN, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])


def projected(world: World, **options: Any) -> ProjectedGradientSimilarity:
    return ProjectedGradientSimilarity(world.model, "fc", world.train, show_progress=False, **options)


@pytest.mark.parametrize("projection", ["gaussian", pytest.param("factored", marks=pytest.mark.slow)])
@pytest.mark.parametrize("normalize_train", [pytest.param(True, marks=pytest.mark.slow), False])
def test_estimates_gradient_similarity_without_bias(
    normalize_train: bool, projection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualview_plugin.gradients.factored_projection._SMALL", 0)
    world = small_world(dtype=torch.float64)
    options: dict[str, Any] = {"normalize_train": normalize_train, "show_progress": False}
    exact = GradientSimilarity(world.model, "fc", world.train, **options).attribute(world.x_test, TARGET)
    n_seeds = 60
    estimates = torch.stack(
        [
            projected(
                world, n_components=11, seed=seed, normalize_train=normalize_train, projection=projection
            ).attribute(world.x_test, TARGET)
            for seed in range(n_seeds)
        ]
    )
    deviations = (estimates.mean(0) - exact) / (estimates.std(0) / n_seeds**0.5)
    assert float(deviations.abs().max()) < 5.5  # of a t distribution, over 217 pairs
    assert abs(float(deviations.mean())) < 1


def test_more_components_come_closer() -> None:
    world = small_world()
    exact = GradientSimilarity(world.model, "fc", world.train, show_progress=False).attribute(world.x_test, TARGET)
    errors = [
        float((projected(world, n_components=n).attribute(world.x_test, TARGET) - exact).norm() / exact.norm())
        for n in (3, 97, 4001)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3}, {"memory_budget": 1}, {"memory_budget": 50_000}]
)
@pytest.mark.parametrize("projection", ["gaussian", "factored"])
def test_same_seed_same_result(options: dict[str, Any], projection: str) -> None:
    world = small_world(dtype=torch.float64)
    expected = projected(world, n_components=13, seed=5, projection=projection)
    found = projected(world, n_components=13, seed=5, projection=projection, **options)
    torch.testing.assert_close(found.attribute(world.x_test, TARGET), expected.attribute(world.x_test, TARGET))
    torch.testing.assert_close(found.self_influence(), expected.self_influence())
    other = projected(world, n_components=13, seed=6)
    assert not torch.allclose(other.attribute(world.x_test, TARGET), expected.attribute(world.x_test, TARGET))


def test_keeps_n_components_numbers_a_training_point() -> None:
    method = projected(small_world(), n_components=13).fit()
    assert method.projected_gradients_.shape == (N_TRAIN, 13)
    assert method.gradient_norms_.shape == (N_TRAIN,)


@pytest.mark.parametrize("options", [{"n_components": 0}, {"seed": -1}])
def test_bad_parameters_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="of ProjectedGradientSimilarity must be an integer of at least"):
        projected(small_world(), **options)


def test_an_unknown_projection_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="projection of ProjectedGradientSimilarity must be one of"):
        projected(small_world(), projection="sparse")


def test_the_projection_does_not_depend_on_torchs_default_dtype() -> None:
    world = small_world()
    expected = projected(world, n_components=13).attribute(world.x_test, TARGET)
    try:
        torch.set_default_dtype(torch.float64)
        found = projected(world, n_components=13).attribute(world.x_test, TARGET)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)
