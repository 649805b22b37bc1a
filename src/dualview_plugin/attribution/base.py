"""What every data attribution method has in common: Captum's calls, Quantus' call, the flow of batches."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
import torch
from captum.attr import Attribution
from captum.influence import DataInfluence
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor, nn
from tqdm import tqdm

from dualview_plugin.attribution.quantus_call import map_as_array, network_of, no_metric_reads_maps, unread_map
from dualview_plugin.cache import TensorCache, data_fingerprint, fingerprint, model_fingerprint
from dualview_plugin.data import (
    Inputs,
    TrainData,
    as_input_tensor,
    input_batches,
    labelled_batches,
    n_samples,
    ordered_loader,
)
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.features import FeatureExtractor, TrainingFeatures, check_labels
from dualview_plugin.network import evaluating, preserved_random_state
from dualview_plugin.validation import check_integer

Target = int | list[int] | Tensor | np.ndarray[Any, Any] | None


class CommonOptions(TypedDict, total=False):
    """The keyword arguments that every method takes; :class:`DataAttribution` documents them."""

    batch_size: int
    device: torch.device | str | None
    cache_dir: str | Path | None
    show_progress: bool


class DataAttribution(Attribution, DataInfluence):  # type: ignore[misc]
    """Relevance τ_i(x, c) of each training point i for the network's output c at a test point x.

    Positive values are proponents (excitatory), negative ones opponents (inhibitory). Everywhere, row t of an
    attribution is test point t and column j is ``train_dataset[j]``.

    The constructor stores and validates; :meth:`fit` does the heavy work once, and the other calls fit on first use.
    The network's mode, hooks, weights and gradients and the global random states are as before after every call.

    Args:
        model: the network f, with outputs (n_samples, n_classes); it is always evaluated in eval mode.
        final_fc_layer: the module whose flattened input is φ(x), or its dotted name.
        train_dataset: a map-style dataset of ``(input, label)`` pairs, or a DataLoader over one that does not shuffle.
            Labels index the network's outputs.
        batch_size: samples per forward pass.
        device: where features and products are computed: the device that the model is on, which is also what None
            means.
        cache_dir: a folder for what the fit computes; entries are keyed by the network's weights, the dataset's content
            and the parameters, so another network never gets them. None keeps nothing on disk.
        show_progress: progress bars during long work.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; raised before any heavy work.

    Note:
        A subclass implements ``_fit``, ``_attribute_block``, ``_pair_attribution`` and ``_self_influence``. It reaches
        the network only through ``self.model`` and ``self._extractor``, so that :meth:`__call__` can put another in
        their place.
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        cache_dir: str | Path | None = None,
        show_progress: bool = True,
    ) -> None:
        super().__init__(model)
        owner = self.get_name()
        self.model, self.final_fc_layer, self.train_dataset = model, final_fc_layer, train_dataset
        self.batch_size = check_integer(batch_size, "batch_size", owner)
        self.show_progress = show_progress
        self.cache_dir = cache_dir
        self._extractor = FeatureExtractor(model, final_fc_layer, owner)
        self._loader = ordered_loader(train_dataset, self.batch_size, owner)
        self.device = _checked_device(model, device, owner)
        self._fitted = False
        self._refitted: tuple[str, Self] | None = None

    # ------------------------------------------------------------------ what a method implements

    @abstractmethod
    def _fit(self) -> None:
        """The heavy work; sets ``train_labels_`` and ``n_classes_``, most easily by :meth:`_training_features`."""

    @abstractmethod
    def _attribute_block(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Attributions (n_block, n_train) of test inputs on the device to the classes ``target``, (n_block,)."""

    @abstractmethod
    def _pair_attribution(self, inputs: Tensor, target: Tensor, train_indices: Tensor) -> Tensor:
        """Attributions (n_block, k) of the training points ``train_indices``, same shape; differentiable in inputs."""

    @abstractmethod
    def _self_influence(self) -> Tensor:
        """The attribution of each training point to its own label at itself, (n_train,)."""

    @property
    def block_size(self) -> int:
        """Test points in a block of :meth:`attribute_blocks`."""
        return self.batch_size

    # ------------------------------------------------------------------ the public calls

    train_labels_: Tensor
    n_classes_: int

    @classmethod
    def get_name(cls) -> str:
        """The class's name; Captum's own version splits it at its capitals."""
        return cls.__name__

    @property
    def n_train_(self) -> int:
        """Number of training points."""
        return len(self._loader.dataset)  # type: ignore[arg-type]

    def fit(self) -> Self:
        """Do the heavy work and return self; see the class for its cost."""
        self._fit()
        self._fitted = True
        return self

    def attribute(self, inputs: Inputs, target: Target = None) -> Tensor:
        """Attributions of every training point, (n_test, n_train); positive means proponent.

        Args:
            inputs: test inputs, (n_test, …): a tensor, an array, or a DataLoader that does not shuffle.
            target: the explained class: one for all test points or one for each; None: the network's decision.

        Raises:
            InvalidTypeError, InvalidValueError: a shuffling loader, a target of the wrong length or out of range.

        Cost: memory (n_test × n_train); :meth:`attribute_blocks` and :meth:`influence` need less.
        """
        result: Tensor | None = None
        start = 0
        for block in self.attribute_blocks(inputs, target):
            if result is None:
                result = block.new_empty(n_samples(inputs, self.get_name()), self.n_train_)
            result[start : start + len(block)] = block
            start += len(block)
        assert result is not None  # attribute_blocks refuses empty inputs
        return result

    def attribute_blocks(self, inputs: Inputs, target: Target = None) -> Iterator[Tensor]:
        """The rows of :meth:`attribute` in consecutive blocks, (n_block, n_train): memory for one block at a time."""
        targets = self._checked_target(inputs, target)
        self._ensure_fitted()
        return (self._attribute_block(*block).detach() for block in self._blocks(inputs, targets, self.block_size))

    def influence(
        self,
        inputs: Inputs,
        k: int | None = None,
        target: Target = None,
        proponents: bool = True,
        show_progress: bool = False,
    ) -> Tensor | KMostInfluentialResults:
        """Captum's call: all attributions, or the ``k`` strongest training points of each test point.

        Args:
            inputs: as in :meth:`attribute`.
            k: how many training points; None: all of them, in the dataset's order.
            target: as in :meth:`attribute`.
            proponents: the highest attributions, in descending order; False: the lowest, ascending.
            show_progress: a progress bar over the blocks of test points.

        Returns:
            (n_test, n_train) if ``k`` is None; else ``KMostInfluentialResults(indices, influence_scores)``, both
            (n_test, k).

        Cost: with ``k``, memory (n_test × k + block × n_train).
        """
        if k is None:
            return self.attribute(inputs, target)
        if check_integer(k, "k", self.get_name()) > self.n_train_:
            raise InvalidValueError("k", self.get_name(), f"at most n_train = {self.n_train_}", repr(k))
        blocks = self.attribute_blocks(inputs, target)
        n_blocks = -(-n_samples(inputs, self.get_name()) // self.block_size)
        tops = [
            block.topk(k, dim=1, largest=proponents)
            for block in tqdm(blocks, desc=self.get_name(), total=n_blocks, disable=not show_progress)
        ]
        return KMostInfluentialResults(
            torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops])
        )

    def self_influence(self) -> Tensor:
        """The attribution τ_i(x_i, y_i) of each training point to its own label at itself, (n_train,)."""
        self._ensure_fitted()
        return self._self_influence().detach()

    def input_attribution(self, inputs: Inputs, target: Target = None, k: int = 1) -> Tensor:
        """Where in the test input the evidence is: gradient × input of Σ_i τ_i(x, c) over the ``k`` top proponents.

        Args:
            inputs: as in :meth:`attribute`, of a floating type.
            target: as in :meth:`attribute`.
            k: number of proponents.

        Returns:
            The shape of the inputs, signed.

        Cost: one attribution of the inputs and one backward pass.
        """
        owner = self.get_name()
        targets = self._checked_target(inputs, target)
        strongest: Any = self.influence(inputs, k, target)
        maps, start = [], 0
        for batch, classes in self._blocks(inputs, targets, self.batch_size):
            if not batch.is_floating_point():
                raise InvalidTypeError("inputs", owner, "floating to be differentiated", str(batch.dtype))
            indices = strongest.indices[start : start + len(batch)]
            start += len(batch)
            with torch.enable_grad():
                point = batch.detach().clone().requires_grad_()
                (gradient,) = torch.autograd.grad(self._pair_attribution(point, classes, indices).sum(), point)
            maps.append(gradient * batch)
        return torch.cat(maps).detach()

    def __call__(self, model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
        """Quantus' protocol for an explanation function: :meth:`input_attribution` as an array shaped like the inputs.

        Args:
            model: the network to explain. If its weights differ from this object's (Quantus randomises them in some
                metrics), the method is fitted to that network, and kept until the next one comes.
            inputs: (n_test, …), an array or a tensor.
            targets: explained classes, (n_test,).

        Returns:
            The shape of the inputs. NaN, at no cost, where ``quantus.evaluate`` asks for metrics of this package alone:
            they read attributions to training points, and no map.
        """
        if no_metric_reads_maps():
            return unread_map(inputs)
        return map_as_array(self._for_model(network_of(model)).input_attribution, inputs, targets, self.get_name())

    # ------------------------------------------------------------------ what methods share

    def _ensure_fitted(self) -> None:
        if not self._fitted:
            self.fit()

    def _training_features(self) -> TrainingFeatures:
        """φ, f and y of the training set, from the cache if it has them; sets ``train_labels_`` and ``n_classes_``."""

        def compute() -> dict[str, Tensor]:
            return vars(self._extractor.extract(self._loader, self.device, show_progress=self.show_progress))

        tensors = self._cached("features", {"layer": self._extractor.layer_name}, compute)
        training = TrainingFeatures(**tensors)
        self.train_labels_, self.n_classes_ = training.labels, training.logits.shape[1]
        return training

    def _training_labels(self) -> Tensor:
        """The labels alone, for methods that need no features; sets ``train_labels_`` and ``n_classes_``."""
        parts: list[Tensor] = []
        n_classes = 0
        with preserved_random_state(), torch.no_grad():
            for inputs, labels in labelled_batches(self._loader, self.get_name()):
                n_classes = n_classes or self._extractor(inputs[:1].to(self.device))[1].shape[1]
                check_labels(labels, n_classes, "train_dataset", self.get_name())
                parts.append(labels)
        self.train_labels_, self.n_classes_ = torch.cat(parts).to(self.device), n_classes
        return self.train_labels_

    def _cached(self, kind: str, parameters: dict[str, object], compute: Any) -> dict[str, Tensor]:
        """What ``compute`` returns, kept in the cache under this network, this dataset and these parameters."""
        cache = TensorCache(self.cache_dir)
        if cache.folder is None:
            return dict(compute())
        with preserved_random_state():
            data_key = data_fingerprint(labelled_batches(self._loader, self.get_name()))
        key = fingerprint(model_fingerprint(self.model), data_key, sorted(parameters.items()))
        tensors = cache.load_or_compute(kind, key, compute)
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _training_inputs(self, indices: Tensor) -> Tensor:
        """The training inputs at these positions, (len(indices), …), on the device."""
        dataset: Any = self._loader.dataset
        with preserved_random_state():
            collate = self._loader.collate_fn
            inputs, _ = collate([dataset[int(index)] for index in indices.flatten()])
        return as_input_tensor(inputs, self.get_name()).to(self.device)

    def _blocks(self, inputs: Inputs, targets: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive blocks of test inputs on the device with the classes to explain."""
        start = 0
        for batch in input_batches(inputs, size, self.get_name()):
            block = batch.to(self.device)
            yield block, self._decisions(block) if targets is None else targets[start : start + len(block)]
            start += len(block)

    @torch.no_grad()
    def _decisions(self, inputs: Tensor) -> Tensor:
        """The network's decisions, (n_block,), in passes of at most ``batch_size``."""
        with evaluating(self.model):
            return torch.cat([self.model(part).argmax(dim=1) for part in torch.split(inputs, self.batch_size)])

    def _checked_target(self, inputs: Inputs, target: Target) -> Tensor | None:
        """One class for each test point, (n_test,), or None; checked against the inputs and the network's outputs."""
        owner = self.get_name()
        n_test = n_samples(inputs, owner)
        if n_test == 0:
            raise InvalidValueError("inputs", owner, "at least one sample", "none")
        if target is None:
            return None
        classes = torch.as_tensor(target)
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            raise InvalidTypeError("target", owner, "an integer or integers", str(classes.dtype))
        if classes.ndim > 1 or (classes.ndim == 1 and len(classes) != n_test):
            constraint = f"one class, or one for each of the {n_test} inputs"
            raise InvalidValueError("target", owner, constraint, f"shape {tuple(classes.shape)}")
        with torch.no_grad():
            _, logits = self._extractor(next(input_batches(inputs, 1, owner)).to(self.device))
        if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
            got = f"values from {int(classes.min())} to {int(classes.max())}"
            raise InvalidValueError("target", owner, f"in 0 … {logits.shape[1] - 1}", got)
        return classes.to(self.device, torch.int64).expand(n_test)

    def _for_model(self, model: nn.Module | None) -> Self:
        """This method, or its copy fitted to a network with other weights."""
        if model is None or model is self.model:
            return self
        key = model_fingerprint(model)
        if key == model_fingerprint(self.model):
            return self
        if self._refitted is None or self._refitted[0] != key:
            other = copy.copy(self)
            # Quantus randomises one copy of the network in place: fit to a snapshot of it.
            other.model = other.forward_func = copy.deepcopy(model)
            other._extractor = FeatureExtractor(other.model, self._extractor.layer_name, self.get_name())
            other.final_fc_layer = self._extractor.layer_name
            other.show_progress, other.cache_dir = False, None
            self._refitted = (key, other.fit())
        return self._refitted[1]


def _checked_device(model: nn.Module, device: torch.device | str | None, owner: str) -> torch.device:
    """The device of the model's parameters, which ``device`` must not contradict."""
    parameter = next(model.parameters(), None)
    home = torch.device("cpu") if parameter is None else parameter.device
    if device is None:
        return home
    wanted = torch.device(device)
    if parameter is not None and (wanted.type != home.type or wanted.index not in (None, home.index)):
        raise InvalidValueError("device", owner, f"the model's own device ({home}); move the model first", str(wanted))
    return home
