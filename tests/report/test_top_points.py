"""The tables of the strongest training points, beside a sort of the whole matrix."""

from __future__ import annotations

import pytest
import torch

from dualview_plugin import DualView, InvalidValueError, RandomAttribution, Scores, top_points
from tests.untouched import assert_untouched
from tests.worlds import N_CLASSES, N_TEST, N_TRAIN, World, small_world

CLASS_NAMES = [f"<class {label}>" for label in range(N_CLASSES)]


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def dualview(world: World) -> DualView:
    return DualView(world.model, "fc", world.train, C=0.05, show_progress=False)


def test_rows_are_those_of_the_sorted_matrix(world: World, dualview: DualView) -> None:
    train_ids = [f"file-{i}.png" for i in range(N_TRAIN)]
    found = top_points(dualview, world.x_test, k=4, train_ids=train_ids, class_names=CLASS_NAMES)
    labels = world.train.tensors[1].tolist()
    attributions = dualview.attribute(world.x_test).tolist()
    expected = []
    for test, row in enumerate(attributions):
        best = sorted(range(N_TRAIN), key=lambda i: -row[i])[:4]
        worst = sorted(range(N_TRAIN), key=lambda i: row[i])[:4]
        target = CLASS_NAMES[int(found.target[test])]
        for kind, order, sign in (("proponent", best, 1), ("opponent", worst, -1)):
            for rank, i in enumerate(order, start=1):
                if row[i] * sign > 0:
                    expected.append((test, target, kind, rank, train_ids[i], CLASS_NAMES[labels[i]], row[i]))
    rows = list(found.rows())
    assert [row[:-1] for row in rows] == [row[:-1] for row in expected]
    assert [row[-1] for row in rows] == pytest.approx([row[-1] for row in expected], rel=1e-5)
    frame = found.to_pandas()
    assert next(iter(frame.columns)) == "test_id"
    assert len(frame) == len(expected)


def test_html_escapes_what_the_user_names(world: World, dualview: DualView) -> None:
    html = top_points(dualview, world.x_test[:1], k=2, class_names=CLASS_NAMES)._repr_html_()
    assert "&lt;class" in html
    assert "<class" not in html


def test_points_without_an_attribution_are_left_out(world: World, dualview: DualView) -> None:
    found = top_points(dualview, world.x_test, k=N_TRAIN)
    assert all(row[-1] != 0 for row in found.rows())
    assert len(list(found.rows())) == int((dualview.attribute(world.x_test) != 0).sum())


def test_a_given_class_is_explained(world: World) -> None:
    method = RandomAttribution(world.model, "fc", world.train, show_progress=False)
    found = top_points(method, world.x_test, k=1, target=2)
    assert found.target.tolist() == [2] * N_TEST


def test_the_network_stays_as_it_was(world: World, dualview: DualView) -> None:
    with assert_untouched(world.model):
        top_points(dualview, world.x_test, k=2)


@pytest.mark.parametrize("parameter", ["test_ids", "train_ids", "class_names"])
def test_a_name_for_each_or_an_error(world: World, dualview: DualView, parameter: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{parameter} of top_points must be a sequence of"):
        top_points(dualview, world.x_test, k=1, **{parameter: ["one"]})


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)).tolist()
    score = Scores("M", "metric", [*values, float("nan")])
    low, high = score.interval() or (0.0, 0.0)
    deviation = torch.tensor(values).std().item() / len(values) ** 0.5
    assert low == pytest.approx(score.mean - 1.96 * deviation, abs=0.1 * deviation)
    assert high == pytest.approx(score.mean + 1.96 * deviation, abs=0.1 * deviation)
    assert Scores("M", "metric", [1.0]).interval() is None
