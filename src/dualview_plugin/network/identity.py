"""Which network is this? Its weights as a digest, and how it answers on a probe of the data."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Relative difference up to which two answers on a probe are those of one network, by precision.
SAME_OUTPUT = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}

_OF_MODULES = frozenset(vars(nn.Module()))
_LARGEST_CONTAINER = 10_000
_DEVICE_WORDS = 2**24


def fingerprint(*parts: object) -> str:
    """A short hash of tensors by shape, type and content, and of anything else by its repr."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(byte_view(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()


def byte_view(tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of a tensor in row-major order, (n_bytes,); a view where the tensor lies so on the CPU."""
    content = tensor.detach().cpu().resolve_conj().resolve_neg()
    if content.layout is not torch.strided or content.is_quantized:
        content = content.dequantize() if content.is_quantized else content.to_dense()
    array: NDArray[np.uint8] = content.contiguous().flatten().view(torch.uint8).numpy()
    return array


def model_fingerprint(model: nn.Module, plain: Collection[str] = ()) -> str:
    """A hash of a network: class, structure as printed, parameters, buffers, and other state such as packed weights.

    Args:
        model: the network.
        plain: which of its :func:`plain_tensors` count; those that a forward pass leaves behind should not.

    Constants in the code of ``forward`` are not in it: :func:`same_outputs` on a probe sees those.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return fingerprint(kind, model, *_named_state(model), *_chosen(model, plain))


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Tensors and arrays that a network holds as plain attributes, also in lists and dictionaries, by dotted names."""
    return {
        key: tensor
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in _OF_MODULES
        for key, tensor in _tensors_by_name(f"{name}.{attribute}", value)
    }


def _tensors_by_name(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a value, with names that say where."""
    if isinstance(value, (Tensor, np.ndarray)):
        if isinstance(value, Tensor) or value.dtype != object:
            yield name, torch.as_tensor(value)
    elif isinstance(value, (list, tuple, dict)) and len(value) <= _LARGEST_CONTAINER:
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors_by_name(f"{name}[{key}]", part)


def _chosen(model: nn.Module, plain: Collection[str]) -> Iterator[object]:
    """Names and values of the chosen plain tensors."""
    tensors = plain_tensors(model) if plain else {}
    for name in sorted(plain):
        yield from (name, tensors.get(name, "none"))


def _named_state(model: nn.Module) -> Iterator[object]:
    """Names and values of all that the network computes with."""
    named = dict((*model.named_parameters(), *model.named_buffers()))
    for name, tensor in sorted(named.items(), key=lambda item: item[0]):
        yield from (name, tensor)
    for name, value in sorted(model.state_dict().items(), key=lambda item: item[0]):
        if name not in named:
            yield name
            yield from _tensors_in(value)


def _tensors_in(value: Any) -> Iterator[object]:
    """The tensors of a packed value, and anything else as it prints."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors_in(part)
    else:
        yield value


@torch.no_grad()
def weights_checksum(model: nn.Module, plain: Collection[str] = ()) -> tuple[int, ...]:
    """A number for each parameter, buffer and chosen plain tensor that changes with any bit or its place.

    Cost: one reading of the weights.
    """
    tensors = plain_tensors(model) if plain else {}
    chosen = [tensors[name] for name in sorted(plain) if name in tensors]
    return tuple(_checksum(tensor) for tensor in (*model.parameters(), *model.buffers(), *chosen))


def _checksum(tensor: Tensor) -> int:
    """A cyclic checksum of the bits; on a device a sum of the words, each times an odd number of its own."""
    values = tensor.detach()
    if values.is_quantized or values.layout is not torch.strided:
        return int(fingerprint(values), 16)
    bits = values.contiguous().flatten().view(torch.uint8)
    return zlib.crc32(bits.numpy().data) if values.device.type == "cpu" else sum_of_words(bits)


def sum_of_words(bits: Tensor) -> int:
    """A sum of bytes (n,), each times an odd number of its own, computed where they are."""
    total = 0
    for part in torch.split(bits, _DEVICE_WORDS):
        factors = torch.arange(1, 2 * len(part), 2, device=part.device)
        total = (31 * total + int((part.long() * factors).sum())) % 2**61
    return total


def same_outputs(found: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether two answers on a probe agree up to rounding; NaN never does."""
    return found.shape == expected.shape and relative_difference(found, expected) <= tolerance(dtype or expected.dtype)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value; infinite where a value is not finite."""
    difference = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
    if difference == 0:
        return 0.0
    scale = float(expected.double().abs().max())
    ratio = difference / max(scale, torch.finfo(torch.float64).tiny)
    return ratio if ratio == ratio else float("inf")


def tolerance(dtype: torch.dtype) -> float:
    """The relative difference that rounding explains in this precision."""
    return SAME_OUTPUT.get(dtype, SAME_OUTPUT[torch.float32])
