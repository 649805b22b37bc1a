"""Shared fixtures: where the data lie, and the table of tolerances."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dualview_plugin.network import seed_random_states

# Relative and absolute tolerance by dtype, for two computations of one quantity in different orders.
TOLERANCES = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}


def data_root() -> Path:
    """The folder with MNIST and CIFAR-10: DUALVIEW_DATA, or ../shared/data beside the checkout."""
    return Path(os.environ.get("DUALVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_data, no_gpu = not (data_root() / "MNIST").is_dir(), not torch.cuda.is_available()
    for item in items:
        if no_data and item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason=f"no data under {data_root()}: set DUALVIEW_DATA"))
        if no_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    seed_random_states(0)
