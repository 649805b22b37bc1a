"""``cache_dir``: the same values, nothing computed twice, never those of another network or other data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import CacheWarning, DualView, InvalidValueError, RandomDataWarning, RepresenterPoints
from dualview_plugin.storage import Storage
from dualview_plugin.storage import shards as shards_module
from tests.attribution.method_factories import METHODS
from tests.storage.worlds import N_SHARDS, TEST, Decoded, N, dualview, network, tensors
from tests.untouched import assert_untouched
from tests.worlds import small_world


def test_a_second_run_computes_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    first = dualview(tmp_path).fit()
    second = dualview(tmp_path).fit()
    assert first.store_ is not None
    assert second.store_ is not None
    assert (first.store_.n_computed, second.store_.n_computed, second.store_.n_shards) == (N_SHARDS, 0, N_SHARDS)
    assert torch.equal(first.attribute(TEST), second.attribute(TEST))
    torch.testing.assert_close(first.attribute(TEST), dualview(None).attribute(TEST), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["DualView", "RepresenterPoints", "InfluenceFunctions", "ProjectedGradientSimilarity"])
def test_every_method_that_keeps_something_reads_it_again(name: str, tmp_path: Path) -> None:
    world = small_world()
    first, second = (METHODS[name](world, cache_dir=tmp_path).fit() for _ in range(2))
    assert (first.store_.n_computed, second.store_.n_computed) == (1, 0)
    assert torch.equal(first.attribute(world.x_test), second.attribute(world.x_test))


def test_a_finished_shard_is_never_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Decoded()
    write, calls = shards_module.write_whole, []

    def interrupted(path: Path, *parts: Any) -> None:
        calls.append(path)
        if len(calls) == 10:
            raise KeyboardInterrupt
        write(path, *parts)

    monkeypatch.setattr(shards_module, "write_whole", interrupted)
    model = network()
    with assert_untouched(model), pytest.raises(KeyboardInterrupt) as stopped:
        dualview(tmp_path, data, model).fit()
    assert [*stopped.value.__notes__] == [
        f"2 of 6 shards are kept in {next(tmp_path.iterdir())}; the same call goes on from there"
    ]
    monkeypatch.undo()
    data.reads_of().clear()
    method = dualview(tmp_path, data).fit()
    assert method.store_ is not None
    assert method.store_.n_computed == N_SHARDS - 2
    torch.testing.assert_close(method.attribute(TEST), dualview(None).attribute(TEST), rtol=1e-4, atol=1e-6)
    assert not list(method.store_.folder.glob("*.lock"))


def test_finished_shards_are_not_read(tmp_path: Path) -> None:
    """Beside the samples that recognise the data."""
    data = Decoded(2000)
    dualview(tmp_path, data).fit()
    data.reads_of().clear()
    second = dualview(tmp_path, data).fit()
    assert second.store_ is not None
    assert second.store_.n_computed == 0
    assert second.store_.recognised_by == "probe of 128 samples"
    assert len(data.reads_of()) < 160


@pytest.mark.parametrize("change", ["value", "label", "order", "number"])
@pytest.mark.parametrize("kind", ["tensors", "list"])
def test_other_data_in_memory_get_another_store(kind: str, change: str, tmp_path: Path) -> None:
    def made(x: Tensor, y: Tensor) -> Any:
        return (
            TensorDataset(x, y) if kind == "tensors" else [(row, int(label)) for row, label in zip(x, y, strict=True)]
        )

    x, y = (tensor.clone() for tensor in tensors().tensors)
    assert dualview(tmp_path, made(x, y)).fit().store_.recognised_by == "whole content"  # type: ignore[union-attr]
    if change == "value":
        x[17, 2] = torch.nextafter(x[17, 2], torch.tensor(9.0))
    elif change == "label":
        y[17] = (y[17] + 1) % 4
    elif change == "order":
        x[[17, 21]] = x[[21, 17]]
    else:
        x, y = x[:-1], y[:-1]
    method = dualview(tmp_path, made(x, y)).fit()
    assert method.store_ is not None
    assert method.store_.n_computed == -(-len(x) // 8)


class Files(Decoded):
    """Knows the names of its files, and decodes something that they do not show."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.samples = []
        for index in range(N):
            path = folder / f"{index}.txt"
            path.write_text("content")
            os.utime(path, (1, 1))
            self.samples.append((str(path), index % 4))


def test_files_are_known_by_names_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    store = tmp_path / "store"
    computed = []
    for change in (None, None, "size", "time", "label"):
        data = Files(tmp_path / "files")
        path = Path(data.samples[17][0])
        if change == "size":
            path.write_text("other content")
            os.utime(path, (1, 1))
        elif change == "time":
            os.utime(path, (1, 2))
        elif change == "label":
            data.samples[17] = (data.samples[17][0], 0)
        computed.append(dualview(store, data).fit().store_.n_computed)  # type: ignore[union-attr]
    assert computed == [N_SHARDS, 0, N_SHARDS, N_SHARDS, N_SHARDS]


