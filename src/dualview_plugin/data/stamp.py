"""What a dataset says of itself without reading a sample: its length, its labels in memory, its tensors' versions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview_plugin.data.labels import LABEL_NAMES
from dualview_plugin.network import byte_view

DEPTH = 8  # of datasets that wrap datasets
_LABEL_BYTES = 2**22  # an array with several numbers for each sample that takes more is none of labels


_FEW = 1000  # entries that tell most arrays from blank ones
# What a dataset says of itself: a digest for each attribute, by its dotted name.
Stamp: TypeAlias = dict[str, bytes]


def dataset_stamp(dataset: Any) -> Stamp:
    """Digests that change when the dataset grows, or when labels or tensors that it holds change.

    Labels are the numbers that the dataset or one that it wraps holds for each sample, or for some by their positions,
    under whatever name; several for each sample in an array of up to 4 MiB. Of tensors it is the version that counts
    too, which every write in place raises. Of a list of samples it is the labels, the objects that they are made of,
    and the versions of their tensors.
    """
    stamp: Stamp = {}
    known: dict[int, bytes] = {}  # one list may have several names
    for name, value, parts in _held(dataset, "", DEPTH):
        stamp[name] = known.get(id(value)) or _digest(parts)
        if isinstance(value, list):
            known[id(value)] = stamp[name]
    return stamp


def values_at(dataset: Any, names: Collection[str]) -> frozenset[int]:
    """The ids of the attributes of these names."""
    return frozenset(id(value) for name, value, _ in _held(dataset, "", DEPTH) if name in names)


def blank_names(dataset: Any) -> frozenset[str]:
    """The names of attributes that hold nothing yet: one number or None throughout, NaN, or an empty dictionary."""
    return frozenset(name for name, value, _ in _held(dataset, "", DEPTH) if _is_blank(value))


def _is_blank(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, list):
        return bool(value) and all(entry is value[0] for entry in value) and (value[0] is None or _is_number(value[0]))
    if isinstance(value, Tensor):
        if not value.numel() or value.is_meta or value.layout is not torch.strided or value.is_quantized:
            return False
        return _is_constant(value.flatten())
    plain = isinstance(value, np.ndarray) and value.size and not value.dtype.hasobject and value.dtype.names is None
    return bool(plain) and _is_constant(value.reshape(-1))


def _is_constant(entries: Any) -> bool:
    """Whether all entries (n,) are the first one, or NaN; few of them are looked at first."""
    return all(bool((part == entries[0]).all() or (part != part).all()) for part in (entries[:_FEW], entries))


def _held(dataset: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any, Iterator[bytes]]]:
    """Names, values, and the bytes that count: of a list its samples, else of attributes, and of wrapped datasets."""
    n_samples = len(dataset)
    yield f"{prefix}length", None, iter([str(n_samples).encode()])
    if isinstance(dataset, (list, tuple)):
        yield f"{prefix}samples", dataset, _of_samples(dataset)
        return
    attributes: dict[str, Any] = getattr(dataset, "__dict__", {})
    for name in sorted(attributes):
        yield f"{prefix}{name}", attributes[name], _of_value(attributes[name], n_samples)
    for number, inner in enumerate(wrapped_datasets(attributes) if depth else ()):
        yield from _held(inner, f"{prefix}{number}.", depth - 1)


def _digest(parts: Iterator[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
        digest.update(b"|")
    return digest.digest()


def wrapped_datasets(attributes: Mapping[str, Any]) -> Iterator[Any]:
    """The datasets among the attributes of one."""
    wrapped = [attributes.get("dataset"), *(attributes.get("datasets") or ())]
    named = {id(inner) for inner in wrapped}
    wrapped += [value for value in attributes.values() if isinstance(value, Dataset) and id(value) not in named]
    return (inner for inner in wrapped if hasattr(inner, "__len__") and hasattr(inner, "__getitem__"))


def _of_value(value: Any, n_samples: int) -> Iterator[bytes]:
    """What an attribute tells: labels by their values, tensors by their versions."""
    if isinstance(value, Tensor) and not value.is_inference():
        yield str((value._version, tuple(value.shape))).encode()
    if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
        for part in value:
            yield from _of_value(part, n_samples)
    elif isinstance(value, Mapping):
        columns = list(value.values())
        if are_numbers_by_position(value, n_samples):
            yield repr(sorted((int(place), float(number)) for place, number in value.items())).encode()
        elif columns and all(hasattr(part, "__len__") and len_of(part) == n_samples for part in columns):
            for part in columns:
                yield str(id(part)).encode()
                yield from _of_value(part, n_samples)
    elif isinstance(value, (Tensor, np.ndarray, list, range)) and len_of(value) == n_samples:
        if isinstance(value, Tensor):
            if value.ndim == 1:
                yield byte_view(value).tobytes()
        elif isinstance(value, np.ndarray):
            if not value.dtype.hasobject and (value.ndim == 1 or value.nbytes <= _LABEL_BYTES):
                yield value.tobytes()
        elif isinstance(value, range) or _are_of(value, (int, float)):
            yield np.asarray(value, np.float64).tobytes()
        elif all(map(_is_number, value)):
            yield repr([float(number) for number in value]).encode()
        else:
            yield from _of_samples(value)


def _of_samples(samples: Any) -> Iterator[bytes]:
    """Of a list of samples: which objects they and their parts are, the versions of tensors, and the labels.

    A label is the last entry of a sample, or the one of that name.
    """
    marks = [*map(id, samples)]
    if _are_of(samples, (list, tuple)):
        parts = list(chain.from_iterable(samples))
    else:
        parts = list(chain.from_iterable(map(_parts_of_sample, samples)))
    marks += map(id, parts)
    if not _are_of(parts, (str, int, float)):
        marks += (part._version for part in parts if isinstance(part, Tensor) and not part.is_inference())
    yield np.asarray(marks, np.uint64).tobytes()
    last = [sample[-1] for sample in samples if isinstance(sample, (list, tuple)) and sample]
    named = [sample for sample in samples if isinstance(sample, Mapping)]
    last += [sample[name] for sample in named for name in LABEL_NAMES if name in sample]
    labels = last if _are_of(last, (int,)) else [int(label) for label in last if _is_label(label)]
    yield repr(labels).encode()


def _are_of(values: Collection[Any], kinds: tuple[type, ...]) -> bool:
    """Whether all values are of these types, and of none derived from them."""
    return set(map(type, values)) <= set(kinds)


def _parts_of_sample(sample: Any) -> Collection[Any]:
    """The entries of a sample that it holds, and does not make when asked."""
    if isinstance(sample, dict):
        return sample.values()
    return sample if isinstance(sample, (list, tuple)) else (sample,)


def _is_label(value: Any) -> bool:
    """Whether a value is one integer."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        if value.ndim or (isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())):
            return False
        return isinstance(value, Tensor) or np.issubdtype(value.dtype, np.integer)
    return isinstance(value, int)


def _is_number(value: Any) -> bool:
    """Whether a value is one number."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.ndim == 0 and (isinstance(value, Tensor) or np.issubdtype(value.dtype, np.number))
    return isinstance(value, (int, float))


def are_numbers_by_position(value: Mapping[Any, Any], n_samples: int) -> bool:
    """Whether a mapping has a number, such as a corrected label, for some positions of samples."""
    positions = all(isinstance(name, (int, np.integer)) and 0 <= name < n_samples for name in value)
    return bool(value) and positions and all(map(_is_number, value.values()))


def len_of(value: Any) -> int:
    """The length; −1 for a value without one."""
    return len(value) if getattr(value, "ndim", 1) else -1
