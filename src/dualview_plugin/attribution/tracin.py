"""TracIn: gradients of the loss, compared at checkpoints of the training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.attribution.common.output_gradients import OutputGradients
from dualview_plugin.attribution.gradient_similarity import GradientSimilarity, _layer_names
from dualview_plugin.attribution.projected_gradient_similarity import ProjectedGradientSimilarity
from dualview_plugin.batches import Batch, plus, scaled
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, StaleFitError
from dualview_plugin.network import guest, model_fingerprint
from dualview_plugin.validation import check_integer, check_positive

Values = TypeVar("Values")
_STATES = "_part_states"
Checkpoint = Mapping[str, Any] | str | Path


class _LossSimilarity(OutputGradients):
    """⟨∇L(x, c), ∇L(x_i, y_i)⟩ at the network as it is."""

    @classmethod
    def get_name(cls) -> str:
        """That of the method which it is a part of."""
        return TracIn.get_name()


class _ProjectedLossSimilarity(OutputGradients, ProjectedGradientSimilarity):
    """The same after a random projection."""

    @classmethod
    def get_name(cls) -> str:
        """That of the method which it is a part of."""
        return TracIn.get_name()


class TracIn(DataAttribution):
    """τ_i(x, c) = Σ_t η_t ⟨∇_θ L(x, c; θ_t), ∇_θ L(x_i, y_i; θ_t)⟩ over checkpoints θ_t, L the cross entropy.

    Checkpoints are loaded into copies of the network. The network itself stays as it is, and gives the decisions.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        checkpoints: state dictionaries, or files of them that ``torch.load(…, weights_only=True)`` reads; None: the
            network's own weights.
        learning_rates: η_t, positive, one for each checkpoint; None: 1 for all.
        layers: modules or their dotted names whose parameters θ count; None: the whole network. The final layer alone
            is Captum's ``TracInCPFast``.
        n_components: rows of a Gaussian random projection, as in :class:`ProjectedGradientSimilarity`; None: exact.
        seed: of the projection.
        memory_budget: see :class:`GradientSimilarity`.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; a checkpoint does not fit the network;
            another network is to be explained, for which there are no checkpoints.

    Source: Pruthi et al. 2020 (arXiv 2002.08484), equation 1 of section 3.2 (TracInCP) and section 3.4 (projection).

    Differs: Captum's ``TracInCP`` leaves the last checkpoint's weights in the network; its fast variants leave out the
    final layer's bias.

    Cost: for each checkpoint that of :class:`GradientSimilarity`, or with ``n_components`` that of
    :class:`ProjectedGradientSimilarity`; memory for one network a checkpoint.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import TracIn
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
        >>> network = nn.Sequential(nn.Linear(4, 2))
        >>> early = {name: value.clone() for name, value in network.state_dict().items()}
        >>> method = TracIn(network, "0", data, checkpoints=[early], learning_rates=[0.1], show_progress=False)
        >>> method.attribute(torch.eye(4)[:3]).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        checkpoints: Sequence[Checkpoint] | None = None,
        learning_rates: Sequence[float] | None = None,
        layers: Collection[nn.Module | str] | None = None,
        n_components: int | None = None,
        seed: int = 0,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        owner = self.get_name()
        self.checkpoints = _checked_checkpoints(checkpoints, owner)
        count = 1 if self.checkpoints is None else len(self.checkpoints)
        rates = [1.0] * count if learning_rates is None else learning_rates
        self.learning_rates = tuple(check_positive(rate, "learning_rates", owner) for rate in rates)
        if len(self.learning_rates) != count:
            constraint = f"one for each of the {count} checkpoints"
            raise InvalidValueError("learning_rates", owner, constraint, f"{len(self.learning_rates)}")
        self.n_components = None if n_components is None else check_integer(n_components, "n_components", owner)
        self.seed = check_integer(seed, "seed", owner, minimum=0)
        self.memory_budget = check_integer(memory_budget, "memory_budget", owner)
        self.layers = _layer_names(self.model, layers, owner)
        self._parts: list[GradientSimilarity] = []

    _marks: list[str]

    def _part(self, network: nn.Module) -> GradientSimilarity:
        """The similarity at one checkpoint, which the network has loaded."""
        common: Any = {name: self._arguments[name] for name in CommonOptions.__annotations__ if name in self._arguments}
        common |= {"cache_dir": self.cache_dir, "show_progress": self.show_progress}
        arguments = network, self.extractor.layer_name, self.train_dataset
        if self.n_components is None:
            return _LossSimilarity(*arguments, layers=self.layers, memory_budget=self.memory_budget, **common)
        return _ProjectedLossSimilarity(
            *arguments,
            layers=self.layers,
            memory_budget=self.memory_budget,
            n_components=self.n_components,
            seed=self.seed,
            **common,
        )

    def _fit(self) -> None:
        self._training_labels()
        self._parts = [self._part(network).fit() for network in self._networks()]
        self._marks = [_mark(part) for part in self._parts]

    def _learned(self) -> dict[str, Any]:
        """With what was learned at each checkpoint; the checkpoints themselves are given anew, as the network is."""
        return {**super()._learned(), _STATES: [part._learned() for part in self._parts]}

    def _resume(self) -> None:
        """Make the similarities at the checkpoints anew.

        Raises:
            StaleFitError: they are other checkpoints.
        """
        states, networks = self.__dict__.pop(_STATES), self._networks()
        if len(states) != len(networks):
            raise self._stale(f"{len(networks)} in place of {len(states)}")
        self._parts = []
        for position, (network, state) in enumerate(zip(networks, states, strict=True)):
            part = self._part(network)
            with part.visit():
                if _mark(part) != self._marks[position]:
                    raise self._stale(f"other weights at position {position}")
                part._restore(state)
            self._parts.append(part)

    def _stale(self, got: str) -> StaleFitError:
        return StaleFitError(f"checkpoints of {self.get_name()}.load must be those of the fit, got {got}")

    def _networks(self) -> list[nn.Module]:
        """The network itself, or a copy of it for each checkpoint."""
        if self.checkpoints is None:
            return [self.model]
        return [self._loaded(position, checkpoint) for position, checkpoint in enumerate(self.checkpoints)]

    def _loaded(self, position: int, checkpoint: Checkpoint) -> nn.Module:
        """A copy of the network with the weights of a checkpoint."""
        network, owner = self._copy(), self.get_name()
        try:
            state: Any = checkpoint
            if isinstance(checkpoint, (str, Path)):
                state = torch.load(checkpoint, map_location=self.device, weights_only=True)
            network.load_state_dict(state)
        except Exception as error:
            constraint = "state dictionaries of the network, or files of them"
            got = f"at position {position}: {' '.join(str(error).split())}"
            raise InvalidValueError("checkpoints", owner, constraint, got) from error
        return network

    def _copy(self) -> nn.Module:
        """A copy of the network; results of earlier passes that it keeps, which deepcopy refuses, are detached."""
        held = (value for module in self.model.modules() for value in vars(module).values())
        memo = {id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and not value.is_leaf}
        try:
            return copy.deepcopy(self.model, memo)
        except Exception as error:
            constraint = "a network that copy.deepcopy copies"
            raise InvalidValueError("model", self.get_name(), constraint, " ".join(str(error).split())) from error

    def rebuilt(self, model: nn.Module) -> Any:
        """This method for another network, which has no checkpoints but its own weights."""
        if self.checkpoints is not None:
            constraint = "the network of the checkpoints; make the object for another network with that one's"
            raise InvalidValueError("model", self.get_name(), constraint, f"another {type(model).__name__}")
        return super().rebuilt(model)

    @property
    def explains_other_networks(self) -> bool:
        """Not with checkpoints, which are those of one network."""
        return self.checkpoints is None

    @property
    def block_size(self) -> int:
        """Test points in a block, as few as the largest checkpoint's gradients allow."""
        self.ensure_fitted()
        return min(part.block_size for part in self._parts)

    _costly = True

    @property
    def _sweeps(self) -> bool:  # type: ignore[override]
        return self.n_components is None

    @property
    def _score_dtype(self) -> torch.dtype:
        return self._parts[0]._score_dtype

    @property
    def _settings(self) -> dict[str, object] | None:
        """With the weights of the checkpoints."""
        settings = super()._settings
        return None if settings is None else {**settings, "checkpoints": self._marks}

    def _test_state(self, inputs: Batch, target: Tensor) -> list[Any]:
        states = []
        for part in self._parts:
            with part.visit():
                states.append(part._test_state(inputs, target))
        return states

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return self._pass(stream, [partial(part._scores, own) for part, own in zip(self._parts, state, strict=True)])

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return self._pass(stream, [part._own_scores for part in self._parts])

    def _pass(
        self, stream: RangeStream | None, parts: list[Callable[[RangeStream], Iterator[Tensor]]]
    ) -> Iterator[Tensor]:
        """Σ_t η_t times what a pass at checkpoint t gives for each range of a stream, or for all training points."""
        for rows in [range(self.n_train_)] if stream is None else stream.unread():
            total: Tensor | None = None
            for rate, part, network in zip(self.learning_rates, parts, self._parts, strict=True):
                with guest(network.model):
                    values = rate * torch.cat(list(part(RangeStream(self._data, [rows]))), -1)
                total = values if total is None else total + values
            assert total is not None  # there is a checkpoint
            yield total

    def _attribute_block(self, inputs: Batch, target: Tensor) -> Tensor:
        return self._summed(lambda part: part._attribute_block(inputs, target))

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        return self._summed(lambda part: part._pair_attribution(inputs, target, train_indices))

    def _block_maps(self, inputs: Batch, target: Tensor, train_indices: Tensor, at: str | None) -> Any:
        """Σ_t η_t times the maps at checkpoint t."""
        return self._summed(lambda part: part._block_maps(inputs, target, train_indices, at))

    @property
    def _map_size(self) -> int:
        return 1  # as for gradient similarity

    def _self_influence(self) -> Tensor:
        return self._summed(lambda part: part._self_influence())

    def _summed(self, values_of: Callable[[_LossSimilarity | _ProjectedLossSimilarity], Values]) -> Values:
        """Σ_t η_t times the values at checkpoint t: tensors, or structures of them."""
        total: Values | None = None
        for rate, part in zip(self.learning_rates, self._parts, strict=True):
            with part.visit():
                values: Values = scaled(rate, values_of(part))
            total = values if total is None else plus(total, values)
        assert total is not None  # there is a checkpoint
        return total


