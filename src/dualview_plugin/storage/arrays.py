"""Arrays as ``.npy`` files whose header is known before they are read, and arrays in unnamed files."""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview_plugin.network import byte_view
from dualview_plugin.storage.checksums import checksum
from dualview_plugin.storage.files import DamagedFileError, read_into

# bfloat16 is no type of NumPy: its bits are stored as integers.
_STORED_AS = {
    torch.float64: "<f8",
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.bfloat16: "<u2",
    torch.int64: "<i8",
    torch.int32: "<i4",
    torch.bool: "|b1",
}


def dtype_name(dtype: torch.dtype) -> str:
    """The type without its prefix."""
    return str(dtype).removeprefix("torch.")


def npy_parts(values: Tensor) -> tuple[bytes, memoryview]:
    """Header and content of the ``.npy`` file of a tensor."""
    values = values.detach().cpu().contiguous()
    return npy_header(values.dtype, tuple(values.shape)), byte_view(values).data


def npy_header(dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """The header of the ``.npy`` file of such a tensor."""
    buffer = io.BytesIO()
    description = {"descr": _STORED_AS[dtype], "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def read_npy(path: Path, place: Tensor) -> str:
    """Read the array in a file to its place, a contiguous tensor of its shape and type; returns the file's checksum.

    The header must be the one that such a tensor has, byte by byte. So no header is parsed, and no size believed.

    Raises:
        FileNotFoundError: there is no file.
        DamagedFileError: it holds something else; the place then has any values.
    """
    header, view = npy_header(place.dtype, tuple(place.shape)), byte_view(place).data
    read_into(path, found := bytearray(len(header)), view)
    if found != header:
        raise DamagedFileError(f"it holds no {dtype_name(place.dtype)} array of shape {tuple(place.shape)}")
    return checksum(header, view)


def mapped_array(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """An uninitialised tensor in a file without a name, which the system drops with the tensor or the process.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        folder: where the file lies; None: a tensor in memory, as also where the file cannot be made.
    """
    n_bytes = dtype.itemsize * math.prod(shape)
    if folder is None or not n_bytes or not hasattr(os, "posix_fallocate"):
        return torch.empty(shape, dtype=dtype, device="cpu")
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk says so here, and not at a write to the map
        mapping = mmap.mmap(file.fileno(), n_bytes)
        return torch.frombuffer(mapping, dtype=dtype).view(shape)
    return torch.empty(shape, dtype=dtype, device="cpu")
