"""Passes over the training data: features, labels and batches, through the store where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dualview_plugin.attribution.common.arguments import WITHOUT_EFFECT, Remembering, json_arguments
from dualview_plugin.attribution.common.encoding import state_classes
from dualview_plugin.attribution.common.kept_state import KeptState
from dualview_plugin.attribution.common.network_and_data import Item, NetworkAndData
from dualview_plugin.attribution.common.sweeps import OwnScores, Scores
from dualview_plugin.attribution.common.training_store import TrainingStore
from dualview_plugin.batches import Batch, leaves, structure
from dualview_plugin.data import RangeResult, RangeStream, SeenSamples
from dualview_plugin.engines import Engine, ShardWork, SumWork, engine_of
from dualview_plugin.errors import InvalidTypeError, StaleFitError
from dualview_plugin.features import FeatureShards, Probe, TrainingFeatures, check_labels, training_features
from dualview_plugin.network import Placement, fingerprint, model_fingerprint
from dualview_plugin.storage import Column, Storage, StoreReport, mapped_array
from dualview_plugin.sums import Total

# Elements that are copied at a time.
_ROWS_ELEMENTS = 2**22


class TrainingPasses(Remembering, NetworkAndData):
    """The part of every method that reads the training data, and keeps what it computes of them."""

    train_labels_: Tensor
    n_classes_: int
    store_: StoreReport | None = None
    sweep_: StoreReport | None = None
    # Whether attributions take a pass over the training data for each block of test points.
    _sweeps: bool = False
    # Classes of its own in what the method learns, which files take apart.
    _state_classes: ClassVar[tuple[type, ...]] = ()
    _storage: Storage | None
    _seen: SeenSamples

    def _answers(self) -> dict[str, Tensor]:
        """The network's features and logits at the probe, (n_probe, …): a later process recognises its code by them."""
        probe = self._probe_now()
        return {"probe-features": probe.features, "probe-logits": probe.logits}

    def _training_features(self, n_logits: int | None = None) -> TrainingFeatures:
        """φ, f and y of the training set, from the store if there is one; sets ``train_labels_`` and ``n_classes_``.

        Args:
            n_logits: keep f of at most this many points, the first ones; None: of all.
        """
        probe = self._probe_now()
        training = self._stored_features(probe, n_logits)
        if training is None:
            training = training_features(
                self.extractor, self._data, probe, n_logits=n_logits, show_progress=self.show_progress
            )
        self.train_labels_, self.n_classes_ = training.labels, probe.n_classes
        return training

    def _stored_features(self, probe: Probe, n_logits: int | None) -> TrainingFeatures | None:
        """The features through the store; with all logits, unless none are asked for and they take much room."""
        n_features = probe.features.shape[1]
        logits = n_logits != 0 or 4 * probe.n_classes <= n_features
        columns = [
            Column("features", self._stored_dtype or probe.features.dtype, n_features),
            Column("labels", torch.int64),
            Column("logits", probe.logits.dtype, probe.n_classes),
        ]
        work = FeatureShards(self.extractor, self._data, probe, self._stored_dtype, logits)
        tensors = self._stored("features", {}, columns if logits else columns[:2], work)
        if tensors is None:
            return None
        kept = tensors["logits"][:n_logits] if logits else probe.logits[:0]
        return TrainingFeatures(tensors["features"], kept, tensors["labels"])

    def _training_labels(self) -> Tensor:
        """The labels alone, for methods that need no features; sets ``train_labels_`` and ``n_classes_``."""
        n_classes = self._probe_now().n_classes
        answers = self._answers()
        columns = [Column("labels", torch.int64)]
        stored = self._stored("labels", {"checked": "answers"}, columns, self._label_ranges, answers)
        if stored is None:
            labels = torch.cat([labels for _, _, labels in self._labelled_batches()])
        else:
            labels = stored["labels"]
        self.train_labels_, self.n_classes_ = labels.to(self.device), n_classes
        return self.train_labels_

    def _label_ranges(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """The labels of ranges of training points, as work for an engine; with the network's answers at the probe.

        By those a later process recognises the network's code, on which what is learned from labels alone depends.
        """
        stream, answers = RangeStream(self._data, ranges), self._answers()
        parts = ({"labels": labels} for _, _, labels in self._labelled_batches(stream))
        for rows, columns, digest in stream.assembled(parts):
            yield rows, {**columns, **{name: answer[: len(rows)] for name, answer in answers.items()}}, digest

    def _labelled_batches(self, stream: RangeStream | None = None) -> Iterator[tuple[range, Batch, Tensor]]:
        """:meth:`_numbered_batches` whose labels are the network's."""
        for rows, inputs, labels in self._numbered_batches(stream):
            check_labels(labels, self._probe_now().n_classes, self.get_name())
            yield rows, inputs, labels

    def _training_batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """The batches of the training set in order, placed where the network is."""
        return ((inputs, labels) for _, inputs, labels in self._numbered_batches())

    def _numbered_batches(self, stream: RangeStream | None = None) -> Iterator[tuple[range, Batch, Tensor]]:
        """The batches of the training set, or of ranges of it, with their positions, placed where the network is."""
        place, probe = Placement.of(self.model), self._probe_now()
        for rows, inputs, labels in self._data.numbered() if stream is None else stream.batches():
            probe.check_reading(rows.start, inputs, labels, self.get_name())
            self._check_seen(rows, inputs)
            yield rows, place(inputs), labels.to(self.device)

    def _check_seen(self, rows: range, inputs: Batch) -> None:
        """Refuse samples that are others than in an earlier pass, so that no result is made of both.

        Raises:
            StaleFitError: a sample has changed, and neither the dataset nor the probe has told.
        """
        changed = self._seen.first_change(rows, inputs) if self._probe_now().repeatable else None
        if changed is not None:
            owner = self.get_name()
            got = f"another sample at position {changed} than in an earlier pass"
            raise StaleFitError(f"train_dataset of {owner} must be as it was at the fit, got {got}: call fit() again")

    @property
    def _stored_dtype(self) -> torch.dtype | None:
        """The type of stored features and projections; None: the one that they are computed in."""
        name = None if self._storage is None else self._storage.dtype
        return None if name is None else getattr(torch, name)

    def _stored(
        self,
        kind: str,
        parameters: dict[str, object],
        columns: list[Column],
        work: ShardWork,
        answers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | None:
        """Columns with a row for each training point, through the store; sets ``store_``.

        None without a store, and where another reading or pass would give other values.
        """
        if self._storage is None or not self._repeatable:
            return None
        store = self._training_store(self._storage, kind, parameters, columns, work, answers)
        tensors, self.store_ = store.load()
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _training_store(
        self,
        storage: Storage,
        kind: str,
        parameters: Mapping[str, object],
        columns: list[Column],
        work: ShardWork,
        answers: Mapping[str, Tensor] | None = None,
    ) -> TrainingStore:
        """The store of what is computed from training points with these parameters."""
        probe = self._probe_now()
        parts = {
            "network": model_fingerprint(self.model, probe.plain),
            "layer": self.extractor.layer_name,
            "output": repr(self.output),
            **{name: repr(value) for name, value in parameters.items()},
        }
        known, checked = self._known_data(), probe.indices
        return TrainingStore(
            storage, kind, parts, self._data, columns, work, checked, self.show_progress, known, answers
        )

    # ------------------------------------------------------------------ results that are kept

    @property
    def _keeps_results(self) -> bool:
        """Whether what is made of the training points' values is kept: of a known network, data and settings."""
        return self._storage is not None and self._storage.results and self._repeatable and self._settings is not None

    @property
    def _keeps_sweeps(self) -> bool:
        """Whether passes over the training data go through the store and its engine."""
        return self._sweeps and self._keeps_results

    @property
    def _settings(self) -> dict[str, object] | None:
        """The arguments on which results depend; None if some have no form on disk."""
        try:
            arguments = json_arguments(self)
        except InvalidTypeError:
            return None
        kind, storage = type(self), self._storage
        settings = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
        dtype = None if storage is None else storage.dtype
        return {**settings, "method": f"{kind.__module__}.{kind.__qualname__}", "stored as": dtype}

    @property
    def _learned_from(self) -> dict[str, object] | None:
        """What results depend on that are made of the values of the store; None: they are not kept."""
        report, settings = self.store_, self._settings
        if report is None or settings is None or not self._keeps_results:
            return None
        return {**settings, "store": report.folder.name, "content": report.content}

    @property
    def _engine(self) -> Engine:
        """Who computes what is kept."""
        return engine_of("local" if self._storage is None else self._storage.engine)

    def _kept(self, name: str, compute: Callable[[], Item], *, sums: bool = False) -> Item:
        """What was learned from the values of the store, from the same folder if it was learned before.

        Args:
            name: of it, as in ``store_.recalled``.
            compute: learns it, as a function of the values of the store, the network and the arguments.
            sums: whether it uses :meth:`_summing`, in which all processes of a launch may take part.
        """
        report, parts = self.store_, self._learned_from
        if report is None or parts is None:
            return compute()
        state = KeptState(report.folder, name, parts, self.get_name(), state_classes(self._state_classes), self.device)
        value, recalled = state.get(compute, jointly=sums and self._engine.jointly)
        if recalled:
            self.store_ = replace(report, recalled=(*report.recalled, name))
        kept: Item = value
        return kept

    @contextmanager
    def _summing(self, summands: Any) -> Iterator[Total | None]:
        """What adds up over the training points, of the values of the store; None: nobody but this process."""
        report, parts = self.store_, self._learned_from
        if report is None or parts is None:
            yield None
            return
        key = fingerprint(type(summands).__name__, *sorted(parts.items()))
        with self._engine.summing(SumWork(summands, self.n_train_, report.folder, key)) as total:
            yield total and (lambda name, *inputs: total(name, *inputs).to(self.device))

    def _swept(self, work: Scores | OwnScores) -> TrainingStore:
        """The store of a pass over the training data, shard by shard."""
        if self.store_ is None:  # loaded from a file
            self._training_labels()
        assert self._storage is not None
        assert self._settings is not None
        assert self.store_ is not None
        # The content of the data was tested when the fit was made, as the storage asks.
        storage = replace(self._storage, verify="probe")
        parts = {**self._settings, "store": self.store_.folder.name, "content": self.store_.content}
        if isinstance(work, OwnScores):
            return self._training_store(storage, "self-influence", parts, work.columns, work, self._answers())
        points = [structure(work.inputs), *leaves(work.inputs), work.target]
        chosen = "all" if work.k is None else f"{work.k} {'highest' if work.proponents else 'lowest'}"
        parts |= {"test points": fingerprint(*points), "attributions": chosen}
        return self._training_store(storage, "attributions", parts, work.columns, work, self._answers())

    def _rows_like_the_store(self, values: Tensor, indices: Tensor) -> Tensor:
        """Some rows of a matrix: where a store was used, in an unnamed file of its folder and not in memory."""
        if self.store_ is None or values.device.type != "cpu":
            return values[indices]
        rows = mapped_array((len(indices), values.shape[1]), values.dtype, self.store_.folder)
        size = max(1, _ROWS_ELEMENTS // values.shape[1])
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            torch.index_select(values, 0, part, out=rows[start : start + len(part)])
        return rows
