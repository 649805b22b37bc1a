"""A store: shards of consecutive rows on disk, each with a record of its checksums, beside one manifest."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.errors import CacheWarning
from dualview_plugin.storage.arrays import dtype_name, mapped_array, npy_parts, read_npy
from dualview_plugin.storage.checksums import checksum
from dualview_plugin.storage.files import DamagedFileError, read_text, remove_leftovers, write_whole
from dualview_plugin.storage.locks import Claim

FORMAT = 1
_SMALLEST_SHARD, _MOST_SHARDS = 1024, 2048


@dataclass(frozen=True)
class Column:
    """One array of a store: a row for each training point, or a few rows for each shard.

    Attributes:
        name: of the files.
        dtype: as stored.
        width: entries of a row; None: the rows are numbers.
        limit: rows of a shard at most; None: as many as the shard has training points.
    """

    name: str
    dtype: torch.dtype
    width: int | None = None
    limit: int | None = None

    def shape(self, n_rows: int) -> tuple[int, ...]:
        """The shape in a shard of so many training points."""
        n_kept = n_rows if self.limit is None else min(n_rows, self.limit)
        return (n_kept,) if self.width is None else (n_kept, self.width)


@dataclass(frozen=True)
class StoreIdentity:
    """What the content of a store depends on.

    Attributes:
        kind: what is stored, in a word.
        key: a hash of all that it depends on.
        n_rows: training points.
        shard_size: rows of a shard; the last one may have fewer.
        parts: what the key is made of, for readers and messages.
    """

    kind: str
    key: str
    n_rows: int
    shard_size: int
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """The manifest."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "key": self.key,
            "n_rows": self.n_rows,
            "shard_size": self.shard_size,
            **self.parts,
        }


def shard_size_for(n_rows: int) -> int:
    """Rows of a shard: 1,024, doubled until there are at most 2,048 shards."""
    size = _SMALLEST_SHARD
    while size * _MOST_SHARDS < n_rows:
        size *= 2
    return size


