"""What methods learn as JSON and tensors: the values, and the few classes, that a file may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dualview_plugin.attribution.common.coefficients import DenseCoefficients, SparseCoefficients
from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.features import Standardizer
from dualview_plugin.last_layer import (
    CholeskyInverse,
    ConjugateGradientInverse,
    LinearLayer,
    LissaInverse,
    SoftmaxCurvature,
    SoftmaxRegression,
)
from dualview_plugin.solver import CrammerSingerSolution
from dualview_plugin.storage import DamagedFileError, dtype_name

# The only objects that a file may ask for; their attributes are set, and none of their code runs.
_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        CholeskyInverse,
        ConjugateGradientInverse,
        CrammerSingerSolution,
        DenseCoefficients,
        LinearLayer,
        LissaInverse,
        SoftmaxCurvature,
        SoftmaxRegression,
        SparseCoefficients,
        Standardizer,
    )
}
_DTYPES = {dtype_name(dtype): dtype for dtype in (torch.float64, torch.float32)}


def state_classes(own: Iterable[type]) -> dict[str, type]:
    """The classes of which a method's state is made, by name: those of all methods, and the method's own."""
    return {**_CLASSES, **{kind.__name__: kind for kind in own}}


class Encoder:
    """Values as JSON, with tensors apart; what occurs twice is kept once."""

    def __init__(self, owner: str, classes: Mapping[str, type]) -> None:
        self._classes = classes
        self.tensors: list[Tensor] = []
        self._owner = owner
        self._numbers: dict[tuple[Any, ...], int] = {}

    def encode(self, value: Any) -> Any:
        """The value as JSON has it.

        Raises:
            InvalidTypeError: it has no form on disk.
        """
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._number(value)}
        if isinstance(value, np.ndarray):
            return {"array": self._number(torch.from_numpy(value))}
        if isinstance(value, csr_array):
            parts = [torch.from_numpy(part) for part in (value.data, value.indices, value.indptr)]
            return {"csr": [self._number(part) for part in parts], "shape": list(value.shape)}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [self.encode(part) for part in value]}
        if isinstance(value, torch.dtype) and dtype_name(value) in _DTYPES:
            return {"dtype": dtype_name(value)}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: self.encode(part) for key, part in value.items()}}
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if self._classes.get(type(value).__name__) is type(value):
            fields = {name: self.encode(part) for name, part in vars(value).items()}
            return {"object": type(value).__name__, "fields": fields}
        constraint = "of a method whose state has a form on disk"
        raise InvalidTypeError("save", self._owner, constraint, f"a {type(value).__name__} in it")

    def _number(self, tensor: Tensor) -> int:
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self._numbers or not tensor.numel():
            self._numbers[key] = len(self.tensors)
            self.tensors.append(tensor)
        return self._numbers[key]


class Decoder:
    """The values of :class:`Encoder`, from JSON that anybody may have written."""

    def __init__(self, tensors: list[Tensor], device: torch.device, classes: Mapping[str, type]) -> None:
        self._classes = classes
        self._cpu = tensors
        self._device = device
        self._placed: dict[int, Tensor] = {}

    def decode(self, value: Any) -> Any:
        """The value.

        Raises:
            DamagedFileError, KeyError, TypeError, ValueError, IndexError, AttributeError: it is none of an encoder.
        """
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return self._tensor(value["tensor"])
        if "array" in value:
            return self._cpu[value["array"]].numpy()
        if "csr" in value:
            data, indices, starts = (self._cpu[number].numpy() for number in value["csr"])
            result = csr_array((data, indices, starts), shape=tuple(value["shape"]))
            result.check_format(full_check=True)
            return result
        if "dtype" in value:
            return _DTYPES[value["dtype"]]
        if "object" in value:
            made: Any = object.__new__(self._classes[value["object"]])
            vars(made).update({name: self.decode(part) for name, part in value["fields"].items()})
            return made
        if "dict" in value:
            return {key: self.decode(part) for key, part in value["dict"].items()}
        if "slice" in value:
            return slice(*value["slice"])
        for kind in (list, tuple):
            if kind.__name__ in value:
                return kind(self.decode(part) for part in value[kind.__name__])
        raise DamagedFileError(f"it holds {sorted(value)[:3]}")

    def _tensor(self, number: int) -> Tensor:
        if number not in self._placed:
            self._placed[number] = self._cpu[number].to(self._device)
        return self._placed[number]
