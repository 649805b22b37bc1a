"""Computed tensors on disk, each under a key that names everything they depend on."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(*parts: object) -> str:
    """A short hash of tensors by shape, type and content, and of anything else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()[:32]


def model_fingerprint(model: nn.Module) -> str:
    """A hash of a network: its class, its structure as printed, and every parameter and buffer."""
    state = model.state_dict()
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return fingerprint(kind, model, *(part for name in sorted(state) for part in (name, state[name])))


def data_fingerprint(batches: Iterable[Iterable[Tensor]]) -> str:
    """A hash of a dataset's content, whatever its batch size; reads all of it."""
    samples = hashlib.sha256()
    for batch in batches:
        for sample in zip(*batch, strict=True):
            samples.update(fingerprint(*sample).encode())
    return samples.hexdigest()[:32]


class TensorCache:
    """A folder of tensors; a missing, foreign or damaged entry is computed, never guessed.

    Args:
        folder: where the entries lie; created when the first is written. None turns the cache off.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def load_or_compute(self, kind: str, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The entry of this kind and key, on the CPU if from the disk; else what ``compute`` returns, stored."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{kind}-{key}.pt"
        stored = _load(path)
        if stored is not None:
            return stored
        computed = compute()
        _save(path, computed)
        return computed


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors in a file; None, with a warning, if it is there but cannot be read."""
    if not path.exists():
        return None
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        warnings.warn(f"cache entry {path} cannot be read and is computed again: {error}", stacklevel=3)
        return None
    return dict(loaded)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the file whole or not at all, so that an interrupted run leaves no half entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({key: tensor.detach().cpu() for key, tensor in tensors.items()}, file)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
