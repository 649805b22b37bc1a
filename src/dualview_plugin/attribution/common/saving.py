"""Fitted methods on disk: what they learned and what they were fitted on, without the network and the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dualview_plugin.attribution.common.arguments import json_arguments
from dualview_plugin.attribution.common.coefficients import DenseCoefficients, SparseCoefficients
from dualview_plugin.attribution.common.training_store import N_PROBES
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, StaleFitError
from dualview_plugin.features import Standardizer
from dualview_plugin.last_layer import (
    CholeskyInverse,
    ConjugateGradientInverse,
    LinearLayer,
    LissaInverse,
    SoftmaxCurvature,
    SoftmaxRegression,
)
from dualview_plugin.network import model_fingerprint, same_outputs
from dualview_plugin.solver import CrammerSingerSolution
from dualview_plugin.storage import DamagedFileError, dtype_name, read_saved, write_saved

if TYPE_CHECKING:
    from dualview_plugin.attribution.common.training_passes import TrainingPasses

FORMAT = 1
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


def save(method: TrainingPasses, path: str | Path, learned: Mapping[str, Any]) -> None:
    """Write a fitted method's class, arguments and learned state, and the identity of its network and data.

    Args:
        method: fitted.
        path: of the file.
        learned: attributes by name.

    Raises:
        InvalidTypeError: the state or an argument has no form on disk.
        InvalidValueError: the file cannot be written.
    """
    owner, probe = method.get_name(), method._probe_now()
    encoder = Encoder(owner, classes_of(method))
    identity = {
        "network": model_fingerprint(method.model, probe.plain),
        "data": method._data.identity(n_probes=N_PROBES).digest,
        "n_train": len(method._data),
        "indices": probe.indices,
        "answers": encoder.encode([probe.labels, probe.features, probe.logits]),
        "precision": str(probe.dtype),
    }
    description = {
        "format": FORMAT,
        "class": owner,
        "layer": method.extractor.layer_name,
        "arguments": json_arguments(method),
        "identity": identity,
        "learned": {name: encoder.encode(value) for name, value in learned.items()},
    }
    try:
        write_saved(Path(path), description, encoder.tensors)
    except (OSError, TypeError, ValueError) as error:
        raise InvalidValueError("path", f"{owner}.save", "a file that can be written", f"{path!r} ({error})") from error


class Saved:
    """The content of a file, read and not yet believed.

    Args:
        path: of the file.
        owner: the class that asks, for error messages.

    Raises:
        InvalidValueError: there is no such file, or it is not one of :func:`save` in this format.
    """

    def __init__(self, path: str | Path, owner: str) -> None:
        self.path, self._owner = path, f"{owner}.load"
        try:
            content, self._tensors = read_saved(Path(path).resolve())
            if content["format"] != FORMAT:
                raise DamagedFileError(f"its format is {content['format']!r}, this version reads {FORMAT}")
            self.name, self.layer = str(content["class"]), str(content["layer"])
            self.arguments, self._identity, self._learned = (
                dict(content[name]) for name in ("arguments", "identity", "learned")
            )
        except (OSError, TypeError, ValueError, KeyError, DamagedFileError) as error:
            raise self.refused(f"{error}") from error

    def refused(self, reason: str) -> InvalidValueError:
        """The refusal of the file."""
        return InvalidValueError("path", self._owner, "a file that save() wrote", f"{str(self.path)!r}: {reason}")

    def check(self, method: TrainingPasses) -> None:
        """Make sure that network and data of an unfitted method are those of the file.

        Raises:
            StaleFitError: they are others; the message says which, and in what.
        """
        probe = method._probe_now()
        try:
            wanted = self._identity
            labels, features, logits = Decoder(self._tensors, torch.device("cpu"), {}).decode(wanted["answers"])
            stored = wanted["n_train"], wanted["network"], wanted["data"], wanted["indices"]
        except (KeyError, TypeError, ValueError, IndexError, DamagedFileError) as error:
            raise self.refused(str(error)) from error
        n_train, network, data, indices = stored
        if len(method._data) != n_train:
            raise self._stale("train_dataset", f"{len(method._data)} samples in place of {n_train}")
        if model_fingerprint(method.model, probe.plain) != network:
            raise self._stale("model", "another class, structure or weights")
        if method._data.identity(n_probes=N_PROBES).digest != data or indices != probe.indices:
            raise self._stale("train_dataset", "other samples, labels or files")
        if not torch.equal(probe.labels.cpu(), labels):
            raise self._stale("train_dataset", "other labels")
        for found, expected in ((probe.features, features), (probe.logits, logits)):
            if not same_outputs(found.cpu(), expected, probe.dtype):
                raise self._stale("model", "the same weights but other outputs")

    def learned(self, method: TrainingPasses) -> dict[str, Any]:
        """The learned attributes, tensors on the method's device."""
        decoder = Decoder(self._tensors, method.device, classes_of(method))
        try:
            return {name: decoder.decode(value) for name, value in self._learned.items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, DamagedFileError) as error:
            raise self.refused(str(error)) from error

    def _stale(self, parameter: str, got: str) -> StaleFitError:
        return StaleFitError(f"{parameter} of {self._owner} must be that of the fit in {str(self.path)!r}, got {got}")


def classes_of(method: TrainingPasses) -> dict[str, type]:
    """The classes of which a method's state is made, by name."""
    return {**_CLASSES, **{kind.__name__: kind for kind in method._state_classes}}


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
