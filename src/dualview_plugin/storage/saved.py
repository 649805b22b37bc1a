"""One file with tensors and a readable description: a zip of ``.npy`` files and a JSON, and nothing pickled."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.storage.arrays import dtype_name, npy_parts, parsed_npy
from dualview_plugin.storage.files import DamagedFileError, whole_file

_DESCRIPTION = "description.json"
_LARGEST_DESCRIPTION = 2**26
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
            with archive.open(_member(number), "w", force_zip64=True) as member:
                for part in npy_parts(tensor):
                    member.write(part)


def read_saved(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """The description and the tensors in a file.

    Members are read by their own names, and uncompressed alone, so that none is larger than the file. Each array's
    header must be the one that its description asks for.

    Raises:
        FileNotFoundError: there is no file.
        DamagedFileError: it holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(_content(archive, _DESCRIPTION, _LARGEST_DESCRIPTION))
            tensors = [_tensor(archive, number, entry) for number, entry in enumerate(description.pop("arrays"))]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error
    return description, tensors


def _member(number: int) -> str:
    return f"array-{number:04d}.npy"


def _content(archive: zipfile.ZipFile, name: str, largest: int | None = None) -> bytes:
    """A member, whose own checksum the archive tests."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or (largest is not None and entry.file_size > largest):
        raise DamagedFileError(f"{name} is compressed or too large")
    return archive.read(entry)


def _tensor(archive: zipfile.ZipFile, number: int, entry: Mapping[str, Any]) -> Tensor:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    return parsed_npy(_content(archive, _member(number)), dtype, shape)
