"""With real Ray: the pool computes what one process computes, and a killed actor costs nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview_plugin import InvalidValueError, Storage
from dualview_plugin.attribution import ProjectedGradientSimilarity
from dualview_plugin.engines import RayEngine, SumWork
from tests.engines.summing import method_of as summing_method
from tests.engines.sweeping import method_of
from tests.storage.worlds import TEST, dualview, network, tensors

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Marking(Dataset[Any]):
    """Each reading leaves the number of the process that reads. An actor waits until as many as wanted have read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.wanted, self.source = folder, folder.with_name("wanted"), tensors(200)
        self.main = os.getpid()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        (self.folder / str(os.getpid())).touch()
        patience = time.monotonic() + 240
        while os.getpid() != self.main and len(self.actors()) < self._n_wanted() and time.monotonic() < patience:
            time.sleep(0.01)
        x, y = self.source[index]
        return x, int(y)

    def actors(self) -> set[int]:
        """The processes that have read, but for the main one."""
        return {int(path.name) for path in self.folder.iterdir()} - {self.main}

    def _n_wanted(self) -> int:
        return int(self.wanted.read_text()) if self.wanted.exists() else 0


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Any:
    """Two workers that get their share of a busy machine: as Ray starts them, they have the lowest priority."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


class Killer(threading.Thread):
    """Kills the first actor that reads a sample, if it is to. All others wait for the one that takes its place."""

    def __init__(self, data: Marking, kill: bool) -> None:
        super().__init__()
        self.data, self.kill, self.killed = data, kill, list[int]()
        for path in data.folder.iterdir():
            path.unlink()
        data.wanted.write_text(str(2 + kill))

    def run(self) -> None:
        while self.kill and not self.killed:
            for actor in self.data.actors():
                os.kill(actor, signal.SIGKILL)
                self.killed.append(actor)
                break
            time.sleep(0.01)

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill = False
        self.join()
        self.data.wanted.unlink()


@pytest.mark.parametrize("kill", [False, True])
def test_two_actors_compute_what_one_process_computes(kill: bool, tmp_path: Path) -> None:
    data = Marking(tmp_path / "marks")
    with Killer(data, kill) as killer:
        method = dualview(tmp_path / "store", data, engine=RayEngine(n_workers=2)).fit()
    assert method.store_ is not None
    assert method.store_.n_computed == method.store_.n_shards == 25
    assert len(data.actors()) >= 2 + kill
    assert len(killer.killed) == kill
    expected = dualview(tmp_path / "local", data).attribute(TEST)
    assert torch.equal(method.attribute(TEST), expected)
    assert dualview(tmp_path / "store", data).fit().store_.n_computed == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("GradientSimilarity", True),
        ("TracIn", True),
        ("EKFACInfluence", False),
        ("InfluenceFunctions", False),
        ("InputSimilarity", False),
    ],
)
def test_two_actors_share_a_pass_over_the_training_data(name: str, kill: bool, tmp_path: Path) -> None:
    """The pass of influence functions reads kept features and no samples, so that none of its actors can be told."""
    data = Marking(tmp_path / "marks")
    make = lambda folder, engine: method_of(  # noqa: E731
        name, data, Storage(tmp_path / folder, shard_size=8, engine=engine)
    )
    alone = make("local", "local")
    expected = alone.influence(TEST, k=11)
    method = make("store", RayEngine(n_workers=2)).fit()
    with Killer(data, kill) as killer:
        found = method.influence(TEST, k=11)
    assert method.sweep_.n_computed == method.sweep_.n_shards == 25
    assert len(killer.killed) == kill
    assert len(data.actors()) >= (0 if name == "InfluenceFunctions" else 2 + kill)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.influence_scores, expected.influence_scores)
    again = make("store", RayEngine(n_workers=2))
    assert torch.equal(again.influence(TEST, k=11).indices, expected.indices)
    assert again.sweep_.n_computed == 0
    assert torch.equal(method.self_influence(), alone.self_influence())


@pytest.mark.parametrize("name", ["exact", "cg", "newton"])
def test_two_actors_add_up_hessians_and_newtons_sums(name: str, tmp_path: Path) -> None:
    expected = summing_method(name, None).attribute(TEST)
    method = summing_method(name, Storage(tmp_path, shard_size=100, engine=RayEngine(n_workers=2)))
    torch.testing.assert_close(method.attribute(TEST), expected, rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.rglob("sum-*"))


class Summands:
    """Notes in a folder which process gives which part; the first one to give a part of the second sum may die."""

    def __init__(self, folder: Path, dies: bool) -> None:
        self.folder, self.dies = folder, dies

    def numbers(self, rows: range, factor: Tensor) -> Tensor:
        if self.dies and float(factor) == 2.0 and rows.start == 0 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / f"{os.getpid()}-{rows.start}").touch()
        return factor * torch.tensor(rows).sum()


@pytest.mark.parametrize("dies", [False, True])
def test_an_actor_that_dies_in_a_sum_is_restarted(dies: bool, tmp_path: Path) -> None:
    with RayEngine(n_workers=2).summing(SumWork(Summands(tmp_path, dies), 11, tmp_path, "")) as total:
        for factor in (1.0, 2.0, 3.0):
            assert float(total("numbers", torch.tensor(factor))) == 55 * factor
    assert (tmp_path / "died").exists() == dies
    assert len({path.name.split("-")[0] for path in tmp_path.glob("*-*")}) == 2 + dies


def test_two_actors_project_gradients(tmp_path: Path) -> None:
    data = Marking(tmp_path / "marks")
    values = []
    for engine in ("local", RayEngine(n_workers=2)):
        storage = Storage(tmp_path / type(engine).__name__, shard_size=8, engine=engine)
        options: Any = {"n_components": 5, "cache_dir": storage, "show_progress": False, "batch_size": 8}
        method = ProjectedGradientSimilarity(network(), "2", data, **options)
        values.append(method.attribute(TEST))
        assert method.store_ is not None
        assert method.store_.n_computed == 25
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)


def test_an_error_in_an_actor_is_that_of_one_process(tmp_path: Path) -> None:
    data, inputs = Marking(tmp_path / "marks"), TEST.clone()
    inputs[3] = 3e38
    method = method_of("InputSimilarity", data, Storage(tmp_path / "store", shard_size=8, engine=RayEngine(2)))
    method.similarity = "dot"
    with pytest.raises(InvalidValueError, match=r"inputs of InputSimilarity must be inputs with finite attributions"):
        method.attribute(inputs, 0)
