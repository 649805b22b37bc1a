"""The cache returns what was stored for exactly this network, data and parameters, or computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.cache import TensorCache, data_fingerprint
from dualview_plugin.errors import CacheWarning
from dualview_plugin.network import fingerprint, model_fingerprint


def never() -> dict[str, Tensor]:
    raise AssertionError("computed again")


def test_an_entry_comes_back(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "new" / "folder")
    stored = cache.load_or_compute("kind", "key", lambda: {"values": torch.arange(5)})
    assert torch.equal(cache.load_or_compute("kind", "key", never)["values"], stored["values"])
    with pytest.raises(AssertionError, match="computed again"):
        cache.load_or_compute("kind", "other", never)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["kind-key.cache"]


def test_no_folder_stores_nothing() -> None:
    assert TensorCache(None).load_or_compute("kind", "key", dict) == {}


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    (tmp_path / "kind-key.cache").write_bytes(b"not a tensor")
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert cache.load_or_compute("kind", "key", lambda: {"a": torch.ones(1)})["a"] == 1
    assert cache.load_or_compute("kind", "key", never)["a"] == 1


def test_a_failed_computation_leaves_no_entry(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        TensorCache(tmp_path).load_or_compute("kind", "key", never)
    assert not list(tmp_path.iterdir())


def test_fingerprints_tell_content_shape_and_type_apart() -> None:
    values = torch.arange(6.0)
    others = [values.reshape(2, 3), values.double(), values + 1, values[:5]]
    assert len({fingerprint(part) for part in [values, *others]}) == 5
    assert fingerprint(values) == fingerprint(values.clone())


def test_model_fingerprint_sees_weights_and_structure() -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    other = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    other.load_state_dict(one.state_dict())
    before = model_fingerprint(one)
    assert before != model_fingerprint(other)
    with torch.no_grad():
        one[0].bias[2] += 1e-6
    assert before != model_fingerprint(one)


def test_data_fingerprint_does_not_see_batches() -> None:
    x, y = torch.randn(7, 2), torch.arange(7)
    whole = data_fingerprint([(x, y)])
    assert whole == data_fingerprint(zip(x.split(3), y.split(3), strict=True))
    assert whole != data_fingerprint([(x, y.flip(0))])
