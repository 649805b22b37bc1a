"""Which data are these? By their content where they lie in memory, else by what they say without decoding."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from dualview_plugin.batches import Batch, leaves, structure
from dualview_plugin.data.stamp import DEPTH, are_numbers_by_position, len_of, wrapped_datasets
from dualview_plugin.network import byte_view

_BLOCK = 2**16
_NUMBERS = {int, float, complex, bool, bytes, type(None)}


@dataclass(frozen=True)
class KnownContent:
    """What is known of a dataset without decoding a sample.

    Attributes:
        digest: changes with it.
        whole: whether it is all that the samples are made of.
    """

    digest: str
    whole: bool


class SamplesDigest:
    """A digest of samples by content, type and shape, whatever batches they come in."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def update(self, inputs: Batch, labels: Tensor) -> None:
        """Add a batch: inputs (n, …) and labels (n,)."""
        marks = np.array([*sample_checksums(inputs), labels.tolist()], dtype="<i8")
        self._digest.update(np.ascontiguousarray(marks.T).data)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._digest.hexdigest()


def sample_checksums(inputs: Batch) -> NDArray[np.int64]:
    """A checksum of content, type and shape for each tensor of each sample of a batch, (n_tensors, n)."""
    form, columns = structure(inputs), []
    for leaf in leaves(inputs):
        kind = zlib.crc32(f"{form}{leaf.dtype}{tuple(leaf.shape[1:])}".encode())
        rows: Any = byte_view(leaf).reshape(len(leaf), -1)
        columns.append([zlib.crc32(row.data, kind) for row in rows])
    return np.array(columns, np.int64)


def known_content(dataset: Any, left_out: Collection[int] = ()) -> KnownContent:
    """What a dataset holds: arrays and tables whole, lists of numbers, texts and samples, dictionaries of them.

    Of names of files the sizes and times count. Tensors are read at the speed of memory. A dataset of tensors, a list
    of samples, and parts and sums of those, are known whole; of any other it is not known what it makes of what it
    holds. Values of the ids ``left_out`` do not count.
    """
    digest, whole = hashlib.blake2b(digest_size=16), True
    seen = set(left_out)
    for part in _parts(dataset, DEPTH, seen):
        if part is None:
            whole = False
        else:
            digest.update(part)
            digest.update(b"|")
    return KnownContent(digest.hexdigest(), whole)


def _parts(dataset: Any, depth: int, seen: set[int]) -> Iterator[bytes | None]:
    """The bytes that count; None where something else may count too."""
    yield f"{type(dataset).__qualname__} {len(dataset)}".encode()
    if type(dataset) is TensorDataset:
        for tensor in dataset.tensors:
            yield from _of_array(tensor)
    elif type(dataset) is Subset:
        yield from _of_array(np.asarray(dataset.indices))
        yield from _wrapped(dataset.dataset, depth, seen)
    elif type(dataset) is ConcatDataset:
        for inner in dataset.datasets:
            yield from _wrapped(inner, depth, seen)
    elif type(dataset) in (list, tuple):
        yield from _of_entries(dataset)
    else:
        yield None
        yield from _of_attributes(dataset, depth, seen)


def _wrapped(dataset: Any, depth: int, seen: set[int]) -> Iterator[bytes | None]:
    """The parts of a dataset in another."""
    if depth and hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        yield from _parts(dataset, depth - 1, seen)
    else:
        yield None


