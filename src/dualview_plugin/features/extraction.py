"""Penultimate features: what flows into the final layer of a network, caught by a hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dualview_plugin.data import labelled_batches
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network import evaluating, preserved_random_state


@dataclass(frozen=True)
class TrainingFeatures:
    """What the network makes of its training set.

    Attributes:
        features: φ(x_i), (n_train, n_features), in the network's dtype.
        logits: f(x_i), (n_train, n_classes).
        labels: y_i, (n_train,), int64.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


class FeatureExtractor:
    """The penultimate features φ(x) and the logits f(x) of a network, from one forward pass.

    φ(x) is the input of ``final_fc_layer``, flattened for each sample.

    Args:
        model: the network; its mode, hooks, weights and gradients are as before after every call.
        final_fc_layer: the module whose input is φ(x), or its dotted name in ``model``.
        owner: the class that asks, for error messages.

    Raises:
        InvalidValueError: ``model`` has no such layer.
        InvalidTypeError: ``model`` is no module, ``final_fc_layer`` neither a module nor a string.
    """

    def __init__(self, model: nn.Module, final_fc_layer: nn.Module | str, owner: str = "FeatureExtractor") -> None:
        if not isinstance(model, nn.Module):
            raise InvalidTypeError("model", owner, "a torch.nn.Module", type(model).__name__)
        self.model = model
        self.owner = owner
        self.layer_name = _layer_name(model, final_fc_layer, owner)

    @property
    def layer(self) -> nn.Module:
        """The final layer itself."""
        return self.model.get_submodule(self.layer_name)

    @contextmanager
    def caught_input(self) -> Iterator[list[Tensor]]:
        """A list that gets the final layer's input of each forward pass in the block: in the graph, not flattened."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else next(iter(kwargs.values())))

        # First, so that what other hooks make of the input (Zennit's put identities there) comes behind the caught one.
        handle = self.layer.register_forward_pre_hook(catch, with_kwargs=True, prepend=True)
        try:
            yield caught
        finally:
            handle.remove()

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, n_features) and logits (n, n_classes) of one batch, in eval mode and differentiable.

        Raises:
            InvalidValueError: the layer runs more than once or not at all in a forward pass, its input does not flatten
                to the layer's own number of features, or the network's output is not (n, n_classes).
        """
        with evaluating(self.model), self.caught_input() as caught:
            logits = self.model(inputs)
        if len(caught) != 1:
            constraint = "a layer that runs exactly once in a forward pass"
            raise InvalidValueError(
                "final_fc_layer", self.owner, constraint, f"{self.layer_name!r} with {len(caught)} runs"
            )
        self._check_shapes(caught[0], logits, len(inputs))
        return caught[0].flatten(start_dim=1), logits

    def _check_shapes(self, layer_input: Tensor, logits: object, n_samples: int) -> None:
        """Refuse a layer whose input is no flat feature vector for each sample, and a network without logits."""
        shape = tuple(layer_input.shape)
        expected = getattr(self.layer, "in_features", getattr(self.layer, "in_channels", None))
        n_features = layer_input[0].numel() if layer_input.ndim > 1 else 1
        if layer_input.ndim < 2 or shape[0] != n_samples or (expected is not None and n_features != expected):
            constraint = "a layer whose input is one flat feature vector for each sample"
            got = f"{self.layer_name!r} with input {shape}" + (f" for {expected} features" if expected else "")
            raise InvalidValueError("final_fc_layer", self.owner, constraint, got)
        if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == n_samples):
            got = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidValueError("model", self.owner, "a network with outputs of shape (n_samples, n_classes)", got)

    @torch.no_grad()
    def extract(
        self, loader: DataLoader[Any], device: torch.device, *, show_progress: bool = False
    ) -> TrainingFeatures:
        """Features, logits and labels of a whole labelled dataset, kept on ``device``.

        Raises:
            InvalidValueError: a label is out of range of the network's outputs, or a feature is not finite.

        Cost: one forward pass; memory (n_train × (n_features + n_classes)).
        """
        features, logits, labels = [], [], []
        batches = tqdm(loader, desc="penultimate features", disable=not show_progress, leave=False)
        with preserved_random_state():
            for inputs, batch_labels in labelled_batches(batches, self.owner):
                batch_features, batch_logits = self(inputs.to(device))
                check_labels(batch_labels, batch_logits.shape[1], "train_dataset", self.owner)
                if not bool(torch.isfinite(batch_features).all()):
                    raise InvalidValueError("train_dataset", self.owner, "a dataset with finite features", "NaN or inf")
                features.append(batch_features)
                logits.append(batch_logits)
                labels.append(batch_labels.to(device))
        return TrainingFeatures(torch.cat(features), torch.cat(logits), torch.cat(labels))


def check_labels(labels: Tensor, n_classes: int, parameter: str, owner: str) -> None:
    """Refuse labels that do not index the network's outputs."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        constraint = f"labelled from 0 to {n_classes - 1}, the network's outputs"
        raise InvalidValueError(parameter, owner, constraint, f"labels from {low} to {high}")


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
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise InvalidValueError("final_fc_layer", owner, "one of " + ", ".join(names), repr(layer))
    return layer
