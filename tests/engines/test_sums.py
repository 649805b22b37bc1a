"""Sums over the training points: what several processes add up together is what one adds up alone."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dualview_plugin import CacheWarning
from dualview_plugin.engines import SumWork
from dualview_plugin.engines.exchange import Exchange
from tests.engines.processes import communicated, started
from tests.engines.summing import N, method_of
from tests.storage.worlds import TEST

VALUES = torch.arange(1.0, 31.0, dtype=torch.float64).view(10, 3)


class Summands:
    """Weighted rows of a matrix; notes for which ranges it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def weighted(self, rows: range, weights: Tensor) -> Tensor:
        self.asked.append((rows.start, rows.stop))
        return weights[rows.start : rows.stop] @ VALUES[rows.start : rows.stop]


def exchange(folder: Path, rank: int = 0, world_size: int = 2) -> tuple[Exchange, Summands]:
    summands = Summands()
    return Exchange(SumWork(summands, len(VALUES), folder, "key"), rank, world_size), summands


def test_a_range_for_each_process_and_none_that_is_empty() -> None:
    work = SumWork(None, 10, Path(), "")
    assert work.ranges(3) == [range(3), range(3, 6), range(6, 10)]
    assert work.ranges(99) == [range(i, i + 1) for i in range(10)]


def test_two_processes_add_up_their_ranges(tmp_path: Path) -> None:
    ranks = [exchange(tmp_path, rank) for rank in range(2)]
    weights = [torch.full((10,), float(factor), dtype=torch.float64) for factor in range(1, 6)]
    found: dict[int, list[Tensor]] = {0: [], 1: []}
    barrier = threading.Barrier(2)

    def run(rank: int) -> None:
        for weight in weights:
            barrier.wait()
            found[rank].append(ranks[rank][0]("weighted", weight))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for weight, first, second in zip(weights, *found.values(), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, weight @ VALUES)
    asked = ranks[0][1].asked + ranks[1][1].asked
    assert {(0, 5), (5, 10)} == set(asked)
    assert len(asked) >= 2 * len(weights)
    assert len(list(tmp_path.iterdir())) <= 1  # the last one, if both left it at the same time


def test_a_process_without_the_others_computes_all_parts(tmp_path: Path) -> None:
    total, summands = exchange(tmp_path, rank=1, world_size=3)
    for factor in range(1, 8):
        weights = torch.full((10,), float(factor), dtype=torch.float64)
        torch.testing.assert_close(total("weighted", weights), weights @ VALUES)
    assert summands.asked == [(3, 6), (6, 10), (0, 3)] * 7
    assert len(list(tmp_path.iterdir())) == 3  # no more, however many sums there are
    total.close()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_long_ago_is_removed(tmp_path: Path) -> None:
    for name, age in (("sum-old", 2 * 24 * 3600), ("sum-new", 60), ("shard", 2 * 24 * 3600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-0000.zip").touch()
        os.utime(tmp_path / name, (0, time.time() - age))
    exchange(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sum-new", "shard"}


def test_parts_that_are_there_are_read(tmp_path: Path) -> None:
    weights = torch.rand(10, dtype=torch.float64)
    first = exchange(tmp_path, 0)[0]("weighted", weights)
    total, summands = exchange(tmp_path, 1)
    assert torch.equal(total("weighted", weights), first)
    assert summands.asked == []
    assert list(tmp_path.iterdir()) == []  # read by both


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign", "gone"])
def test_a_part_that_is_damaged_is_computed(damage: str, tmp_path: Path) -> None:
    weights = torch.rand(10, dtype=torch.float64)
    exchange(tmp_path, 0)[0]("weighted", weights)
    (path,) = tmp_path.glob("*/part-0001.zip")
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes(next(tmp_path.glob("*/read-0")).read_bytes() + b"PK")
    else:
        content[content.index(b"NUMPY") + 130] ^= 1
        path.write_bytes(content if damage == "flipped" else content[:-30])
    total, summands = exchange(tmp_path, 1)
    torch.testing.assert_close(total("weighted", weights), weights @ VALUES)
    assert summands.asked == [(5, 10)]


def test_a_folder_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    weights = torch.rand(10, dtype=torch.float64)
    exchange(tmp_path, 0)[0]("weighted", weights)
    (folder,) = tmp_path.iterdir()
    elsewhere = tmp_path.with_name("elsewhere")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    total, summands = exchange(tmp_path, 1)
    with pytest.warns(CacheWarning, match="is a symbolic link"):
        torch.testing.assert_close(total("weighted", weights), weights @ VALUES)
    assert summands.asked == [(0, 10)]
    assert not (elsewhere / "read-1").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    total, summands = exchange(tmp_path / "nowhere", 0)
    for factor in (1.0, 2.0):
        weights = torch.full((10,), factor, dtype=torch.float64)
        if factor == 1.0:
            with pytest.warns(CacheWarning, match="cannot be written, and this process computes its sums alone"):
                found = total("weighted", weights)
        else:
            found = total("weighted", weights)
        torch.testing.assert_close(found, weights @ VALUES)
    assert summands.asked == [(0, 10)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "cg", "newton"])
def test_ranks_share_hessians_and_newtons_sums(name: str, tmp_path: Path) -> None:
    ranks = [started("summing", name, tmp_path, 2, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    first, second = map(json.loads, communicated(ranks))
    assert first["values"] == second["values"]
    expected = method_of(name, None).attribute(TEST)
    torch.testing.assert_close(torch.tensor(first["values"]), expected, rtol=1e-4, atol=1e-6)
    mine, other = first["parts"], second["parts"]
    assert {tuple(part[1:]) for part in mine + other} == {(0, N // 2), (N // 2, N)}
    assert mine
    assert other
    if name != "exact":  # nobody computes much of what the other one has computed
        assert max(len(mine), len(other)) < 0.75 * len(mine + other)
    assert not [*tmp_path.rglob("*.lock"), *tmp_path.rglob("sum-*")]


@pytest.mark.slow
def test_a_rank_that_is_killed_is_replaced(tmp_path: Path) -> None:
    ranks = [started("summing", "newton", tmp_path, 2, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    while not list(tmp_path.rglob("sum-*/part-*.zip")):
        assert ranks[0].poll() is None
    ranks[1].kill()
    ranks[1].communicate()
    (alone,) = map(json.loads, communicated(ranks[:1]))
    torch.testing.assert_close(
        torch.tensor(alone["values"]), method_of("newton", None).attribute(TEST), rtol=1e-4, atol=1e-6
    )
    assert {(0, N // 2), (N // 2, N)} == {tuple(part[1:]) for part in alone["parts"]}