def _of_attributes(dataset: Any, depth: int, seen: set[int]) -> Iterator[bytes | None]:
    """What an object of a class of somebody's holds: arrays, entries for each sample or by position, what it wraps."""
    n_samples = len(dataset)
    attributes: dict[str, Any] = getattr(dataset, "__dict__", {})
    for name in sorted(attributes):
        value = attributes[name]
        if isinstance(value, Dataset) or name in ("dataset", "datasets") or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            columns = [value[key] for key in sorted(value, key=str)]
            if columns and all(_is_column(column, n_samples) for column in columns):
                yield from _of_entries([sorted(map(str, value)), *columns])
            elif are_numbers_by_position(value, n_samples):
                yield from _of_entries(sorted((int(place), float(number)) for place, number in value.items()))
        elif isinstance(value, (Tensor, np.ndarray)) or _is_column(value, n_samples):
            yield from _of_array(value) if isinstance(value, (Tensor, np.ndarray)) else _of_entries(value)
        elif isinstance(value, tuple) and value and all(isinstance(part, Tensor) for part in value):
            yield from _of_entries(value)
    for inner in wrapped_datasets(attributes):
        yield from _wrapped(inner, depth, seen)


def _is_column(value: Any, n_samples: int) -> bool:
    """Whether a value has an entry for each sample, or more where the dataset is a part of what it holds."""
    kinds = (Tensor, np.ndarray, list, tuple, range)
    return (isinstance(value, kinds) or _is_table(value)) and len_of(value) >= n_samples


def _is_table(value: Any) -> bool:
    """Whether a value is a table or a column of pandas, which need not be installed."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def _of_array(value: Any) -> Iterator[bytes | None]:
    """Type, shape and content; of an array in a file the file's name, size and time."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        yield None
        return
    yield f"{value.dtype}{tuple(value.shape)}".encode()
    if isinstance(value, np.memmap):
        yield None
        yield _file_mark(str(value.filename))
        return
    if isinstance(value, Tensor) and value.device.type == "meta":
        yield None
        return
    is_tensor = isinstance(value, Tensor)
    view = (byte_view(value) if is_tensor else np.ascontiguousarray(value).reshape(-1).view(np.uint8)).data
    yield b"".join(
        zlib.crc32(view[start : start + _BLOCK]).to_bytes(4, "little") for start in range(0, len(view), _BLOCK)
    )


def _of_entries(values: Any) -> Iterator[bytes | None]:
    """Samples, labels, texts, names of files, or tables: their content; and None if there are other things among it."""
    digest = hashlib.blake2b(digest_size=16)
    known = _add(digest, values)
    yield digest.digest()
    if not known:
        yield None


def _add(digest: Any, value: Any) -> bool:
    """Add a value to a digest; False if it is, or holds, something whose content is not known."""
    if isinstance(value, (Tensor, np.ndarray)) and not (isinstance(value, np.ndarray) and value.dtype.hasobject):
        marks = list(_of_array(value))
        for mark in marks:
            digest.update(b"?" if mark is None else mark)
        return None not in marks
    if isinstance(value, (str, os.PathLike)):
        digest.update(b"s" + _file_mark(os.fspath(value)) + b",")
        return True
    if type(value) in _NUMBERS or isinstance(value, np.generic):
        digest.update(f"{value!r},".encode())
        return True
    if _is_table(value):
        return _add(digest, [[str(name) for name in getattr(value, "columns", ())], value.to_numpy()])
    if isinstance(value, np.ndarray):
        digest.update(str(value.shape).encode())
        return _add(digest, value.reshape(-1).tolist())
    if isinstance(value, Mapping):
        names = sorted(value, key=str)
        return _add(digest, [part for name in names for part in (str(name), value[name])])
    if isinstance(value, (list, tuple, range)):
        digest.update(f"{len(value)}[".encode())
        if not isinstance(value, range) and set(map(type, value)) <= _NUMBERS:
            digest.update(repr(list(value)).encode())
            return True
        known = [_add(digest, part) for part in value]
        return all(known)
    digest.update(type(value).__qualname__.encode())
    return False


def _file_mark(name: str | bytes) -> bytes:
    """The last two parts of the name of a file, its size and its time; of any other text the text."""
    text = os.fsdecode(name)
    try:
        status = os.stat(text)
    except (OSError, ValueError):
        return text.encode(errors="surrogatepass")
    short = "/".join(text.replace(os.sep, "/").split("/")[-2:])
    return f"{short} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape")
