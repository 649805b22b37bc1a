"""What every data attribution method has in common: Captum's calls, Quantus' call, the flow of batches."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, TypeVar, overload

import numpy as np
import torch
from captum.attr import Attribution
from captum.influence import DataInfluence
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor, nn
from tqdm import tqdm

from dualview_plugin.attribution.arguments import LOAD_OPTIONS, WITHOUT_EFFECT, Remembering, json_arguments
from dualview_plugin.attribution.joined_maps import joined_maps
from dualview_plugin.attribution.kept_state import KeptState
from dualview_plugin.attribution.quantus_call import map_as_array, network_of, no_metric_reads_maps, unread_map
from dualview_plugin.attribution.saving import Saved, classes_of, save
from dualview_plugin.attribution.sweeps import OwnScores, Scores, check_finite_scores, strongest_of
from dualview_plugin.attribution.targets import Target, checked_target
from dualview_plugin.attribution.top_points import warn_of_lost_values, warn_of_underflow, warn_of_zeros
from dualview_plugin.attribution.training_store import N_PROBES, TrainingStore
from dualview_plugin.batches import Batch, leaves, mapped, n_rows, split, structure
from dualview_plugin.data import (
    Inputs,
    KnownContent,
    LabelFunction,
    RangeResult,
    RangeStream,
    TestInputs,
    TrainData,
    TrainingData,
    with_arguments,
)
from dualview_plugin.engines import ShardWork
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, StaleFitError
from dualview_plugin.features import (
    FeatureExtractor,
    FeatureShards,
    Probe,
    TrainingFeatures,
    check_finite,
    check_labels,
    take_probe,
)
from dualview_plugin.network import (
    Forward,
    Placement,
    checked_function,
    checked_model,
    differentiable_at,
    fingerprint,
    guest,
    kept_weights,
    layer_name,
    model_fingerprint,
    only_point,
    rules_set_aside,
    weights_checksum,
    writes_to_parameters,
)
from dualview_plugin.storage import Column, DamagedFileError, Storage, StoreReport, mapped_array
from dualview_plugin.validation import check_integer

Item = TypeVar("Item")
Made = TypeVar("Made", bound="DataAttribution")


class FitMark:
    """Stands for one fit of a method: each has another, and copies of a fitted method share it."""


# Elements that are copied at a time.
_ROWS_ELEMENTS = 2**22


class CommonOptions(TypedDict, total=False):
    """The keyword arguments that every method takes; :class:`DataAttribution` documents them."""

    batch_size: int
    device: torch.device | str | None
    cache_dir: str | Path | Storage | None
    show_progress: bool
    forward: Forward | None
    label_fn: LabelFunction | None
    output: int | None


class DataAttribution(Remembering, Attribution, DataInfluence):  # type: ignore[misc]
    """Relevance τ_i(x, c) of each training point i for the network's output c at a test point x.

    Positive values are proponents (excitatory), negative ones opponents (inhibitory). Everywhere, row t of an
    attribution is test point t and column j is ``train_dataset[j]``.

    The constructor stores and validates; :meth:`fit` does the heavy work once, and the other calls fit on first use.
    The network's mode, hooks, weights and gradients and the global random states are as before after every call.

    Args:
        model: the network f, with outputs (n_samples, n_classes); it is always evaluated in eval mode. A single output
            z decides between two classes, with logits (−z/2, z/2). Compiled, DataParallel and DistributedDataParallel
            networks stand for the network inside.
        final_fc_layer: the module whose flattened input is φ(x), or its dotted name. Where it is applied at each
            position of a sequence or an image, φ(x) is its input at the position that the network takes, or the mean.
        train_dataset: a map-style dataset, or a DataLoader over one that does not shuffle. Samples are
            ``(input, label)``, ``(*inputs, label)``, or dictionaries with a ``"labels"`` or ``"label"``; inputs are
            tensors, or tuples and dictionaries of them. A collate function may pad each batch to its longest sample.
            Labels index the network's outputs.
        batch_size: samples per forward pass.
        device: where features and products are computed: the device that the model is on, which is also what None
            means.
        cache_dir: a folder for what is computed from every training point, in shards that survive an interruption. Each
            network, dataset and set of parameters has a store of its own there, so another network never gets them.
            :class:`Storage` has more choices. None keeps nothing on disk.
        show_progress: progress bars during long work.
        forward: a function of the network and a batch that returns the outputs; None: ``model(x)``, ``model(*xs)`` for
            a tuple, ``model(**batch)`` for a dictionary, and of what is returned the ``logits`` if it has them. Named
            tuples come as tuples, and mappings such as ``BatchEncoding`` as dictionaries.
        label_fn: a function of a collated batch that returns its labels; the whole batch then goes to the network.
        output: for a network with a sigmoid at each output: the output z_c that is explained, by itself, as a decision
            between the classes 0 and 1. Labels are then zeros and ones, (n,) or one for each output.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; raised before any heavy work.

    Attributes:
        store_: how the values of the training points that the fit rests on were got, where there is a ``cache_dir``.
        sweep_: likewise of the last pass over the training data for a block of test points.

    Note:
        A subclass implements ``_fit``, ``_attribute_block``, ``_pair_attribution`` and ``_self_influence``. Where
        attributions take a pass over the training data, it sets ``_sweeps`` and implements ``_test_state``, ``_scores``
        and ``_own_scores`` in place of the second and the last; engines then share out the pass. With ``_costly``
        metrics keep its attributions for each other, which must then depend on nothing but the fit. It reaches
        the network only through ``self.model`` and ``self.extractor``, so that :meth:`__call__` can put another in
        their place.
    """

    store_: StoreReport | None = None
    sweep_: StoreReport | None = None

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        cache_dir: str | Path | Storage | None = None,
        show_progress: bool = True,
        forward: Forward | None = None,
        label_fn: LabelFunction | None = None,
        output: int | None = None,
    ) -> None:
        super().__init__(model)
        owner = self.get_name()
        self.forward, self.label_fn = forward, checked_function(label_fn, "label_fn", owner)
        self.output = None if output is None else check_integer(output, "output", owner, minimum=0)
        self.extractor = FeatureExtractor(model, final_fc_layer, owner, forward, self.output)
        self.model = self.forward_func = self.extractor.model
        self.final_fc_layer, self.train_dataset = final_fc_layer, train_dataset
        self.batch_size = check_integer(batch_size, "batch_size", owner)
        self.show_progress = bool(show_progress)
        self.cache_dir = cache_dir
        self._storage = Storage.of(cache_dir, owner)
        self._data = TrainingData(train_dataset, self.batch_size, owner, label_fn, self.output)
        self.device = _checked_device(self.model, device, owner)
        self._probe: Probe | None = None
        self._known: KnownContent | None = None
        self._fitted = self._visiting = False
        self._fit_mark = FitMark()
        self._refitted: tuple[str, Self] | None = None
        self._decided: tuple[Batch, Tensor] | None = None  # the block that is explained now, and its features

    # ------------------------------------------------------------------ what a method implements

    @abstractmethod
    def _fit(self) -> None:
        """The heavy work; sets ``train_labels_`` and ``n_classes_``, most easily by :meth:`_training_features`."""

    @torch.no_grad()
    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        """Attributions (n_block, n_train) of test inputs on the device to the classes ``target``, (n_block,)."""
        return torch.cat(list(self._scores(self._test_state(inputs, target))), 1)

    @abstractmethod
    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        """Attributions (n_block, k) of the training points ``train_indices``, same shape; differentiable in inputs."""

    @torch.no_grad()
    def _self_influence(self) -> Tensor:
        """The attribution of each training point to its own label at itself, (n_train,)."""
        return torch.cat(list(self._own_scores()))

    # Whether attributions take a pass over the training data for each block of test points.
    _sweeps: bool = False
    # Whether they cost so much more than their memory that metrics keep them for each other.
    _costly: bool = False

    def _test_state(self, inputs: Batch, target: Tensor) -> Any:
        """What a block of test points brings into a pass over the training data."""
        raise NotImplementedError

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        """Attributions (n_block, n) of consecutive training points, of all of them or of those in a stream."""
        raise NotImplementedError

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        """Attributions (n,) of consecutive training points to themselves, of all of them or of those in a stream."""
        raise NotImplementedError

    def _answers(self) -> dict[str, Tensor]:
        """The network's features and logits at the probe, (n_probe, …): a later process recognises its code by them."""
        probe = self._probe_now()
        return {"probe-features": probe.features, "probe-logits": probe.logits}

    @property
    def _score_dtype(self) -> torch.dtype:
        """The type in which a pass computes attributions."""
        return self._dtype

    @property
    def block_size(self) -> int:
        """Test points in a block of :meth:`attribute_blocks`."""
        return self.batch_size

    def _check_probe(self, features: Tensor, logits: Tensor) -> None:
        """What the method asks of the network beyond all others; on a few training points, before heavy work."""

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
        return len(self._data)

    def fit(self) -> Self:
        """Do the heavy work and return self; see the class for its cost.

        A fit that fails or is interrupted leaves the object as it was.

        Raises:
            InvalidTypeError, InvalidValueError: the network or the data fail a test that the method relies on.

        Warns:
            RandomDataWarning, RandomNetworkWarning: see :func:`take_probe`.
        """
        trial = copy.copy(self)
        trial._fitted = False
        with trial.visit():
            trial._fit()
        self.__dict__.update({**vars(trial), "_fitted": True, "_visiting": self._visiting, "_fit_mark": FitMark()})
        return self

    def attribute(self, inputs: Inputs, target: Target = None, additional_forward_args: Any = None) -> Tensor:
        """Attributions of every training point, (n_test, n_train); positive means proponent.

        Args:
            inputs: test inputs, (n_test, …), of the training inputs' structure: a tensor, an array, tuples or
                dictionaries of them, a structured array, a list of samples that are dictionaries, or a DataLoader that
                does not shuffle.
            target: the explained class: one for all test points or one for each; None: the network's decision.
            additional_forward_args: Captum's spelling of more inputs, a tensor or a tuple of them: the network is
                called with the inputs and then these.

        Returns:
            (n_test, n_train), finite, in the network's precision, float32 at least; column j is ``train_dataset[j]``.

        Raises:
            InvalidTypeError, InvalidValueError: a shuffling loader, a target of the wrong length or out of range, a
                test point for which the network gives NaN.
            StaleFitError: the network or the training data are no longer those of the fit.

        Cost: memory (n_test × n_train); :meth:`attribute_blocks` and :meth:`influence` need less.
        """
        inputs = with_arguments(inputs, additional_forward_args)
        with self.visit():
            return self._attribute_all(self._fitted_for(inputs, target), target)

    def attribute_blocks(self, inputs: Inputs, target: Target = None) -> Iterator[Tensor]:
        """The rows of :meth:`attribute` in consecutive blocks, (n_block, n_train): memory for one block at a time.

        They come in the precision of the computation, which is float64 for influence functions.
        """
        with self.visit():
            blocks = self.blocks(self._fitted_for(inputs, target), target, self.block_size)
        return self._steps(self._attributed(blocks))

    def _attribute_all(self, test: TestInputs, target: Target) -> Tensor:
        """All rows of :meth:`attribute`, from its blocks."""
        result: Tensor | None = None
        start = 0
        for block in self.attribute_blocks(test, target):
            if result is None:
                result = block.new_empty(len(test), self.n_train_, dtype=self._dtype)
            result[start : start + len(block)] = block
            warn_of_underflow(block, self._dtype, self.get_name())
            start += len(block)
        assert result is not None  # test inputs are never empty
        assert start == len(result)  # and counted
        return result

    def _strongest_of(
        self, test: TestInputs, target: Target, k: int, proponents: bool, update: Callable[[int], object]
    ) -> KMostInfluentialResults:
        """The ``k`` strongest training points of each test point, from the blocks; ``update`` counts test points."""
        tops, start = [], 0
        for inputs, classes in self.blocks(test, target, self.block_size):
            if self._keeps_sweeps:
                store = self._swept(Scores(self, inputs, classes, start, k, proponents))
                indices, values, self.sweep_ = strongest_of(store, k, proponents)
                tops.append((indices.to(self.device), values.to(self.device)))
            else:
                top = self._finite_block(inputs, classes, start).topk(k, dim=1, largest=proponents)
                tops.append((top.indices, top.values))
            update(len(classes))
            start += len(classes)
        indices, values = (torch.cat(parts) for parts in zip(*tops, strict=True))
        return KMostInfluentialResults(indices, values.to(self._dtype))

    def _attributed(self, blocks: Iterator[tuple[Batch, Tensor]]) -> Iterator[Tensor]:
        """The attributions of each block, if they are finite."""
        start = 0
        for inputs, target in blocks:
            if self._keeps_sweeps:
                columns, self.sweep_ = self._swept(Scores(self, inputs, target, start)).load()
                block = columns["scores"].mT.to(self.device)
            else:
                block = self._finite_block(inputs, target, start)
            yield block
            start += len(block)

    def _finite_block(self, inputs: Batch, target: Tensor, start: int) -> Tensor:
        """The attributions of a block whose first test point has the position ``start``, if they are finite."""
        block = self._attribute_block(inputs, target).detach()
        check_finite_scores(block, start, self.get_name())
        return block

    @overload
    def influence(
        self,
        inputs: Inputs,
        k: None = None,
        target: Target = None,
        proponents: bool = True,
        show_progress: bool = False,
        additional_forward_args: Any = None,
    ) -> Tensor: ...

    @overload
    def influence(
        self,
        inputs: Inputs,
        k: int,
        target: Target = None,
        proponents: bool = True,
        show_progress: bool = False,
        additional_forward_args: Any = None,
    ) -> KMostInfluentialResults: ...

    def influence(
        self,
        inputs: Inputs,
        k: int | None = None,
        target: Target = None,
        proponents: bool = True,
        show_progress: bool = False,
        additional_forward_args: Any = None,
    ) -> Tensor | KMostInfluentialResults:
        """Captum's call: all attributions, or the ``k`` strongest training points of each test point.

        Args:
            inputs: as in :meth:`attribute`.
            k: how many training points; None: all of them, in the dataset's order.
            target: as in :meth:`attribute`.
            proponents: the highest attributions, in descending order; False: the lowest, ascending.
            show_progress: a progress bar over the blocks of test points.
            additional_forward_args: as in :meth:`attribute`.

        Returns:
            (n_test, n_train) if ``k`` is None; else ``KMostInfluentialResults(indices, influence_scores)``, both
            (n_test, k).

        Warns:
            SparseAttributionWarning: some test points have fewer than ``k`` attributions other than zero.

        Cost: with ``k``, memory (n_test × k + block × n_train).
        """
        inputs = with_arguments(inputs, additional_forward_args)
        if k is None:
            return self.attribute(inputs, target)
        found = self.strongest(inputs, k, target, proponents, show_progress=show_progress)
        warn_of_zeros(found, self.get_name())
        return found

    def strongest(
        self, inputs: Inputs, k: int, target: Target = None, proponents: bool = True, *, show_progress: bool = False
    ) -> KMostInfluentialResults:
        """:meth:`influence` with a ``k``, without a word on attributions of zero."""
        if check_integer(k, "k", self.get_name()) > self.n_train_:
            raise InvalidValueError("k", self.get_name(), f"at most n_train = {self.n_train_}", repr(k))
        with self.visit():
            test = self._fitted_for(inputs, target)
            with tqdm(total=len(test), desc=self.get_name(), disable=not show_progress) as bar:
                return self._strongest_of(test, target, k, proponents, bar.update)

    def self_influence(self) -> Tensor:
        """The attribution τ_i(x_i, y_i) of each training point to its own label at itself, (n_train,)."""
        with self.visit():
            self.ensure_fitted()
            if self._keeps_sweeps:
                columns, self.sweep_ = self._swept(OwnScores(self)).load()
                exact = columns["values"].to(self.device)
            else:
                exact = self._self_influence().detach()
            values = exact.to(self._dtype)
            warn_of_lost_values(exact, values, self.get_name())
        if not bool(values.isfinite().all()):
            constraint = "a dataset with finite attributions"
            raise InvalidValueError("train_dataset", self.get_name(), constraint, "NaN or inf")
        return values

    def input_attribution(
        self, inputs: Inputs, target: Target = None, k: int = 1, *, at: nn.Module | str | None = None
    ) -> Any:
        """Where in the test input the evidence is: gradient × input of Σ_i τ_i(x, c) over the ``k`` top proponents.

        Args:
            inputs: as in :meth:`attribute`, of a floating type, unless ``at`` is a layer.
            target: as in :meth:`attribute`.
            k: number of proponents.
            at: a layer, or its dotted name, at whose output the map is taken in place of the input: gradient ×
                activation, summed over the last axis. For tokens: the embedding, whose width that is.

        Returns:
            The shape of the inputs, signed; of tuples and dictionaries likewise, with None for tensors of integers.
            With ``at`` the shape of the layer's output, less its last axis; batches that a loader has padded to other
            lengths get zeros up to the longest, behind or in front, as the loader pads.

        Raises:
            InvalidTypeError: no input is of a floating type, or the output of ``at`` is no floating tensor.
            InvalidValueError: ``at`` is no layer of the network, or runs more than once in a forward pass.

        Cost: one attribution of the inputs and one backward pass.
        """
        name = None if at is None else layer_name(self.model, at, "at", self.get_name())
        with self.visit():
            test = self.test_inputs(inputs)
            indices = self.strongest(test, k, target).indices
            maps, start = [], 0
            for batch, classes in self.blocks(test, target, self._map_size):
                rows = indices[start : start + len(classes)]
                start += len(classes)
                maps.append(self._block_maps(batch, classes, rows, name))
            return joined_maps(maps, self.get_name(), test.padded_in_front)

    @property
    def _map_size(self) -> int:
        """Test points whose maps are computed together."""
        return self.batch_size

    def _block_maps(self, inputs: Batch, target: Tensor, train_indices: Tensor, at: str | None) -> Any:
        """The maps of a block of test points, at the inputs or at the output of a layer."""
        owner = self.get_name()
        if at is None and not any(leaf.is_floating_point() for leaf in leaves(inputs)):
            constraint = "floating, to be differentiated; of tokens pass at=, the embedding, for a map of its output"
            raise InvalidTypeError("inputs", owner, constraint, str(leaves(inputs)[0].dtype))
        evidence_of = self._evidence(inputs, target, train_indices)
        with torch.enable_grad(), rules_set_aside(self.model):
            point = mapped(lambda leaf: leaf.detach().clone().requires_grad_(leaf.is_floating_point()), inputs)
            if at is None:
                evidence = evidence_of(point)
                floating = [leaf for leaf in leaves(point) if leaf.is_floating_point()]
            else:
                with differentiable_at(self.model, at, owner) as points:
                    evidence = evidence_of(inputs)
                floating = [only_point(points, at, owner)]
            gradients = self._map_gradients(evidence, floating)
        if at is not None:
            return (gradients[0] * floating[0].detach()).sum(-1)[: len(target)]
        remaining = iter(gradients)
        return mapped(lambda leaf: next(remaining) * leaf.detach() if leaf.is_floating_point() else None, point)

    def _map_gradients(self, evidence: Tensor, points: list[Tensor]) -> list[Tensor]:
        """The gradients at these points, of which the evidence may depend on some."""
        gradients: tuple[Tensor | None, ...] = ()
        if evidence.requires_grad:
            gradients = torch.autograd.grad(evidence, points, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            constraint = "differentiable in its inputs for an input map"
            raise InvalidValueError("model", self.get_name(), constraint, "outputs without a gradient there")
        pairs = zip(points, gradients, strict=True)
        return [torch.zeros_like(point) if gradient is None else gradient for point, gradient in pairs]

    def _evidence(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Callable[[Batch], Tensor]:  # noqa: ARG002
        """The sum of the attributions of these training points, (n_block, k), with its graph, as a function of inputs.

        All that has no slope is computed before, so that the function runs the network once.
        """
        return lambda point: self._pair_attribution(point, target, train_indices).sum()

    def save(self, path: str | Path) -> None:
        """Write what was learned to a file, without the network and the data; fits first if need be.

        Args:
            path: of the file, which is replaced as a whole.

        Raises:
            InvalidTypeError: the method's state or one of its arguments has no form on disk.
            InvalidValueError: the file cannot be written.

        Cost: the size of what was learned. The file holds arrays and readable text, and nothing is unpickled from it.
        """
        with self.visit():
            self.ensure_fitted()
            save(self, path, self._learned())

    def _learned(self) -> dict[str, Any]:
        """The attributes that the fit has set and that :meth:`_resume` does not make anew."""
        left_out = {*vars(type(self)(**self._arguments)), *self._remade, "store_", "sweep_"}
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def _restore(self, learned: Mapping[str, Any]) -> None:
        """Take what :meth:`_learned` gave.

        Raises:
            DamagedFileError: it is something else.
        """
        for name, value in learned.items():
            if name in vars(self) or name in self._remade:
                raise DamagedFileError(f"it sets {name!r}")
            self.__dict__[name] = value
        self._resume()
        self._fitted = True

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, train_dataset: TrainData, **options: Any) -> Self:
        """A fitted method from a file of :meth:`save`, with its network and its training data.

        Args:
            path: of the file.
            model: the network of the fit.
            train_dataset: the data of the fit.
            options: ``device``, ``cache_dir``, ``show_progress``, ``batch_size``, ``memory_budget``, and ``forward``,
                ``label_fn`` and the ``checkpoints`` of :class:`TracIn` if the fit had them.

        Raises:
            InvalidValueError: no such file, one that :meth:`save` did not write, of another class or newer format; an
                option that is another than at the fit, on which values depend.
            StaleFitError: network or data are not those of the fit; the message says which.

        Cost: the size of the file, and the data once if they lie in memory, else 128 samples.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from torch import nn
            >>> from dualview_plugin import DualView
            >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
            >>> network = nn.Sequential(nn.Linear(4, 2))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     DualView(network, "0", data, show_progress=False).save(f"{folder}/fitted.zip")
            ...     method = DualView.load(f"{folder}/fitted.zip", network, data, show_progress=False)
            >>> method.attribute(torch.eye(4)[:3]).shape
            torch.Size([3, 4])
        """
        saved = Saved(path, cls.get_name())
        kinds = (kind for kind in _with_subclasses(cls) if not kind.__name__.startswith("_"))  # parts of methods
        kind = next((kind for kind in kinds if kind.get_name() == saved.name), None)
        if kind is None:
            raise saved.refused(f"it holds a {saved.name}")
        for name, value in options.items():
            if name not in LOAD_OPTIONS and repr(value) != repr(saved.arguments.get(name)):
                constraint = f"left out, since the fit in the file has its own ({saved.arguments.get(name)!r})"
                raise InvalidValueError(name, f"{cls.get_name()}.load", constraint, repr(value))
        try:
            method = kind(model, saved.layer, train_dataset, **{**saved.arguments, **options})
        except TypeError as error:
            raise saved.refused(str(error)) from error
        with method.visit():
            saved.check(method)
            try:
                method._restore(saved.learned(method))
            except DamagedFileError as error:
                raise saved.refused(str(error)) from error
        return method

    # Attributes that :meth:`_resume` makes anew.
    _remade: ClassVar[frozenset[str]] = frozenset()
    # Classes of its own in what the method learns, which :meth:`save` takes apart.
    _state_classes: ClassVar[tuple[type, ...]] = ()

    def _resume(self) -> None:
        """Make what a file does not hold, from the network and the arguments."""

    def __call__(
        self, model: nn.Module, inputs: Any, targets: Any, *, at: nn.Module | str | None = None, **_: Any
    ) -> np.ndarray[Any, Any]:
        """Quantus' protocol for an explanation function: :meth:`input_attribution` as an array shaped like the inputs.

        Args:
            model: the network to explain. If it is another than this object's (Quantus randomises weights in some
                metrics), the method is fitted to that network, and kept until the next one comes.
            inputs: (n_test, …), an array or a tensor.
            targets: explained classes, (n_test,).
            at: a layer for :meth:`input_attribution`, such as the embedding of tokens; among ``explain_func_kwargs``.

        Returns:
            The shape of the inputs. NaN, at no cost, where ``quantus.evaluate`` asks for metrics of this package alone:
            they read attributions to training points, and no map.
        """
        if no_metric_reads_maps():
            return unread_map(inputs)
        method = self.for_model(network_of(model))
        if at is not None:
            at = layer_name(self.model, at, "at", self.get_name())
        maps = partial(method.input_attribution, at=at)
        return map_as_array(maps, inputs, targets, self.get_name(), any_type=at is not None)

    # ------------------------------------------------------------------ what others may use

    def test_inputs(self, inputs: Inputs) -> TestInputs:
        """The test inputs, converted and checked against the training inputs; what comes out may go in again."""
        with self.visit():
            like, collate = self._probe_now().inputs, self._data.loader.collate_fn
            return TestInputs(inputs, self.get_name(), like, collate, any_structure=self.forward is not None)

    def decisions(self, inputs: Inputs) -> Tensor:
        """The classes that the network decides for, (n_test,): what ``target=None`` explains."""
        with self.visit():
            return torch.cat([classes for _, classes in self.blocks(inputs)])

    def blocks(self, inputs: Inputs, target: Target = None, size: int | None = None) -> Iterator[tuple[Any, Tensor]]:
        """Consecutive blocks of test inputs, placed where the network is, with the classes to explain, (n_block,).

        Args:
            inputs: as in :meth:`attribute`.
            target: as in :meth:`attribute`; checked before the first block.
            size: test points in a block at most; None: ``batch_size``.
        """
        test = self.test_inputs(inputs)
        with self.visit():
            classes = checked_target(target, len(test), self._probe_now().n_classes, self.get_name())
        return self._steps(self._placed(test, classes, size or self.batch_size))

    def rows_key(self, inputs: Inputs | None = None, target: Target = None) -> tuple[FitMark, Hashable] | None:
        """All that attributions of these inputs depend on: the fit, and the rest; they may be kept under it.

        Args:
            inputs: as in :meth:`attribute`, not in a loader; None: the key of :meth:`self_influence`.
            target: as in :meth:`attribute`.

        Returns:
            None where they cost little, or would be other ones in another pass.
        """
        if not self._costly:
            return None
        with self.visit():
            if inputs is None:
                self.ensure_fitted()
                asked: tuple[str, ...] = ()
            else:
                test = self._fitted_for(inputs, target)
                classes = checked_target(target, len(test), self._probe_now().n_classes, self.get_name())
                [batch] = test.batches(len(test))
                asked = fingerprint(structure(batch), *leaves(batch)), fingerprint(classes)
            if not self._repeatable:
                return None
            probe = self._probe_now()
            return self._fit_mark, (probe.checksum, self._known_data().digest, *asked)

    def extract(self, inputs: Batch) -> tuple[Tensor, Tensor]:
        """Penultimate features (n, n_features) and logits (n, n_classes) of one placed block, differentiable."""
        features, logits = self.extractor(inputs)
        check_finite(features, logits, "inputs", self.get_name())
        return features, logits

    def training_inputs(self, indices: Tensor) -> Any:
        """The training inputs at these positions, (len(indices), …), placed where the network is."""
        with guest(self.model):
            return Placement.of(self.model)(self._data.at(indices.flatten().tolist())[0])

    @property
    def explains_other_networks(self) -> bool:
        """Whether :meth:`for_model` takes other networks than this object's."""
        return True

    def for_model(self, model: nn.Module | None) -> Self:
        """This method, or one of the same arguments that is fitted to another network and kept until the next comes.

        Raises:
            StaleFitError: the network is this object's, but no longer as it was at the fit.
        """
        if model is None:
            return self
        model = checked_model(model, self.get_name())
        if model is self.model:
            return self
        with self.visit():
            probe = self._probe_now()
        key = model_fingerprint(model, probe.plain)
        same_weights = key == model_fingerprint(self.model, probe.plain)
        if same_weights and probe.network_change(self._quiet_twin(model).extractor) is None:
            return self
        kept = self._refitted
        if kept is None or kept[0] != key or kept[1].model is not model or kept[1]._change() is not None:
            self._refitted = kept = (key, self._quiet_twin(model).fit())
        return kept[1]

    def _quiet_twin(self, model: nn.Module) -> Self:
        """An unfitted object of the same arguments for another network, without progress bars and cache."""
        twin: Self = self.rebuilt(model)
        twin.__dict__.update(show_progress=False, cache_dir=None, _storage=None)
        return twin

    # ------------------------------------------------------------------ what methods share

    @contextmanager
    def visit(self) -> Iterator[None]:
        """A public call: the network is a guest, and the outermost call makes sure that a fit still holds."""
        with guest(self.model):
            if self._visiting:
                yield
                return
            self._visiting, self._known = True, None
            try:
                self._refresh_probe()
                with kept_weights(self.model) if writes_to_parameters(self.model) else nullcontext():
                    yield
            finally:
                self._visiting, self._known = False, None

    def _steps(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, each computed with the network as a guest: between them it is the user's, who may change it.

        Raises:
            StaleFitError: its weights have changed since the first item.
        """
        probe = self._probe_now()
        while True:
            with guest(self.model):
                if not self._visiting and weights_checksum(self.model, probe.plain) != probe.checksum:
                    raise StaleFitError(
                        f"model of {self.get_name()} must stay as it is between blocks, got other weights"
                    )
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _refresh_probe(self) -> None:
        """Test the network and the data, or make sure that they are those that were tested."""
        change = self._change()
        if change is not None and self._fitted:
            raise StaleFitError(f"{change}: call {self.get_name()}.fit() again, or undo the change")
        if change is not None or self._probe is None:
            self._probe = take_probe(self.extractor, self._data, self.get_name(), self._check_probe)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy: with what its data have to say of themselves, if they are those of the probe."""
        unchanged = self._probe is not None and self._probe.stamp == self._data.stamp()
        return {**self.__dict__, "_unchanged": unchanged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The copy's data are other objects of the same content, and say other things of themselves."""
        unchanged = state.pop("_unchanged", False)
        self.__dict__.update(state)
        if self._probe is not None and unchanged:
            self._probe = replace(self._probe, stamp=self._data.stamp())

    def _change(self) -> str | None:
        """What has changed since the probe was taken, as a sentence."""
        if self._probe is None:
            return None
        network, data = self._probe.network_change(self.extractor), self._probe.data_change(self._data)
        if network is not None:
            return f"model of {self.get_name()} must be as it was at the fit, got {network}"
        return None if data is None else f"train_dataset of {self.get_name()} must be as it was at the fit, got {data}"

    @property
    def _dtype(self) -> torch.dtype:
        """The type of attributions: the network's own, float32 at least."""
        return self._probe_now().features.dtype

    def _probe_now(self) -> Probe:
        """The probe of this visit."""
        assert self._probe is not None  # every visit begins with one
        return self._probe

    def _fitted_for(self, inputs: Inputs, target: Target) -> TestInputs:
        """The test inputs, once they and their target are checked and then the method is fitted."""
        test = self.test_inputs(inputs)
        checked_target(target, len(test), self._probe_now().n_classes, self.get_name())
        self.ensure_fitted()
        return test

    def ensure_fitted(self) -> None:
        """Fit on first use."""
        if not self._fitted:
            self.fit()

    def _training_features(self, n_logits: int | None = None) -> TrainingFeatures:
        """φ, f and y of the training set, from the store if there is one; sets ``train_labels_`` and ``n_classes_``.

        Args:
            n_logits: keep f of at most this many points, the first ones; None: of all.
        """
        probe = self._probe_now()
        training = self._stored_features(probe, n_logits)
        if training is None:
            training = self.extractor.extract(self._data, probe, n_logits=n_logits, show_progress=self.show_progress)
        self.train_labels_, self.n_classes_ = training.labels, probe.n_classes
        return training

    def _stored_features(self, probe: Probe, n_logits: int | None) -> TrainingFeatures | None:
        """The features through the store; with all logits, unless none are asked for and they take much room."""
        n_features = probe.features.shape[1]
        logits = n_logits != 0 or 4 * probe.n_classes <= n_features
        columns = [
            Column("features", self._stored_dtype or probe.features.dtype, n_features),
            Column("labels", torch.int64),
            Column("logits", probe.logits.dtype, probe.n_classes),
        ]
        work = FeatureShards(self.extractor, self._data, probe, self._stored_dtype, logits)
        tensors = self._stored("features", {}, columns if logits else columns[:2], work)
        if tensors is None:
            return None
        kept = tensors["logits"][:n_logits] if logits else probe.logits[:0]
        return TrainingFeatures(tensors["features"], kept, tensors["labels"])

    def _training_labels(self) -> Tensor:
        """The labels alone, for methods that need no features; sets ``train_labels_`` and ``n_classes_``."""
        n_classes = self._probe_now().n_classes
        answers = self._answers()
        columns = [Column("labels", torch.int64)]
        stored = self._stored("labels", {"checked": "answers"}, columns, self._label_ranges, answers)
        if stored is None:
            labels = torch.cat([labels for _, _, labels in self._labelled_batches()])
        else:
            labels = stored["labels"]
        self.train_labels_, self.n_classes_ = labels.to(self.device), n_classes
        return self.train_labels_

    def _label_ranges(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """The labels of ranges of training points, as work for an engine; with the network's answers at the probe.

        By those a later process recognises the network's code, on which what is learned from labels alone depends.
        """
        stream, answers = RangeStream(self._data, ranges), self._answers()
        parts = ({"labels": labels} for _, _, labels in self._labelled_batches(stream))
        for rows, columns, digest in stream.assembled(parts):
            yield rows, {**columns, **{name: answer[: len(rows)] for name, answer in answers.items()}}, digest

    def _labelled_batches(self, stream: RangeStream | None = None) -> Iterator[tuple[range, Batch, Tensor]]:
        """:meth:`_numbered_batches` whose labels are the network's."""
        for rows, inputs, labels in self._numbered_batches(stream):
            check_labels(labels, self._probe_now().n_classes, self.get_name())
            yield rows, inputs, labels

    def _training_batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """The batches of the training set in order, placed where the network is."""
        return ((inputs, labels) for _, inputs, labels in self._numbered_batches())

    def _numbered_batches(self, stream: RangeStream | None = None) -> Iterator[tuple[range, Batch, Tensor]]:
        """The batches of the training set, or of ranges of it, with their positions, placed where the network is."""
        place, probe = Placement.of(self.model), self._probe_now()
        for rows, inputs, labels in self._data.numbered() if stream is None else stream.batches():
            probe.check_reading(rows.start, inputs, labels, self.get_name())
            yield rows, place(inputs), labels.to(self.device)

    @property
    def _stored_dtype(self) -> torch.dtype | None:
        """The type of stored features and projections; None: the one that they are computed in."""
        name = None if self._storage is None else self._storage.dtype
        return None if name is None else getattr(torch, name)

    def _stored(
        self,
        kind: str,
        parameters: dict[str, object],
        columns: list[Column],
        work: ShardWork,
        answers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | None:
        """Columns with a row for each training point, through the store; sets ``store_``.

        None without a store, and where another reading or pass would give other values.
        """
        if self._storage is None or not self._repeatable:
            return None
        store = self._training_store(self._storage, kind, parameters, columns, work, answers)
        tensors, self.store_ = store.load()
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    @property
    def _repeatable(self) -> bool:
        """Whether data and network give the same values at each reading and pass."""
        probe = self._probe_now()
        return probe.repeatable and probe.repeats

    def _training_store(
        self,
        storage: Storage,
        kind: str,
        parameters: Mapping[str, object],
        columns: list[Column],
        work: ShardWork,
        answers: Mapping[str, Tensor] | None = None,
    ) -> TrainingStore:
        """The store of what is computed from training points with these parameters."""
        probe = self._probe_now()
        parts = {
            "network": model_fingerprint(self.model, probe.plain),
            "layer": self.extractor.layer_name,
            "output": repr(self.output),
            **{name: repr(value) for name, value in parameters.items()},
        }
        known, checked = self._known_data(), probe.indices
        return TrainingStore(
            storage, kind, parts, self._data, columns, work, checked, self.show_progress, known, answers
        )

    def _known_data(self) -> KnownContent:
        """Which data these are; looked at once in a call."""
        if self._known is not None:
            return self._known
        known = self._data.identity(n_probes=N_PROBES)
        if self._visiting:
            self._known = known
        return known

    # ------------------------------------------------------------------ results that are kept

    @property
    def _keeps_results(self) -> bool:
        """Whether what is made of the training points' values is kept: of a known network, data and settings."""
        return self._storage is not None and self._storage.results and self._repeatable and self._settings is not None

    @property
    def _keeps_sweeps(self) -> bool:
        """Whether passes over the training data go through the store and its engine."""
        return self._sweeps and self._keeps_results

    @property
    def _settings(self) -> dict[str, object] | None:
        """The arguments on which results depend; None if some have no form on disk."""
        try:
            arguments = json_arguments(self)
        except InvalidTypeError:
            return None
        kind, storage = type(self), self._storage
        settings = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
        dtype = None if storage is None else storage.dtype
        return {**settings, "method": f"{kind.__module__}.{kind.__qualname__}", "stored as": dtype}

    def _kept(self, name: str, compute: Callable[[], Item]) -> Item:
        """What was learned from the values of the store, from the same folder if it was learned before.

        Args:
            name: of it, as in ``store_.recalled``.
            compute: learns it, as a function of the values of the store, the network and the arguments.
        """
        report, settings = self.store_, self._settings
        if report is None or settings is None or not self._keeps_results:
            return compute()
        parts = {**settings, "store": report.folder.name, "content": report.content}
        state = KeptState(report.folder, name, parts, self.get_name(), classes_of(self), self.device)
        value, recalled = state.get(compute)
        if recalled:
            self.store_ = replace(report, recalled=(*report.recalled, name))
        kept: Item = value
        return kept

    def _swept(self, work: Scores | OwnScores) -> TrainingStore:
        """The store of a pass over the training data, shard by shard."""
        if self.store_ is None:  # loaded from a file
            self._training_labels()
        assert self._storage is not None
        assert self._settings is not None
        assert self.store_ is not None
        # The content of the data was tested when the fit was made, as the storage asks.
        storage = replace(self._storage, verify="probe")
        parts = {**self._settings, "store": self.store_.folder.name, "content": self.store_.content}
        if isinstance(work, OwnScores):
            return self._training_store(storage, "self-influence", parts, work.columns, work, self._answers())
        points = [structure(work.inputs), *leaves(work.inputs), work.target]
        chosen = "all" if work.k is None else f"{work.k} {'highest' if work.proponents else 'lowest'}"
        parts |= {"test points": fingerprint(*points), "attributions": chosen}
        return self._training_store(storage, "attributions", parts, work.columns, work, self._answers())

    def _rows_like_the_store(self, values: Tensor, indices: Tensor) -> Tensor:
        """Some rows of a matrix: where a store was used, in an unnamed file of its folder and not in memory."""
        if self.store_ is None or values.device.type != "cpu":
            return values[indices]
        rows = mapped_array((len(indices), values.shape[1]), values.dtype, self.store_.folder)
        size = max(1, _ROWS_ELEMENTS // values.shape[1])
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            torch.index_select(values, 0, part, out=rows[start : start + len(part)])
        return rows

    def _placed(self, test: TestInputs, classes: Tensor | None, size: int) -> Iterator[tuple[Batch, Tensor]]:
        """Consecutive blocks of test inputs on the device with the classes to explain."""
        place, start = Placement.of(self.model), 0
        for batch in test.batches(size):
            block = place(batch)
            stop = start + n_rows(block)
            if classes is None:
                features, logits = self._checked_answers(block, start)
                self._decided = block, features
                try:
                    yield block, logits.argmax(dim=1)
                finally:
                    self._decided = None
            else:
                yield block, classes[start:stop].to(self.device)
            start = stop

    @torch.no_grad()
    def _checked_answers(self, inputs: Batch, start: int) -> tuple[Tensor, Tensor]:
        """Features and logits of a block from position ``start`` on, in passes of at most ``batch_size``."""
        parts = [self.extractor(part) for part in split(inputs, self.batch_size)]
        features, logits = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
        check_finite(features, logits, "inputs", self.get_name(), start)
        return features, logits

    def _block_features(self, inputs: Batch) -> Tensor:
        """Features of a block of :meth:`blocks`, in passes of at most ``batch_size``.

        A pass is spared where the network's decision took one, unless it is needed for its graph.
        """
        if self._decided is not None and self._decided[0] is inputs and not torch.is_grad_enabled():
            return self._decided[1]
        return torch.cat([self.extract(part)[0] for part in split(inputs, self.batch_size)])


def _with_subclasses(kind: type[Made]) -> Iterator[type[Made]]:
    """A class and all that derive from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from _with_subclasses(derived)


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
