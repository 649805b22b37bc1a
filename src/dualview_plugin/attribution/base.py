"""What every data attribution method has in common: Captum's calls, Quantus' call, input maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, overload

import numpy as np
import torch
from captum.attr import Attribution
from captum.influence import DataInfluence
from captum.influence._utils.common import KMostInfluentialResults
from torch import Tensor, nn
from tqdm import tqdm

from dualview_plugin.attribution.common.blocks_of_tests import BlocksOfTests
from dualview_plugin.attribution.common.fitted_method import FitMark, FittedMethod
from dualview_plugin.attribution.common.joined_maps import joined_maps
from dualview_plugin.attribution.common.quantus_call import map_as_array, network_of, no_metric_reads_maps, unread_map
from dualview_plugin.attribution.common.sweeps import OwnScores, Scores, check_finite_scores, strongest_of
from dualview_plugin.attribution.common.targets import Target, checked_target
from dualview_plugin.attribution.common.top_points import warn_of_lost_values, warn_of_underflow, warn_of_zeros
from dualview_plugin.batches import Batch, leaves, mapped, structure
from dualview_plugin.data import (
    Inputs,
    LabelFunction,
    RangeStream,
    SeenSamples,
    TestInputs,
    TrainData,
    TrainingData,
    with_arguments,
)
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.network import (
    Forward,
    checked_function,
    differentiable_at,
    fingerprint,
    layer_name,
    only_point,
    rules_set_aside,
)
from dualview_plugin.storage import Storage
from dualview_plugin.validation import check_flag, check_integer


class CommonOptions(TypedDict, total=False):
    """The keyword arguments that every method takes; :class:`DataAttribution` documents them."""

    batch_size: int
    device: torch.device | str | None
    cache_dir: str | Path | Storage | None
    show_progress: bool
    forward: Forward | None
    label_fn: LabelFunction | None
    output: int | None


class DataAttribution(FittedMethod, BlocksOfTests, Attribution, DataInfluence):  # type: ignore[misc]
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
        self.show_progress = check_flag(show_progress, "show_progress", owner)
        self.cache_dir = cache_dir
        self._storage = Storage.of(cache_dir, owner)
        self._data = TrainingData(train_dataset, self.batch_size, owner, label_fn, self.output)
        self.device = _checked_device(self.model, device, owner)
        self._probe, self._known = None, None
        self._fitted = self._visiting = False
        self._fit_mark = FitMark()
        self._refitted = None
        self._decided = None
        self._seen = SeenSamples(len(self._data))

    # ------------------------------------------------------------------ what a method implements

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

    # Whether attributions cost so much more than their memory that metrics keep them for each other.
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

    @property
    def _score_dtype(self) -> torch.dtype:
        """The type in which a pass computes attributions."""
        return self._dtype

    @property
    def block_size(self) -> int:
        """Test points in a block of :meth:`attribute_blocks`."""
        return self.batch_size

    # ------------------------------------------------------------------ attributions

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

        Args:
            inputs: as in :meth:`attribute`.
            target: as in :meth:`attribute`.

        Raises:
            InvalidTypeError, InvalidValueError, StaleFitError: as :meth:`attribute`, each before or at its block.
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

        Raises:
            InvalidValueError: ``k`` is above n_train; else as :meth:`attribute`.

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
        """:meth:`influence` with a ``k``, the same arguments and errors, and no :class:`SparseAttributionWarning`."""
        if check_integer(k, "k", self.get_name()) > self.n_train_:
            raise InvalidValueError("k", self.get_name(), f"at most n_train = {self.n_train_}", repr(k))
        proponents = check_flag(proponents, "proponents", self.get_name())
        with self.visit():
            test = self._fitted_for(inputs, target)
            with tqdm(total=len(test), desc=self.get_name(), disable=not show_progress) as bar:
                return self._strongest_of(test, target, k, proponents, bar.update)

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

    def _fitted_for(self, inputs: Inputs, target: Target) -> TestInputs:
        """The test inputs, once they and their target are checked and then the method is fitted."""
        test = self.test_inputs(inputs)
        checked_target(target, len(test), self._probe_now().n_classes, self.get_name())
        self.ensure_fitted()
        return test

    # ------------------------------------------------------------------ maps of the test inputs

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
