"""Computed tensors on disk, each under a key that names what they depend on, with a checksum."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.batches import Batch, leaves, structure
from dualview_plugin.errors import CacheWarning, InvalidValueError
from dualview_plugin.network import fingerprint, same_outputs

_MAGIC = b"dualview 1\n"
_DIGEST_SIZE = 32
# Tensors by which an entry is recognised have names that begin so.
_PROBE = "probe: "


def data_fingerprint(batches: Iterable[tuple[Batch, Tensor]]) -> str:
    """A hash of a dataset's content, whatever its batch size; reads all of it."""
    samples = hashlib.sha256()
    for inputs, labels in batches:
        names = [] if isinstance(inputs, Tensor) else [structure(inputs)]
        for sample in zip(*leaves(inputs), labels, strict=True):
            samples.update(fingerprint(*names, *sample).encode())
    return samples.hexdigest()[:32]


class TensorCache:
    """A folder of tensors; a missing, foreign or damaged entry is computed, never guessed.

    Args:
        folder: where the entries lie; created at once. None turns the cache off.
        owner: the class that asks, for the error message.

    Raises:
        InvalidValueError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None, owner: str = "TensorCache") -> None:
        self.folder: Path | None = None
        if folder is None:
            return
        try:
            self.folder = Path(folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, TypeError, ValueError) as error:
            constraint = "a folder that can be written, or None"
            raise InvalidValueError("cache_dir", owner, constraint, f"{folder!r} ({error})") from error

    def load_or_compute(
        self,
        kind: str,
        key: str,
        compute: Callable[[], dict[str, Tensor]],
        probe: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The entry of this kind and key, on the CPU if from the disk; else what ``compute`` returns, stored.

        Args:
            kind: what the tensors are.
            key: a hash of what they depend on.
            compute: makes them.
            probe: what else must agree, up to rounding: the answers of the network on a few samples.
        """
        if self.folder is None:
            return compute()
        path = self.folder / f"{kind}-{key}.cache"
        marks = {_PROBE + name: tensor.detach().cpu() for name, tensor in (probe or {}).items()}
        stored = _load(path)
        if stored is not None and all(name in stored and same_outputs(stored[name], marks[name]) for name in marks):
            return {name: tensor for name, tensor in stored.items() if not name.startswith(_PROBE)}
        computed = compute()
        _save(path, {**computed, **marks})
        return computed


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors in a file; None if it is not there, and None with a warning if it is not what was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_damaged(path, str(error))
        return None
    head = len(_MAGIC) + _DIGEST_SIZE
    payload = content[head:]
    if content[: len(_MAGIC)] != _MAGIC or content[len(_MAGIC) : head] != _digest(payload):
        _warn_damaged(path, "its checksum is another")
        return None
    loaded: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return dict(loaded)


def _warn_damaged(path: Path, reason: str) -> None:
    warnings.warn(f"cache entry {path} cannot be read and is computed again: {reason}", CacheWarning, stacklevel=4)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the file whole or not at all; a folder that cannot be written costs a warning, not the result."""
    buffer = io.BytesIO()
    torch.save({key: tensor.detach().cpu() for key, tensor in tensors.items()}, buffer)
    payload = buffer.getvalue()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + _digest(payload) + payload)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        warnings.warn(f"cache entry {path} cannot be written: {error}", CacheWarning, stacklevel=4)


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()
