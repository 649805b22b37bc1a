"""Similarity from the network's perspective: inner products of gradients in all parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import reduce
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dualview_plugin.attribution.base import CommonOptions, DataAttribution
from dualview_plugin.batches import Batch, leaves, mapped, samples, split
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.gradients import (
    Direction,
    OuterProducts,
    PerSampleGradients,
    SampleGradients,
    cheaper_inner_product,
)
from dualview_plugin.network import Caller, layer_name
from dualview_plugin.validation import check_flag, check_integer


class GradientSimilarity(DataAttribution):
    """τ_i(x, c) = ⟨∇_θ f_c(x), ∇_θ f_{y_i}(x_i)⟩ / ‖∇_θ f_{y_i}(x_i)‖, over all parameters θ.

    Gradients are exact and never written out whole: a linear layer's stays an outer product of its input and its output
    gradient, a convolution's becomes its own small matrix or outer products, whichever is cheaper, and so on for each
    layer (:class:`PerSampleGradients`). Shared parameters count once, with the gradient summed over their uses.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`. The samples of a batch must not
            interact. Any network that autograd differentiates will do, whatever its final layer.
        normalize_train: divide by the norm of each training gradient; False: the plain inner product.
        layers: modules or their dotted names whose parameters θ count, frozen or not; None: the whole network.
        memory_budget: bytes for the gradients and attributions of a block of test points and a batch of training
            points; a smaller budget takes more passes over the training set. Activations come on top, and the
            gradient of the largest parameter, which is held once.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; the network's samples interact, or it
            uses other parameters for other batches.

    Source: Charpiat et al. 2019 (arXiv 1907.03085); Yolcu et al. 2024 (arXiv 2402.12118), equation for SIM.

    Cost: a forward and a backward pass over the training set for each block of test points, and for each pair of a test
    and a training point, for each layer, n_in + n_out if it is linear and at most its number of weights otherwise.

    Example:
        >>> import torch
        >>> from dualview_plugin import GradientSimilarity
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = GradientSimilarity(network, "0", train, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> attributions.shape, bool(attributions[0, 0] > 0)
        (torch.Size([1, 12]), True)
    """

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        normalize_train: bool = True,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, **common)
        self.normalize_train = check_flag(normalize_train, "normalize_train", self.get_name())
        self.layers = _layer_names(self.model, layers, self.get_name())
        self.memory_budget = check_integer(memory_budget, "memory_budget", self.get_name())

    def _fit(self) -> None:
        self._start()
        self._training_labels()

    _remade: ClassVar[frozenset[str]] = frozenset({"_gradients", "_layout"})
    # Of which output gradients are, in the names of their stores.
    _of_output: ClassVar[str] = ""

    def _resume(self) -> None:
        self._start()

    def _start(self) -> None:
        """Gradients of the network as it is now, and the memory that one of them takes."""
        self._gradients = PerSampleGradients(
            self._differentiated(),
            self._counted_layers(),
            owner=self.get_name(),
            doubles_single=self.extractor.doubles_single,
            prefers_outer=self._prefers_outer,
        )
        probe = self._probe_now()  # whose padding is that of no batch, so that the layout is the same for all sizes
        self._layout = self._gradients(probe.inputs, probe.labels.to(self.device))

    def _differentiated(self) -> Caller:
        """The map from a batch to what is differentiated."""
        return self.extractor.call

    def _counted_layers(self) -> tuple[str, ...] | None:
        """Dotted names of the modules whose parameters count; None: the whole network."""
        return self.layers

    def _prefers_outer(self, product: OuterProducts) -> bool:
        """In which form the gradients of a matrix are held."""
        return cheaper_inner_product(product)

    @property
    def block_size(self) -> int:
        """Test points whose gradients and attributions take half the memory budget."""
        self.ensure_fitted()
        each = self._layout.bytes_per_sample + self._layout.like.element_size() * self.n_train_
        return max(1, self.memory_budget // (2 * each))

    _sweeps = True
    _costly = True

    def _test_state(self, inputs: Batch, target: Tensor) -> Any:
        return self._gradients_of(inputs, target)

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return (state.inner(self._normalised(train)) for train in self._training_gradients(stream))

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        for train in self._training_gradients(stream):
            norms = train.norms()
            yield (norms if self.normalize_train else norms.square()).to(self._score_dtype)

    @property
    def _score_dtype(self) -> torch.dtype:
        return self._layout.like.dtype

    def _pair_attribution(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Tensor:
        """Values and slopes of the pairs, detached: a full graph would keep a vector of the size of θ for each."""
        each = train_indices.shape[1] * self._gradients.n_parameters * self._layout.like.element_size()
        size = max(1, self.memory_budget // (2 * each))
        rows = []
        for batch, classes, indices in zip(
            *(split(part, size) for part in (inputs, target, train_indices)), strict=True
        ):
            directions = self._directions(indices.flatten()).view(*indices.shape, -1)
            rows += [self._linearised(*point) for point in zip(samples(batch), classes, directions, strict=True)]
        return torch.stack(rows)

    def _linearised(self, sample: Batch, label: Tensor, directions: Tensor) -> Tensor:
        """Attributions (k,) of one test point along the directions (k, n_parameters), and their slope in the sample."""
        with torch.enable_grad():
            point = mapped(lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad), sample)
            values = self._gradients.directional_derivatives(point, label, directions)
            linear = values.detach()
            for leaf, own in zip(leaves(sample), leaves(point), strict=True):
                if own.requires_grad and values.requires_grad:
                    slopes = [
                        torch.autograd.grad(value, own, retain_graph=True, materialize_grads=True, allow_unused=True)[0]
                        for value in values
                    ]
                    linear = linear + torch.stack(slopes).flatten(1) @ (leaf - leaf.detach()).flatten()
        return linear

    def _evidence(self, inputs: Batch, target: Tensor, train_indices: Tensor) -> Callable[[Batch], Tensor]:  # noqa: ARG002
        """The summed attributions of one test point: the derivative along the sum of directions."""
        direction = self._direction_sum(train_indices.flatten())
        return lambda point: self._gradients.derivative_along(point, target[0], direction)

    @torch.no_grad()
    def _direction_sum(self, train_indices: Tensor) -> Direction:
        """The sum of the directions of these training points, in factors and never as whole vectors."""
        parts = (
            self._normalised(self._gradients(self.training_inputs(part), self.train_labels_[part]))
            for part in torch.split(train_indices, self._pass_size)
        )
        return reduce(Direction.plus, map(self._gradients.sum_of, parts))

    @property
    def _map_size(self) -> int:
        return 1  # the graph of a gradient is as large as θ

    def _directions(self, train_indices: Tensor) -> Tensor:
        """What the gradient of a test point is multiplied with, for these training points: (n, n_parameters).

        :meth:`_direction_sum` must give their sum.
        """
        inputs, labels = self.training_inputs(train_indices), self.train_labels_[train_indices]
        gradients = self._gradients.flat(inputs, labels)
        if not self.normalize_train:
            return gradients
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True, dtype=torch.float64).to(gradients)
        return gradients / torch.where(norms > 0, norms, 1.0)

    def _normalised(self, train: SampleGradients) -> SampleGradients:
        """What test gradients are multiplied with."""
        return train.normalised() if self.normalize_train else train

    def _gradients_of(self, inputs: Batch, target: Tensor) -> SampleGradients:
        """The gradients of a block of test points, from passes of at most ``batch_size``."""
        parts = zip(split(inputs, self._pass_size), split(target, self._pass_size), strict=True)
        return SampleGradients.stack(self._gradients(*part) for part in parts)

    @property
    def _pass_size(self) -> int:
        """Samples in a pass, so that their gradients take at most a quarter of the memory budget."""
        return max(1, min(self.batch_size, self.memory_budget // (4 * max(1, self._layout.bytes_per_sample))))

    def _training_gradients(self, stream: RangeStream | None = None) -> Iterator[SampleGradients]:
        """The gradients of all training points, or of those in a stream, at their labels, pass by pass in order."""
        with tqdm(total=self.n_train_, desc="training gradients", disable=not self.show_progress, leave=False) as bar:
            for rows, inputs, labels in self._numbered_batches(stream):
                start = rows.start
                for part in zip(split(inputs, self._pass_size), split(labels, self._pass_size), strict=True):
                    gradients = self._gradients(*part)
                    self._check_finite(gradients, start)
                    yield gradients
                    start += len(gradients)
                    bar.update(len(gradients))

    def _check_finite(self, gradients: SampleGradients, start: int) -> None:
        """Refuse training points, the first of them at position ``start``, whose gradients are not finite."""
        wrong = ((~gradients.is_finite()).nonzero()[:, 0] + start).tolist()
        if wrong:
            got = f"NaN or inf at position{'s' if len(wrong) > 1 else ''} {', '.join(map(str, wrong[:5]))}"
            raise InvalidValueError("train_dataset", self.get_name(), "data with finite gradients", got)


def _layer_names(model: nn.Module, layers: Collection[nn.Module | str] | None, owner: str) -> tuple[str, ...] | None:
    """The dotted names of the layers; refuses what is no layer of the model, and a choice without parameters."""
    if layers is None:
        return None
    if isinstance(layers, (str, nn.Module)):
        raise InvalidTypeError("layers", owner, "a list of modules or of their dotted names", repr(layers))
    chosen = [layer_name(model, layer, "layers", owner) for layer in layers]
    if not any(True for name in chosen for _ in model.get_submodule(name).parameters()):
        raise InvalidValueError("layers", owner, "layers with parameters", repr(layers))
    return tuple(chosen)
