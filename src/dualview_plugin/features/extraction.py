"""Penultimate features: what flows into the final layer of a network, caught by a hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dualview_plugin.batches import Batch, concatenated, n_rows
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.features.head import is_flat, n_features_of, pooled_features
from dualview_plugin.network import (
    Caller,
    Forward,
    checked_function,
    checked_model,
    guest,
    layer_name,
)


class FeatureExtractor:
    """The penultimate features φ(x) and the logits f(x) of a network, from one forward pass.

    φ(x) is the input of ``final_fc_layer``, flattened for each sample. Where that layer is applied at each position of
    a sequence or an image, φ(x) is its input at the position that the network takes, or its mean (see
    :func:`pooled_features`). Both come in float32 at least, since products of a whole training set do not fit in half
    precision.

    Args:
        model: the network; it is as before after every call.
        final_fc_layer: the module whose input is φ(x), or its dotted name in ``model``.
        owner: the class that asks, for error messages.
        forward, output: how the network is called and which of its outputs counts; see :class:`Caller`.

    Attributes:
        call: the map from a batch to logits.
        doubles_single: pass a batch of one twice, for a network that squeezes its batch axis away.

    Raises:
        InvalidValueError: ``model`` has no such layer.
        InvalidTypeError: ``model`` is no module, ``final_fc_layer`` neither a module nor a string.
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        owner: str = "FeatureExtractor",
        forward: Forward | None = None,
        output: int | None = None,
    ) -> None:
        self.model = checked_model(model, owner)
        self.owner = owner
        self.call = Caller(self.model, owner, checked_function(forward, "forward", owner), output)
        self.layer_name = layer_name(self.model, final_fc_layer, "final_fc_layer", owner)
        if isinstance(self.layer, torch.jit.ScriptModule):
            constraint = "a layer that runs hooks, before torch.jit.script"
            raise InvalidTypeError("final_fc_layer", owner, constraint, type(self.layer).__name__)
        self.doubles_single = False

    @property
    def layer(self) -> nn.Module:
        """The final layer itself."""
        return self.model.get_submodule(self.layer_name)

    @contextmanager
    def _caught(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Lists that get the final layer's input, and where it has positions its output, of each forward pass.

        Both are in the graph and not flattened. They are copies: the layer, or whatever else holds the tensor, may
        write to it later.
        """
        inputs: list[Any] = []
        outputs: list[Any] = []

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = args[0] if args else next(iter(kwargs.values()), None)
            inputs.append(value.clone() if isinstance(value, Tensor) else value)

        def catch_output(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(inputs[-1], Tensor) and inputs[-1].ndim > 2 and not is_flat(layer, inputs[-1]):
                outputs.append(output.clone() if isinstance(output, Tensor) else output)

        # First, so that what other hooks make of the input (Zennit's put identities there) comes behind the caught one.
        handles = [
            self.layer.register_forward_pre_hook(catch, with_kwargs=True, prepend=True),
            self.layer.register_forward_hook(catch_output, prepend=True),
        ]
        try:
            yield inputs, outputs
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, inputs: Batch, parameter: str = "inputs") -> tuple[Tensor, Tensor]:
        """Features (n, n_features) and logits (n, n_classes) of one batch, in eval mode and differentiable.

        Args:
            inputs: (n, …), placed where the network is.
            parameter: where they come from, for the error message.

        Raises:
            InvalidValueError: the network does not take these inputs.
            InvalidValueError: the layer runs more than once or not at all in a forward pass, its input has no feature
                vector of its own size for each sample, or the network's output is not (n, n_classes).
        """
        if self.doubles_single and n_rows(inputs) == 1:
            features, logits = self._forward(concatenated([inputs, inputs]), parameter)
            return features[:1], logits[:1]
        return self._forward(inputs, parameter)

    def _forward(self, inputs: Batch, parameter: str) -> tuple[Tensor, Tensor]:
        with guest(self.model), self._caught() as (layer_inputs, layer_outputs):
            outputs = self.call.outputs_of_copy(inputs, parameter)
        if len(layer_inputs) != 1:
            constraint = "a layer that runs exactly once in a forward pass, in Python and not in compiled code"
            got = f"{self.layer_name!r} with {len(layer_inputs)} runs"
            raise InvalidValueError("final_fc_layer", self.owner, constraint, got)
        features = self._features(layer_inputs[0], layer_outputs, outputs)
        return _at_least_float32(features), _at_least_float32(self.call.logits(outputs))

    def _features(self, layer_input: object, layer_outputs: list[Any], outputs: Tensor) -> Tensor:
        """φ (n, n_features), or a refusal of a layer whose input is no feature vector for each sample."""
        if not isinstance(layer_input, Tensor):
            constraint = "a layer whose first input is a tensor"
            raise InvalidValueError("final_fc_layer", self.owner, constraint, type(layer_input).__name__)
        if layer_input.ndim > 1 and len(layer_input) == len(outputs):
            if is_flat(self.layer, layer_input):
                return layer_input.flatten(start_dim=1)
            if layer_outputs and isinstance(layer_outputs[0], Tensor):
                pooled = pooled_features(self.layer, layer_input, layer_outputs[0], outputs)
                if pooled is not None:
                    return pooled
        expected = n_features_of(self.layer)
        constraint = (
            "a layer whose input is one flat feature vector for each sample, or one whose outputs at several positions"
            " give the network's by taking one of them, or their mean"
        )
        got = f"{self.layer_name!r} with input {tuple(layer_input.shape)}"
        got += "" if expected is None else f" for {expected} features"
        raise InvalidValueError("final_fc_layer", self.owner, constraint, got)


def check_finite(
    features: Tensor, logits: Tensor, parameter: str, owner: str, start: int = 0, among: Sequence[int] | None = None
) -> None:
    """Refuse samples, from position ``start`` on or at those of ``among``, for which there is NaN or infinity."""
    finite = torch.isfinite(features).all(dim=1) & torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        places = torch.nonzero(~finite).flatten().tolist()
        positions = [start + place if among is None else among[place] for place in places]
        got = f"NaN or inf at position{'s' if len(positions) > 1 else ''} {', '.join(map(str, positions[:5]))}"
        raise InvalidValueError(parameter, owner, "data with finite features and outputs", got)


def check_labels(labels: Tensor, n_classes: int, owner: str) -> None:
    """Refuse labels that do not index the network's outputs."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        constraint = f"labelled from 0 to {n_classes - 1}, the classes of the model"
        constraint += "; a single output stands for two" if n_classes == 2 else ""
        raise InvalidValueError("train_dataset", owner, constraint, f"labels from {low} to {high}")


def _at_least_float32(values: Tensor) -> Tensor:
    """The values, half precision as float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
