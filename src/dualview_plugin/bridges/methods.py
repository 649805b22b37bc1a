"""What both bridges share: a method by its class or its name."""

from __future__ import annotations

from typing import Any

import dualview_plugin.attribution as attribution
from dualview_plugin.attribution import DataAttribution
from dualview_plugin.errors import InvalidTypeError, InvalidValueError


def method_class(method: Any, owner: str) -> Any:
    """The class, or the function that makes one, by itself or by its public name.

    Raises:
        InvalidValueError: there is no method of this name.
        InvalidTypeError: the method is neither a name nor a class of this package's methods.

    Example:
        >>> from dualview_plugin.bridges.methods import method_class
        >>> method_class("DualView", "owner").__name__
        'DualView'
    """
    if isinstance(method, str):
        names = [name for name in attribution.__all__ if name not in ("DataAttribution", "FeatureKernelAttribution")]
        if method not in names:
            raise InvalidValueError("method", owner, "one of " + ", ".join(map(repr, names)), repr(method))
        return getattr(attribution, method)
    if method is not attribution.dualda and not (isinstance(method, type) and issubclass(method, DataAttribution)):
        raise InvalidTypeError("method", owner, "the name or the class of a method of this package", repr(method))
    return method
