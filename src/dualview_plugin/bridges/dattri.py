"""Methods of this package as attributors of dattri, and attributors of dattri as methods for this package's metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler, Subset, TensorDataset

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.bridges.methods import method_class
from dualview_plugin.errors import InvalidValueError, MissingDependencyError

try:
    from dattri.algorithm.base import BaseAttributor
except ImportError as error:
    raise MissingDependencyError("the bridge needs dattri: pip install dattri") from error


class DattriAttributor(BaseAttributor):  # type: ignore[misc]
    """A method of this package behind dattri's interface.

    dattri's scores are (n_train, n_test), ours transposed. They explain the label that the test loader gives.

    Args:
        task: dattri's ``AttributionTask``; its network is explained with its first checkpoint.
        method: the class of a method, or its public name.
        final_fc_layer: the last linear layer of the network, or its dotted name.
        **options: the other arguments of the method.

    Attributes:
        method: the method, after :meth:`cache`.

    Raises:
        InvalidTypeError, InvalidValueError: an argument that the method refuses.

    Example:
        >>> attributor = DattriAttributor(task, "DualView", "fc", C=1e-3)  # doctest: +SKIP
        >>> attributor.cache(train_loader)  # doctest: +SKIP
        >>> scores = attributor.attribute(train_loader, test_loader)  # doctest: +SKIP
    """

    def __init__(
        self, task: Any, method: type[DataAttribution] | str, final_fc_layer: nn.Module | str, **options: Any
    ) -> None:
        self.task, self.final_fc_layer = task, final_fc_layer
        self.options = {"show_progress": False, **options}
        self._class = method_class(method, type(self).__name__)
        self.method: DataAttribution | None = None
        self._loader: DataLoader[Any] | None = None

    def cache(self, full_train_dataloader: DataLoader[Any]) -> None:
        """Fit the method on the training set."""
        self.task._load_checkpoints(0)
        self._loader = full_train_dataloader
        self.method = self._class(
            self.task.model, self.final_fc_layer, in_order(full_train_dataloader), **self.options
        ).fit()

    def attribute(self, train_dataloader: DataLoader[Any], test_dataloader: DataLoader[Any]) -> Tensor:
        """Scores (n_train, n_test) of the training set for the labels of the test points; positive means proponent.

        Raises:
            InvalidValueError: another training set than the one of :meth:`cache`.
        """
        method = self._fitted(train_dataloader)
        inputs, labels = (torch.cat(parts) for parts in zip(*in_order(test_dataloader), strict=True))
        return method.attribute(inputs, labels).T

    def self_attribute(self, train_dataloader: DataLoader[Any]) -> Tensor:
        """The score of each training point for its own label at itself, (n_train,)."""
        return self._fitted(train_dataloader).self_influence()

    def _fitted(self, loader: DataLoader[Any]) -> DataAttribution:
        """The method, fitted on this loader's training set."""
        if self.method is None or self._loader is None:
            self.cache(loader)
        elif loader.dataset is not self._loader.dataset or _positions(loader) != _positions(self._loader):
            constraint = "over the training set that cache() was called with, which the method was fitted on"
            raise InvalidValueError("train_dataloader", type(self).__name__, constraint, "another one")
        assert self.method is not None  # set by cache
        return self.method


def from_dattri(attributor: Any, train_dataloader: DataLoader[Any], batch_size: int = 64) -> Any:
    """A function for this package's metrics that gives the scores of an attributor of dattri.

    Mark it with :func:`dualview_plugin.data_attribution`, and hand it to a metric as ``explain_func``.

    Args:
        attributor: an attributor of dattri; call its ``cache`` first.
        train_dataloader: the loader of the training set, without shuffling.
        batch_size: test points in a batch.

    Returns:
        A function of ``model``, ``inputs`` and ``targets`` that returns attributions (n_test, n_train). It explains the
        attributor's network, whatever ``model`` is.

    Example:
        >>> from dualview_plugin import data_attribution
        >>> theirs = data_attribution(from_dattri(attributor, train_loader))  # doctest: +SKIP
    """

    def attributions(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:  # noqa: ARG001
        points = TensorDataset(torch.as_tensor(inputs), torch.as_tensor(targets))
        return attributor.attribute(train_dataloader, DataLoader(points, batch_size=batch_size)).T.detach().cpu()

    return attributions


def in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The loader without dattri's sampler: one over the samples that it gives, in the same order.

    dattri's loaders carry a sampler with a list of ``indices``; a loader of ours takes no sampler.
    """
    positions = _positions(loader)
    if positions is None:
        return loader
    subset = Subset(loader.dataset, positions)
    return DataLoader(
        subset, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )


def _positions(loader: DataLoader[Any]) -> list[int] | None:
    """The positions that a sampler with fixed indices gives; None: all of them, in order."""
    indices = getattr(loader.sampler, "indices", None)
    if indices is None or isinstance(loader.sampler, SequentialSampler):
        return None
    found = [int(index) for index in indices]
    if list(loader.sampler) != found:  # such as a SubsetRandomSampler
        raise InvalidValueError("train_dataloader", "DattriAttributor", "without shuffling", "a random sampler")
    return found
