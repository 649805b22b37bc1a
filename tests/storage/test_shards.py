"""A store returns what was written for exactly this identity, and counts anything else as missing."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dualview_plugin.errors import CacheWarning, InvalidTypeError, InvalidValueError
from dualview_plugin.storage import Column, ShardStore, Storage, StoreIdentity, mapped_array, shard_size_for
from dualview_plugin.storage import files as files_module
from dualview_plugin.storage.shards import _json_bytes, _read_json

N, SIZE = 21, 8
VALUES = torch.arange(N * 3.0).view(N, 3)
LABELS = torch.arange(N)
COLUMNS = [Column("features", torch.float32, 3), Column("labels", torch.int64)]


def identity(key: str = "a" * 32, **parts: str) -> StoreIdentity:
    return StoreIdentity("some features", key, N, SIZE, parts)


def part(store: ShardStore, shard: int) -> dict[str, Tensor]:
    rows = slice(store.rows(shard).start, store.rows(shard).stop)
    return {"features": VALUES[rows], "labels": LABELS[rows]}


def filled(root: Path) -> ShardStore:
    store = ShardStore(root, identity())
    for shard in range(store.n_shards):
        store.write(shard, part(store, shard), f"digest {shard}")
    return store


def gathered(root: Path) -> tuple[dict[str, Tensor], list[int]]:
    return ShardStore(root, identity()).gather(COLUMNS)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert [list(store.rows(shard)) for shard in range(3)] == [list(range(8)), list(range(8, 16)), list(range(16, 21))]
    again = ShardStore(tmp_path, identity())
    assert again.folder == store.folder
    assert again.missing(COLUMNS) == []
    values, damaged = again.gather(COLUMNS)
    assert damaged == []
    assert torch.equal(values["features"], VALUES)
    assert torch.equal(values["labels"], LABELS)
    assert [again.data_digest(shard) for shard in range(3)] == ["digest 0", "digest 1", "digest 2"]


def test_files_are_what_numpy_reads_without_pickle(tmp_path: Path) -> None:
    folder = filled(tmp_path).folder
    loaded = np.load(folder / "shard-000001.features.npy", allow_pickle=False, mmap_mode="r")
    assert np.array_equal(loaded, VALUES[8:16].numpy())
    assert _read_json(folder / "manifest.json")["n_rows"] == N


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_come_back_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    columns = [Column("features", dtype, 3)]
    store = ShardStore(tmp_path, identity())
    for shard in range(3):
        store.write(shard, {"features": part(store, shard)["features"].to(dtype)}, "")
    values, _ = ShardStore(tmp_path, identity()).gather(columns)
    assert values["features"].dtype == torch.float32
    assert torch.equal(values["features"], VALUES.to(dtype).float())


def test_a_shard_without_a_column_that_is_asked_for_is_missing_and_keeps_its_own(tmp_path: Path) -> None:
    store = filled(tmp_path)
    logits = Column("logits", torch.float32, 2)
    assert store.missing([*COLUMNS, logits]) == [0, 1, 2]
    before = (store.folder / "shard-000000.features.npy").stat().st_mtime_ns
    store.write(0, {**part(store, 0), "logits": torch.ones(8, 2)}, "digest 0")
    assert store.missing([*COLUMNS, logits]) == [1, 2]
    assert store.missing(COLUMNS) == []
    assert (store.folder / "shard-000000.features.npy").stat().st_mtime_ns == before


def test_another_type_or_width_is_missing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    for other in (Column("features", torch.float64, 3), Column("features", torch.float32, 4)):
        assert store.missing([other]) == [0, 1, 2]


def test_another_key_is_another_store(tmp_path: Path) -> None:
    filled(tmp_path)
    other = ShardStore(tmp_path, identity("b" * 32))
    assert other.missing(COLUMNS) == [0, 1, 2]


def test_a_store_that_was_renamed_to_another_is_left_alone_and_named(tmp_path: Path) -> None:
    store = filled(tmp_path)
    other = ShardStore(tmp_path, identity("b" * 32, network="another"))
    for path in other.folder.iterdir():
        path.unlink()
    other.folder.rmdir()
    store.folder.rename(other.folder)
    with pytest.warns(
        CacheWarning, match=r"is left alone, and another one is used: it differs in key .*network \(None"
    ):
        again = ShardStore(tmp_path, identity("b" * 32, network="another"))
    assert again.folder != other.folder
    assert again.missing(COLUMNS) == [0, 1, 2]
    assert len(list(other.folder.glob("*.npy"))) == 6


def test_a_store_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path).folder / "manifest.json"
    path.write_bytes(_json_bytes({**_read_json(path), "format": 99}))
    with pytest.warns(CacheWarning, match="its format is 99, this version writes 1"):
        assert ShardStore(tmp_path, identity()).missing(COLUMNS) == [0, 1, 2]
    assert _read_json(path)["format"] == 99


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def _remove(path: Path) -> None:
    path.unlink()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    target = path.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _absurd(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"8, 3), }", b"9" * 8))


def _objects(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        np.save(file, np.array([Bomb()] * 8, dtype=object), allow_pickle=True)


class Bomb:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> Any:
        return os.putenv, ("DUALVIEW_BOMB", "1")


@pytest.mark.parametrize(
    "damage",
    [_truncate, _empty, _extend, _pickle, _remove, _link, _pipe, _folder, _absurd, _objects],
    ids=lambda f: f.__name__,
)
def test_a_damaged_column_is_named_and_its_shard_alone_is_missing(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    path = filled(tmp_path).folder / "shard-000001.features.npy"
    damage(path)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    store = ShardStore(tmp_path, identity())
    with pytest.warns(CacheWarning, match=r"shard-000001.features.npy cannot be read and is computed again: "):
        values, damaged = store.gather(COLUMNS)
    assert damaged == [1]
    assert store.missing(COLUMNS) == [1]
    if path.is_dir():
        path.rmdir()
    store.write(1, part(store, 1), "digest 1")
    assert store.fill(values, COLUMNS, 1)
    assert torch.equal(values["features"], VALUES)
    again, damaged = gathered(tmp_path)
    assert damaged == []
    assert torch.equal(again["features"], VALUES)


@pytest.mark.parametrize("name", ["shard-000001.features.npy", "shard-000001.json", "manifest.json"])
def test_every_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    path = filled(tmp_path).folder / name
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
        with pytest.warns(CacheWarning, match=f"{name} cannot be read"):
            values, damaged = gathered(tmp_path)
        assert damaged == ([] if name == "manifest.json" else [1])
        for shard in {0, 1, 2} - {*damaged}:
            rows = slice(8 * shard, 8 * shard + 8)
            assert torch.equal(values["features"][rows], VALUES[rows])


def test_a_record_with_paths_or_shapes_of_its_own_is_not_believed(tmp_path: Path) -> None:
    path = filled(tmp_path).folder / "shard-000001.json"
    record = _read_json(path)
    record["columns"]["features"] |= {"file": "../../../../etc/passwd", "shape": [10**15, 3]}
    path.write_bytes(_json_bytes(record))
    values, damaged = gathered(tmp_path)  # neither entry is read: names are computed, and rows are known
    assert damaged == []
    assert torch.equal(values["features"], VALUES)
    record["shard"] = 2
    path.write_bytes(_json_bytes(record))
    with pytest.warns(CacheWarning, match="it belongs to another store or shard"):
        assert ShardStore(tmp_path, identity()).missing(COLUMNS) == [1]


@pytest.mark.parametrize("content", [b"[]", b"null", b"[" * 10**5, b'{"checksum": 1}', b"\xff\xfe"])
def test_a_record_of_another_form_is_damaged(content: bytes, tmp_path: Path) -> None:
    (filled(tmp_path).folder / "shard-000001.json").write_bytes(content)
    with pytest.warns(CacheWarning, match="shard-000001.json cannot be read"):
        assert ShardStore(tmp_path, identity()).missing(COLUMNS) == [1]


def test_a_record_of_endless_length_is_not_read(tmp_path: Path) -> None:
    with (filled(tmp_path).folder / "shard-000001.json").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.warns(CacheWarning, match="too many for its kind"):
        assert ShardStore(tmp_path, identity()).missing(COLUMNS) == [1]


def test_a_link_in_place_of_a_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    folder = filled(tmp_path / "stores").folder
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.warns(CacheWarning, match="it is a symbolic link"):
        assert ShardStore(folder.parent, identity()).missing(COLUMNS) == [0, 1, 2]


def test_a_file_in_place_of_a_store_is_left_alone(tmp_path: Path) -> None:
    folder = filled(tmp_path).folder
    other = tmp_path / "other"
    other.mkdir()
    (other / folder.name).write_text("a file")
    with pytest.warns(CacheWarning, match="is left alone, and another one is used: it is no folder"):
        store = ShardStore(other, identity())
    assert (other / folder.name).read_text() == "a file"
    assert store.folder != other / folder.name


def test_a_store_that_cannot_be_made_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.warns(CacheWarning, match=r"cannot be written, and what is missing is kept in memory: .*No space"):
        store = ShardStore(tmp_path, identity())
    for shard in range(3):
        store.write(shard, part(store, shard), "")
    assert torch.equal(store.gather(COLUMNS)[0]["features"], VALUES)


def test_a_full_disk_is_said_once_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShardStore(tmp_path, identity())
    store.write(0, part(store, 0), "")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full)
    message = "cannot be written, and what is missing is kept in memory: .*No space"
    with pytest.warns(CacheWarning, match=message) as said:
        store.write(1, part(store, 1), "")
    store.write(2, part(store, 2), "")
    values, damaged = store.gather(COLUMNS)
    assert len(said) == 1
    assert damaged == []
    assert torch.equal(values["features"], VALUES)
    monkeypatch.undo()
    assert ShardStore(tmp_path, identity()).missing(COLUMNS) == [1, 2]
    assert not list(store.folder.glob(".tmp*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_still_gives_what_it_has(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.folder.chmod(0o500)
    try:
        assert torch.equal(gathered(tmp_path)[0]["features"], VALUES)
    finally:
        store.folder.chmod(0o700)


def test_files_of_dead_processes_are_removed_and_those_of_live_ones_kept(tmp_path: Path) -> None:
    folder = filled(tmp_path).folder
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = {
        process: folder / f".tmp-{host}-{process}-{'0' * 32}"
        for host, process in ((socket.gethostname(), int(dead.stdout)), (socket.gethostname(), os.getpid()), ("x", 7))
    }
    for path in names.values():
        path.write_bytes(b"")
    ShardStore(tmp_path, identity())
    assert [path.exists() for path in names.values()] == [False, True, True]


def test_one_of_two_claims_a_shard(tmp_path: Path) -> None:
    first, second = filled(tmp_path), ShardStore(tmp_path, identity())
    claim = first.claim(1)
    assert claim is not None
    assert second.claim(1) is None
    assert second.claim(2) is not None
    claim.release()
    again = second.claim(1)
    assert again is not None
    again.release()


def test_a_mapped_array_leaves_no_name(tmp_path: Path) -> None:
    array = mapped_array((5, 7), torch.float32, tmp_path)
    array.copy_(torch.arange(35.0).view(5, 7))
    assert float(array.sum()) == 595
    assert not list(tmp_path.iterdir())


def test_a_mapped_array_without_room_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert mapped_array((5, 7), torch.float32, tmp_path).zero_().shape == (5, 7)


def test_shards_are_few() -> None:
    assert [shard_size_for(n) for n in (1, 2**21, 2**21 + 1, 10**8)] == [1024, 1024, 2048, 65536]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "int8"}, InvalidValueError, "dtype of Storage must be one of 'float32', 'float16', 'bfloat16'"),
        ({"shard_size": 0}, InvalidValueError, "shard_size of Storage must be an integer of at least 1"),
        ({"shard_size": 1.5}, InvalidTypeError, "shard_size of Storage"),
        ({"verify": "no"}, InvalidValueError, "verify of Storage must be one of 'probe', 'full'"),
        ({"engine": "dask"}, InvalidValueError, "engine of Storage must be one of 'local', 'ranks', 'ray'"),
    ],
)
def test_wrong_choices_are_refused(options: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        Storage(tmp_path, **options)
