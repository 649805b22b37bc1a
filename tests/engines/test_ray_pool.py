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

from dualview_plugin.engines import RayEngine
from tests.storage.worlds import TEST, dualview, tensors

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Marking(Dataset[Any]):
    """Slow samples; each reading leaves the number of the process that reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, tensors(200)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(0.01)
        (self.folder / str(os.getpid())).touch()
        x, y = self.source[index]
        return x, int(y)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Any:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("kill", [False, True])
def test_two_actors_compute_what_one_process_computes(kill: bool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    data, killed = Marking(marks), list[int]()

    def kill_one() -> None:
        while not (actors := [int(path.name) for path in marks.iterdir() if path.name != str(os.getpid())]):
            time.sleep(0.01)
        os.kill(actors[0], signal.SIGKILL)
        killed.append(actors[0])

    killer = threading.Thread(target=kill_one if kill else lambda: None)
    killer.start()
    method = dualview(tmp_path / "store", data, engine=RayEngine(n_workers=2)).fit()
    killer.join()
    assert method.store_ is not None
    assert method.store_.n_computed == method.store_.n_shards == 25
    actors = {int(path.name) for path in marks.iterdir()} - {os.getpid()}
    assert len(actors) >= 2 + kill
    assert len(killed) == kill
    expected = dualview(tmp_path / "local", data).attribute(TEST)
    assert torch.equal(method.attribute(TEST), expected)
    assert dualview(tmp_path / "store", data).fit().store_.n_computed == 0  # type: ignore[union-attr]