class ShardStore:
    """Shards of one network's answers to one dataset, in a folder of their own.

    A shard is there once its record is: a JSON file with a checksum for each column, written after the columns. Names
    of files are computed and never read, links are not followed, and nothing is unpickled. What is damaged is named in
    a :class:`CacheWarning` and counts as missing. What cannot be written stays in memory.

    Args:
        root: the folder of all stores.
        identity: what the content depends on.

    Attributes:
        folder: of this store.
        n_written: shards that were computed and handed to this object.
    """

    def __init__(self, root: Path, identity: StoreIdentity) -> None:
        self.identity = identity
        self.n_written = 0
        self._held: dict[int, dict[str, Tensor]] = {}
        self._digests: dict[int, str] = {}
        self._damaged: set[int] = set()
        self._writable = True
        self.folder = self._opened(Path(root))

    # ------------------------------------------------------------------ which folder

    def _opened(self, root: Path) -> Path:
        """The first folder of this identity's name that holds nothing else."""
        for number in count():
            name = f"{self.identity.kind}-{self.identity.key[:32]}" + (f"-{number}" if number else "")
            folder = root / name.replace(" ", "-")
            reason = self._refusal(folder)
            if reason is None:
                remove_leftovers(folder)
                return folder
            self._warn(f"store {folder} is left alone, and another one is used: {reason}")
        raise AssertionError  # count() has no end

    def _refusal(self, folder: Path) -> str | None:
        """Why a folder cannot be this store; None: it is, or has become one."""
        if folder.is_symlink():
            return "it is a symbolic link"
        path, expected = folder / "manifest.json", self.identity.content
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:
            return "it is no folder"
        except OSError as error:
            self._cannot_write(folder, error)
            return None
        try:
            found = _read_json(path)
        except FileNotFoundError:
            found = None
        except DamagedFileError as error:
            self._warn(f"{path} cannot be read and is written again: {error}")
            found = None
        if found is None:
            self._write_json(path, expected)
            return None
        if found == expected:
            return None
        if found.get("format") != FORMAT:
            return f"its format is {found.get('format')!r}, this version writes {FORMAT}"
        differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        return "it differs in " + ", ".join(f"{name} ({found.get(name)!r})" for name in differing)

    # ------------------------------------------------------------------ shards

    @property
    def n_shards(self) -> int:
        """Number of shards, finished or not."""
        return -(-self.identity.n_rows // self.identity.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.identity.shard_size
        return range(start, min(start + self.identity.shard_size, self.identity.n_rows))

    def has(self, shard: int, columns: Iterable[Column]) -> bool:
        """Whether a shard is finished, as far as its record says; reading its columns tells the rest."""
        if shard in self._held:
            return all(column.name in self._held[shard] for column in columns)
        found = self._record(shard)
        return found is not None and all(_described(column) == _kept(found, column) for column in columns)

    def missing(self, columns: Iterable[Column]) -> list[int]:
        """The shards that are not finished."""
        wanted = list(columns)
        return [shard for shard in range(self.n_shards) if not self.has(shard, wanted)]

    def data_digest(self, shard: int) -> str | None:
        """The digest of the samples that a finished shard was computed from."""
        if shard in self._digests:
            return self._digests[shard]
        found = self._record(shard)
        return None if found is None else str(found["data"])

    @property
    def content(self) -> str:
        """A digest of all samples that the shards were computed from."""
        return checksum("".join(str(self.data_digest(shard)) for shard in range(self.n_shards)).encode())

    def claim(self, shard: int) -> Claim | None:
        """The right to compute a shard; None while another live process has it."""
        return Claim.take(self.folder / f"{_stem(shard)}.lock") if self._writable else Claim(self.folder, None)

    def write(self, shard: int, values: Mapping[str, Tensor], data_digest: str) -> None:
        """Finish a shard: columns of it, by name, and the digest of its samples.

        A shard that was damaged is kept in memory too: a disk that damages what it holds may do so again.
        """
        self.n_written += 1
        before, damaged = self._record(shard), shard in self._damaged
        kept = {} if before is None or damaged or before["data"] != data_digest else dict(before["columns"])
        self._damaged.discard(shard)
        if damaged or not self._writable:
            self._hold(shard, values, data_digest)
        if not self._writable:
            return
        record = {"format": FORMAT, "store": self.identity.key, "shard": shard, "data": data_digest}
        try:
            for name, tensor in values.items():
                if name not in kept:
                    parts = npy_parts(tensor)
                    write_whole(self._column_path(shard, name), *parts)
                    shape = list(tensor.shape)
                    kept[name] = {
                        "dtype": dtype_name(tensor.dtype),
                        "shape": shape,
                        "checksum": checksum(*parts),
                    }
            write_whole(self._record_path(shard), _json_bytes({**record, "columns": kept}))
        except OSError as error:
            self._cannot_write(self.folder, error)
            self._hold(shard, values, data_digest)

    def read(self, shard: int, column: Column, place: Tensor | None = None) -> Tensor | None:
        """A column of a finished shard, as stored; None, with a warning, if it is not what was written.

        Args:
            shard: which one.
            column: of it.
            place: where it is read to, if its type and shape are those of the column; None: to new memory.
        """
        if shard in self._held and column.name in self._held[shard]:
            return self._held[shard][column.name]
        path = self._column_path(shard, column.name)
        record = self._record(shard)
        if shard in self._damaged:  # and said to be
            return None
        shape = column.shape(len(self.rows(shard)))
        fits = place is not None and place.dtype is column.dtype and place.shape == shape and place.is_contiguous()
        values = place if place is not None and fits else torch.empty(shape, dtype=column.dtype, device="cpu")
        try:
            if record is None or _kept(record, column) != _described(column):
                raise DamagedFileError("its record is gone")
            if read_npy(path, values) != record["columns"][column.name]["checksum"]:
                raise DamagedFileError("its checksum is another")
        except (DamagedFileError, FileNotFoundError) as error:
            self.discard(shard, f"{path} cannot be read", "it is not there" if _is_gone(error) else str(error))
            return None
        return values

    def discard(self, shard: int, what: str, reason: str) -> None:
        """Take a shard for missing, and say so."""
        self._damaged.add(shard)
        self._held.pop(shard, None)
        self._warn(f"{what} and is computed again: {reason}")

    def gather(self, columns: Iterable[Column]) -> tuple[dict[str, Tensor], list[int]]:
        """Columns of all shards as one tensor each, half types as float32, and the shards that turned out damaged.

        Matrices lie in unnamed files of the store's folder, mapped into memory; vectors in memory.
        """
        columns, damaged = list(columns), list[int]()
        room = self.folder if self._writable else None
        whole = {
            column.name: mapped_array(
                column.shape(self.identity.n_rows), _computed_in(column.dtype), None if column.width is None else room
            )
            for column in columns
        }
        for shard in range(self.n_shards):
            if not self.fill(whole, columns, shard):
                damaged.append(shard)
        return whole, damaged

    def fill(self, whole: Mapping[str, Tensor], columns: Iterable[Column], shard: int) -> bool:
        """Copy the columns of one shard to their places; False if one is damaged."""
        rows = self.rows(shard)
        for column in columns:
            place = whole[column.name][rows.start : rows.stop]
            values = self.read(shard, column, place)
            if values is None:
                return False
            if values is not place:
                place.copy_(values)
        return True

    def read_all(self, shard: int, columns: Iterable[Column]) -> dict[str, Tensor] | None:
        """The columns of a finished shard by name; None, with a warning, if one is damaged."""
        found: dict[str, Tensor] = {}
        for column in columns:
            values = self.read(shard, column)
            if values is None:
                return None
            found[column.name] = values
        return found

    # ------------------------------------------------------------------ records

    def _record(self, shard: int) -> dict[str, Any] | None:
        """The record of a finished shard."""
        if shard in self._damaged:
            return None
        path = self._record_path(shard)
        try:
            found = _read_json(path)
            if found.get("format") != FORMAT:
                raise DamagedFileError(f"its format is {found.get('format')!r}, this version reads {FORMAT}")
            if found.get("store") != self.identity.key or found.get("shard") != shard:
                raise DamagedFileError("it belongs to another store or shard")
            if not isinstance(found.get("columns"), dict) or not isinstance(found.get("data"), str):
                raise DamagedFileError("it is no record of a shard")
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            self.discard(shard, f"{path} cannot be read", str(error))
            return None
        return found

    def _record_path(self, shard: int) -> Path:
        return self.folder / f"{_stem(shard)}.json"

    def _column_path(self, shard: int, name: str) -> Path:
        return self.folder / f"{_stem(shard)}.{name}.npy"

    def _write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        try:
            write_whole(path, _json_bytes(content))
        except OSError as error:
            self._cannot_write(path, error)

    def _hold(self, shard: int, values: Mapping[str, Tensor], data_digest: str) -> None:
        self._held.setdefault(shard, {}).update({name: tensor.detach().cpu() for name, tensor in values.items()})
        self._digests[shard] = data_digest

    def _cannot_write(self, path: Path, error: OSError) -> None:
        """From now on in memory; said once."""
        if self._writable:
            self._warn(f"{path} cannot be written, and what is missing is kept in memory: {error}")
        self._writable = False

    def _warn(self, message: str) -> None:
        warnings.warn(message, CacheWarning, stacklevel=3)


def _stem(shard: int) -> str:
    return f"shard-{shard:06d}"


def _described(column: Column) -> tuple[str, int | None]:
    """What a record must say of a column, beside its checksum."""
    return dtype_name(column.dtype), column.width


def _kept(record: Mapping[str, Any], column: Column) -> tuple[str, int | None] | None:
    """What a record says of a column."""
    entry = record["columns"].get(column.name)
    if not isinstance(entry, dict) or not isinstance(entry.get("checksum"), str):
        return None
    shape = entry.get("shape")
    if not isinstance(shape, list) or len(shape) not in (1, 2):
        return None
    return str(entry.get("dtype")), shape[1] if len(shape) == 2 else None


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    """The type that products are computed in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _is_gone(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError)


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    """Readable JSON that ends with a checksum of the rest."""
    text = json.dumps(content, indent=1, sort_keys=True)
    return json.dumps({**content, "checksum": checksum(text.encode())}, indent=1, sort_keys=True).encode()


def _read_json(path: Path) -> dict[str, Any]:
    """What :func:`_json_bytes` wrote, without its checksum.

    Raises:
        FileNotFoundError: there is no file.
        DamagedFileError: it holds something else.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("it is no JSON") from error
    if not isinstance(content, dict) or "checksum" not in content:
        raise DamagedFileError("it has no checksum")
    del content["checksum"]
    if _json_bytes(content) != text:
        raise DamagedFileError("its checksum is another")
    return content
