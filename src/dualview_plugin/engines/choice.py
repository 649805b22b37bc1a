"""The engine that a name means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from dualview_plugin.engines.local import LocalEngine
from dualview_plugin.engines.ranks import RanksEngine
from dualview_plugin.engines.ray_pool import RayEngine
from dualview_plugin.engines.work import Engine
from dualview_plugin.errors import InvalidTypeError

_NAMED: dict[str, Callable[[], Engine]] = {"local": LocalEngine, "ranks": RanksEngine, "ray": RayEngine}


def engine_of(choice: Any) -> Engine:
    """The engine of this name, or the one that was given.

    Raises:
        InvalidTypeError: no engine.
        InvalidValueError: ``"ranks"`` outside of torchrun and SLURM.
        MissingDependencyError: ``"ray"`` without Ray.
    """
    if isinstance(choice, str):
        return _NAMED[choice]()
    if not callable(getattr(choice, "complete", None)):
        raise InvalidTypeError("engine", "Storage", "'local', 'ranks', 'ray' or a RayEngine", type(choice).__name__)
    return cast(Engine, choice)
