"""The big table: every method that runs here on every metric, with time, memory and intervals.

    python -m benchmarks.big_table --data digits --seeds 0 1 2
    python -m benchmarks.big_table --data mnist-10k
    python -m benchmarks.big_table --data digits --seeds 0 1 2 --methods dualxda "dattri TRAK"    # other packages'

Resumable: rows in ``results/big_table/<setting>/rows.jsonl`` are not measured again. Trained networks and the outputs
of retrained ones are kept in ``checkpoints/``. ``mnist-10k`` is 10,000 training points of MNIST, drawn with seed 0.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from benchmarks import contestants, datasets, memory
from benchmarks.explainers import LAYER
from benchmarks.neighbours import OF_ALL_METRICS, Neighbour
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows
from benchmarks.training import CHECKPOINTS, train_network, trained
from benchmarks.worlds import SETTINGS, Setting, World, make_world
from dualview_plugin import (
    TRAK,
    ArnoldiInfluence,
    DataAttribution,
    DualView,
    EKFACInfluence,
    FeatureSimilarity,
    GradCos,
    GradientSimilarity,
    InfluenceFunctions,
    InputSimilarity,
    LinearDatamodeling,
    MixedDatasets,
    ModelRandomization,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
    Sparsity,
    SubsetOutputs,
    TopCardinality,
    TracIn,
    data_attribution,
    retrain_on_subsets,
    retraining_curve,
    summed_attributions,
)
from dualview_plugin.metrics import (
    DataAttributionMetric,
    DomainMismatch,
    IdenticalClass,
    LabelPoisoning,
    LeaveOneOut,
    leave_one_out_effects,
)

WORLDS = ("standard", "grouped", "poisoned", "marked", "mixed")
SNAPSHOTS = 3  # of a training, for TracIn
SHARES = (0.1, 0.3, 0.5)  # of the training points, in coreset selection and data pruning
N_RESAMPLES = 1000


@dataclass(frozen=True)
class Size:
    """How much of everything, for one setting.

    Attributes:
        network: key in SETTINGS.
        n_train: training points; None: all.
        n_test: points that are explained.
        n_subsets: of the linear datamodeling score; 0: left out.
        n_removed: of leave-one-out; 0: left out.
        n_components: of TRAK.
        arnoldi_dim: of Arnoldi.
        curves: whether coreset selection and data pruning are measured.
    """

    network: str
    n_train: int | None
    n_test: int
    n_subsets: int
    n_removed: int
    n_components: int
    arnoldi_dim: int
    curves: bool


SIZES = {
    "digits": Size("digits", None, 200, 50, 20, 512, 60, True),
    "cifar10-quarter": Size("cifar10-quarter", None, 200, 0, 0, 2048, 20, False),
    "mnist-10k": Size("mnist-10k", 10_000, 200, 50, 0, 1024, 20, False),
}
METHODS: dict[str, tuple[Callable[..., DataAttribution], Row]] = {
    "RAND": (RandomAttribution, {"seed": 0}),
    "input similarity": (InputSimilarity, {}),
    "feature similarity": (FeatureSimilarity, {}),
    "DV, C = 1e-5": (DualView, {"C": 1e-5}),
    "DV, C = 1e-3": (DualView, {"C": 1e-3}),
    "DV, C = 1e-1": (DualView, {"C": 1e-1}),
    "DualDA, C = 1e-5": (DualView, {"C": 1e-5, "standardize": False, "fit_intercept": True}),
    "DualDA, C = 1e-3": (DualView, {"C": 1e-3, "standardize": False, "fit_intercept": True}),
    "DualDA, C = 1e-1": (DualView, {"C": 1e-1, "standardize": False, "fit_intercept": True}),
    "DV, C = auto": (DualView, {"C": "auto"}),
    "RPS": (RepresenterPoints, {"weight_decay": 0.003}),
    "IF": (InfluenceFunctions, {"solver": "exact"}),
    "SIM": (GradientSimilarity, {}),
    "SIM-rp": (ProjectedGradientSimilarity, {"n_components": 128, "seed": 0}),
    "SIM-rp, factored": (ProjectedGradientSimilarity, {"n_components": 128, "projection": "factored", "seed": 0}),
    "GradCos": (GradCos, {}),
    "TracIn": (TracIn, {}),
    "TRAK": (TRAK, {}),
    "Arnoldi": (ArnoldiInfluence, {"n_components": 20}),
    "EK-FAC": (EKFACInfluence, {}),
}


def main(arguments: Iterable[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(SIZES), default="digits")
    parser.add_argument("--root", default=datasets.DEFAULT_ROOT)
    parser.add_argument("--download", action="store_true", help="let torchvision download what is missing")
    parser.add_argument("--cheap", action="store_true", help="no leave-one-out, coreset selection or data pruning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *OF_ALL_METRICS], default=list(METHODS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    size = SIZES[chosen.data]
    return measured(chosen, replace(size, n_removed=0, curves=False) if chosen.cheap else size)


def measured(chosen: argparse.Namespace, size: Size) -> list[Row]:
    """The rows of all chosen methods in all chosen worlds."""
    setting = SETTINGS[size.network]
    rows, found = Rows("big_table", chosen.data, chosen.results), []
    data = subset(datasets.load(size.network.split("-")[0], chosen.root, download=chosen.download), size.n_train)
    for seed in chosen.seeds:
        for name in chosen.worlds:
            case = Case(data, setting, size, name, seed, chosen.checkpoints)
            found += rows.run([case.arguments(method) for method in chosen.methods], case.measure)
    return found


def current_rows(setting: str, folder: Path = RESULTS) -> list[Row]:
    """The rows of the setting's size and recipe as they are now; others, of a cheaper run, say, stay out."""
    size = SIZES[setting]
    wanted = asdict(size), asdict(SETTINGS[size.network].recipe)
    return [row for row in Rows("big_table", setting, folder).flat() if (row["size"], row["recipe"]) == wanted]


