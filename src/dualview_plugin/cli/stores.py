"""What ``dualview store`` does: build, show and verify stores of features."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dualview_plugin.attribution import FeatureSimilarity
from dualview_plugin.cli.task import Task
from dualview_plugin.errors import CacheWarning, InvalidValueError
from dualview_plugin.storage import (
    Column,
    DamagedFileError,
    ShardStore,
    Storage,
    StoreIdentity,
    StoreReport,
    read_saved,
)

_OWNER = "dualview store"
_IDENTITY = ("kind", "key", "n_rows", "shard_size")


@dataclass(frozen=True)
class FoundStore:
    """A store in a folder, as its files say.

    Attributes:
        folder: of the store.
        manifest: what it says of itself.
        records: the finished shards' records, by shard.
        n_bytes: the size of all its files.
    """

    folder: Path
    manifest: dict[str, Any]
    records: dict[int, dict[str, Any]]
    n_bytes: int

    @property
    def n_shards(self) -> int:
        """Number of shards, finished or not."""
        return -(-int(self.manifest["n_rows"]) // int(self.manifest["shard_size"]))

    @property
    def summary(self) -> dict[str, Any]:
        """What ``show`` prints."""
        return {
            "store": self.folder.name,
            "kind": self.manifest["kind"],
            "layer": self.manifest.get("layer"),
            "training_points": self.manifest["n_rows"],
            "shards": f"{len(self.records)} of {self.n_shards}",
            "MiB": round(self.n_bytes / 2**20, 1),
        }


def build(task: Task, storage: Storage, show_progress: bool) -> StoreReport:
    """Store the features of the task's training set; what is there already is not computed again."""
    method = FeatureSimilarity(
        task.model, task.final_fc_layer, task.train_dataset, cache_dir=storage, show_progress=show_progress
    ).fit()
    if method.store_ is None:
        constraint = "a network and data that give the same values at each reading"
        raise InvalidValueError("TASK", _OWNER, constraint, "others, which are not stored")
    return method.store_


def stores_in(folder: Path) -> list[FoundStore]:
    """The stores of a folder.

    Raises:
        InvalidValueError: there are none.
    """
    found = [_found(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
    if not found:
        raise InvalidValueError("FOLDER", _OWNER, "a folder with stores", str(folder))
    return found


def damages(store: FoundStore) -> Iterator[str]:
    """What is wrong with a store's shards and kept fits, as sentences; every file is read and its checksum compared."""
    manifest = store.manifest
    parts = {name: value for name, value in manifest.items() if name not in (*_IDENTITY, "format", "checksum")}
    identity = StoreIdentity(manifest["kind"], manifest["key"], manifest["n_rows"], manifest["shard_size"], parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CacheWarning)
        opened = ShardStore(store.folder.parent, identity)
        for shard, record in store.records.items():
            for name, entry in record["columns"].items():
                n_rows, *widths = entry["shape"]
                width = widths[0] if widths else None
                opened.read(shard, Column(name, getattr(torch, entry["dtype"]), width, limit=n_rows))
    yield from (str(warning.message) for warning in caught if issubclass(warning.category, CacheWarning))
    for path in sorted(store.folder.glob("*.zip")):
        try:
            read_saved(path, room=store.folder)
        except (DamagedFileError, OSError) as error:
            yield f"{path}: {error}"


def _found(folder: Path) -> FoundStore:
    """A store as its files say."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        records = {
            int(path.stem.removeprefix("shard-")): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(folder.glob("shard-*.json"))
        }
    except ValueError as error:
        constraint = "a folder whose stores have readable manifests and records"
        raise InvalidValueError("FOLDER", _OWNER, constraint, f"{folder.name}: {error}") from error
    n_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return FoundStore(folder, manifest, records, n_bytes)
