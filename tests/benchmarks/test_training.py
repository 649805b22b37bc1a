"""A training that is broken off goes on, and ends with the weights that it would have had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.training import Recipe, trained

RECIPE = Recipe(epochs=3, learning_rate=0.1, batch_size=5, optimizer="sgd", augment=True)


def dataset() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(29, 1, 5, 5, generator=generator), torch.arange(29) % 3)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 11), nn.BatchNorm1d(11), nn.ReLU(), nn.Linear(11, 3))


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    def broken_off(epoch: int, _rate: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    options = {"name": "small", "seed": 3, "show_progress": False}
    whole = trained(network, dataset(), RECIPE, folder=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        trained(network, dataset(), RECIPE, folder=tmp_path / "parts", on_epoch=broken_off, **options)
    assert list((tmp_path / "parts").glob("*.begun"))
    epochs: list[int] = []
    kept = trained(
        network, dataset(), RECIPE, folder=tmp_path / "parts", on_epoch=lambda epoch, _: epochs.append(epoch), **options
    )
    assert epochs == [2]
    assert not list((tmp_path / "parts").glob("*.begun"))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value, rtol=0, atol=0)
    loaded = trained(network, dataset(), RECIPE, folder=tmp_path / "parts", **options)
    torch.testing.assert_close(loaded.state_dict(), whole.state_dict(), rtol=0, atol=0)
