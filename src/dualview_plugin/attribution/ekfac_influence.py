"""Influence functions of the whole network with its curvature in Kronecker factors, eigenvalues corrected."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from dualview_plugin.attribution.base import CommonOptions
from dualview_plugin.attribution.common.output_gradients import OutputGradients
from dualview_plugin.batches import Batch, n_rows, split
from dualview_plugin.data import RangeStream, TrainData
from dualview_plugin.errors import InvalidValueError, LeftOutWarning
from dualview_plugin.gradients import Direction, Logits, SampleGradients, count_uses, differentiable, select_parameters
from dualview_plugin.network import evaluating
from dualview_plugin.validation import check_positive

# What counts by default: those that are not taken are refused, and not left out.
_WITH_A_WEIGHT = (nn.Linear, nn.modules.conv._ConvNd)
_NEVER_COUNTED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm)


class EKFACInfluence(OutputGradients):
    """τ_i(x, c) = ⟨∇L(x, c), (F + damping)⁻¹ ∇L(x_i, y_i)⟩, F the Fisher information in Kronecker factors.

    F is block-diagonal over linear and convolutional layers. With the eigenvectors U_A of the layer's mean input
    products and U_S of its mean output-gradient products, its block is (U_A ⊗ U_S) Λ (U_A ⊗ U_S)ᵀ. Λ holds the mean
    squares of the gradient's entries in these coordinates. All means are over the training points and over labels with
    the network's probabilities: the sum over all labels, not a sample.

    Args:
        model, final_fc_layer, train_dataset, **common: see :class:`DataAttribution`.
        damping: added to Λ of each layer, as a share of the layer's mean of Λ.
        layers: linear layers and 2d convolutions or their dotted names; None: all linear and convolutional layers, of
            which others than these are refused. The final layer alone gives influence functions of the last layer, by
            an approximation of its Hessian.
        memory_budget: see :class:`GradientSimilarity`.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint; a layer is neither linear nor
            convolutional, has groups or other padding than zeros, runs more than once, or shares its parameters.

    Warns:
        LeftOutWarning: ``layers`` is None, and other layers have matrices: recurrent ones, scripted ones, linear layers
            of another class.

    Source: George et al. 2018 (arXiv 1806.03884), algorithm 1; Grosse et al. 2023 (arXiv 2308.03296), section 2.2.

    Differs: labels in F are summed over, where kronfluence draws one for each training point. Parameters of other
    layers, such as norms, do not count, as there. Of a linear layer at each token, tokens on which no output depends,
    such as padding, do not count in the input products; there a mask says so.

    Cost: fit: n_classes + 1 backward passes over the training set and its gradients as whole vectors, n_classes times.
    attribute: a pass over the training set for each block of test points, n_test · n_train · n_parameters.

    Example:
        >>> import torch
        >>> from dualview_plugin import EKFACInfluence
        >>> x, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4 % 2
        >>> train = torch.utils.data.TensorDataset(x, labels)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> method = EKFACInfluence(network, "0", train, show_progress=False)
        >>> attributions = method.attribute(torch.eye(4)[:1], target=0)
        >>> attributions.shape, bool(attributions[0, 0] > 0)
        (torch.Size([1, 12]), True)
    """

    _blocks_of: dict[str, _Block]
    _slices: dict[str, slice]

    def __init__(
        self,
        model: nn.Module,
        final_fc_layer: nn.Module | str,
        train_dataset: TrainData,
        *,
        damping: float = 0.1,
        layers: Collection[nn.Module | str] | None = None,
        memory_budget: int = 2**30,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, final_fc_layer, train_dataset, layers=layers, memory_budget=memory_budget, **common)
        self.damping = check_positive(damping, "damping", self.get_name())
        self._counted_layers()  # refuses what it does not take

    def _counted_layers(self) -> tuple[str, ...]:
        """The linear and convolutional layers that were chosen."""
        modules = dict(self.model.named_modules())
        if self.layers is None:
            found = tuple(name for name, module in modules.items() if isinstance(module, _WITH_A_WEIGHT))
        else:
            first = {id(module): name for name, module in modules.items()}
            found = tuple(first[id(self.model.get_submodule(name))] for name in self.layers)
        if not found:
            raise InvalidValueError("model", self.get_name(), "a network with linear or convolutional layers", "none")
        for name in found:
            _check_layer(name, modules[name], self.get_name())
        self._check_own_parameters(found)
        return found

    def _check_own_parameters(self, layers: Collection[str]) -> None:
        """Refuse layers whose parameters another module uses too, and those that compute their weight from others."""
        held = [list(module._parameters.values()) for module in self.model.modules()]
        uses = Counter(id(parameter) for parameters in held for parameter in parameters)
        for name in layers:
            layer = self.model.get_submodule(name)
            own = {id(parameter) for parameter in layer._parameters.values()}
            made = layer._parameters.keys() != {"weight", "bias"}  # of others, as by pruning and norms of weights
            if made or any(id(parameter) not in own or uses[id(parameter)] > 1 for parameter in layer.parameters()):
                raise self._not_its_own(name)

    def _not_its_own(self, name: str) -> InvalidValueError:
        constraint = "layers with a weight and a bias of their own, shared with no other and not parametrized"
        return InvalidValueError("layers", self.get_name(), constraint, repr(name))

    def _start(self) -> None:
        super()._start()
        chosen = select_parameters(self.model, self._counted_layers(), self.get_name())
        self._slices, start = {}, 0
        for name, parameter in chosen.items():
            self._slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()

    def _fit(self) -> None:
        self._check_runs()
        super()._fit()
        self._blocks_of = self._kept("curvature", self._curvature)

    def _curvature(self) -> dict[str, _Block]:
        """The inverse of each layer's curvature."""
        blocks = self._eigenbases()
        squares: dict[str, Any] = dict.fromkeys(blocks, 0.0)
        for gradients, weights in self._gradients_at_all_labels():
            for name, block in blocks.items():
                squares[name] = squares[name] + self._squares(name, block, gradients, weights)
        for name, block in blocks.items():
            values = squares[name] / self.n_train_
            mean = float(values.mean())
            block.inverse = 1 / (values + self.damping * mean if mean > 0 else values + 1)
        return blocks

    def _check_runs(self) -> None:
        """Refuse layers that do not run once or whose parameters are used elsewhere, on a few training points.

        Warns:
            LeftOutWarning: matrices of other layers do not count, and the caller has not said so.
        """
        names, owner = self._counted_layers(), self.get_name()
        chosen = select_parameters(self.model, names, owner)
        with evaluating(self.model), differentiable(self.model, chosen):
            with self._recorded(names) as calls:
                logits = Logits(self.extractor.call, self.extractor.doubles_single)(self._probe_now().inputs)
            self._used_calls(calls, logits.double().log_softmax(1))
            shared = [name for name, uses in count_uses(logits, chosen).items() if uses > 1]
        if shared:
            raise self._not_its_own(shared[0].rpartition(".")[0])
        if self.layers is None:
            self._warn_of_others(chosen)

    def _warn_of_others(self, chosen: Mapping[str, nn.Parameter]) -> None:
        """Say which matrices do not count; those of embeddings and norms do not, here and elsewhere."""
        without = [module for module in self.model.modules() if isinstance(module, _NEVER_COUNTED)]
        known = {id(parameter) for module in without for parameter in module.parameters()}
        known |= {id(parameter) for parameter in chosen.values()}
        others = {
            name: parameter.numel()
            for name, parameter in self.model.named_parameters()
            if parameter.ndim > 1 and id(parameter) not in known
        }
        if others:
            share = sum(others.values()) / sum(parameter.numel() for parameter in self.model.parameters())
            names = ", ".join(list(others)[:3]) + (", …" if len(others) > 3 else "")
            warnings.warn(
                f"{self.get_name()} counts linear and convolutional layers alone, and leaves {share:.0%} of the"
                f" parameters out: {names}; pass layers= to choose",
                LeftOutWarning,
                stacklevel=2,
            )

    def _squares(self, name: str, block: _Block, gradients: SampleGradients, weights: Tensor) -> Tensor:
        """Weighted sums of squares of a layer's gradients in its eigenvectors, (n_outputs, n_inputs), in float64."""
        factors = self._single_factors(name, gradients)
        if factors is not None:
            left, right = (
                (factor.double() @ basis).square() for factor, basis in zip(factors, block.bases, strict=True)
            )
            return (weights[:, None] * left).mT @ right
        weight = self._own(f"{name}.weight", gradients)
        rows = weight.reshape(len(gradients), len(block.left), -1)
        if f"{name}.bias" in self._slices:
            rows = torch.cat([rows, self._own(f"{name}.bias", gradients)[:, :, None]], 2)
        return torch.einsum("n,nrc->rc", weights, block.rotated(rows).square())

    def _single_factors(self, name: str, gradients: SampleGradients) -> tuple[Tensor, Tensor] | None:
        """The layer's gradients as one outer product each, (n, n_outputs) and (n, n_inputs), if they are that.

        Those of a weight are for a linear layer that sees one row for each sample; with a bias, whose gradient is then
        the left factor, a one stands behind the right one.
        """
        product = gradients.outer.get(f"{name}.weight")
        if product is None or product.one_hot or product.right.shape[1] != 1:
            return None
        left, right = product.left[:, 0], product.right[:, 0]
        if f"{name}.bias" not in self._slices:
            return left, right
        same = torch.equal(self._own(f"{name}.bias", gradients), left)
        return (left, pad(right, (0, 1), value=1.0)) if same else None

    def _own(self, parameter: str, gradients: SampleGradients) -> Tensor:
        """The gradients in one parameter, (n, its size)."""
        product = gradients.outer.get(parameter)
        if product is not None:
            return product.matrices().flatten(1)
        held = [name for name in self._slices if name not in gradients.outer]
        return gradients.parts[held.index(parameter)]

    def _gradients_at_all_labels(self) -> Iterator[tuple[SampleGradients, Tensor]]:
        """Gradients of log p_c at training points, with p_c in float64, (n,), for every class c."""
        size = self._pass_size
        for inputs, labels in self._training_batches():
            for part in split(inputs, size):
                with torch.no_grad():
                    probabilities = self.extractor(part)[1].double().softmax(1)
                for label in range(self.n_classes_):
                    target = labels.new_full((n_rows(part),), label)
                    yield self._gradients(part, target), probabilities[:, label]

    def _eigenbases(self) -> dict[str, _Block]:
        """The eigenvectors of the mean products of inputs and of output gradients, for each layer."""
        names = self._counted_layers()
        logits = Logits(self.extractor.call, self.extractor.doubles_single)
        factors: dict[str, list[Any]] = {name: [0.0, 0.0] for name in names}
        chosen = select_parameters(self.model, names, self.get_name())
        with evaluating(self.model), differentiable(self.model, chosen):
            for positions, inputs, _ in self._numbered_batches():
                with self._recorded(names) as calls:
                    outputs = logits(inputs)
                self._check_finite_training(outputs, positions)
                log_probabilities = outputs.double().log_softmax(1)
                weights = log_probabilities.detach().exp().sqrt()
                used = self._used_calls(calls, log_probabilities)
                ends = [output for _, output in used.values()]
                counted = {name: torch.zeros((), dtype=torch.bool, device=outputs.device) for name in used}
                for label in range(self.n_classes_):
                    value = (weights[:, label] * log_probabilities[:, label]).sum()
                    for name, slope in zip(used, torch.autograd.grad(value, ends, retain_graph=True), strict=True):
                        rows = _output_rows(slope).double()
                        factors[name][1] = factors[name][1] + rows.mT @ rows
                        counted[name] = counted[name] | (rows != 0).any(1)
                for name, (seen, _) in used.items():
                    self._check_finite_training(seen, positions)
                    rows = _input_rows(self.model.get_submodule(name), seen).double()
                    if isinstance(self.model.get_submodule(name), nn.Linear) and seen.ndim > 2:
                        rows = rows[counted[name]]  # without padding
                    factors[name][0] = factors[name][0] + rows.mT @ rows
        return {
            name: _Block(
                torch.linalg.eigh(outgoing)[1],
                torch.linalg.eigh(incoming)[1],
            )
            for name, (incoming, outgoing) in factors.items()
        }

    @contextmanager
    def _recorded(self, names: Collection[str]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
        """What each layer sees and gives in the forward passes of the block."""
        calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}

        def recorder(name: str) -> Any:
            def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
                (seen,) = args or kwargs.values()
                calls[name].append((seen.detach().clone(), output))
                return output.clone()  # a later layer may write to it

            return record

        handles = [
            self.model.get_submodule(name).register_forward_hook(recorder(name), with_kwargs=True) for name in names
        ]
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()

    def _used_calls(
        self, calls: dict[str, list[tuple[Tensor, Tensor]]], outputs: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The one run of each layer on which the outputs depend; refuses layers with several such runs, or none."""
        used = {}
        for name, runs in calls.items():
            runs = [run for run in runs if run[1].requires_grad]
            ends = [output for _, output in runs]
            slopes = torch.autograd.grad(outputs.sum(), ends, retain_graph=True, allow_unused=True) if ends else ()
            reaching = [run for run, slope in zip(runs, slopes, strict=True) if slope is not None]
            if len(reaching) != 1:
                constraint = (
                    "layers that the outputs depend on by exactly one run in a forward pass: choose them by layers="
                )
                raise InvalidValueError("layers", self.get_name(), constraint, f"{name!r} with {len(reaching)} runs")
            used[name] = reaching[0]
        return used

    def _matrix(self, name: str, gradients: Tensor) -> Tensor:
        """A layer's gradients (n, n_outputs, n_inputs), the bias' in a last column, from whole vectors."""
        weight = gradients[:, self._slices[f"{name}.weight"]]
        rows = weight.reshape(len(gradients), len(self._blocks_of[name].left), -1)
        if f"{name}.bias" not in self._slices:
            return rows
        return torch.cat([rows, gradients[:, self._slices[f"{name}.bias"], None]], 2)

    def _solved(self, gradients: Tensor) -> Tensor:
        """(F + damping)⁻¹ times the gradients (n, n_parameters)."""
        result = torch.zeros_like(gradients)
        for name, block in self._blocks_of.items():
            matrix = block.solved(self._matrix(name, gradients))
            bias = f"{name}.bias" in self._slices
            result[:, self._slices[f"{name}.weight"]] = (matrix[..., :-1] if bias else matrix).flatten(1)
            if bias:
                result[:, self._slices[f"{name}.bias"]] = matrix[..., -1]
        return result

    @property
    def block_size(self) -> int:
        """Test points whose gradients as whole vectors take a quarter of the memory budget."""
        return min(super().block_size, self._pass_size)

    def _test_state(self, inputs: Batch, target: Tensor) -> Tensor:
        return torch.cat([self._solved(part) for part in self._flat_parts(inputs, target)])

    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return (state @ self._flat(train).mT for train in self._training_gradients(stream))

    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]:
        return map(self._own_of, self._training_gradients(stream))

    def _own_of(self, train: SampleGradients) -> Tensor:
        """The attributions of training points to themselves."""
        gradients = self._flat(train)
        return (gradients * self._solved(gradients)).sum(1)

    def _directions(self, train_indices: Tensor) -> Tensor:
        return self._solved(super()._directions(train_indices))

    def _direction_sum(self, train_indices: Tensor) -> Direction:
        vector = super()._direction_sum(train_indices).vector()
        return self._gradients.split_vector(self._solved(vector[None])[0])


@dataclass
class _Block:
    """A layer's curvature in its eigenvectors, in float64.

    Args:
        left: U_S, (n_outputs, n_outputs).
        right: U_A, (n_inputs, n_inputs).
        inverse: 1 / (Λ + damping), (n_outputs, n_inputs), once it is known.
    """

    left: Tensor
    right: Tensor
    inverse: Tensor | None = None

    @property
    def bases(self) -> tuple[Tensor, Tensor]:
        """The eigenvectors of both sides."""
        return self.left, self.right

    def rotated(self, matrices: Tensor) -> Tensor:
        """U_Sᵀ G U_A for each matrix G."""
        return self.left.mT @ matrices.double() @ self.right

    def solved(self, matrices: Tensor) -> Tensor:
        """The inverse of the damped curvature times each matrix."""
        assert self.inverse is not None  # set by the fit
        return (self.left @ (self.rotated(matrices) * self.inverse) @ self.right.mT).to(matrices)


def _check_layer(name: str, module: nn.Module, owner: str) -> None:
    """Refuse a layer for which the factors here are not those of its gradient."""
    plain = isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
    if not plain:
        constraint = "linear layers, and 2d convolutions without groups, with a number of zeros as padding"
        raise InvalidValueError("layers", owner, constraint, f"{name!r}: {module}")


def _input_rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What the layer's weight is multiplied with, one row for each position, a one behind it for the bias."""
    if isinstance(layer, nn.Conv2d):
        sizes: Any = {"dilation": layer.dilation, "padding": layer.padding, "stride": layer.stride}
        inputs = unfold(inputs, layer.kernel_size, **sizes).mT
    rows = inputs.flatten(0, -2)
    return rows if layer.bias is None else pad(rows, (0, 1), value=1.0)


def _output_rows(slope: Tensor) -> Tensor:
    """The gradient at the layer's output, one row for each position."""
    return slope.flatten(2).mT.flatten(0, 1) if slope.ndim == 4 else slope.flatten(0, -2)


EKFACInfluence._state_classes = (_Block,)
