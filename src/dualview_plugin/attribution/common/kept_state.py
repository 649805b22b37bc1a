"""What a method learned from the training data, kept beside the shards that it was learned from."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dualview_plugin.attribution.common.encoding import Decoder, Encoder
from dualview_plugin.errors import CacheWarning
from dualview_plugin.network import fingerprint
from dualview_plugin.storage import Claim, DamagedFileError, read_saved, remove_leftovers, write_saved

FORMAT = 2
# The warnings of this package by name.
_WARNINGS = {kind.__name__: kind for kind in UserWarning.__subclasses__() if kind.__module__ == CacheWarning.__module__}
_WAIT = 0.1  # seconds between two looks at what another process computes
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, DamagedFileError)


@dataclass(frozen=True)
class KeptState:
    """A value in a file whose name is made of all that it depends on.

    The file is that of :meth:`DataAttribution.save`: arrays and readable text, of which nothing is unpickled. Of
    several live processes one computes, and the others wait for it.

    Args:
        folder: of the file.
        name: of the value.
        parts: what it depends on.
        owner: the class that asks.
        classes: those of which the value may be made, by name.
        device: of the value.
    """

    folder: Path
    name: str
    parts: Mapping[str, object]
    owner: str
    classes: Mapping[str, type]
    device: torch.device

    @property
    def path(self) -> Path:
        """The file, which need not be there."""
        key = fingerprint(FORMAT, self.owner, self.name, sorted(self._described().items()))
        return self.folder / f"{self.owner}-{self.name}-{key}.zip"

    def get(self, compute: Callable[[], Any], *, jointly: bool = False) -> tuple[Any, bool]:
        """The value, and whether it was read. A warning that its computation gave is given again.

        Args:
            compute: gives it.
            jointly: several processes compute it together, and nobody waits.
        """
        while True:
            found = self._read()
            if found is not None:
                return found[0], True
            if jointly:
                return self._computed(compute), False
            claim = Claim.take(self.path.with_suffix(".lock"))
            if claim is not None:
                break
            time.sleep(_WAIT)
        try:
            found = self._read()  # finished between the look and the claim
            if found is not None:
                return found[0], True
            return self._computed(compute), False
        finally:
            claim.release()

    def _computed(self, compute: Callable[[], Any]) -> Any:
        """The value, which is written."""
        with heard_warnings() as heard:
            value = compute()
        self._write(value, heard)
        return value

    def _read(self) -> tuple[Any] | None:
        """The value in the file; None, with a warning if the file is damaged, where there is none."""
        try:
            content, tensors = read_saved(self.path, self.folder)
            if content["format"] != FORMAT or content["parts"] != self._described():
                raise DamagedFileError("it holds something else")
            value = Decoder(tensors, self.device, self.classes).decode(content["value"])
            said = [(_category(name), str(message)) for name, message in content["warnings"]]
        except FileNotFoundError:
            return None
        except _WRONG as error:
            warnings.warn(f"{self.path} cannot be read and is computed again: {error}", CacheWarning, stacklevel=2)
            return None
        for category, message in said:
            warnings.warn(message, category, stacklevel=2)
        return (value,)

    def _write(self, value: Any, heard: list[tuple[str, str]]) -> None:
        encoder = Encoder(self.owner, self.classes)
        description = {
            "format": FORMAT,
            "parts": self._described(),
            "warnings": heard,
            "value": encoder.encode(value),
        }
        try:
            remove_leftovers(self.folder)
            write_saved(self.path, description, encoder.tensors)
        except OSError as error:
            warnings.warn(f"{self.path} cannot be written, and is not kept: {error}", CacheWarning, stacklevel=2)

    def _described(self) -> dict[str, str]:
        return {name: repr(part) for name, part in self.parts.items()}


@contextmanager
def heard_warnings() -> Iterator[list[tuple[str, str]]]:
    """The warnings of this package that the block gives, by class and message; they are shown as ever."""
    heard: list[tuple[str, str]] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def noted(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if _WARNINGS.get(category.__name__) is category:
                heard.append((category.__name__, str(message)))
            show(message, category, *where, **more)

        warnings.showwarning = noted
        yield heard


def _category(name: object) -> type[Warning]:
    """The warning of this package with this name."""
    found = _WARNINGS.get(str(name))
    if found is None:
        raise DamagedFileError(f"it names a warning {name!r}")
    return found
