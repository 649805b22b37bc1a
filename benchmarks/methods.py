"""Time and memory of every method: the fit, and the explanation of test points, each method in a process of its own.

    python -m benchmarks.methods [--only NAME ...] [--n-test 2000]

Writes results/methods.json and results/methods.csv and prints a table. Times are of a single run: repeat it on a quiet
machine, and read the ratios between methods rather than the seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.datasets import load
from benchmarks.networks import PaperCNN
from benchmarks.record import write_csv, write_json
from benchmarks.training import Recipe, trained
from dualview_plugin import (
    DataAttribution,
    DualView,
    GradientSimilarity,
    InfluenceFunctions,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
)
from dualview_plugin.errors import ConvergenceWarning

BASELINE = "DualView"


@dataclass(frozen=True)
class World:
    """A trained network, the name of its last layer, its training data and test inputs."""

    model: nn.Module
    final_fc_layer: str
    train: Dataset[Any]
    x_test: Tensor


def mnist() -> World:
    """The paper's CNN on all 60,000 training digits."""
    data = load("mnist")
    model = trained(PaperCNN, data.train, Recipe(epochs=4), name="mnist-standard", seed=0)
    return World(model, "fc", data.train, data.test.tensors[0])


def wide_layer() -> World:
    """A last layer of ResNet-18's size alone: 50,000 points with 512 features and 10 classes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(52_000, 512, generator=generator).relu()
    layer = nn.Linear(512, 10, bias=False)
    layer.weight.data = torch.randn(10, 512, generator=generator) / 4
    labels = layer(features[:50_000]).argmax(1)
    return World(nn.Sequential(layer), "0", TensorDataset(features[:50_000], labels), features[50_000:])


@dataclass(frozen=True)
class Contestant:
    """A method with its world; ``max_test`` bounds the test points where each takes long."""

    make_world: Callable[[], World]
    method: type[DataAttribution]
    options: dict[str, Any]
    max_test: int = 10**9


CONTESTANTS = {
    BASELINE: Contestant(mnist, DualView, {}),
    "IF, exact": Contestant(mnist, InfluenceFunctions, {}),
    "IF, conjugate gradients": Contestant(mnist, InfluenceFunctions, {"solver": "cg"}, max_test=100),
    "IF, LiSSA": Contestant(mnist, InfluenceFunctions, {"solver": "lissa"}, max_test=100),
    "RPS": Contestant(mnist, RepresenterPoints, {}),
    "SIM": Contestant(mnist, GradientSimilarity, {}),
    "SIM-rp": Contestant(mnist, ProjectedGradientSimilarity, {}),
    "RAND": Contestant(mnist, RandomAttribution, {}),
    "IF, exact, 512 features": Contestant(wide_layer, InfluenceFunctions, {}),
}


@dataclass(frozen=True)
class Measurement:
    """What one method took.

    Attributes:
        name: of the method.
        n_train: training points.
        n_test: test points explained, against all training points.
        fit_seconds: from the network and the data to the fitted object, the forward passes included.
        explain_seconds: for all test points.
        fit_mib: peak memory of the process during the fit, beyond what network and data take.
        explain_mib: likewise during the explanation, a block of test points at a time.
        remarks: warnings of the method.
    """

    name: str
    n_train: int
    n_test: int
    fit_seconds: float
    explain_seconds: float
    fit_mib: float
    explain_mib: float
    remarks: str

    @property
    def milliseconds_per_point(self) -> float:
        """Time to explain one test point."""
        return 1e3 * self.explain_seconds / self.n_test


def measure(name: str, n_test: int) -> Measurement:
    """Fit and explain in this process."""
    contestant = CONTESTANTS[name]
    world = contestant.make_world()
    x_test = world.x_test[: min(n_test, contestant.max_test)]
    method = contestant.method(
        world.model, world.final_fc_layer, world.train, show_progress=False, **contestant.options
    )
    _warm_up(contestant, world)
    before = _peak_mib()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fit_seconds, fit_mib = _measured(method.fit)
        explain_seconds, explain_mib = _measured(lambda: sum(len(block) for block in method.attribute_blocks(x_test)))
    remarks = "; ".join(str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning))
    sizes = method.n_train_, len(x_test)
    return Measurement(name, *sizes, fit_seconds, explain_seconds, fit_mib - before, explain_mib - before, remarks)


def _warm_up(contestant: Contestant, world: World) -> None:
    """Compile and load what a first call does, on a few points."""
    few = TensorDataset(
        *(torch.stack(list(part)) for part in zip(*(_pair(world.train, i) for i in range(64)), strict=True))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = contestant.method(world.model, world.final_fc_layer, few, show_progress=False, **contestant.options)
        small.attribute(world.x_test[:2])
    _reset_peak()


def _pair(dataset: Any, index: int) -> tuple[Tensor, Tensor]:
    return tuple(map(torch.as_tensor, dataset[index]))  # type: ignore[return-value]


def _measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the peak memory of the process meanwhile in MiB."""
    _reset_peak()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, _peak_mib()


def _reset_peak() -> None:
    """Forget the process's peak memory so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """Peak memory of the process since the last reset, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--n-test", type=int, default=2000, help="test points to explain")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(asdict(measure(arguments.only[0], arguments.n_test))))
        return
    mnist()  # trains the network once, if it is not there
    measurements = [_in_a_process(name, arguments.n_test) for name in arguments.only]
    if list(arguments.only) == list(CONTESTANTS):
        _write(measurements)


def _in_a_process(name: str, n_test: int) -> Measurement:
    command = [sys.executable, "-m", "benchmarks.methods", "--child", "--only", name, "--n-test", str(n_test)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    measurement = Measurement(**json.loads(output.splitlines()[-1]))
    print(_line(measurement), flush=True)
    return measurement


def _line(m: Measurement) -> str:
    return (
        f"{m.name:24} fit {m.fit_seconds:8.2f} s {m.fit_mib:7.0f} MiB   "
        f"{m.n_test:5} test points {m.explain_seconds:8.2f} s, {m.milliseconds_per_point:9.3f} ms each, "
        f"{m.explain_mib:7.0f} MiB   {m.remarks}"
    )


def _write(measurements: list[Measurement]) -> None:
    """The results with the ratios to the baseline."""
    (baseline,) = (m for m in measurements if m.name == BASELINE)
    rows = [
        asdict(m)
        | {
            "milliseconds_per_point": m.milliseconds_per_point,
            "fit_ratio": m.fit_seconds / baseline.fit_seconds,
            "explain_ratio": m.milliseconds_per_point / baseline.milliseconds_per_point,
        }
        for m in measurements
    ]
    for row in rows:
        print(f"{row['name']:24} fit {row['fit_ratio']:8.2f} x   explain {row['explain_ratio']:10.2f} x {BASELINE}")
    print(write_json("methods", {"baseline": BASELINE, "threads": torch.get_num_threads(), "methods": rows}))
    print(write_csv("methods", rows))


if __name__ == "__main__":
    main()
