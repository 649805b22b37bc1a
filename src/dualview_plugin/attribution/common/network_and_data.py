"""The network and the training data that a method explains: tested by a probe, watched, and left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.common.training_store import N_PROBES
from dualview_plugin.data import KnownContent, TrainingData
from dualview_plugin.errors import StaleFitError
from dualview_plugin.features import FeatureExtractor, Probe, take_probe
from dualview_plugin.network import Placement, guest, kept_weights, weights_checksum, writes_to_parameters

Item = TypeVar("Item")


class NetworkAndData:
    """The part of every method that knows its network and its training data.

    A visit is a public call: the network is a guest in it, and its outermost one looks whether a fit still holds.
    """

    model: nn.Module
    extractor: FeatureExtractor
    device: torch.device
    batch_size: int
    show_progress: bool
    output: int | None
    _data: TrainingData
    _probe: Probe | None
    _known: KnownContent | None
    _fitted: bool
    _visiting: bool

    @classmethod
    def get_name(cls) -> str:
        """The class's name; Captum's own version splits it at its capitals."""
        return cls.__name__

    @property
    def n_train_(self) -> int:
        """Number of training points."""
        return len(self._data)

    def training_inputs(self, indices: Tensor) -> Any:
        """The training inputs at these positions, (len(indices), …), placed where the network is.

        Args:
            indices: positions in the dataset, of any shape, read in row-major order.
        """
        with guest(self.model):
            return Placement.of(self.model)(self._data.at(indices.flatten().tolist())[0])

    def _check_probe(self, features: Tensor, logits: Tensor) -> None:
        """What the method asks of the network beyond all others; on a few training points, before heavy work."""

    @contextmanager
    def visit(self) -> Iterator[None]:
        """A public call: the network is a guest, and the outermost call makes sure that a fit still holds."""
        with guest(self.model):
            if self._visiting:
                yield
                return
            self._visiting, self._known = True, None
            try:
                self._refresh_probe()
                with kept_weights(self.model) if writes_to_parameters(self.model) else nullcontext():
                    yield
            finally:
                self._visiting, self._known = False, None

    def _steps(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, each computed with the network as a guest: between them it is the user's, who may change it.

        Raises:
            StaleFitError: its weights have changed since the first item.
        """
        probe = self._probe_now()
        while True:
            with guest(self.model):
                if not self._visiting and weights_checksum(self.model, probe.plain) != probe.checksum:
                    raise StaleFitError(
                        f"model of {self.get_name()} must stay as it is between blocks, got other weights"
                    )
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _refresh_probe(self) -> None:
        """Test the network and the data, or make sure that they are those that were tested."""
        change = self._change()
        if change is not None and self._fitted:
            raise StaleFitError(f"{change}: call {self.get_name()}.fit() again, or undo the change")
        if change is not None or self._probe is None:
            self._probe = take_probe(self.extractor, self._data, self.get_name(), self._check_probe)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy: with what its data have to say of themselves, if they are those of the probe."""
        unchanged = self._probe is not None and self._probe.version == self._data.version
        return {**self.__dict__, "_unchanged": unchanged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The copy's data are other objects of the same content, and say other things of themselves."""
        unchanged = state.pop("_unchanged", False)
        self.__dict__.update({**state, "_visiting": False, "_known": None})  # of calls in progress
        if self._probe is not None and unchanged:
            self._data.accept()

    def _change(self) -> str | None:
        """What has changed since the probe was taken, as a sentence."""
        if self._probe is None:
            return None
        network, data = self._probe.network_change(self.extractor), self._probe.data_change(self._data)
        if network is not None:
            return f"model of {self.get_name()} must be as it was at the fit, got {network}"
        return None if data is None else f"train_dataset of {self.get_name()} must be as it was at the fit, got {data}"

    @property
    def _dtype(self) -> torch.dtype:
        """The type of attributions: the network's own, float32 at least."""
        return self._probe_now().features.dtype

    def _probe_now(self) -> Probe:
        """The probe of this visit."""
        assert self._probe is not None  # every visit begins with one
        return self._probe

    @property
    def _repeatable(self) -> bool:
        """Whether data and network give the same values at each reading and pass."""
        probe = self._probe_now()
        return probe.repeatable and probe.repeats

    def _known_data(self) -> KnownContent:
        """Which data these are; looked at once in a call."""
        if self._known is not None:
            return self._known
        known = self._data.identity(n_probes=N_PROBES)
        if self._visiting:
            self._known = known
        return known
