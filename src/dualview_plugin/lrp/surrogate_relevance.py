"""A feature attribution made of a data attribution: LRP of the surrogate's logit, in Quantus' protocol."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from zennit.core import Composite

from dualview_plugin.attribution.common.joined_maps import joined_maps
from dualview_plugin.attribution.common.quantus_call import map_as_array, network_of, no_metric_reads_maps, unread_map
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.data import Inputs
from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.lrp.composites import as_composite
from dualview_plugin.lrp.conservation import warn_unless_conserved
from dualview_plugin.lrp.propagation import Propagation
from dualview_plugin.network import layer_name


class SurrogateRelevance:
    """LRP of the attribution summed over all training points, as an explanation function for Quantus.

    Summed over all training points the attribution is the surrogate's logit ⟨w_c, φ(x)⟩ + b_c. Relevance starts at each
    unit's own share w_cm φ_m(x); an intercept b_c belongs to no feature and has no share. Quantus' own metrics score
    the map beside saliency maps.

    Args:
        method: a method with a feature kernel: DualView or RepresenterPoints.
        composite: a composite of Zennit or the name of one, as for :class:`PairwiseRelevance`: the name is made a
            composite for the network of each call.

    Raises:
        InvalidTypeError: an attribution without a feature kernel, or something else than a composite.
        InvalidValueError: Zennit has no composite of this name.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import DualView, SurrogateRelevance
        >>> _ = torch.manual_seed(0)
        >>> data = torch.utils.data.TensorDataset(torch.rand(8, 6), torch.arange(8) % 2)
        >>> layers = (nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2))
        >>> method = DualView(nn.Sequential(*layers), "2", data, C=1.0, standardize=False, show_progress=False)
        >>> SurrogateRelevance(method, "epsilon_plus").attribute(torch.rand(3, 6)).shape
        torch.Size([3, 6])
    """

    def __init__(self, method: FeatureKernelAttribution, composite: Composite | str = "epsilon_plus_flat") -> None:
        owner = type(self).__name__
        if not isinstance(method, FeatureKernelAttribution):
            constraint = "a method with a feature kernel (DualView, RepresenterPoints), which has a surrogate"
            raise InvalidTypeError("method", owner, constraint, type(method).__name__)
        self.method = method
        as_composite(composite, method.model, owner)  # raises now what would be raised later
        self.composite = composite

    def attribute(self, inputs: Inputs, target: Target = None, *, at: nn.Module | str | None = None) -> Tensor:
        """The map of each input, signed: of its shape, or with ``at`` that of a layer's output, less its last axis.

        Args:
            inputs: (n_test, …), floating: a tensor, an array, or a DataLoader that does not shuffle; with ``at`` of any
                structure.
            target: the explained class: one for all test points or one for each; None: the network's decision.
            at: a layer where relevance ends, such as the embedding, as of :meth:`PairwiseRelevance.attribute`.

        Raises:
            InvalidTypeError, InvalidValueError: as of :meth:`PairwiseRelevance.attribute`.

        Warns:
            ConservationWarning: the network does something that no rule sees, or relevance is lost or made on its way
                without a harmless reason, of those that :class:`RelevantPairs` names.

        Cost: one pass of LRP for each batch.
        """
        return self._maps(self.method, inputs, target, at)

    def __call__(
        self, model: nn.Module, inputs: Any, targets: Any, *, at: nn.Module | str | None = None, **_: Any
    ) -> np.ndarray[Any, Any]:
        """Quantus' protocol: the map of each input as an array shaped like the inputs.

        Args:
            model: the network to explain; if its weights are others, the method is fitted to it first.
            inputs: (n_test, …), an array or a tensor.
            targets: explained classes, (n_test,).
            at: as of :meth:`attribute`; among ``explain_func_kwargs``.
        """
        if no_metric_reads_maps():
            return unread_map(inputs)
        owner = type(self).__name__
        if at is not None:
            at = layer_name(self.method.model, at, "at", owner)
        maps = partial(self._maps, self.method.for_model(network_of(model)), at=at)
        return map_as_array(maps, inputs, targets, owner, any_type=at is not None)

    def _maps(
        self, method: FeatureKernelAttribution, inputs: Inputs, target: Target, at: nn.Module | str | None
    ) -> Tensor:
        """The maps of a method, fitted if it was not."""
        owner = type(self).__name__
        name = None if at is None else layer_name(method.model, at, "at", owner)
        with method.visit():
            test = method.test_inputs(inputs)
            blocks = method.blocks(test, target)
            method.ensure_fitted()
            composite = as_composite(self.composite, method.model, owner)
            relevance = Propagation(method.extractor, composite, owner, name)
            parts = [relevance.balanced(batch, partial(_logit_shares, method, classes)) for batch, classes in blocks]
            joined: Tensor = joined_maps([maps for maps, _ in parts], owner, test.padded_in_front)
        warn_unless_conserved((balance for _, balance in parts), relevance.with_biases, relevance.with_constants)
        return joined


def _logit_shares(method: FeatureKernelAttribution, target: Tensor, features: Tensor) -> Tensor:
    """w_cm φ_m(x), what each feature contributes to the surrogate's logit of its class, (n, n_features)."""
    return method.surrogate_weight_[target] * method.transform_features(features)