def current_scores(setting: str, folder: Path = RESULTS) -> list[Row]:
    """One row for each world, method, seed and metric."""
    return [
        {
            "world": row["world"],
            "method": row["method"],
            "seed": row["seed"],
            "metric": name,
            **{key: score.get(key) for key in ("score", "low", "high")},
        }
        for row in current_rows(setting, folder)
        for name, score in row["scores"].items()
    ]


def subset(data: datasets.ImageData, n_train: int | None) -> datasets.ImageData:
    """The data with so many of the training points, drawn with seed 0, and a name that says so."""
    if n_train is None:
        return data
    x, y = data.train.tensors
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:n_train]
    return replace(data, train=TensorDataset(x[order], y[order]))


@dataclass(frozen=True)
class Case:
    """One world with one seed; what all methods share is made once, and only if a row is missing.

    Attributes:
        data, setting, size: what is trained on what.
        world_name: one of :data:`WORLDS`.
        seed: of the training and of the world's modification.
        checkpoints: where networks are kept.
    """

    data: datasets.ImageData
    setting: Setting
    size: Size
    world_name: str
    seed: int
    checkpoints: Path

    def arguments(self, method: str) -> Row:
        """What identifies a row."""
        return {
            "method": method,
            "options": self.options(method),
            "world": self.world_name,
            "seed": self.seed,
            "network": self.setting.label,
            "recipe": asdict(self.setting.recipe),
            "size": asdict(self.size),
        }

    def options(self, method: str) -> Row:
        """The method's own parameters in this setting."""
        sized: dict[str, Row] = {
            "TRAK": {"n_components": self.size.n_components, "damping": 0.0, "seed": 0},
            "Arnoldi": {"arnoldi_dim": self.size.arnoldi_dim},
            "TracIn": {"snapshots": SNAPSHOTS, "n_components": 128},
        }
        if method in OF_ALL_METRICS:
            return OF_ALL_METRICS[method].options(self.data.name)
        return METHODS[method][1] | sized.get(method, {})

    @property
    def _folder(self) -> Path:
        return self.checkpoints / ("whole" if self.size.n_train is None else str(self.size.n_train))

    @cached_property
    def world(self) -> World:
        """The world, its network trained or loaded."""
        if self.world_name == "mixed":
            return self._mixed()
        n_test = self.size.n_test
        options: Row = {"seed": self.seed, "n_test": n_test, "checkpoints": self._folder, "show_progress": False}
        return make_world(self.world_name, self.data, self.setting, **options)

    def _mixed(self) -> World:
        """Half of the training points, and every second test point, as negatives: two sources of data."""
        generator = torch.Generator().manual_seed(self.seed)
        x, y = self.data.train.tensors
        negative = torch.rand(len(y), generator=generator) < 0.5
        x_test = self.data.test.tensors[0][: self.size.n_test].clone()
        sources = torch.arange(len(x_test)) % 2
        train = TensorDataset(torch.where(negative[:, None, None, None], self._negative(x), x), y)
        x_test[sources == 1] = self._negative(x_test[sources == 1])
        network = self._trained(train, "mixed")
        with torch.no_grad():
            decisions = network(x_test).argmax(1).numpy()
        metric = lambda: MixedDatasets(negative.int().numpy(), sources.numpy(), k=5)  # noqa: E731
        return World("mixed", train, network, float("nan"), x_test, decisions, "Mixed Datasets", metric, 0.5)

    def _negative(self, x: Tensor) -> Tensor:
        """Images with white and black exchanged."""
        return self.data.normalize(1 - (x * self.data.deviation + self.data.mean))

    def _trained(self, train: TensorDataset, name: str) -> nn.Module:
        label = self.setting.label.replace(" ", "-")
        return trained(
            lambda: self.setting.network(len(self.data.class_names)),
            train,
            self.setting.recipe,
            name=f"{self.data.name}-{label}-{name}",
            seed=self.seed,
            folder=self._folder,
            show_progress=False,
        )

    @cached_property
    def snapshots(self) -> tuple[list[dict[str, Tensor]], list[float]]:
        """Weights during a training like the network's, and the learning rates, for TracIn."""
        kept: list[tuple[dict[str, Tensor], float]] = []
        epochs = self.setting.recipe.epochs
        wanted = {round(epochs * (part + 1) / SNAPSHOTS) - 1 for part in range(SNAPSHOTS)}
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = self.setting.network(self._n_classes)

            def keep(epoch: int, rate: float) -> None:
                if epoch in wanted:
                    kept.append(({name: v.clone() for name, v in network.state_dict().items()}, max(rate, 1e-12)))

            train_network(network, self.world.train, self.setting.recipe, on_epoch=keep)
        return [state for state, _ in kept], [rate for _, rate in kept]

    @property
    def _n_classes(self) -> int:
        final = self.world.network.get_submodule(LAYER)
        return int(final.weight.shape[0])  # type: ignore[union-attr,operator,arg-type]

    def explainer(self, method: str) -> DataAttribution:
        """The method for this world."""
        options = dict(self.options(method))
        if options.pop("snapshots", None):
            states, rates = self.snapshots
            options |= {"checkpoints": states, "learning_rates": rates}
        return METHODS[method][0](self.world.network, LAYER, self.world.train, show_progress=False, **options)

    def neighbour(self, method: str, network: nn.Module, x_test: Tensor, targets: Tensor) -> Neighbour:
        """Another package's method for a network and these test points, unfitted."""
        case = contestants.Case(self.data.name, network, self.world.train, x_test, targets, "cpu")
        return OF_ALL_METRICS[method](case)

    def measure(self, arguments: Row) -> Row:
        """Scores with intervals, seconds and memory of a method."""
        world, method = self.world, arguments["method"]
        decisions = torch.as_tensor(world.decisions)
        if method in OF_ALL_METRICS:
            neighbour = self.neighbour(method, world.network, world.x_test, decisions)
            fit: Callable[[], object] = neighbour.fit
            attribute = neighbour.explain
            explainer: Any = self._function(method)
        else:
            ours = explainer = self.explainer(method)
            fit = ours.fit
            attribute = lambda: torch.cat(list(ours.attribute_blocks(world.x_test, decisions)))  # noqa: E731
        memory.forget_peak()
        before, start = memory.used_mib(), time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
            fitted = time.perf_counter()
            attributions = attribute().double().numpy()
        attributed = time.perf_counter()
        result: Row = {
            "fit_seconds": fitted - start,
            "attribute_seconds": attributed - fitted,
            "peak_mib": memory.peak_mib() - before,
            "n_explained": len(attributions),
            "test_accuracy": world.test_accuracy,
            "warnings": sorted({type(warning.message).__name__ for warning in caught}),
        }
        return result | {"scores": self._scores(explainer, attributions)}

    def _function(self, method: str) -> Any:
        """Another package's method as a function for metrics that fit it to another network."""

        def attributions(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
            neighbour = self.neighbour(method, model, torch.as_tensor(inputs), torch.as_tensor(targets))
            neighbour.fit()
            return neighbour.explain()

        return data_attribution(attributions)

    def _scores(self, explainer: Any, attributions: np.ndarray[Any, Any]) -> Row:
        world, labels = self.world, self.world.train.tensors[1].numpy()
        metrics: dict[str, DataAttributionMetric] = {world.metric_name: world.metric()}
        if world.name == "standard":
            metrics |= {
                "class detection, top 5": IdenticalClass(labels, k=5),
                "distinct top points": TopCardinality(),
                "commonest top point": TopCardinality(variant="commonest"),
                "sparsity, Hoyer": Sparsity(),
                "sparsity, l0": Sparsity(variant="l0"),
                "sparsity, 90 % of the mass": Sparsity(variant="mass"),
            }
            if self.size.n_subsets:
                metrics["LDS, log-softmax"] = LinearDatamodeling(self.retrained.subsets, self.retrained.log_softmax)
                metrics["LDS, margin"] = LinearDatamodeling(self.retrained.subsets, self.retrained.margin)
            if self.size.n_removed:
                metrics["leave one out"] = LeaveOneOut(*self.left_out)
        if world.name == "marked":
            metrics["shortcut detection, AUPRC"] = DomainMismatch(world.metric().marked.indices, variant="auprc")
            metrics["distinct top points"] = TopCardinality()
            metrics["commonest top point"] = TopCardinality(variant="commonest")
        found = {name: self._score(metric, attributions) for name, metric in metrics.items()}
        found |= self._of_the_method(explainer)
        if world.name == "standard" and self.size.curves:
            found |= self._curves(attributions)
        return found

    def _of_the_method(self, explainer: Any) -> Row:
        """Scores that ask the method itself: its self-influence, if it is ours, and its fit to another network."""
        world = self.world
        options: Row = {"x_batch": world.x_test.numpy(), "y_batch": world.decisions, "a_batch": None}
        options |= {"explain_func": explainer, "explain_func_kwargs": {}}
        if world.name == "poisoned" and isinstance(explainer, DataAttribution):
            poisoned = world.metric().poisoned.indices
            metric: DataAttributionMetric = LabelPoisoning(poisoned, ranking="self_influence")
            return {"mislabelling, self-influence": _with_interval(metric(world.network, **options))}
        if world.name == "standard" and not isinstance(explainer, TracIn):
            few = {key: value[:50] if key in ("x_batch", "y_batch") else value for key, value in options.items()}
            return {"model randomisation": _with_interval(ModelRandomization()(world.network, **few))}
        return {}

    def _score(self, metric: DataAttributionMetric, attributions: np.ndarray[Any, Any]) -> Row:
        scores = metric(
            self.world.network, self.world.x_test.numpy(), self.world.decisions, a_batch=attributions, explain_func=None
        )
        return _with_interval(scores)

    @cached_property
    def retrained(self) -> SubsetOutputs:
        """Networks retrained on halves of the training data."""
        labels = self.data.test.tensors[1][: len(self.world.x_test)].numpy()
        return retrain_on_subsets(
            self.train,
            self.world.train,
            self.world.x_test,
            labels,
            self.world.decisions,
            folder=self._folder / f"{self.data.name}-subsets-seed{self.seed}",
            n_subsets=self.size.n_subsets,
            settings=asdict(self.setting.recipe),
        )

    @cached_property
    def left_out(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Effects of leaving out single training points, and which, drawn with the seed."""
        generator = np.random.default_rng(self.seed)
        removed = np.sort(generator.choice(len(self.world.train), self.size.n_removed, replace=False))
        decisions = torch.as_tensor(self.world.decisions)[:, None]

        @torch.no_grad()
        def output(network: nn.Module) -> np.ndarray[Any, Any]:
            return network(self.world.x_test).log_softmax(1).gather(1, decisions)[:, 0].numpy()

        return leave_one_out_effects(removed, self.world.train, self.train, output, seed=self.seed), removed

    def train(self, part: Dataset[Any], _seed: int) -> nn.Module:
        """A network trained on a part of the data with the recipe; torch is seeded by the caller."""
        network = self.setting.network(self._n_classes)
        samples = [part[index] for index in range(len(part))]  # type: ignore[arg-type]
        images, labels = torch.stack([x for x, _ in samples]), torch.tensor([int(y) for _, y in samples])
        train_network(network, TensorDataset(images, labels), self.setting.recipe)
        return network.eval()

    def _curves(self, attributions: np.ndarray[Any, Any]) -> Row:
        """Areas of the mean test cross-entropy over the share of training points that is kept."""
        found = {}
        for sign in ("absolute", "signed"):
            ranking = summed_attributions(attributions, sign)  # type: ignore[arg-type]
            for keep, name in (("top", "coreset selection"), ("bottom", "data pruning")):
                curve = retraining_curve(
                    ranking,
                    self.world.train,
                    self.train,
                    self._test_loss,
                    keep=keep,
                    shares=SHARES,
                    seed=self.seed,  # type: ignore[arg-type]
                )
                found[f"{name}, {sign}"] = {"score": curve.area, "values": curve.values.tolist()}
        return found

    @torch.no_grad()
    def _test_loss(self, network: nn.Module) -> float:
        x, y = self.data.test.tensors
        return float(cross_entropy(torch.cat([network(part) for part in x.split(512)]), y))


def _with_interval(scores: Iterable[float]) -> Row:
    """The mean and a 95 % bootstrap interval over test points, which a single score has not."""
    values = np.asarray(list(scores), dtype=np.float64)
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return {"score": None}
    if len(values) == 1:
        return {"score": float(known[0])}
    generator = np.random.default_rng(0)
    means = generator.choice(known, (N_RESAMPLES, len(known))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"score": float(known.mean()), "low": float(low), "high": float(high), "n": len(known)}


def arguments_of(row: Mapping[str, Any]) -> Row:
    """A row's arguments and result side by side."""
    return {**row["arguments"], **row["result"]}


if __name__ == "__main__":
    main()
