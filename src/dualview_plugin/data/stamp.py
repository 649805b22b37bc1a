"""What a dataset says of itself without reading a sample: its length, its labels in memory, its tensors' versions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from dualview_plugin.data.labels import LABEL_NAMES

DEPTH = 8  # of datasets that wrap datasets


def unfilled_lists(dataset: Any) -> frozenset[int]:
    """The ids of lists of nothing but None that a dataset holds, or one in it: room for what it will have read."""
    found = [dataset]
    for inner in (dataset, *wrapped_datasets(vars(dataset) if hasattr(dataset, "__dict__") else {})):
        found += vars(inner).values() if hasattr(inner, "__dict__") else ()
    return frozenset(id(value) for value in found if type(value) is list and all(entry is None for entry in value))


def dataset_stamp(dataset: Any, unfilled: Collection[int] = ()) -> str:
    """A digest that changes when the dataset grows, or when labels or tensors that it holds change.

    Labels are the integers, one a sample, that the dataset or one that it wraps holds, under whatever name. Of tensors
    it is the version that counts, which every write in place raises; of a list of samples the labels, the objects that
    they are made of, and the versions of their tensors. Lists of the ids ``unfilled`` do not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(dataset, DEPTH, unfilled):
        digest.update(part)
        digest.update(b"|")
    return digest.hexdigest()


def _parts(dataset: Any, depth: int, unfilled: Collection[int]) -> Iterator[bytes]:
    """The bytes that count."""
    n_samples = len(dataset)
    yield str(n_samples).encode()
    if isinstance(dataset, (list, tuple)):
        yield from _of_samples(dataset)
        return
    attributes: dict[str, Any] = getattr(dataset, "__dict__", {})
    for name in sorted(attributes):
        if id(attributes[name]) not in unfilled:
            yield from _of_value(attributes[name], n_samples)
    if not depth:
        return
    for inner in wrapped_datasets(attributes):
        yield from _parts(inner, depth - 1, unfilled)


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
        if columns and all(hasattr(part, "__len__") and len_of(part) == n_samples for part in columns):
            for part in columns:
                yield str(id(part)).encode()
                yield from _of_value(part, n_samples)
    elif isinstance(value, (Tensor, np.ndarray, list, range)) and len_of(value) == n_samples:
        first = value[0] if n_samples else None
        if isinstance(first, (list, tuple, Mapping)):
            yield from _of_samples(value)
        elif _is_label(first):
            yield np.asarray(value.cpu() if isinstance(value, Tensor) else value).tobytes()


def _of_samples(samples: Any) -> Iterator[bytes]:
    """Of a list of samples: which objects they and their parts are, the versions of tensors, and the labels.

    A label is the last entry of a sample, or the one of that name.
    """
    marks: list[int] = []
    for sample in samples:
        marks.append(id(sample))
        for part in _parts_of_sample(sample):
            versioned = isinstance(part, Tensor) and not part.is_inference()
            marks += (id(part), part._version if versioned else 0)
    yield hashlib.blake2b(repr(marks).encode(), digest_size=16).digest()
    last = [sample[-1] for sample in samples if isinstance(sample, (list, tuple)) and sample]
    named = [sample for sample in samples if isinstance(sample, Mapping)]
    last += [sample[name] for sample in named for name in LABEL_NAMES if name in sample]
    yield str([int(label) for label in last if _is_label(label)]).encode()


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


def len_of(value: Any) -> int:
    """The length; −1 for a value without one."""
    return len(value) if getattr(value, "ndim", 1) else -1
