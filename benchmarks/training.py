"""Training of the benchmark networks, checkpointed: a second run loads what the first one trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dualview_plugin.network import fingerprint

OnEpoch = Callable[[int, float], None]
CHECKPOINTS = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam or SGD with a one-cycle schedule.

    Attributes:
        epochs: passes over the training set.
        learning_rate: the schedule's peak.
        batch_size: of the training batches.
        optimizer: "adam", or "sgd" with momentum 0.9 and weight decay 5e-4.
        augment: random crops with a margin of 4 pixels and horizontal flips.
    """

    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 128
    optimizer: str = "adam"
    augment: bool = False


def trained(
    make_network: Callable[[], nn.Module],
    dataset: Dataset[Any],
    recipe: Recipe,
    *,
    name: str,
    seed: int,
    device: str = "cpu",
    folder: Path = CHECKPOINTS,
    show_progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """The network after training with this recipe and seed, in eval mode; loaded if it was trained before."""
    path = folder / f"{name}-seed{seed}-{fingerprint(recipe)[:8]}.pt"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make_network().to(device)
        if path.exists():
            network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
            return network.eval()
        desc = f"training {name}, seed {seed}"
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.with_suffix(".begun")
        options: dict[str, Any] = {"desc": desc, "show_progress": show_progress, "on_epoch": on_epoch}
        train_network(network, dataset, recipe, device, begun=begun, **options)
    _save(network.state_dict(), path)
    begun.unlink(missing_ok=True)
    return network.eval()


def train_network(
    network: nn.Module,
    dataset: Dataset[Any],
    recipe: Recipe,
    device: str = "cpu",
    *,
    desc: str = "training",
    show_progress: bool = False,
    on_epoch: OnEpoch | None = None,
    begun: Path | None = None,
) -> None:
    """Train in place.

    Args:
        network: trained in place.
        dataset: what it learns.
        recipe: how.
        device: where.
        desc: of the progress bar.
        show_progress: the bar itself.
        on_epoch: called with each finished epoch and the learning rate.
        begun: a file with the state after the last whole epoch; a training that was broken off goes on from it, and
            ends with the weights that it would have had.
    """
    loader = DataLoader(dataset, batch_size=recipe.batch_size, shuffle=True)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    else:
        optimizer = torch.optim.SGD(
            network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
    n_steps = recipe.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=n_steps)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = 0 if begun is None or not begun.exists() else _resumed(parts, begun, device)
    network.train()
    with tqdm(total=n_steps, initial=first * len(loader), desc=desc, disable=not show_progress) as bar:
        for epoch in range(first, recipe.epochs):
            for x, y in loader:
                inputs = _augmented(x) if recipe.augment else x
                optimizer.zero_grad()
                cross_entropy(network(inputs.to(device)), y.to(device)).backward()
                optimizer.step()
                schedule.step()
                bar.update()
            if begun is not None:
                states = {name: part.state_dict() for name, part in parts.items()}
                _save({**states, "epochs": epoch + 1, "random": torch.get_rng_state()}, begun)
            if on_epoch is not None:
                on_epoch(epoch, optimizer.param_groups[0]["lr"])


def _resumed(parts: dict[str, Any], begun: Path, device: str) -> int:
    """The number of finished epochs, once the parts and the random state are as they were after them."""
    stored = torch.load(begun, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    torch.set_rng_state(stored["random"].cpu())
    return int(stored["epochs"])


def _save(content: Any, path: Path) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


def _augmented(x: Tensor, margin: int = 4) -> Tensor:
    """One random shift and one random flip for each image of the batch."""
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, (margin,) * 4)
    rows = torch.randint(2 * margin + 1, (n, 1)) + torch.arange(height)
    columns = torch.randint(2 * margin + 1, (n, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor, device: str = "cpu", batch_size: int = 512) -> float:
    """Share of the images whose strongest output is their label."""
    decisions = torch.cat([network(part.to(device)).argmax(dim=1).cpu() for part in x.split(batch_size)])
    return float((decisions == y).float().mean())
