"""Penultimate features: what flows into the final layer of a network, caught by a hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network import Placement, checked_model, guest, outputs_of

if TYPE_CHECKING:
    from dualview_plugin.features.probe import Probe


@dataclass(frozen=True)
class TrainingFeatures:
    """What the network makes of its training set.

    Attributes:
        features: φ(x_i), (n_train, n_features), in float32 or more.
        logits: f(x_i), (n_train, n_classes), likewise; of the first points alone where no more were asked for.
        labels: y_i, (n_train,), int64.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


class FeatureExtractor:
    """The penultimate features φ(x) and the logits f(x) of a network, from one forward pass.

    φ(x) is the input of ``final_fc_layer``, flattened for each sample. Both come in float32 at least, since products of
    a whole training set do not fit in half precision.

    Args:
        model: the network; it is as before after every call.
        final_fc_layer: the module whose input is φ(x), or its dotted name in ``model``.
        owner: the class that asks, for error messages.

    Attributes:
        doubles_single: pass a batch of one twice, for a network that squeezes its batch axis away.

    Raises:
        InvalidValueError: ``model`` has no such layer.
        InvalidTypeError: ``model`` is no module, ``final_fc_layer`` neither a module nor a string.
    """

    def __init__(self, model: nn.Module, final_fc_layer: nn.Module | str, owner: str = "FeatureExtractor") -> None:
        self.model = checked_model(model, owner)
        self.owner = owner
        self.layer_name = _layer_name(self.model, final_fc_layer, owner)
        if isinstance(self.layer, torch.jit.ScriptModule):
            constraint = "a layer that runs hooks, before torch.jit.script"
            raise InvalidTypeError("final_fc_layer", owner, constraint, type(self.layer).__name__)
        self.doubles_single = False

    @property
    def layer(self) -> nn.Module:
        """The final layer itself."""
        return self.model.get_submodule(self.layer_name)

    @contextmanager
    def caught_input(self) -> Iterator[list[Any]]:
        """A list that gets the final layer's input of each forward pass in the block: in the graph, not flattened."""
        caught: list[Any] = []

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = args[0] if args else next(iter(kwargs.values()), None)
            # A copy: the layer, or whatever else holds the tensor, may write to it later.
            caught.append(value.clone() if isinstance(value, Tensor) else value)

        # First, so that what other hooks make of the input (Zennit's put identities there) comes behind the caught one.
        handle = self.layer.register_forward_pre_hook(catch, with_kwargs=True, prepend=True)
        try:
            yield caught
        finally:
            handle.remove()

    def __call__(self, inputs: Tensor, parameter: str = "inputs") -> tuple[Tensor, Tensor]:
        """Features (n, n_features) and logits (n, n_classes) of one batch, in eval mode and differentiable.

        Args:
            inputs: (n, …), placed where the network is.
            parameter: where they come from, for the error message.

        Raises:
            InvalidValueError: the network does not take these inputs.
            InvalidValueError: the layer runs more than once or not at all in a forward pass, its input does not flatten
                to the layer's own number of features, or the network's output is not (n, n_classes).
        """
        if self.doubles_single and len(inputs) == 1:
            features, logits = self._forward(torch.cat([inputs, inputs]), parameter)
            return features[:1], logits[:1]
        return self._forward(inputs, parameter)

    def _forward(self, inputs: Tensor, parameter: str) -> tuple[Tensor, Tensor]:
        with guest(self.model), self.caught_input() as caught:
            logits = outputs_of(self.model, inputs, parameter, self.owner)
        if len(caught) != 1:
            constraint = "a layer that runs exactly once in a forward pass, in Python and not in compiled code"
            got = f"{self.layer_name!r} with {len(caught)} runs"
            raise InvalidValueError("final_fc_layer", self.owner, constraint, got)
        self._check_shapes(caught[0], logits, len(inputs))
        return _at_least_float32(caught[0].flatten(start_dim=1)), _at_least_float32(logits)

    def _check_shapes(self, layer_input: object, logits: object, n_samples: int) -> None:
        """Refuse a layer whose input is no flat feature vector for each sample, and a network without logits."""
        if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == n_samples):
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            constraint = "a network with outputs of shape (n_samples, n_classes); wrap it in a module that gives them"
            raise InvalidValueError("model", self.owner, constraint, got)
        if not logits.is_floating_point():
            raise InvalidValueError("model", self.owner, "a network with floating outputs", str(logits.dtype))
        if not isinstance(layer_input, Tensor):
            constraint = "a layer whose first input is a tensor"
            raise InvalidValueError("final_fc_layer", self.owner, constraint, type(layer_input).__name__)
        shape = tuple(layer_input.shape)
        expected = getattr(self.layer, "in_features", getattr(self.layer, "in_channels", None))
        n_features = layer_input[0].numel() if layer_input.ndim > 1 and n_samples else 1
        if layer_input.ndim < 2 or shape[0] != n_samples or (expected is not None and n_features != expected):
            constraint = "a layer whose input is one flat feature vector for each sample"
            got = f"{self.layer_name!r} with input {shape}" + (f" for {expected} features" if expected else "")
            raise InvalidValueError("final_fc_layer", self.owner, constraint, got)

    @torch.no_grad()
    def extract(
        self,
        data: TrainingData,
        probe: Probe | None = None,
        *,
        n_logits: int | None = None,
        show_progress: bool = False,
    ) -> TrainingFeatures:
        """Features, logits and labels of a whole labelled dataset, kept on the network's device.

        Args:
            data: the training data.
            probe: samples and answers that must come again in this reading.
            n_logits: keep the logits of at most this many points, the first ones; None: of all.
            show_progress: a progress bar.

        Raises:
            InvalidValueError: a label is out of range of the network's outputs, or a feature or logit is not finite.

        Cost: one forward pass; memory (n_train × n_features + n_logits × n_classes), and one batch.
        """
        place = Placement.of(self.model)
        features = _Rows(len(data))
        logits = _Rows(len(data) if n_logits is None else min(n_logits, len(data)))
        labels: list[Tensor] = []
        with guest(self.model):
            start = 0
            for inputs, batch_labels in data.batches(description="penultimate features", show_progress=show_progress):
                batch_features, batch_logits = self(place(inputs), "train_dataset")
                check_labels(batch_labels, batch_logits.shape[1], self.owner)
                if probe is not None:
                    probe.check_reading(start, inputs, batch_labels, self.owner)
                    probe.check_answers(start, batch_features, batch_logits, self.owner)
                check_finite(batch_features, batch_logits, "train_dataset", self.owner, start)
                features.append(batch_features)
                logits.append(batch_logits)
                labels.append(batch_labels.to(place.device))
                start += len(inputs)
        return TrainingFeatures(features.whole(), logits.whole(), torch.cat(labels))


