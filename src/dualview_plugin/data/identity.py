"""Which data are these? By their content where they lie in memory, else by what they say without decoding."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from dualview_plugin.batches import Batch, leaves, structure
from dualview_plugin.data.stamp import len_of
from dualview_plugin.network import byte_view

_DEPTH = 8  # of datasets that wrap datasets
_BLOCK = 2**16


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
        form, columns = structure(inputs), []
        for leaf in leaves(inputs):
            kind = zlib.crc32(f"{form}{leaf.dtype}{tuple(leaf.shape[1:])}".encode())
            rows: Any = byte_view(leaf).reshape(len(leaf), -1)
            columns.append([zlib.crc32(row.data, kind) for row in rows])
        marks = np.array([*columns, labels.tolist()], dtype="<i8")
        self._digest.update(np.ascontiguousarray(marks.T).data)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._digest.hexdigest()


def known_content(dataset: Any) -> KnownContent:
    """What a dataset holds: tensors and arrays whole, labels, names of files with their sizes and times.

    Tensors are read at the speed of memory. A dataset of tensors, a list of samples, and parts and sums of those, are
    known whole; of any other it is not known what it makes of what it holds.
    """
    digest, whole = hashlib.blake2b(digest_size=16), True
    seen: set[int] = set()
    for part in _parts(dataset, _DEPTH, seen):
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
        yield from _of_samples(dataset)
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
    """What an object of a class of somebody's holds, one entry a sample, and what it wraps."""
    n_samples = len(dataset)
    attributes: dict[str, Any] = getattr(dataset, "__dict__", {})
    for name in sorted(attributes):
        value = attributes[name]
        if name in ("dataset", "datasets") or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tuple) and value and all(isinstance(part, Tensor) for part in value):
            for part in value:
                yield from _of_array(part)
        elif isinstance(value, (Tensor, np.ndarray)):
            if len_of(value) == n_samples:
                yield from _of_array(value)
        elif isinstance(value, (list, tuple, range)) and len(value) == n_samples:
            yield from _of_list(value)
    for inner in (attributes.get("dataset"), *(attributes.get("datasets") or ())):
        if hasattr(inner, "__len__") and hasattr(inner, "__getitem__"):
            yield from _wrapped(inner, depth, seen)


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


def _of_samples(samples: Any) -> Iterator[bytes | None]:
    """A list of samples: their content, if they are made of tensors, arrays and integers."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        digest.update(structure(sample).encode())
        for part in pytree.tree_leaves(dict(sample) if isinstance(sample, Mapping) else sample):
            if not isinstance(part, (Tensor, np.ndarray, int, np.integer)):
                yield None
                return
            for mark in _of_array(part if isinstance(part, (Tensor, np.ndarray)) else np.asarray(part)):
                if mark is None:
                    yield None
                    return
                digest.update(mark)
    yield digest.digest()


def _of_list(values: Any) -> Iterator[bytes | None]:
    """Labels, names, and pairs of them; names of files with size and time."""
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, (int, np.integer)) or (isinstance(part, Tensor) and part.ndim == 0):
                digest.update(str(part.item() if isinstance(part, Tensor) else int(part)).encode())
            elif isinstance(part, (str, os.PathLike)):
                digest.update(_file_mark(os.fspath(part)))
            else:
                yield None
                return
            digest.update(b",")
    yield digest.digest()


def _file_mark(name: str | bytes) -> bytes:
    """The last two parts of a name, and size and time if it is a file's."""
    text = os.fsdecode(name)
    short = "/".join(text.replace(os.sep, "/").split("/")[-2:])
    try:
        status = os.stat(text)
    except (OSError, ValueError):
        return short.encode(errors="surrogateescape")
    return f"{short} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape")
