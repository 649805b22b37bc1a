"""A user's module: functions that the command takes as MODULE:FUNCTION."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin.cli.task import Task

FEATURES, CLASSES = 7, 3
NEEDED = ("model", "final_fc_layer", "train_dataset", "y_test")


def task() -> dict[str, Any]:
    """Grey images of one row, and a network with the classes' means in its last layer."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(29) % CLASSES
    images = torch.rand(29, 1, 1, FEATURES, generator=generator)
    images[torch.arange(29), 0, 0, labels] += 1
    network = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(CLASSES, FEATURES))
    return {
        "model": network,
        "final_fc_layer": "1",
        "train_dataset": DataLoader(TensorDataset(images, labels), batch_size=11),
        "x_test": images[:13].numpy() + 0.1,
        "y_test": labels[:13],
        "class_names": ["ape", "bee", "cow"],
        "test_ids": [f"photo-{i}" for i in range(13)],
        "C": 0.5,
        "poisoned_indices": [3, 5],
    }


def without_data() -> dict[str, Any]:
    return {"model": nn.Linear(2, 2)}


def misspelt() -> dict[str, Any]:
    return {**task(), "class_name": []}


def no_network() -> dict[str, Any]:
    return {**task(), "model": "network"}


def text() -> dict[str, Any]:
    return {**task(), "x_test": "images"}


def few_labels() -> dict[str, Any]:
    return {**task(), "y_test": torch.zeros(2, dtype=torch.int64)}


def few_names() -> dict[str, Any]:
    return {**task(), "test_ids": ["photo"]}


def with_argument(size: int) -> dict[str, Any]:
    return {**task(), "C": float(size)}


def no_mapping() -> int:
    return 3


def needs_another_module() -> None:
    import a_module_that_is_not_there  # noqa: F401


def as_task() -> Task:
    """As the command's own tasks are."""
    made = task()
    return Task(**{name: made[name] for name in NEEDED}, x_test=torch.as_tensor(made["x_test"]))


def number() -> dict[str, Any]:
    return {**task(), "x_test": 3.0}


def random_network() -> dict[str, Any]:
    """A network that draws at every call."""

    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    return {**task(), "model": nn.Sequential(Noise(), *task()["model"]), "final_fc_layer": "2"}


def nothing_to_explain() -> dict[str, Any]:
    return {**task(), "x_test": task()["x_test"][:0], "y_test": None, "test_ids": None}


def words_for_labels() -> dict[str, Any]:
    return {**task(), "y_test": ["ape"] * 13}


def half_labels() -> dict[str, Any]:
    return {**task(), "y_test": [0.5] * 13}


def dark() -> dict[str, Any]:
    """Two test images without any light, on which no feature is active."""
    made = task()
    made["x_test"][3:5] = 0
    return made


def odd_names() -> dict[str, Any]:
    """Tensors for names, and names of files that are no UTF-8."""
    return {**task(), "test_ids": torch.arange(13), "train_ids": [f"file-\udcff-{i}" for i in range(29)]}


def dollars() -> dict[str, Any]:
    return {**task(), "class_names": ["US$ and A$", "$\\foo$", "c"], "test_ids": ["$x^$"] * 13}


def short_floats() -> dict[str, Any]:
    """A leaf that gradients are wanted of."""
    return {**task(), "x_test": torch.as_tensor(task()["x_test"]).bfloat16().requires_grad_()}
