"""Processes that share a store share the work, and all get what one alone computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from dualview_plugin import InvalidValueError
from dualview_plugin.engines import RanksEngine, engine_of
from dualview_plugin.errors import InvalidTypeError, MissingDependencyError
from tests.engines.processes import communicated, started
from tests.storage.worlds import TEST, Decoded, dualview


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ranks", "local"])
def test_two_processes_share_the_work(engine: str, tmp_path: Path) -> None:
    ranks = [started("fitting", engine, tmp_path, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    first, second = map(json.loads, communicated(ranks))
    assert first["computed"] + second["computed"] == first["shards"] == 50
    assert first["values"] == second["values"]
    expected = dualview(None, Decoded(400)).attribute(TEST)
    torch.testing.assert_close(torch.tensor(first["values"]), expected, rtol=1e-3, atol=1e-5)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_rank_takes_its_stride_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert [*RanksEngine().portions([0, 1, 2, 4, 6, 7])] == [[1, 4, 7], [2], [0, 6]]
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert [*RanksEngine().portions([0, 1, 2])] == [[0, 2], [1]]


@pytest.mark.parametrize("values", [("2", "2"), ("a", "2"), ("-1", "2")])
def test_ranks_that_do_not_fit_are_refused(values: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE"), values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValueError, match="engine of Storage must be started with RANK from 0 to WORLD_SIZE"):
        engine_of("ranks")


def test_ranks_outside_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidValueError, match="another than 'ranks' outside torchrun and srun"):
        engine_of("ranks")


def test_something_else_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="engine of Storage must be 'local', 'ranks', 'ray' or a RayEngine"):
        engine_of(3)


def test_ray_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="needs Ray: pip install ray"):
        engine_of("ray")
