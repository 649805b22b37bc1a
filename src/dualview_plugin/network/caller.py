"""How a batch goes into a network, and where its logits come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch, mapped, n_rows, shapes
from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError

Forward: TypeAlias = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Caller:
    """The map from a batch to the outputs (n_samples, n_outputs) and the logits (n_samples, n_classes) of a network.

    A tensor goes in as ``model(x)``, a tuple as ``model(*xs)``, a dictionary as ``model(**batch)``. The outputs are
    what comes out, or its attribute ``logits``.

    The logits are the outputs. A network with a single output z decides between two classes: its logits are
    (−z/2, z/2), whose softmax is the sigmoid of z. A chosen output of several is taken likewise, by itself.

    Args:
        model: the network.
        owner: the class that asks, for error messages.
        forward: a function of the network and the batch, in place of the call above.
        output: the output that is taken by itself; None: all of them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin.network import Caller
        >>> call = Caller(nn.Linear(3, 1), "example")
        >>> call(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    model: nn.Module
    owner: str
    forward: Forward | None = None
    output: int | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """The logits (n_samples, n_classes) of a batch, to whose tensors the network may write."""
        return self.logits(self.outputs(batch))

    def outputs(self, batch: Batch) -> Tensor:
        """The outputs (n_samples, n_outputs) of a batch, to whose tensors the network may write.

        Raises:
            InvalidValueError: what comes out is no floating matrix with a row for each sample.
        """
        return self._checked(self._called(batch), n_rows(batch))

    def outputs_of_copy(self, batch: Batch, parameter: str) -> Tensor:
        """The outputs of a copy of a batch.

        Raises:
            InvalidValueError: the network does not take the batch, which came as this parameter.
        """
        with self.taking(batch, parameter):
            return self.outputs(mapped(torch.clone, batch))

    @contextmanager
    def taking(self, batch: Batch, parameter: str) -> Iterator[None]:
        """A block that calls the network with a batch, which came as this parameter.

        Raises:
            InvalidValueError: the network does not take the batch.
        """
        try:
            yield
        except (torch.OutOfMemoryError, DualViewError):
            raise
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            got = f"{shapes(batch)}: {reason}"
            raise InvalidValueError(parameter, self.owner, "such that the network takes them", got) from error

    def with_parameters(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The logits of a batch with other parameters, by their names in the network."""
        with _replaced(self.model, parameters):
            return self(batch)

    def logits(self, outputs: Tensor) -> Tensor:
        """The logits (n_samples, n_classes) that stand for these outputs (n_samples, n_outputs).

        Raises:
            InvalidValueError: there is no such output.
        """
        n_outputs = outputs.shape[1]
        if self.output is None and n_outputs > 1:
            return outputs
        column = self.output or 0
        if column >= n_outputs:
            raise InvalidValueError("output", self.owner, f"in 0 … {n_outputs - 1}, the network's outputs", column)
        half = outputs[:, column] / 2
        return torch.stack([-half, half], 1)

    def _called(self, batch: Batch) -> Any:
        """What the network, or the function in its place, returns."""
        if self.forward is not None:
            return self.forward(self.model, batch)
        if isinstance(batch, dict):
            return self.model(**batch)
        return self.model(*batch) if isinstance(batch, tuple) else self.model(batch)

    def _checked(self, returned: Any, n_samples: int) -> Tensor:
        """The outputs in what was returned, if they are a floating matrix with a row for each sample."""
        outputs = returned if isinstance(returned, Tensor) else getattr(returned, "logits", returned)
        if isinstance(outputs, Tensor) and outputs.ndim == 1 and len(outputs) == n_samples > 0:
            outputs = outputs[:, None]
        if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == n_samples):
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            constraint = (
                "a network that returns outputs of shape (n_samples, n_classes), or an object with such logits; else"
                " pass forward=lambda model, batch: …, a function that returns them, such as model(batch)['logits']"
            )
            raise InvalidValueError("model", self.owner, constraint, got)
        if not outputs.is_floating_point():
            raise InvalidValueError("model", self.owner, "a network with floating outputs", str(outputs.dtype))
        return outputs


@contextmanager
def _replaced(model: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Other tensors in the place of parameters, in every module that holds them.

    ``torch.func.functional_call`` leaves its tensors behind in a module that has two names.
    """
    own = dict(model.named_parameters())
    values = {id(own[name]): value for name, value in parameters.items()}
    slots = [
        (module._parameters, slot, parameter)
        for module in model.modules()
        for slot, parameter in module._parameters.items()
        if id(parameter) in values
    ]
    try:
        for held, slot, parameter in slots:
            held[slot] = values[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for held, slot, parameter in slots:
            held[slot] = parameter


def checked_function(function: Any, parameter: str, owner: str) -> Any:
    """A function, or None."""
    if function is not None and not callable(function):
        raise InvalidTypeError(parameter, owner, "a function, or None", type(function).__name__)
    return function
