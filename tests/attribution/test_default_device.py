"""Under another default device every tensor of ours is where the network is, or on the CPU: none has no values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dualview_plugin import Storage
from dualview_plugin.attribution import DataAttribution
from tests.attribution.method_factories import METHODS
from tests.worlds import small_world

TARGET = [4, 0, 1, 2, 3, 0, 4]


def answers(name: str, folder: Path | None) -> list[Tensor]:
    """In a world of its own, made on the CPU; of a method that is loaded, where there is a folder."""
    with torch.device("cpu"):
        world, others = small_world(), small_world()
    storage = None if folder is None else Storage(folder)
    method: Any = METHODS[name](world, cache_dir=storage)
    if folder is not None:
        method.save(folder / "fitted.zip")
        method = DataAttribution.load(folder / "fitted.zip", others.model, others.train, show_progress=False)
    found = [method.attribute(world.x_test, TARGET), method.self_influence()]
    found.append(method.influence(world.x_test, k=3).influence_scores)
    return found


@pytest.mark.filterwarnings("ignore::dualview_plugin.SparseAttributionWarning")
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_default_device_changes_nothing(name: str, stored: bool, tmp_path: Path) -> None:
    expected = answers(name, None)
    with torch.device("meta"):
        for _ in range(1 + stored):
            found = answers(name, tmp_path if stored else None)
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