def test_verify_full_finds_a_sample_that_no_probe_reads(tmp_path: Path) -> None:
    data = Decoded(400)
    dualview(tmp_path, data).fit()
    read, hidden = data.read, 234
    other = Decoded(400)
    other.read = lambda index: (read(index)[0] + (index == hidden), read(index)[1])
    assert dualview(tmp_path, other).fit().store_.n_computed == 0  # type: ignore[union-attr]
    with pytest.warns(CacheWarning, match=f"shard {hidden // 8} of .* was made of other samples and is computed again"):
        method = dualview(tmp_path, other, verify="full").fit()
    assert method.store_ is not None
    assert (method.store_.n_computed, method.store_.recognised_by) == (1, "all samples")
    torch.testing.assert_close(method.attribute(TEST), dualview(None, other).attribute(TEST), rtol=1e-3, atol=1e-5)


def test_data_that_differ_at_every_reading_are_not_kept(tmp_path: Path) -> None:
    data = Decoded()
    read = data.read
    data.read = lambda index: (read(index)[0] + torch.rand(()), read(index)[1])
    with pytest.warns(RandomDataWarning):
        method = dualview(tmp_path, data).fit()
    assert method.store_ is None
    assert not list(tmp_path.iterdir())


class Scaled(nn.Module):
    """A factor that is no weight."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body[2](self.factor * self.body[1](self.body[0](x)))


@pytest.mark.parametrize("finished", [True, False])
def test_a_network_of_other_code_gets_another_store(finished: bool, tmp_path: Path) -> None:
    def make() -> Any:
        storage = Storage(tmp_path, shard_size=8)
        return DualView(Scaled(), "body.2", tensors(), C=0.05, cache_dir=storage, show_progress=False)

    make().fit()
    if not finished:
        for shard in (0, 2, 3, 4, 5):
            next(tmp_path.glob(f"*/shard-00000{shard}.json")).unlink()
    other = make()
    other.model.factor = 2.0
    values = other.attribute(TEST)
    assert other.store_.n_computed == N_SHARDS
    fresh = make()
    fresh.cache_dir = None
    fresh.model.factor = 2.0
    torch.testing.assert_close(values, fresh.attribute(TEST), rtol=1e-4, atol=1e-6)
    assert make().fit().store_.n_computed == (0 if finished else N_SHARDS - 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_take_half_the_room_and_round(dtype: str, tmp_path: Path) -> None:
    expected = dualview(None, standardize=False).attribute(TEST)
    for _ in range(2):
        method = dualview(tmp_path, dtype=dtype, standardize=False).fit()
        torch.testing.assert_close(method.attribute(TEST), expected, rtol=0.2, atol=0.02)
    path = next(tmp_path.glob("*/shard-000000.features.npy"))
    assert path.stat().st_size == 128 + 8 * 11 * 2
    assert method.store_ is not None
    assert method.store_.n_computed == 0


def test_values_beyond_a_half_type_are_refused(tmp_path: Path) -> None:
    data = TensorDataset(tensors().tensors[0] * 1e6, tensors().tensors[1])
    with pytest.raises(InvalidValueError, match="dtype of Storage must be a type whose range, up to "):
        dualview(tmp_path, data, dtype="float16").fit()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_a_loader_with_workers_and_one_of_another_class_are_read_alike(tmp_path: Path) -> None:
    class Passing(DataLoader[Any]):
        pass

    expected = dualview(None).attribute(TEST)
    for name, loader in (
        ("workers", DataLoader(tensors(), batch_size=5, num_workers=2)),
        ("class", Passing(tensors(), batch_size=5)),
    ):
        method = dualview(tmp_path / name, loader).fit()
        torch.testing.assert_close(method.attribute(TEST), expected, rtol=1e-4, atol=1e-6)
        assert dualview(tmp_path / name, loader).fit().store_.n_computed == 0  # type: ignore[union-attr]


def test_a_hit_decodes_a_probe_of_the_data_only(tmp_path: Path) -> None:
    dualview(tmp_path, Decoded(1500)).fit()
    data = Decoded(1500)
    method = dualview(tmp_path, data)
    with method.visit():
        method._training_features(n_logits=0)
    assert method.store_ is not None
    assert method.store_.n_computed == 0
    assert len(data.reads_of()) < 160


def test_logits_are_added_where_a_method_asks_for_them(tmp_path: Path) -> None:
    data = tensors()
    dualview(tmp_path, data).fit()
    for _ in range(2):
        points = RepresenterPoints(network(), "2", data, cache_dir=dualview(tmp_path).cache_dir, show_progress=False)
        points.fit()
    assert points.store_ is not None
    assert points.store_.n_computed == 0
    assert dualview(tmp_path, data).fit().store_.n_computed == 0  # type: ignore[union-attr]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_store_that_nobody_may_write_costs_a_warning_and_not_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards_module, "write_whole", full)
    with pytest.warns(CacheWarning, match="cannot be written, and what is missing is kept in memory: .*No space"):
        method = dualview(tmp_path).fit()
    torch.testing.assert_close(method.attribute(TEST), dualview(None).attribute(TEST), rtol=1e-4, atol=1e-6)
