"""Fitted methods on disk: what they learned and what they were fitted on, without the network and the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dualview_plugin.attribution.common.arguments import json_arguments
from dualview_plugin.attribution.common.encoding import Decoder, Encoder, state_classes
from dualview_plugin.attribution.common.training_passes import TrainingPasses
from dualview_plugin.attribution.common.training_store import N_PROBES
from dualview_plugin.errors import InvalidValueError, StaleFitError
from dualview_plugin.network import model_fingerprint, same_outputs
from dualview_plugin.storage import DamagedFileError, read_saved, write_saved

FORMAT = 1


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
    encoder = Encoder(owner, state_classes(method._state_classes))
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
        decoder = Decoder(self._tensors, method.device, state_classes(method._state_classes))
        try:
            return {name: decoder.decode(value) for name, value in self._learned.items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, DamagedFileError) as error:
            raise self.refused(str(error)) from error

    def _stale(self, parameter: str, got: str) -> StaleFitError:
        return StaleFitError(f"{parameter} of {self._owner} must be that of the fit in {str(self.path)!r}, got {got}")
