"""The weight's gradients of a convolution: patches and products of offsets give what autograd gives of each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.gradients import layer_rules

CONVOLUTIONS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "signal": (lambda: nn.Conv1d(3, 4, 3, padding=2), (3, 19)),
    "plane": (lambda: nn.Conv2d(4, 3, 3, padding=1), (4, 7, 6)),
    "plane without padding": (lambda: nn.Conv2d(4, 3, (2, 3)), (4, 7, 6)),
    "dilated plane": (lambda: nn.Conv2d(4, 3, (3, 2), padding=(1, 2), dilation=(2, 3)), (4, 8, 7)),
    "even kernel, same, circular": (lambda: nn.Conv2d(4, 3, 2, padding="same", padding_mode="circular"), (4, 6, 5)),
    "volume, reflected": (lambda: nn.Conv3d(4, 3, (2, 1, 3), padding=1, padding_mode="reflect"), (4, 3, 4, 5)),
}
WAYS = {"offsets": True, "patches": False}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": lambda z: z.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second sample": lambda z: z.repeat_interleave(2, 0)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_ways_give_autograds_gradients(name: str, way: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_rules, "_prefers_offsets", lambda *_: WAYS[way])
    monkeypatch.setattr(layer_rules, "_PATCH_ELEMENTS", 2**9)  # few samples at a time
    torch.manual_seed(0)
    make, shape = CONVOLUTIONS[name]
    module, inputs = make().double(), torch.randn(5, *shape, dtype=torch.float64)
    output = module(inputs)
    delta = torch.randn_like(output)
    expected = torch.stack(
        [torch.autograd.grad(output[i], module.weight, delta[i], retain_graph=True)[0] for i in range(5)]
    )
    rule = layer_rules.rule_of(module)
    assert rule is not None
    placed = LAYOUTS[layout]
    with torch.no_grad():
        found = rule.weight(module, placed(inputs), placed(delta))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_offsets_are_for_few_channels_on_large_planes() -> None:
    prefers = layer_rules._prefers_offsets
    assert prefers(nn.Conv2d(64, 64, 3), torch.empty(1, 64, 32, 32))
    assert not prefers(nn.Conv2d(256, 256, 3), torch.empty(1, 256, 8, 8))
    assert not prefers(nn.Conv2d(3, 64, 3), torch.empty(1, 64, 32, 32))
    assert not prefers(nn.Conv2d(64, 64, 3, stride=2), torch.empty(1, 64, 32, 32))
    assert not prefers(nn.Conv2d(64, 64, 3, groups=2), torch.empty(1, 64, 32, 32))
    assert not prefers(nn.Conv2d(64, 64, 1), torch.empty(1, 64, 32, 32))
