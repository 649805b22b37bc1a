"""Gradients by automatic differentiation of one sample at a time, for what no rule covers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from dualview_plugin.batches import Batch, mapped, samples
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.gradients.logits import Logits


def vectorised_gradients(logits: Logits, chosen: Mapping[str, Tensor], inputs: Batch, target: Tensor) -> Tensor:
    """Gradients (n_samples, n_elements) in the chosen parameters, one sample's network mapped over the batch."""

    def logit(parameters: dict[str, Tensor], sample: Batch, label: Tensor) -> Tensor:
        single = mapped(lambda leaf: leaf[None], sample)
        return logits(single, parameters).gather(1, label[None, None]).sum()

    held = {name: parameter.detach() for name, parameter in chosen.items()}
    # The other parameters require gradients, and would make the result part of a graph.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because we have not yet")
        gradients = vmap(grad(logit), in_dims=(None, 0, 0))(held, inputs, target)
    return torch.cat([at_least_float32(gradients[name]).reshape(len(target), -1) for name in chosen], 1)


def looped_gradients(logits: Logits, chosen: Sequence[Tensor], inputs: Batch, target: Tensor) -> Tensor:
    """Gradients (n_samples, n_elements) in the chosen parameters, one backward pass per sample."""
    rows = []
    for sample, label in zip(samples(inputs), target, strict=True):
        gradients = sample_gradients(logits, chosen, sample, label)
        rows.append(torch.cat([at_least_float32(gradient).flatten() for gradient in gradients]))
    return torch.stack(rows)


def sample_gradients(
    logits: Logits, chosen: Sequence[Tensor], sample: Batch, label: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Gradients of the logit of a batch of one sample, zero in parameters that it does not depend on.

    Raises:
        InvalidValueError: autograd cannot differentiate the network.
    """
    logit = logits(sample).gather(1, label[None, None]).sum()
    if not logit.requires_grad:
        return tuple(torch.zeros_like(parameter) for parameter in chosen)
    return differentiated(logits, logit, chosen, create_graph=create_graph)


def differentiated(
    logits: Logits, value: Tensor, chosen: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """The gradients of a value of the network, zero in parameters that it does not depend on, never sparse.

    Raises:
        InvalidValueError: autograd cannot differentiate the network.
    """
    try:
        gradients = torch.autograd.grad(
            value, chosen, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        raise _refused(logits, error) from error
    return tuple(gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients)


def visit_gradients(
    logits: Logits,
    value: Tensor,
    chosen: Mapping[str, Tensor],
    visit: Callable[[str, Tensor], None],
    *,
    create_graph: bool = False,
) -> None:
    """Call ``visit`` with the gradient in each chosen parameter on which the value depends, one after the other.

    No gradient outlives its visit, unless the visit keeps it: together they are as large as the network.

    Raises:
        InvalidValueError: autograd cannot differentiate the network.
    """
    before = [parameter._backward_hooks for parameter in chosen.values()]
    handles = [
        parameter.register_hook(_visitor(name, visit))  # type: ignore[no-untyped-call]
        for name, parameter in chosen.items()
    ]
    try:
        torch.autograd.grad(
            value, list(chosen.values()), create_graph=create_graph, retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        raise _refused(logits, error) from error
    finally:
        for handle in handles:
            handle.remove()
        for parameter, hooks in zip(chosen.values(), before, strict=True):
            if hooks is None:
                parameter._backward_hooks = None


def _visitor(name: str, visit: Callable[[str, Tensor], None]) -> Callable[[Tensor], Tensor]:
    """A hook that shows a gradient, and passes a zero without memory of its own on in its place."""

    def hook(gradient: Tensor) -> Tensor:
        visit(name, gradient.to_dense() if gradient.is_sparse else gradient)
        return torch.zeros((), dtype=gradient.dtype, device=gradient.device).expand(gradient.shape)

    return hook


def _refused(logits: Logits, error: RuntimeError) -> InvalidValueError:
    constraint = "a network that autograd can differentiate"
    return InvalidValueError("model", logits.owner, constraint, " ".join(str(error).split()))


def at_least_float32(values: Tensor) -> Tensor:
    """The values, half precision as float32, in which sums of squares neither overflow nor vanish."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
