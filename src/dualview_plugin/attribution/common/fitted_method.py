"""What is learned: by a fit, from a file, or for another network."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import nn

from dualview_plugin.attribution.common.arguments import LOAD_OPTIONS
from dualview_plugin.attribution.common.saving import Saved, save
from dualview_plugin.attribution.common.training_passes import TrainingPasses
from dualview_plugin.data import SeenSamples, TrainData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.network import checked_model, guest, model_fingerprint
from dualview_plugin.storage import DamagedFileError

Made = TypeVar("Made", bound="FittedMethod")


class FitMark:
    """Stands for one fit of a method: each has another, and copies of a fitted method share it."""


class FittedMethod(TrainingPasses):
    """The part of every method that is fitted, saved, loaded, and fitted to another network.

    A subclass implements ``_fit``, and ``_resume`` where it learns what no file holds.
    """

    # Attributes that :meth:`_resume` makes anew.
    _remade: ClassVar[frozenset[str]] = frozenset()
    _fit_mark: FitMark
    _refitted: tuple[str, Self] | None

    @abstractmethod
    def _fit(self) -> None:
        """The heavy work; sets ``train_labels_`` and ``n_classes_``, most easily by :meth:`_training_features`."""

    def _resume(self) -> None:
        """Make what a file does not hold, from the network and the arguments."""

    def fit(self) -> Self:
        """Do the heavy work and return self; see the class for its cost.

        A fit that fails or is interrupted leaves the object as it was.

        Raises:
            InvalidTypeError, InvalidValueError: the network or the data fail a test that the method relies on.

        Warns:
            RandomDataWarning, RandomNetworkWarning: see :func:`take_probe`.
        """
        with guest(self.model):  # no other thread is in a call meanwhile
            trial = copy.copy(self)
            trial._fitted, trial._seen = False, SeenSamples(self.n_train_)
            trial._visiting, trial._known = self._visiting, self._known
            with trial.visit():
                trial._fit()
            self.__dict__.update({**vars(trial), "_fitted": True, "_visiting": self._visiting, "_fit_mark": FitMark()})
        return self

    def ensure_fitted(self) -> None:
        """Fit on first use."""
        if not self._fitted:
            self.fit()

    def save(self, path: str | Path) -> None:
        """Write what was learned to a file, without the network and the data; fits first if need be.

        Args:
            path: of the file, which is replaced as a whole.

        Raises:
            InvalidTypeError: the method's state or one of its arguments has no form on disk.
            InvalidValueError: the file cannot be written.

        Cost: the size of what was learned. The file holds arrays and readable text, and nothing is unpickled from it.
        """
        with self.visit():
            self.ensure_fitted()
            save(self, path, self._learned())

    def _learned(self) -> dict[str, Any]:
        """The attributes that the fit has set and that :meth:`_resume` does not make anew."""
        left_out = {*vars(type(self)(**self._arguments)), *self._remade, "store_", "sweep_"}
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def _restore(self, learned: Mapping[str, Any]) -> None:
        """Take what :meth:`_learned` gave.

        Raises:
            DamagedFileError: it is something else.
        """
        for name, value in learned.items():
            if name in vars(self) or name in self._remade:
                raise DamagedFileError(f"it sets {name!r}")
            self.__dict__[name] = value
        self._resume()
        self._fitted = True

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, train_dataset: TrainData, **options: Any) -> Self:
        """A fitted method from a file of :meth:`save`, with its network and its training data.

        Args:
            path: of the file.
            model: the network of the fit.
            train_dataset: the data of the fit.
            options: ``device``, ``cache_dir``, ``show_progress``, ``batch_size``, ``memory_budget``, and ``forward``,
                ``label_fn`` and the ``checkpoints`` of :class:`TracIn` if the fit had them.

        Raises:
            InvalidValueError: no such file, one that :meth:`save` did not write, of another class or newer format; an
                option that is another than at the fit, on which values depend.
            StaleFitError: network or data are not those of the fit; the message says which.

        Cost: the size of the file, and the data once if they lie in memory, else 128 samples.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from torch import nn
            >>> from dualview_plugin import DualView
            >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
            >>> network = nn.Sequential(nn.Linear(4, 2))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     DualView(network, "0", data, show_progress=False).save(f"{folder}/fitted.zip")
            ...     method = DualView.load(f"{folder}/fitted.zip", network, data, show_progress=False)
            >>> method.attribute(torch.eye(4)[:3]).shape
            torch.Size([3, 4])
        """
        with torch.inference_mode(False):  # whose tensors autograd does not take later
            saved = Saved(path, cls.get_name())
        kinds = (kind for kind in _with_subclasses(cls) if not kind.__name__.startswith("_"))  # parts of methods
        kind: Any = next((kind for kind in kinds if kind.get_name() == saved.name), None)
        if kind is None:
            raise saved.refused(f"it holds a {saved.name}")
        for name, value in options.items():
            if name not in LOAD_OPTIONS and repr(value) != repr(saved.arguments.get(name)):
                constraint = f"left out, since the fit in the file has its own ({saved.arguments.get(name)!r})"
                raise InvalidValueError(name, f"{cls.get_name()}.load", constraint, repr(value))
        try:
            method: Self = kind(model, saved.layer, train_dataset, **{**saved.arguments, **options})
        except TypeError as error:
            raise saved.refused(str(error)) from error
        with method.visit():
            saved.check(method)
            try:
                method._restore(saved.learned(method))
            except DamagedFileError as error:
                raise saved.refused(str(error)) from error
        return method

    @property
    def explains_other_networks(self) -> bool:
        """Whether :meth:`for_model` takes other networks than this object's."""
        return True

    def for_model(self, model: nn.Module | None) -> Self:
        """This method, or one of the same arguments that is fitted to another network and kept until the next comes.

        Raises:
            StaleFitError: the network is this object's, but no longer as it was at the fit.
        """
        if model is None:
            return self
        model = checked_model(model, self.get_name())
        if model is self.model:
            return self
        with self.visit():
            probe = self._probe_now()
        key = model_fingerprint(model, probe.plain)
        same_weights = key == model_fingerprint(self.model, probe.plain)
        if same_weights and probe.network_change(self._quiet_twin(model).extractor) is None:
            return self
        kept = self._refitted
        if kept is None or kept[0] != key or kept[1].model is not model or kept[1]._change() is not None:
            self._refitted = kept = (key, self._quiet_twin(model).fit())
        return kept[1]

    def _quiet_twin(self, model: nn.Module) -> Self:
        """An unfitted object of the same arguments for another network, without progress bars and cache."""
        twin: Self = self.rebuilt(model)
        twin.__dict__.update(show_progress=False, cache_dir=None, _storage=None)
        return twin


def _with_subclasses(kind: type[Made]) -> Iterator[type[Made]]:
    """A class and all that derive from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from _with_subclasses(derived)