class _Rows:
    """Rows written batch by batch into one matrix, so that there is no second copy of them; more than fit are dropped.

    Args:
        n_rows: of the matrix.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._filled = 0
        self._matrix: Tensor | None = None

    def append(self, batch: Tensor) -> None:
        """The next rows; their number of columns, type and device are those of the first ones."""
        if self._matrix is None:
            self._matrix = batch.new_empty(self._n_rows, *batch.shape[1:])
        part = batch[: self._n_rows - self._filled]
        self._matrix[self._filled : self._filled + len(part)] = part
        self._filled += len(part)

    def whole(self) -> Tensor:
        """The matrix."""
        assert self._matrix is not None  # datasets are never empty
        assert self._filled == self._n_rows  # and counted
        return self._matrix


def check_finite(features: Tensor, logits: Tensor, parameter: str, owner: str, start: int = 0) -> None:
    """Refuse samples, the first of them at position ``start``, for which the network gives NaN or infinity."""
    finite = torch.isfinite(features).all(dim=1) & torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        positions = (torch.nonzero(~finite).flatten() + start).tolist()
        got = f"NaN or inf at position{'s' if len(positions) > 1 else ''} {', '.join(map(str, positions[:5]))}"
        raise InvalidValueError(parameter, owner, "data with finite features and outputs", got)


def check_labels(labels: Tensor, n_classes: int, owner: str) -> None:
    """Refuse labels that do not index the network's outputs."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        constraint = f"labelled from 0 to {n_classes - 1}, the network's outputs"
        raise InvalidValueError("train_dataset", owner, constraint, f"labels from {low} to {high}")


def _at_least_float32(values: Tensor) -> Tensor:
    """The values, half precision as float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _layer_name(model: nn.Module, layer: nn.Module | str, owner: str) -> str:
    """The dotted name of the layer in the model."""
    if isinstance(layer, nn.Module):
        names = [name for name, module in model.named_modules() if module is layer]
        if not names:
            raise InvalidValueError(
                "final_fc_layer", owner, "a module of the model", f"a foreign {type(layer).__name__}"
            )
        return str(names[0])
    if not isinstance(layer, str):
        raise InvalidTypeError("final_fc_layer", owner, "a module or its dotted name", type(layer).__name__)
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    layer = layer.removeprefix("_orig_mod.")  # the name in a compiled network
    if layer not in names:
        raise InvalidValueError("final_fc_layer", owner, "one of " + ", ".join(names), repr(layer))
    return layer
