"""The paper's four worlds: a data set changed in a controlled way, a network trained on it, and the metric for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.datasets import ImageData
from benchmarks.networks import CifarResNet, PaperCNN
from benchmarks.training import CHECKPOINTS, Recipe, accuracy, trained
from dualview_plugin import (
    DomainMismatch,
    GroupedClasses,
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    MarkedImages,
    PoisonedLabels,
)
from examples.digits import small_cnn

GROUPS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
MARKED_CLASS = 2
POISONED_FRACTION = {"mnist": 0.3, "digits": 0.3, "cifar10": 0.1}
MARKED_FRACTION = 0.3
WORLDS = ("standard", "grouped", "poisoned", "marked")


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained, for one data set.

    Attributes:
        network: makes the untrained network for a number of classes.
        recipe: of its training.
        label: what the tables call it.
    """

    network: Callable[[int], nn.Module]
    recipe: Recipe
    label: str


SETTINGS = {
    "mnist": Setting(PaperCNN, Recipe(epochs=4, learning_rate=0.05, optimizer="sgd"), "the paper's CNN"),
    "mnist-10k": Setting(PaperCNN, Recipe(epochs=12, learning_rate=0.05, optimizer="sgd"), "the paper's CNN"),
    "digits": Setting(small_cnn, Recipe(epochs=12, learning_rate=4e-3, batch_size=64), "small CNN"),
    "cifar10": Setting(
        CifarResNet, Recipe(epochs=30, learning_rate=0.1, optimizer="sgd", augment=True), "ResNet-18 for 32 × 32"
    ),
    "cifar10-quarter": Setting(
        lambda n_classes: CifarResNet(n_classes, width=16),
        Recipe(epochs=60, learning_rate=0.1, optimizer="sgd", augment=True),
        "ResNet-18 for 32 × 32 with a quarter of the channels",
    ),
    "cifar10-narrow": Setting(
        lambda n_classes: CifarResNet(n_classes, width=8),
        Recipe(epochs=8, learning_rate=0.1, optimizer="sgd", augment=True),
        "ResNet-18 for 32 × 32 with an eighth of the channels",
    ),
}


@dataclass(frozen=True)
class World:
    """A trained network with what is explained in it.

    Attributes:
        name: one of :data:`WORLDS`.
        train: what the network was trained on.
        network: in eval mode.
        test_accuracy: on the whole test set, with this world's labels (marked world: unmarked images).
        x_test: what is explained, (n_test, …).
        decisions: the network's, (n_test,): the explained classes.
        metric_name: of the one metric that this world is for.
        metric: makes it.
        random_score: what a random attributor is expected to score.
    """

    name: str
    train: TensorDataset
    network: nn.Module
    test_accuracy: float
    x_test: Tensor
    decisions: np.ndarray[Any, Any]
    metric_name: str
    metric: Callable[[], Any]
    random_score: float


def make_world(
    name: str,
    data: ImageData,
    setting: Setting,
    *,
    seed: int,
    n_test: int,
    device: str = "cpu",
    checkpoints: Path = CHECKPOINTS,
    show_progress: bool = True,
) -> World:
    """The world of this name, its network trained or loaded; modifications have the same seed as the training."""
    makers = {"standard": _standard, "grouped": _grouped, "poisoned": _poisoned, "marked": _marked}
    train, y_test, finish = makers[name](data, seed)
    n_classes = int(torch.cat([train.tensors[1], y_test]).max()) + 1
    network = trained(
        lambda: setting.network(n_classes),
        train,
        setting.recipe,
        name=f"{data.name}-{setting.label.replace(' ', '-')}-{name}",
        seed=seed,
        device=device,
        folder=checkpoints,
        show_progress=show_progress,
    )
    x_test, metric_name, metric, random_score = finish(network, n_test)
    return World(
        name,
        train,
        network,
        accuracy(network, data.test.tensors[0], y_test, device),
        x_test,
        _decisions(network, x_test, device),
        metric_name,
        metric,
        random_score,
    )


def _standard(data: ImageData, _seed: int) -> tuple[TensorDataset, Tensor, Callable[..., Any]]:
    x_test, y_test = data.test.tensors
    labels = data.train.tensors[1].numpy()
    random_score = 1 / len(data.class_names)

    def finish(_network: nn.Module, n_test: int) -> tuple[Any, ...]:
        return x_test[:n_test], "Identical Class", lambda: IdenticalClass(labels), random_score

    return data.train, y_test, finish


def _grouped(data: ImageData, _seed: int) -> tuple[TensorDataset, Tensor, Callable[..., Any]]:
    grouping = GroupedClasses(data.train, GROUPS)
    x_test, y_test = data.test.tensors
    superclasses = torch.tensor([grouping.superclass(int(label)) for label in y_test])

    def finish(_network: nn.Module, n_test: int) -> tuple[Any, ...]:
        subclasses = y_test[:n_test].numpy()
        metric = lambda: IdenticalSubclass(grouping.subclasses, subclasses)  # noqa: E731
        return x_test[:n_test], "Identical Subclass", metric, 1 / len(data.class_names)

    return materialized(grouping), superclasses, finish


def _poisoned(data: ImageData, seed: int) -> tuple[TensorDataset, Tensor, Callable[..., Any]]:
    fraction = POISONED_FRACTION[data.name]
    poisoning = PoisonedLabels(data.train, fraction, len(data.class_names), seed=seed)
    x_test, y_test = data.test.tensors

    def finish(_network: nn.Module, n_test: int) -> tuple[Any, ...]:
        return x_test[:n_test], "Label Poisoning", lambda: LabelPoisoning(poisoning.poisoned_indices), 0.5

    return materialized(poisoning), y_test, finish


def _marked(data: ImageData, seed: int) -> tuple[TensorDataset, Tensor, Callable[..., Any]]:
    mean, std = data.mean.flatten().tolist(), data.deviation.flatten().tolist()
    marking = MarkedImages(data.train, MARKED_CLASS, MARKED_FRACTION, seed=seed, mean=mean, std=std)
    x_test, y_test = data.test.tensors

    def finish(network: nn.Module, n_test: int) -> tuple[Any, ...]:
        x_marked, _ = marking.mismatched(network, x_test, y_test)
        random_score = len(marking.marked_indices) / len(marking)
        return x_marked[:n_test], "Domain Mismatch", lambda: DomainMismatch(marking.marked_indices), random_score

    return materialized(marking), y_test, finish


def materialized(dataset: Dataset[Any]) -> TensorDataset:
    """The items of a lazy dataset, made once: faster to go through several times."""
    items = [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]
    return TensorDataset(torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items]))


@torch.no_grad()
def _decisions(network: nn.Module, x: Tensor, device: str) -> np.ndarray[Any, Any]:
    parts = [network(part.to(device)).argmax(dim=1).cpu() for part in x.split(512)]
    return torch.cat(parts).numpy() if parts else np.zeros(0, dtype=np.int64)
