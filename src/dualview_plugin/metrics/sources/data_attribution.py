"""The marker for functions and Captum objects that give data attributions, so that a metric and Quantus take them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from captum.influence import DataInfluence
from numpy.typing import NDArray

from dualview_plugin.attribution.common.quantus_call import unread_map
from dualview_plugin.errors import InvalidTypeError

AttributionFunction = Callable[..., Any]


class AttributionCallable:
    """A source of data attributions in a shape that ``quantus.evaluate`` takes.

    ``evaluate`` calls every explanation function once and insists on a map of the input's shape. Neither a matrix of
    training points nor a Captum influence object has one, so the call returns NaN of that shape: Quantus' own metrics
    score NaN then, while this package's metrics take the attributions from ``source``.
    """

    def __init__(self, source: AttributionFunction | DataInfluence) -> None:
        self.source = source
        if not isinstance(source, DataInfluence):
            functools.update_wrapper(self, source)

    def __call__(self, model: Any = None, inputs: Any = None, targets: Any = None, **_: Any) -> NDArray[np.float32]:
        """A map of NaN, shaped like the inputs: there is no input attribution."""
        del model, targets
        return unread_map(inputs)


def data_attribution(source: AttributionFunction | DataInfluence) -> AttributionCallable:
    """Mark a function, or a Captum influence object, as a source of data attributions.

    Args:
        source: a function called as ``source(model=…, inputs=…, targets=…, **explain_func_kwargs)`` with an array of
            inputs (n_test, …) and their explained classes (n_test,), that returns attributions (n_test, n_train),
            positive for proponents, column j for training point j; keyword arguments that it does not name are left
            out. Or an object such as ``captum.influence.TracInCPFast``.

    Returns:
        What to pass to ``quantus.evaluate`` or as ``explain_func``.

    Raises:
        InvalidTypeError: neither a function nor an influence object.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import data_attribution
        >>> @data_attribution
        ... def constant(model, inputs, targets):
        ...     return np.ones((len(inputs), 5))
        >>> constant.source(None, np.zeros((2, 3)), None).shape, constant(None, np.zeros((2, 3)), None).shape
        ((2, 5), (2, 3))
    """
    if not (callable(source) or isinstance(source, DataInfluence)):
        constraint = "a function or a captum.influence.DataInfluence"
        raise InvalidTypeError("source", "data_attribution", constraint, repr(source))
    return AttributionCallable(source)
