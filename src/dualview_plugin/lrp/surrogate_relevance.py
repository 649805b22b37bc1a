"""A feature attribution made of a data attribution: LRP of the surrogate's logit, in Quantus' protocol."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import nn
from zennit.core import Composite

from dualview_plugin.attribution.feature_kernel import FeatureKernelAttribution
from dualview_plugin.attribution.quantus_call import map_as_array, network_of, no_metric_reads_maps, unread_map
from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.lrp.composites import as_composite


class SurrogateRelevance:
    """LRP of the attribution summed over all training points, as an explanation function for Quantus.

    Where :meth:`DualView.__call__` gives gradient × input for the strongest proponents, this gives the evidence of all
    training points for the class, ``input_attribution(…, composite=composite)``. Quantus' own metrics score it beside
    saliency maps.

    Args:
        attribution: a method with a feature kernel: DualView or RepresenterPoints.
        composite: a composite of Zennit or the name of one, as for :class:`PairwiseRelevance`.

    Raises:
        InvalidTypeError: an attribution without a feature kernel, or something else than a composite.
        InvalidValueError: Zennit has no composite of this name.
    """

    def __init__(self, attribution: FeatureKernelAttribution, composite: Composite | str = "epsilon_plus_flat") -> None:
        owner = type(self).__name__
        if not isinstance(attribution, FeatureKernelAttribution):
            constraint = "a method with a feature kernel (DualView, RepresenterPoints), which has a surrogate"
            raise InvalidTypeError("attribution", owner, constraint, type(attribution).__name__)
        self.data_attribution = attribution
        self.composite = as_composite(composite, attribution.model, owner)

    def __call__(self, model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
        """The map of each input as an array shaped like the inputs.

        Args:
            model: the network to explain; if its weights are others, the method is fitted to it first.
            inputs: (n_test, …), an array or a tensor.
            targets: explained classes, (n_test,).
        """
        if no_metric_reads_maps():
            return unread_map(inputs)
        method = self.data_attribution.for_model(network_of(model))
        relevance = partial(method.input_attribution, composite=self.composite)
        return map_as_array(relevance, inputs, targets, type(self).__name__)
