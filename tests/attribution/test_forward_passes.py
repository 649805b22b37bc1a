"""How often test points run through the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dualview_plugin import DualView, FeatureSimilarity, InfluenceFunctions, RepresenterPoints
from dualview_plugin.attribution import DataAttribution
from tests.worlds import N_TEST, small_world

METHODS = (DualView, FeatureSimilarity, InfluenceFunctions, RepresenterPoints)


@pytest.mark.parametrize("batch_size", [3, 256])
@pytest.mark.parametrize("kind", METHODS)
def test_a_decision_is_explained_from_the_pass_that_found_it(kind: type[DataAttribution], batch_size: int) -> None:
    world = small_world()
    world.model.eval()
    method = kind(world.model, "fc", world.train, batch_size=batch_size, show_progress=False).fit()
    decided = method.decisions(world.x_test)
    rows: list[int] = []
    handle = world.model.fc.register_forward_hook(lambda _, __, output: rows.append(len(output)))
    found, probed = [], []
    for target in (decided, None):
        rows.clear()
        found.append(method.attribute(world.x_test, target))
        probed.append(sum(rows) - N_TEST)
    handle.remove()
    assert probed[0] == probed[1] <= 8  # the probe's few training points
    assert torch.equal(*found)
    assert torch.equal(method.influence(world.x_test, 2).indices, method.influence(world.x_test, 2, decided).indices)


@pytest.mark.parametrize("kind", METHODS)
def test_maps_at_a_layer_of_decided_classes_take_a_pass_of_their_own(kind: type[DataAttribution]) -> None:
    world = small_world()
    world.model.eval()
    method = kind(world.model, "fc", world.train, show_progress=False).fit()
    layer = next(name for name, _ in world.model.named_children())
    maps: list[Tensor] = [
        method.input_attribution(world.x_test, target, at=layer) for target in (None, method.decisions(world.x_test))
    ]
    torch.testing.assert_close(*maps)