def _mark(part: GradientSimilarity) -> str:
    """What tells the network of a checkpoint from others."""
    return model_fingerprint(part.model, part._probe_now().plain)


def _checked_checkpoints(checkpoints: Any, owner: str) -> tuple[Checkpoint, ...] | None:
    """The checkpoints as a tuple; refuses one that stands alone, and none."""
    if checkpoints is None:
        return None
    constraint = "a sequence of state dictionaries or of their files"
    if isinstance(checkpoints, (str, Path, Mapping)) or not isinstance(checkpoints, Sequence):
        raise InvalidTypeError("checkpoints", owner, constraint, type(checkpoints).__name__)
    for checkpoint in checkpoints:
        if not isinstance(checkpoint, (str, Path, Mapping)):
            raise InvalidTypeError("checkpoints", owner, constraint, type(checkpoint).__name__)
    if not checkpoints:
        raise InvalidValueError("checkpoints", owner, constraint, "none")
    _refuse_shared(checkpoints, owner)
    return tuple(checkpoints)


def _refuse_shared(checkpoints: Sequence[Checkpoint], owner: str) -> None:
    """Refuse two state dictionaries of the same tensors, as ``state_dict()`` gives them at whatever step."""
    seen: dict[frozenset[int], int] = {}
    for position, checkpoint in enumerate(checkpoints):
        if isinstance(checkpoint, (str, Path)):
            continue
        tensors = [value for value in checkpoint.values() if isinstance(value, Tensor)]
        places = frozenset(tensor.data_ptr() for tensor in tensors if tensor.numel())
        if places and seen.setdefault(places, position) != position:
            constraint = "copies of the weights, such as copy.deepcopy(model.state_dict())"
            got = f"the same memory at positions {seen[places]} and {position}"
            raise InvalidValueError("checkpoints", owner, constraint, got)
