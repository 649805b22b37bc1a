"""Model Randomization: do attributions change when the network's layers are randomised?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray
from quantus.helpers.enums import ScoreDirection
from torch import nn

from dualview_plugin.batches import n_rows
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.randomised_networks import layers_from_the_top, randomised_networks
from dualview_plugin.metrics.rank_correlation import correlation_of_ranks
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.metrics.sources.arrays import Array, TestArrays
from dualview_plugin.validation import check_integer, check_option

Variant = Literal["full", "cumulative"]
MAX_METHODS = 32  # whose correlations are kept


class ModelRandomization(DataAttributionMetric):
    """One score for each test point: how like its attributions are to those of a randomised network.

        score_t = mean over steps s of Spearman(τ_t, τ_t^(s)),   τ^(s) from the network with s layers randomised

    An explanation of the network should change with it: 0 is best, and 1 is a method that does not look at it. The
    layers are randomised from the top, cumulatively. Both networks explain the same class, and the method is fitted to
    the randomised network anew.

    Args:
        variant: ``"full"``: one step, with all layers randomised. ``"cumulative"``: a step for each layer.
        layers: dotted names in the order of randomisation; None: all with parameters, the last registered first.
        seed: of the new values.
        **options: see :class:`DataAttributionMetric`.

    Attributes:
        correlations: for each of the latest 32 methods, by the name that ``quantus.evaluate`` gives it, the correlation
            after each step: layer → (n_test,).

    Raises:
        InvalidTypeError, InvalidValueError: another variant, a negative seed; when called: a name in ``layers`` that is
            no layer with parameters.

    Source: Adebayo et al. 2018, for data attributions as in quanda. A random attributor that
        is drawn anew scores 0; one of a fixed seed does not look at the network and scores 1; the reversed scores −1.
    Differs: the score is NaN where all attributions are equal, and for what explains no other network: a precomputed
        matrix, an influence object of Captum. A layer without ``reset_parameters`` has its values permuted.
    Cost: a fit and n_test attributions for each step; networks and fits of all steps are kept until the call ends.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import GradientSimilarity, ModelRandomization, RandomAttribution
        >>> _ = torch.manual_seed(0)
        >>> data = torch.utils.data.TensorDataset(torch.randn(12, 4), torch.arange(12) % 2)
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> blind = RandomAttribution(network, "2", data, show_progress=False)  # one seed, whatever the network
        >>> metric, x, y = ModelRandomization(), np.ones((2, 4), dtype=np.float32), np.array([0, 1])
        >>> metric(network, x, y, explain_func=blind, explain_func_kwargs={})
        [1.0, 1.0]
    """

    name = "Model Randomization"
    score_direction = ScoreDirection.LOWER
    interpretation = (
        "Rank correlation between the attributions of the network and of a randomised one: 0 is best, 1 tells of a"
        " method that does not look at the network, and a random attributor that is drawn anew scores 0."
    )

    def __init__(
        self,
        *,
        variant: Variant = "full",
        layers: Sequence[str] | None = None,
        seed: int = 0,
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(**options)
        self.variant = check_option(variant, "variant", self._owner, get_args(Variant))
        self.layers = None if layers is None else tuple(layers)
        self.seed = check_integer(seed, "seed", self._owner, minimum=0)
        self.correlations: dict[str, dict[str, NDArray[np.float64]]] = {}

    def _check_sizes(self, _n_test: int, _n_train: int) -> None:
        """Any sizes fit."""

    def _scores(self, inputs: TestArrays, y: NDArray[np.int64], source: AttributionSource | None) -> list[float]:
        if source is not None and source.network is None and n_rows(inputs):
            return self._not_applicable(n_rows(inputs), f"{self.method_name} explains no other network")
        return super()._scores(inputs, y, source)

    def _score(self, rows: Iterator[AttributionRows], source: AttributionSource) -> list[float]:
        network = source.network
        assert network is not None  # _scores asked for it
        others = self._randomised(source, network)
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in others}
        for part in rows:
            target = part.y if self.explained_class == "y_batch" else source.decisions(part.inputs, self._owner)
            for name, other in others.items():
                attributions = self._attributions(other, part.inputs, target)
                found[name].append(correlation_of_ranks(part.attributions, attributions))
        correlations = {name: np.concatenate(parts) for name, parts in found.items()}
        self._keep(correlations)
        scores: list[float] = np.mean(list(correlations.values()), axis=0).tolist()
        return scores

    def _randomised(self, source: AttributionSource, network: nn.Module) -> dict[str, AttributionSource]:
        """The sources for the randomised networks, by the layer that was randomised last."""
        layers = layers_from_the_top(network, self.layers, self._owner)
        steps = dict(randomised_networks(network, layers, self.seed))
        if self.variant == "full":
            steps = {layers[-1]: steps[layers[-1]]}
        return {name: source.for_network(model) for name, model in steps.items()}

    def _attributions(self, source: AttributionSource, inputs: TestArrays, target: Array) -> Array:
        """The attributions of a few test points, checked and preprocessed."""
        block = np.concatenate(list(source.blocks(inputs, target)))
        self._check_block(block)
        return self._preprocessed(block)

    def _keep(self, correlations: dict[str, NDArray[np.float64]]) -> None:
        """Store the correlations under the method's name, and forget the oldest beyond the limit."""
        self.correlations.pop(self.method_name, None)
        self.correlations[self.method_name] = correlations
        while len(self.correlations) > MAX_METHODS:
            del self.correlations[next(iter(self.correlations))]
