"""Metrics of one ``quantus.evaluate`` share what a costly method computes, and never what is no longer so."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualview_plugin import (
    DualView,
    EKFACInfluence,
    GradCos,
    GradientSimilarity,
    IdenticalClass,
    InfluenceFunctions,
    InputSimilarity,
    LabelPoisoning,
    Sparsity,
    TopCardinality,
    TracIn,
)
from dualview_plugin.attribution import DataAttribution
from dualview_plugin.errors import StaleFitError
from dualview_plugin.metrics import DataAttributionMetric
from dualview_plugin.metrics.sources import method_source
from dualview_plugin.metrics.sources.shared_rows import SharedRows
from tests.worlds import N_TEST, World, small_world

COSTLY = (EKFACInfluence, GradCos, GradientSimilarity, InfluenceFunctions, InputSimilarity, TracIn)


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> SharedRows:
    kept = SharedRows()
    monkeypatch.setattr(method_source, "SHARED", kept)
    return kept


def counted(kind: type[DataAttribution], world: World, **options: Any) -> tuple[DataAttribution, list[int]]:
    """A method, and a list that grows by the number of test points with each computation of their rows."""
    computed: list[int] = []

    class Counted(kind):  # type: ignore[misc, valid-type]
        def _attribute_block(self, inputs: Any, target: Tensor) -> Tensor:
            computed.append(len(target))
            block: Tensor = super()._attribute_block(inputs, target)
            return block

        def _self_influence(self) -> Tensor:
            computed.append(0)
            values: Tensor = super()._self_influence()
            return values

    layer = "inner.fc" if isinstance(world.model, Noisy) else "fc"
    return Counted(world.model, layer, world.train, show_progress=False, **options), computed


def scored(method: DataAttribution, world: World, metric: DataAttributionMetric | None = None) -> Any:
    metric = metric or Sparsity()
    return metric(world.model, world.x_test.numpy(), np.zeros(N_TEST, dtype=int), explain_func=method)


@pytest.mark.parametrize("kind", COSTLY)
def test_metrics_of_one_call_take_one_computation_and_score_as_alone(kind: type[DataAttribution]) -> None:
    world = small_world()
    world.model.eval()
    metrics = {"class": IdenticalClass(world.train.tensors[1]), "few": Sparsity(), "hubs": TopCardinality(k=2)}
    method, computed = counted(kind, world)
    y = np.zeros(N_TEST, dtype=int)
    found = quantus.evaluate(metrics, {"m": method}, world.model, world.x_test.numpy(), y, explain_func_kwargs={})
    assert sum(computed) == N_TEST
    matrix = kind(world.model, "fc", world.train, show_progress=False).attribute(world.x_test, 0).numpy()
    for name, metric in metrics.items():
        alone = metric(world.model, world.x_test.numpy(), y, a_batch=matrix)
        assert found["m"][name] == pytest.approx(alone, abs=1e-6), name


def test_self_influence_is_computed_once() -> None:
    world = small_world()
    world.model.eval()
    method, computed = counted(GradientSimilarity, world)
    first, second = (scored(method, world, LabelPoisoning([2, 5], ranking="self_influence")) for _ in range(2))
    assert computed == [0]
    assert first == second


def other_inputs(world: World, method: DataAttribution) -> World:
    del method
    return World(world.model, world.train, world.x_test + 1)


def inputs_in_place(world: World, method: DataAttribution) -> World:
    del method
    world.x_test[0, 0, 0, 0] += 1
    return world


def new_argument(world: World, method: DataAttribution) -> World:
    method.batch_size = 3
    return world


def fitted_again(world: World, method: DataAttribution) -> World:
    method.fit()
    return world


def other_network(world: World, method: DataAttribution) -> World:
    del method
    return World(small_world(seed=1).model.eval(), world.train, world.x_test)


@pytest.mark.parametrize("change", [other_inputs, inputs_in_place, new_argument, fitted_again, other_network])
def test_what_has_changed_is_computed_again(change: Any) -> None:
    world = small_world()
    world.model.eval()
    method, computed = counted(InputSimilarity, world)
    scored(method, world)
    changed = change(world, method)
    found = scored(method, changed)
    assert sum(computed) == 2 * N_TEST or change is other_network
    fresh = InputSimilarity(changed.model, "fc", changed.train, show_progress=False)
    assert found == pytest.approx(scored(fresh, changed))


def test_another_class_is_another_question() -> None:
    world = small_world()
    world.model.eval()
    method, computed = counted(GradientSimilarity, world)
    for label in (0, 1):
        Sparsity()(world.model, world.x_test.numpy(), np.full(N_TEST, label), explain_func=method)
    assert sum(computed) == 2 * N_TEST


@pytest.mark.parametrize("part", ["weights", "data"])
def test_a_change_after_the_fit_is_refused_as_ever(part: str) -> None:
    world = small_world()
    world.model.eval()
    method, _ = counted(GradientSimilarity, world)
    scored(method, world)
    with torch.no_grad():
        (world.model.fc.weight if part == "weights" else world.train.tensors[0])[0] += 1
    with pytest.raises(StaleFitError, match="must be as it was at the fit"):
        scored(method, world)


class InArrays(Dataset[Any]):
    """Samples out of a large array, whose changes leave no trace but its content."""

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        self.x, self.labels = np.repeat(x.numpy()[..., None], 80, -1), labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.x[index][..., 0].copy()), self.labels[index]


def test_a_change_of_a_point_that_no_probe_sees_is_seen() -> None:
    world = small_world()
    world.model.eval()
    train: Any = InArrays(world.train.tensors[0].repeat(40, 1, 1, 1), world.train.tensors[1].repeat(40))
    method, computed = counted(InputSimilarity, World(world.model, train, world.x_test))
    scored(method, world)
    unseen = next(i for i in range(len(train)) if i not in method._probe_now().indices)
    train.x[unseen] += 1
    with pytest.raises(StaleFitError, match=f"another sample at position {unseen} "):
        scored(method, world)
    method.fit()
    scored(method, world)
    assert sum(computed) == 3 * N_TEST  # the refused ones too


def test_a_metric_may_write_to_its_rows() -> None:
    class Writing(Sparsity):
        def _score(self, rows: Iterator[Any], source: Any) -> list[float]:
            def emptied() -> Iterator[Any]:
                for part in rows:
                    part.attributions[:] = 0
                    yield part

            return super()._score(emptied(), source)

    world = small_world()
    world.model.eval()
    method, _ = counted(GradientSimilarity, world)
    scored(method, world, Writing())
    fresh = GradientSimilarity(world.model, "fc", world.train, show_progress=False)
    assert scored(method, world) == scored(fresh, world)


@pytest.mark.parametrize("kind", [DualView, GradientSimilarity])
def test_what_costs_little_or_takes_much_room_is_not_kept(kind: type[DataAttribution], shared: SharedRows) -> None:
    world = small_world()
    world.model.eval()
    method, computed = counted(kind, world)
    shared.n_bytes = 64
    first, second = scored(method, world), scored(method, world)
    assert first == second
    assert sum(computed) == 2 * N_TEST
    assert len(shared) == 0


def test_the_rows_asked_for_last_stay(shared: SharedRows) -> None:
    owners = [type("Owner", (), {})() for _ in range(3)]
    shared.n_bytes = 2 * 80
    computed = []

    def ask(number: int) -> list[Any]:
        def compute() -> list[Any]:
            computed.append(number)
            return [np.full(10, float(number))]

        return list(shared.blocks((owners[number], "rows"), compute))

    for number in (0, 1, 0, 2, 0, 1):
        assert (ask(number)[0] == number).all()
    assert computed == [0, 1, 2, 1]


def test_rows_go_with_the_method(shared: SharedRows) -> None:
    world = small_world()
    world.model.eval()
    method: Any = GradientSimilarity(world.model, "fc", world.train, show_progress=False)
    scored(method, world)
    assert len(shared) == 1
    del method
    gc.collect()
    assert len(shared) == 0


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x + 0.1 * torch.randn_like(x))


@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.RandomNetworkWarning")
def test_a_network_that_draws_is_asked_again() -> None:
    world = small_world()
    world.model.eval()
    noisy = World(Noisy(world.model), world.train, world.x_test)
    method, computed = counted(InputSimilarity, noisy)
    for _ in range(2):
        scored(method, noisy)
    assert sum(computed) == 2 * N_TEST
