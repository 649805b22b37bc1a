"""Why this training point? Relevance of one attribution in the pixels, or the tokens, of both of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from zennit.core import Composite

from dualview_plugin.attribution.common.joined_maps import joined_maps
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.batches import Batch, mapped, rows_of, split
from dualview_plugin.data import Inputs, TestInputs
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.lrp.composites import as_composite
from dualview_plugin.lrp.conservation import SideBalance, warn_unless_conserved
from dualview_plugin.lrp.propagation import Propagation, check_carries
from dualview_plugin.network import layer_name
from dualview_plugin.validation import check_integer


@dataclass(frozen=True)
class RelevantPairs:
    """Pairs of a test input and a training input, with the relevance of both for the attribution that joins them.

    Attributes:
        test_relevance: where in the test input, (n_test, k, *input_shape), signed; with ``at`` a layer's output in
            place of the input, less its last axis: of tokens (n_test, k, n_tokens).
        train_relevance: where in the training input, likewise.
        attribution: τ_i(x, c), (n_test, k).
        train_indices: training points i, (n_test, k), int64.
        target: explained classes c, (n_test,), int64.
        intercept_share: the part α_ic of the attribution that an intercept adds and that belongs to no feature,
            (n_test, k); zeros without an intercept.
        conservation: Σ relevance / attribution on the test side and on the training side, (n_test, k, 2); NaN where the
            attribution is zero.

    How far to trust a heatmap: a conservation of 1 says that all of the attribution arrived in the pixels and that none
    was added. Less or more has these reasons, the harmless ones first:

    - Biases absorb relevance (and the shifts that a canonizer makes biases of): ``zero_params="bias"`` sends it on.
    - With ``softmax="taylor"`` of :func:`named_composite`, the constant of a softmax's expansion absorbs relevance in
      attention, up to half and more of it in networks with random weights.
    - Parts that do not depend on the input absorb it, such as a class token.
    - An intercept's share starts at no feature: ``conservation · attribution / (attribution − intercept_share)`` is
      free of it.
    - With standardised features a unit that is inactive at x, φ_m(x) = 0, still has a share, since zero lies off the
      mean. With a ReLU the share flows to the inputs that keep the unit inactive. It is conserved, but hard to read: it
      can be large, with both signs, where the pre-activation is close to zero. A larger ``epsilon`` damps it,
      ``standardize=False`` avoids it. If all pooled activations are zero, LRP has nowhere to send it and it is lost.
    - Shares of both signs that nearly cancel: what is lost of a large share is large beside a small sum.
    - A factor of 2 or a power of it: residual sums that no canonizer handles; a warning says so.

    A warning is given where the loss is above 0.2 of Σ_m |R_m| (above 2 where biases or other constants absorb
    relevance) and inactive units do not explain it. Where a class token or softmax's expansion absorbs more than a
    twentieth of what started, and no bias takes part, a warning says how much.
    """

    test_relevance: Tensor
    train_relevance: Tensor
    attribution: Tensor
    train_indices: Tensor
    target: Tensor
    intercept_share: Tensor
    conservation: Tensor

    def __getitem__(self, position: int | slice) -> RelevantPairs:
        """The pairs of the test point at this position, without the axis of test points, or of a slice of them."""
        return RelevantPairs(**{name: tensor[position] for name, tensor in vars(self).items()})


class PairwiseRelevance:
    """LRP from the penultimate features' shares of an attribution, to the test and the training input.

    R_m = α_ic φ_m(x_i) φ_m(x), with Σ_m R_m = τ_i(x, c): the relevance starts at the input of the final layer, at each
    unit's own share of the attribution, and a composite of Zennit carries it to the pixels of x, and likewise to those
    of x_i. Tokens get theirs at the output of the embedding. Features are as the kernel uses them: standardised where
    the surrogate is.

    Args:
        method: a method with a feature kernel: DualView or RepresenterPoints.
        composite: a composite of Zennit, with the canonizers that the network needs, or the name of one, which then
            gets those proposed for the network of each call (:func:`named_composite` also takes options).
        batch_size: pairs in one pass; None: the method's own batch size.

    Raises:
        InvalidTypeError: an attribution without a feature kernel, or something else than a composite.
        InvalidValueError: Zennit has no composite of this name.

    Source: Yolcu et al. 2024 (arXiv 2402.12118), section 6.

    Differs: the paper's own code starts from one of the factors, which Zennit takes for the relevance itself; here
    the start is the whole share, so that relevance sums to the attribution.

    Note:
        A composite's rule for average pooling sees modules only, such as ``nn.AdaptiveAvgPool2d``. Functions for it,
        and ``z.mean((2, 3))``, share relevance out evenly instead, so that maps differ from those of the module, unless
        the composite has a :class:`FunctionRules`.

        A name that ends in ``_flat`` gives the first linear layer a rule that ignores its inputs' values. Where that
        layer mixes tokens, take ``"epsilon_plus"``.

    Cost: one attribution, and for each side one forward and one backward pass per ``batch_size`` pairs. The inputs of
    all pairs are held at once, as their relevance is.

    Example:
        >>> import torch
        >>> from dualview_plugin import DualView, PairwiseRelevance
        >>> _ = torch.manual_seed(0)
        >>> data = torch.utils.data.TensorDataset(torch.rand(8, 6), torch.arange(8) % 2)
        >>> layers = (torch.nn.Linear(6, 5, bias=False), torch.nn.ReLU(), torch.nn.Linear(5, 2))
        >>> method = DualView(torch.nn.Sequential(*layers), "2", data, C=1.0, standardize=False, show_progress=False)
        >>> pairs = PairwiseRelevance(method, "epsilon_plus").attribute(torch.rand(3, 6), k=2)
        >>> pairs.test_relevance.shape, pairs.conservation.shape
        (torch.Size([3, 2, 6]), torch.Size([3, 2, 2]))
    """

    def __init__(
        self,
        method: FeatureKernelAttribution,
        composite: Composite | str = "epsilon_plus_flat",
        *,
        batch_size: int | None = None,
    ) -> None:
        owner = type(self).__name__
        if not isinstance(method, FeatureKernelAttribution):
            constraint = "a method with a feature kernel (DualView, RepresenterPoints), whose values features share in"
            raise InvalidTypeError("method", owner, constraint, type(method).__name__)
        self.method = method
        as_composite(composite, method.model, owner)  # raises now what would be raised later
        self.composite = composite
        size = method.batch_size if batch_size is None else batch_size
        self.batch_size = check_integer(size, "batch_size", owner)

    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        k: int = 5,
        proponents: bool = True,
        train_indices: Tensor | None = None,
        *,
        at: nn.Module | str | None = None,
    ) -> RelevantPairs:
        """Relevance for the ``k`` strongest training points of each test point, or for given ones.

        Args:
            inputs: test inputs, (n_test, …), floating: a tensor, an array, or a DataLoader that does not shuffle. With
                ``at``, all that :meth:`DataAttribution.attribute` takes, such as dictionaries of tokens.
            target: the explained class: one for all test points or one for each; None: the network's decision.
            k: number of training points for each test point, the strongest first.
            proponents: those with the highest attributions; False: with the lowest.
            train_indices: training points in their place, (n_test, k), or (k,) for all test points alike.
            at: a layer, or its dotted name, at whose output relevance ends in place of the input, summed over the last
                axis. For tokens: the embedding, whose width that is. Position j of ``train_relevance`` is token j of
                ``method.training_inputs(pairs.train_indices)``, where all points are padded together. Test points that
                a loader has padded to other lengths get zeros up to the longest, on the side where it pads.

        Returns:
            The pairs: ``test_relevance`` and ``train_relevance``, (n_test, k, *input_shape), ``attribution``,
            (n_test, k), ``conservation``, (n_test, k, 2), and what else :class:`RelevantPairs` lists.

        Raises:
            InvalidTypeError, InvalidValueError: as of :meth:`DataAttribution.attribute`; training points that do not
                exist; a composite under which the network computes something else; a layer without a rule, such as
                attention where the composite has no :class:`FunctionRules`; a layer ``at`` that the network does not
                have, that runs more than once in a forward pass, or on which the features do not depend.

        Warns:
            ConservationWarning: the network does something that no rule sees, or relevance is lost or made on its way
                without a harmless reason.
        """
        method, owner = self.method, type(self).__name__
        name = None if at is None else layer_name(method.model, at, "at", owner)
        with method.visit():
            test = method.test_inputs(inputs)
            if train_indices is None:
                if check_integer(k, "k", owner) > method.n_train_:
                    raise InvalidValueError("k", owner, f"at most n_train = {method.n_train_}", repr(k))
                indices = method.strongest(test, k, target, proponents).indices
            else:
                indices = self._checked_indices(train_indices, len(test))
            rows = max(1, self.batch_size // indices.shape[1])
            blocks = method.blocks(test, target, rows)
            method.ensure_fitted()
            composite = as_composite(self.composite, method.model, owner)
            propagation = Propagation(method.extractor, composite, owner, name)
            train_inputs, start = method.training_inputs(indices), 0
            balances: list[SideBalance] = []
            pairs = []
            for batch, classes in blocks:
                stop = start + len(classes)
                training = rows_of(train_inputs, slice(start * indices.shape[1], stop * indices.shape[1]))
                pairs.append(self._block(batch, classes, indices[start:stop], training, propagation, balances))
                start = stop
            joined = _joined(pairs, owner, test)
        warn_unless_conserved(balances, propagation.with_biases, propagation.with_constants)
        return joined

    def _block(
        self,
        inputs: Batch,
        target: Tensor,
        train_indices: Tensor,
        train_inputs: Batch,
        propagation: Propagation,
        balances: list[SideBalance],
    ) -> RelevantPairs:
        """The pairs of one block of test inputs; the balance of both sides is appended to ``balances``."""
        check_carries(inputs, type(self).__name__, propagation.at)
        method, k = self.method, train_indices.shape[1]
        with torch.no_grad():
            features, _ = method.extract(inputs)
            shares = method.feature_shares(features, target, train_indices)
            intercept_share = method.kernel_offset_ * method.coefficients(train_indices, target)
        attribution = shares.sum(dim=2) + intercept_share
        test_inputs = mapped(lambda leaf: leaf.repeat_interleave(k, dim=0), inputs)
        sides = [self._relevance(side, shares, propagation, balances) for side in (test_inputs, train_inputs)]
        sums = torch.stack([arrived for _, arrived in sides], dim=2)
        conservation = torch.where(attribution[:, :, None] == 0, torch.nan, sums / attribution[:, :, None])
        (of_test, _), (of_train, _) = sides
        return RelevantPairs(of_test, of_train, attribution, train_indices, target, intercept_share, conservation)

    def _relevance(
        self, inputs: Batch, shares: Tensor, propagation: Propagation, balances: list[SideBalance]
    ) -> tuple[Tensor, Tensor]:
        """Relevance (n, k, *input_shape) of inputs (n·k, *input_shape), one for each row of the shares (n, k, ·).

        With what of it arrived, (n, k); the balances of all parts are appended to ``balances``.
        """
        starts = torch.split(shares.flatten(end_dim=1), self.batch_size)
        parts = [
            propagation.balanced(batch, partial(_given, part))
            for batch, part in zip(split(inputs, self.batch_size), starts, strict=True)
        ]
        balances += [balance for _, balance in parts]
        maps, arrived = torch.cat([part for part, _ in parts]), torch.cat([balance.arrived for _, balance in parts])
        return maps.reshape(*shares.shape[:2], *maps.shape[1:]), arrived.reshape(shares.shape[:2])

    def _checked_indices(self, train_indices: object, n_test: int) -> Tensor:
        """Training points as (n_test, k) on the device, or the package's error."""
        method, owner = self.method, type(self).__name__
        indices = torch.as_tensor(train_indices, device=method.device)
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise InvalidTypeError("train_indices", owner, "integers", str(indices.dtype))
        if indices.ndim not in (1, 2) or indices.numel() == 0 or (indices.ndim == 2 and len(indices) != n_test):
            constraint = f"of shape (n_test = {n_test}, k) or (k,)"
            raise InvalidValueError("train_indices", owner, constraint, f"shape {tuple(indices.shape)}")
        if int(indices.min()) < 0 or int(indices.max()) >= method.n_train_:
            got = f"values from {int(indices.min())} to {int(indices.max())}"
            raise InvalidValueError("train_indices", owner, f"in 0 … {method.n_train_ - 1}", got)
        return indices.to(torch.int64).expand(n_test, -1)


def _given(shares: Tensor, _features: Tensor) -> Tensor:
    """Shares that are known before the pass."""
    return shares


def _joined(blocks: list[RelevantPairs], owner: str, test: TestInputs) -> RelevantPairs:
    """Consecutive blocks as one; test points may be padded to other lengths in each."""
    joined = {
        name: torch.cat([vars(block)[name] for block in blocks]) for name in vars(blocks[0]) if name != "test_relevance"
    }
    maps = [block.test_relevance.flatten(end_dim=1) for block in blocks]
    relevance = joined_maps(maps, owner, test.padded_in_front).unflatten(0, joined["train_indices"].shape)
    return RelevantPairs(test_relevance=relevance, **joined)
