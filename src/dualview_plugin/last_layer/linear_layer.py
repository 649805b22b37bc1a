"""A network's last layer as the map f = W φ + b, and the proof that it is one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from dualview_plugin.errors import InvalidValueError


@dataclass(frozen=True)
class LinearLayer:
    """Logits W φ + b in float64, from the weights of the network's last layer.

    Args:
        weight: W (n_classes, n_features), float64.
        bias: b (n_classes,), float64.
        eps: the rounding unit of the layer's own precision.
        has_bias: whether the layer has a bias; else b is zero.
        doubled: whether W has the rows −w/2 and w/2 for the one row w of an output z. Curvature in W is twice that in
            w, and so are squared gradients.
    """

    weight: Tensor
    bias: Tensor
    eps: float
    has_bias: bool = True
    doubled: bool = False

    @classmethod
    def last_of(
        cls, model: nn.Module, name: str, features: Tensor, logits: Tensor, owner: str, output: int | None = None
    ) -> LinearLayer:
        """The last layer of a network, after a test that it maps its features to the network's outputs.

        Args:
            model: the network.
            name: dotted name of the layer, or of a module that does no more than it does (dropout and the layer).
            features: what flows into the module for some samples, flattened (n, n_features).
            logits: the network's outputs for them (n, n_classes), or the two logits (−z/2, z/2) of one output z.
            owner: the class that asks, for the message.
            output: which output z is, if it was chosen.

        Raises:
            InvalidValueError: the module is not linear, or something else follows it, such as a softmax, a scale, or
                another layer.
        """
        layer = _find(model.get_submodule(name), features.shape[1], logits.shape[1], output)
        if layer is None or not layer._reproduces(features, logits):
            constraint = "the linear layer whose outputs are the network's outputs, the logits"
            raise InvalidValueError("final_fc_layer", owner, constraint, repr(name) + _advice(model, name, logits))
        return layer

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n, n_classes) in float64 of features (n, n_features); differentiable."""
        return features.to(self.weight.dtype) @ self.weight.mT + self.bias

    def _reproduces(self, features: Tensor, logits: Tensor) -> bool:
        """Whether W φ + b are the network's outputs, up to the rounding of the outputs and of the sum.

        The sum is allowed √eps of its absolute terms in float32: TF32 on a GPU needs about that.
        """
        expected = self(features)
        terms = features.to(self.weight.dtype).abs() @ self.weight.abs().mT + self.bias.abs()
        precision = torch.finfo(torch.float64 if self.eps < 1e-10 else torch.float32).eps
        limit = 8 * self.eps * expected.abs().amax(1, keepdim=True) + math.sqrt(precision) * terms
        return bool(((expected - logits).abs() <= limit).all())


def _find(module: nn.Module, n_features: int, n_classes: int, output: int | None) -> LinearLayer | None:
    """The last linear map from the features to the classes in a module; None if it has none."""
    for layer in reversed(list(module.modules())):
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if not _is_matrix(weight) or weight[0].numel() != n_features:
            continue
        eps = torch.finfo(weight.dtype).eps
        matrix = weight.detach().flatten(1).to(torch.float64)
        has_bias = bias is not None
        bias = matrix.new_zeros(len(matrix)) if bias is None else bias.detach().to(matrix)
        if output is None and len(matrix) == n_classes:
            return LinearLayer(matrix, bias, eps, has_bias)
        if n_classes == 2 and (len(matrix) == 1 or (output is not None and output < len(matrix))):
            row = output or 0
            half, shift = matrix[row] / 2, bias[row] / 2
            return LinearLayer(torch.stack([-half, half]), torch.stack([-shift, shift]), eps, has_bias, doubled=True)
    return None


def _is_matrix(weight: object) -> TypeGuard[Tensor]:
    """Whether an attribute called weight can be the matrix of a linear layer."""
    return isinstance(weight, Tensor) and weight.ndim >= 2 and weight.is_floating_point()


def _advice(model: nn.Module, name: str, logits: Tensor) -> str:
    """What may follow the named module: a later layer that gives as many outputs as the network, or something else."""
    weights = {other: getattr(module, "weight", None) for other, module in model.named_modules()}
    names = [other for other, weight in weights.items() if _is_matrix(weight) and len(weight) == logits.shape[1]]
    if names and names[-1] != name:
        return f"; the last one with {logits.shape[1]} outputs is {names[-1]!r}"
    return ", whose outputs are other ones; take off the softmax or scale behind it"
