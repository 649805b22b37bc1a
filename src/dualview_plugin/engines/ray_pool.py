"""A pool of Ray actors, each with the network: one shard is one task."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor

from dualview_plugin.data import RangeResult
from dualview_plugin.engines.work import ShardWork, SumWork
from dualview_plugin.errors import MissingDependencyError
from dualview_plugin.storage import Column, ShardStore
from dualview_plugin.sums import Total
from dualview_plugin.validation import check_integer, check_positive

_TASKS_PER_ACTOR = 2  # one that runs and one that waits
_PATIENCE = 3.0  # seconds in which actors of a former pool should have ended


class RayEngine:
    """Hands shards to Ray actors and writes what they return.

    Network and dataset travel to each actor once, by pickle. An actor that dies is restarted and its shard computed
    again; shards that are written are never computed again. Only the calling process writes to the store, so actors
    need no common folder. A fit or a solver that adds up over the training points has a pool of its own meanwhile,
    whose actors hold the features. Without ``ray.init`` before, Ray starts on this machine; on a cluster call
    ``ray.init`` with its address.

    Args:
        n_workers: actors at most; None: one for each CPU, or for each GPU if ``num_gpus``. There are never more than
            are free when the work begins.
        num_gpus: GPUs of each actor, fractions allowed. The network must then be on the GPU.
        num_cpus: CPUs of each actor.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint.
        MissingDependencyError: Ray is not installed.

    Cost: one copy of the network and the dataset for each actor.
    """

    jointly = False

    def __init__(self, n_workers: int | None = None, *, num_gpus: float = 0, num_cpus: float = 1) -> None:
        owner = type(self).__name__
        self.n_workers = None if n_workers is None else check_integer(n_workers, "n_workers", owner)
        self.num_gpus = check_positive(num_gpus, "num_gpus", owner, allow_zero=True)
        self.num_cpus = check_positive(num_cpus, "num_cpus", owner)
        _ray()

    def complete(
        self, store: ShardStore, columns: list[Column], work: ShardWork, done: Callable[[int], object]
    ) -> None:
        """Compute what is missing; see :class:`Engine`."""
        ray, missing = _ray(), store.missing(columns)
        if not missing:
            return
        with self._pool(_Worker, work, len(missing)) as actors:
            waiting = iter(missing)
            running: dict[Any, tuple[int, Any]] = {}
            for actor in actors * _TASKS_PER_ACTOR:
                self._start(running, waiting, actor, store)
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                shard, actor = running.pop(ready)
                _, values, digest = ray.get(ready)
                self._start(running, waiting, actor, store)
                store.write(shard, values, digest)
                done(1)

    @contextmanager
    def summing(self, work: SumWork, /) -> Iterator[Total | None]:
        """Each actor adds up over a range of the training points; see :class:`Engine`."""
        ray = _ray()
        with self._pool(_Summer, work, work.n_train) as actors:
            ranges = work.ranges(len(actors))

            def total(name: str, *inputs: Tensor) -> Tensor:
                given = ray.put(inputs)
                parts = [actor.part.remote(rows, name, given) for actor, rows in zip(actors, ranges, strict=True)]
                result: Tensor = ray.get(parts.pop(0)).clone()
                while parts:
                    result += ray.get(parts.pop(0))
                return result

            yield total

    @contextmanager
    def _pool(self, kind: type, given: Any, n_tasks: int) -> Iterator[list[Any]]:
        """Actors of a kind, each with its copy of what is given, which lies in Ray's store; they end with the block."""
        ray = _ray()
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        shared = ray.put(given)  # held until the end: an actor that is restarted asks for it again
        options = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "max_restarts": -1, "max_task_retries": -1}
        n_actors = min(self._n_actors(ray), n_tasks)
        actors = [ray.remote(**options)(kind).remote(shared) for _ in range(n_actors)]
        try:
            yield actors
        finally:
            for actor in actors:
                ray.kill(actor)
            del shared

    def _n_actors(self, ray: ModuleType) -> int:
        """As many actors as wanted, and no more than are free: one that waits for its turn would hold up all others.

        What a former pool had is free a moment after its end.
        """
        wanted = min(self.n_workers or sys.maxsize, self._fitting(ray.cluster_resources()))
        patience = time.monotonic() + _PATIENCE
        while (n_free := self._fitting(ray.available_resources())) < wanted and time.monotonic() < patience:
            time.sleep(0.1)
        return max(1, min(wanted, n_free))

    def _fitting(self, resources: dict[str, float]) -> int:
        """How many actors these resources are enough for."""
        if self.num_gpus:
            return int(resources.get("GPU", 0) / self.num_gpus)
        return int(resources.get("CPU", 0) / self.num_cpus)

    def _start(self, running: dict[Any, tuple[int, Any]], waiting: Any, actor: Any, store: ShardStore) -> None:
        """Give an actor the next shard, if there is one."""
        shard = next(waiting, None)
        if shard is not None:
            running[actor.compute.remote(store.rows(shard))] = shard, actor


class _Worker:
    """Runs in an actor."""

    def __init__(self, work: ShardWork) -> None:
        self._work = work

    def compute(self, rows: range) -> RangeResult:
        """One shard."""
        ((_, values, digest),) = self._work([rows])
        return rows, {name: tensor.detach().cpu() for name, tensor in values.items()}, digest


class _Summer:
    """Runs in an actor."""

    def __init__(self, work: SumWork) -> None:
        self._work = work

    def part(self, rows: range, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
        """What a range of training points gives."""
        return self._work.part(rows, name, inputs)


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependencyError("engine 'ray' needs Ray: pip install ray") from error
