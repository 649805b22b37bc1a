"""One file with tensors and a readable description: a zip of ``.npy`` files and a JSON, and nothing pickled."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.network import byte_view
from dualview_plugin.storage.arrays import dtype_name, mapped_array, npy_header, npy_parts
from dualview_plugin.storage.files import DamagedFileError, opened, whole_file

_DESCRIPTION = "description.json"
_LARGEST_DESCRIPTION = 2**26
_PIECE = 2**20  # bytes that are read at a time
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
    *(zipfile.BadZipFile, NotImplementedError),
)
_DTYPES = {dtype_name(dtype): dtype for dtype in (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool)}


def write_saved(path: Path, description: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Write description and tensors into one file, whole or not at all.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    arrays = [{"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape)} for tensor in tensors]
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_DESCRIPTION, json.dumps({**description, "arrays": arrays}, indent=1))
        for number, tensor in enumerate(tensors):
            with archive.open(_array_name(number), "w", force_zip64=True) as member:
                for part in npy_parts(tensor):
                    member.write(part)


def read_saved(path: Path, room: Path | None = None) -> tuple[dict[str, Any], list[Tensor]]:
    """The description and the tensors in a file.

    Members are read by their own names, and uncompressed alone, so that none is larger than the file. Each array's
    header must be the one that its description asks for. Links are not followed.

    Args:
        path: of the file.
        room: a folder for unnamed files, in which matrices lie; None: all is in memory.

    Raises:
        FileNotFoundError: there is no file.
        DamagedFileError: it holds something else.
    """
    try:
        with opened(path) as (file, size), zipfile.ZipFile(file) as archive:
            description = json.loads(archive.read(_member(archive, _DESCRIPTION, min(size, _LARGEST_DESCRIPTION))))
            entries = enumerate(description.pop("arrays"))
            tensors = [_tensor(archive, number, entry, size, room) for number, entry in entries]
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error
    return description, tensors


def _array_name(number: int) -> str:
    return f"array-{number:04d}.npy"


def _member(archive: zipfile.ZipFile, name: str, largest: int) -> zipfile.ZipInfo:
    """What an archive says of a member that is not compressed and not too large."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > largest:
        raise DamagedFileError(f"{name} is compressed or too large")
    return entry


def _tensor(archive: zipfile.ZipFile, number: int, entry: Mapping[str, Any], largest: int, room: Path | None) -> Tensor:
    """An array, read piece by piece to its place; its checksum is tested by the archive at the end."""
    dtype, shape = _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    member = _member(archive, _array_name(number), largest)
    header = npy_header(dtype, shape)
    with archive.open(member) as file:
        fits = min(shape, default=0) >= 0 and member.file_size == len(header) + dtype.itemsize * math.prod(shape)
        if not fits or file.read(len(header)) != header:
            raise DamagedFileError(f"{member.filename} holds no {dtype_name(dtype)} array of shape {shape}")
        values = mapped_array(shape, dtype, room if len(shape) > 1 else None)
        view = byte_view(values).data
        for start in range(0, len(view), _PIECE):
            view[start : start + _PIECE] = file.read(min(_PIECE, len(view) - start))
        file.read(1)
    return values
