"""What a hit in the store costs beside the extraction that it saves, and a fit beside the fit that it saves.

    python -m benchmarks.store_hit                # three cases, three repeats: twenty minutes
    python -m benchmarks.store_hit --cases mlp    # a minute

The cases are MNIST in memory with an MLP and with the paper's CNN, and MNIST decoded at 5 ms a sample.
Each step has a new object on the same network and data, as a second process has. ``decide`` is the part of a hit that
recognises network and data, the rest reads features and compares checksums. Seconds are those of the processor, and
those of the clock beside them, since a process that waits for samples uses none. One thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks import datasets
from benchmarks.arguments import common_parser
from benchmarks.networks import PaperCNN
from benchmarks.rows import Row, Rows
from dualview_plugin import DualView, Storage
from dualview_plugin.storage import ShardStore

N_DECODED, SECONDS_A_SAMPLE = 10_000, 0.005
CASES = ("mlp", "cnn", "decoded")
LABELS = {
    "mlp": "60,000 in memory, MLP",
    "cnn": "60,000 in memory, CNN",
    "decoded": "10,000 decoded at 5 ms each, MLP",
}
STEPS = ("extract", "build", "hit", "fit", "fit_hit")


class Decoded(Dataset[Any]):
    """Images that take their time, and of which nothing is known before."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.read, self.length, self.reads = lambda index: (images[index], int(labels[index])), len(images), 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(SECONDS_A_SAMPLE)
        self.reads += 1
        return self.read(index)


def mlp() -> nn.Sequential:
    """784, 512, 256 and ten units."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def main(arguments: Iterable[str] | None = None) -> None:
    parser = common_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-train", type=int, help="fewer images, for a trial")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(1)
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    jobs = [
        {"case": case, "repeat": repeat} | ({"n_train": chosen.n_train} if chosen.n_train else {})
        for case in chosen.cases
        for repeat in range(chosen.repeats)
    ]
    Rows("store_hit", chosen.data, chosen.results).run(jobs, lambda row: measured(row, *data.train.tensors))


def measured(row: Row, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Seconds of each step, and the samples that a hit reads."""
    torch.manual_seed(row["repeat"])
    network: nn.Module = PaperCNN() if row["case"] == "cnn" else mlp()
    n_train = row.get("n_train", N_DECODED if row["case"] == "decoded" else len(images))
    images, labels = images[:n_train], labels[:n_train]
    layer = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Callable[[DualView], object]] = dict.fromkeys(("extract", "build", "hit"), features)
        steps |= {"fit": DualView.fit, "fit_hit": DualView.fit}
        for name, step in steps.items():
            data: Any = Decoded(images, labels) if row["case"] == "decoded" else TensorDataset(images, labels)
            cache = None if name == "extract" else Storage(Path(folder))
            method = DualView(network, layer, data, cache_dir=cache, show_progress=False, time_limit=60)
            with warnings.catch_warnings(), timed(name, found):
                warnings.simplefilter("ignore")  # a stop before the tolerance does not matter here
                step(method)
            if name in ("hit", "fit_hit"):
                assert method.store_ is not None
                assert method.store_.n_computed == 0
                assert (method.store_.recalled == ("solution",)) == (name == "fit_hit")
                found[f"{name}_reads"] = getattr(data, "reads", 0)
    return found


def features(method: DualView) -> None:
    """The features of the training set and nothing else."""
    with method.visit():
        method._training_features(n_logits=0)


@contextmanager
def timed(name: str, found: dict[str, Any]) -> Iterator[None]:
    """Notes seconds of the processor and of the clock, also up to the reading of the first features."""
    gather = ShardStore.gather
    cpu, wall = time.process_time(), time.perf_counter()

    def noted(store: ShardStore, *args: Any) -> Any:
        found[f"{name}_decide_cpu"], found[f"{name}_decide_wall"] = (
            time.process_time() - cpu,
            time.perf_counter() - wall,
        )
        return gather(store, *args)

    ShardStore.gather = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShardStore.gather = gather  # type: ignore[method-assign]
    found[f"{name}_cpu"], found[f"{name}_wall"] = time.process_time() - cpu, time.perf_counter() - wall


def summary(rows: list[Row]) -> list[Row]:
    """The medians of each case."""
    cases = [case for case in CASES if any(row["case"] == case for row in rows)]
    table = []
    for case in cases:
        own = [row for row in rows if row["case"] == case and "n_train" not in row]
        names = [name for name in own[0] if name not in ("case", "repeat")]
        table.append({"case": case, **{name: statistics.median(row[name] for row in own) for name in names}})
    return table


if __name__ == "__main__":
    main()
