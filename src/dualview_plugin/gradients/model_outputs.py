"""Numbers of a network's decision that methods differentiate: log-probabilities and margins, exact where it is sure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dualview_plugin.batches import Batch
from dualview_plugin.network import Caller


@dataclass(frozen=True)
class Margins(Caller):
    """The network's call with margins in the place of logits, (n_samples, n_classes)."""

    def __call__(self, batch: Batch) -> Tensor:
        """Margins (n_samples, n_classes) of a batch, to whose tensors the network may write."""
        return margins(super().__call__(batch))


@dataclass(frozen=True)
class LogProbabilities(Caller):
    """The network's call with log p_c, minus the cross entropy of label c, in the place of logit c."""

    def __call__(self, batch: Batch) -> Tensor:
        """Log-probabilities (n_samples, n_classes) of a batch, to whose tensors the network may write."""
        return log_probabilities(super().__call__(batch))


def log_probabilities(logits: Tensor) -> Tensor:
    """Log p_c for each class, (n_samples, n_classes), differentiable without cancellation."""
    return logsigmoid(margins(logits))


def margins(logits: Tensor) -> Tensor:
    """log(p_c / (1 − p_c)) = z_c − log Σ_{j≠c} exp z_j for each class c, (n_samples, n_classes), of two at least.

    Differentiable without the difference 1 − p_c, which is zero in float32 for a network that is sure.

    The sum leaves out the strongest class c by a mask. For each other class p_c is at most 1/2, so that the sum over
    all classes less its own term keeps its digits.
    """
    values = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    classes = torch.arange(values.shape[1], device=values.device)
    strongest = classes == values.argmax(dim=1, keepdim=True)
    without_strongest = values.masked_fill(strongest, -torch.inf).logsumexp(dim=1, keepdim=True)
    total = values.logsumexp(dim=1, keepdim=True)
    log_p = (values - total).masked_fill(strongest, -1.0)  # any value: they are not used
    without_own = total + torch.log1p(-log_p.exp())
    return values - torch.where(strongest, without_strongest, without_own)
