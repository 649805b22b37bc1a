"""Which network is this? Its weights as a digest, and how it answers on a probe of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Relative difference up to which two answers on a probe are those of one network, by precision.
SAME_OUTPUT = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def fingerprint(*parts: object) -> str:
    """A short hash of tensors by shape, type and content, and of anything else by its repr."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            content = part.detach().cpu().resolve_conj().resolve_neg()
            if content.layout is not torch.strided or content.is_quantized:
                content = content.dequantize() if content.is_quantized else content.to_dense()
            digest.update(content.contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """A hash of a network: class, structure as printed, parameters, buffers, and other state such as packed weights.

    Plain attributes and constants in the code of ``forward`` are not in it: :func:`same_outputs` on a probe sees those.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return fingerprint(kind, model, *_named_state(model))


def _named_state(model: nn.Module) -> Iterator[object]:
    """Names and values of all that the network computes with."""
    for name, tensor in sorted((*model.named_parameters(), *model.named_buffers())):
        yield from (name, tensor)
    known = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    for name, value in sorted(model.state_dict().items(), key=lambda item: item[0]):
        if name not in known:
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
def weights_checksum(model: nn.Module) -> tuple[int, ...]:
    """A number for each parameter and buffer that changes with its bits; at the speed of reading them once."""
    return tuple(_checksum(tensor) for tensor in (*model.parameters(), *model.buffers()))


def _checksum(tensor: Tensor) -> int:
    """The sum of the bits, in words of the element's size."""
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if values.is_quantized or values.layout is not torch.strided:
        return int(fingerprint(values), 16)
    return int(values.contiguous().view(words[values.element_size()]).sum(dtype=torch.int64))


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
