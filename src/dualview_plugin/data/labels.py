"""Where the labels of a batch are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dualview_plugin.batches import Batch, structure
from dualview_plugin.errors import InvalidTypeError, InvalidValueError

LabelFunction: TypeAlias = Callable[[Any], Tensor]
LABEL_NAMES = ("labels", "label")


def split_labels(batch: Any, owner: str, parameter: str) -> tuple[Any, Any]:
    """A collated batch as its inputs and its labels: the last of a tuple, or the value named ``labels`` or ``label``.

    Raises:
        InvalidTypeError: there are no labels, or both names.
    """
    if isinstance(batch, Mapping):
        names = [name for name in LABEL_NAMES if name in batch]
        if len(names) == 1:
            return without_labels(batch), batch[names[0]]
        constraint = "a dataset whose dictionaries hold 'labels' or 'label'; else pass label_fn=lambda batch: …"
        raise InvalidTypeError(parameter, owner, constraint, f"the names {', '.join(map(str, batch))}")
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        constraint = "a dataset of (input, label) pairs, (inputs, …, label) or dictionaries"
        raise InvalidTypeError(parameter, owner, constraint, described(batch))
    *inputs, labels = batch
    return inputs[0] if len(inputs) == 1 else tuple(inputs), labels


def without_labels(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary less its labels."""
    return {name: batch[name] for name in batch if name not in LABEL_NAMES}


def inputs_like(batch: Any, expected: Batch | None) -> Any:
    """The inputs in a collated test batch, which may have labels, given the structure of the training inputs."""
    if isinstance(batch, Mapping):
        has_labels = isinstance(expected, Mapping) and any(name in expected for name in LABEL_NAMES)
        return batch if has_labels else without_labels(batch)
    if not isinstance(batch, (tuple, list)):
        return batch
    wanted = "tensor" if expected is None else structure(expected)
    candidates = (batch, batch[:-1], batch[0])
    return next((candidate for candidate in candidates if structure(candidate) == wanted), batch[0])


def class_labels(labels: Any, output: int | None, owner: str, parameter: str) -> Tensor:
    """Labels as int64, (n,): one integer for each sample, or of labels for each output those of one of them.

    Args:
        labels: integers (n,); with an ``output`` zeros and ones of any type, (n,), (n, 1) or (n, n_outputs).
        output: whose labels are taken; None: there is one label for each sample.
        owner: the class that asks, for error messages.
        parameter: where they come from, likewise.

    Raises:
        InvalidTypeError, InvalidValueError: something else.
    """
    if not isinstance(labels, Tensor):
        constraint = "a dataset with labels that are collated to a tensor"
        if isinstance(labels, (tuple, list)) and labels and isinstance(labels[0], str):
            constraint = "a dataset with integer labels: replace each name by the number of its class"
            raise InvalidTypeError(parameter, owner, constraint, f"names such as {labels[0]!r}")
        raise InvalidTypeError(parameter, owner, constraint, f"labels of type {type(labels).__name__}")
    got = f"labels {labels.dtype} of shape {tuple(labels.shape)}"
    if output is not None:
        if labels.ndim == 2:
            column = output if labels.shape[1] > 1 else 0
            if column >= labels.shape[1]:
                constraint = f"in 0 … {labels.shape[1] - 1}, the outputs that the dataset labels"
                raise InvalidValueError("output", owner, constraint, output)
            labels = labels[:, column]
        if labels.ndim != 1 or not bool(((labels == 0) | (labels == 1)).all()):
            constraint = "a dataset whose labels of an output are 0 or 1, since output=… takes it by itself"
            raise InvalidValueError(parameter, owner, constraint, got)
    elif labels.dtype.is_floating_point or labels.dtype.is_complex or labels.ndim != 1:
        constraint = (
            "a dataset with one integer label for each sample; of zeros and ones for each output, output=… takes one"
        )
        raise InvalidValueError(parameter, owner, constraint, got)
    classes: Tensor = labels.to(torch.int64)
    return classes


def described(value: object) -> str:
    """The type of a batch or a sample, in a few words."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of " + ", ".join(type(part).__name__ for part in value)
    return type(value).__name__
