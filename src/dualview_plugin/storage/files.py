"""Files that are written whole or not at all, and read without following links."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.tmp-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{32}")
_LARGEST_TEXT = 2**24
# No link is followed, no pipe waited for.
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class DamagedFileError(Exception):
    """A file is not what was written; the message says in what way. Users never see it."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name; after the block it is brought to the disk and renamed.

    Raises:
        OSError: the file cannot be written; nothing is left of it, and what was there stays.
    """
    name = path.parent / f".tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        with open(name, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            name.unlink()
        raise


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts into one file, as :func:`whole_file` does."""
    with whole_file(path) as file:
        for part in parts:
            file.write(part)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes of this machine that are no more."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            match = _TEMPORARY.fullmatch(path.name)
            if match and match["host"] == socket.gethostname() and not _is_alive(int(match["process"])):
                path.unlink(missing_ok=True)


def read_text(path: Path) -> bytes:
    """The content of a regular file of at most 16 MiB.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is a link, or no file, larger, or cannot be read.
    """
    with opened(path) as (file, found):
        if found > _LARGEST_TEXT:
            raise DamagedFileError(f"it has {found} bytes, too many for its kind")
        try:
            return file.read()
        except OSError as error:
            raise DamagedFileError(str(error)) from error


def read_into(path: Path, *places: bytearray | memoryview) -> None:
    """Read a regular file into buffers that it fills one after the other; its size is tested first.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is a link, or no file, of another size, or cannot be read.
    """
    with opened(path) as (file, found):
        size = sum(map(len, places))
        if found != size:
            raise DamagedFileError(f"it has {found} bytes in place of {size}")
        try:
            n_read = sum(file.readinto(place) for place in places)  # type: ignore[attr-defined]
        except OSError as error:
            raise DamagedFileError(str(error)) from error
        if n_read != size:
            raise DamagedFileError(f"it ends after {n_read} of {size} bytes")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file to read, and its size.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is a link, or no file.
    """
    try:
        handle = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else str(error.strerror or error)
        raise DamagedFileError(reason) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise DamagedFileError("it is no regular file")
    with os.fdopen(handle, "rb") as file:
        yield file, status.st_size


def _is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
