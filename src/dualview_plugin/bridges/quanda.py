"""Any method of this package as an explainer of quanda, for its metrics and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.bridges.methods import method_class
from dualview_plugin.errors import MissingDependencyError

try:
    from quanda.explainers import Explainer
except ImportError as error:
    raise MissingDependencyError(
        "the bridge needs quanda in an environment of its own: pip install -c constraints-quanda.txt quanda"
    ) from error

# quanda adds 1e-4 times the position to self-influences before it sorts them.
_ADDED_PER_POINT = 1e-4


class QuandaExplainer(Explainer):  # type: ignore[misc]
    """A method of this package behind quanda's interface; hand the class to a benchmark, and the rest as its arguments.

    Args:
        model: the network, with outputs (n_samples, n_classes).
        train_dataset: a map-style dataset of ``(input, label)`` pairs.
        task: ``"image_classification"``.
        checkpoints: files with the network's weights, of which the last is loaded; None: the weights that it has.
        checkpoints_load_func: how quanda loads a checkpoint.
        method: the class of a method, or its public name.
        final_fc_layer: the last linear layer of the network, or its dotted name.
        **options: the other arguments of the method.

    Attributes:
        method: the method; use its ``self_influence()`` for the values themselves.

    Raises:
        InvalidTypeError, InvalidValueError: an argument that the method refuses.

    Example:
        >>> explainer = QuandaExplainer(model, train_dataset, method="DualView", final_fc_layer="fc", C=1e-3)
        ... # doctest: +SKIP
    """

    accepted_tasks = ["image_classification"]  # noqa: RUF012 (quanda's own form)

    def __init__(
        self,
        model: nn.Module,
        train_dataset: Dataset[Any],
        task: str = "image_classification",
        checkpoints: str | list[str] | None = None,
        checkpoints_load_func: Callable[..., Any] | None = None,
        *,
        method: type[DataAttribution] | str = "DualView",
        final_fc_layer: nn.Module | str,
        **options: Any,
    ) -> None:
        super().__init__(model, train_dataset, task, checkpoints, checkpoints_load_func)
        if self.checkpoints:
            self.load_last_checkpoint()
        made = method_class(method, type(self).__name__)
        options.setdefault("show_progress", False)
        self.method: DataAttribution = made(model, final_fc_layer, train_dataset, **options)

    def explain(self, test_data: Tensor, targets: list[int] | Tensor) -> Tensor:
        """Attributions (n_test, n_train) of the test points to the classes ``targets``; positive means proponent."""
        classes = targets.cpu() if isinstance(targets, Tensor) else torch.tensor(targets)
        return self.method.attribute(test_data, classes)

    def self_influence(self, batch_size: int = 32) -> Tensor:  # noqa: ARG002 (quanda's argument; the method has its own)
        """Ranks of the self-influences, (n_train,) float64, so far apart that quanda ranks by them.

        quanda adds 1e-4 times the position of a training point before it sorts. Self-influences themselves are often
        smaller than that, and would be ranked by position. Equal values get equal ranks.
        """
        rank: Tensor = torch.unique(self.method.self_influence(), return_inverse=True)[1]
        return rank.to(torch.float64) * (2 * _ADDED_PER_POINT * max(len(rank), 1))
