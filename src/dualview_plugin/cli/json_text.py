"""What the commands print: JSON that every parser reads, and text that every terminal takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def as_json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON with all its digits; NaN and infinity become null, names that are no text become text.

    Example:
        >>> from dualview_plugin.cli.json_text import as_json_text
        >>> as_json_text([{"score": float("nan"), "attribution": 1e-12}])
        '[{"score": null, "attribution": 1e-12}]'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def printable(text: str) -> str:
    """The text with what is no character, as in names of files of other systems, written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    """Mappings, lists, numbers and text for the same of the JSON kind; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of NumPy or torch
        return _plain(value.item())
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
