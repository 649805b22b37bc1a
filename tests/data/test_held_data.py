"""Datasets of users' classes: a change of what they hold in memory is found, wherever it is and however it is held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from dualview_plugin import FeatureSimilarity, StaleFitError
from dualview_plugin.data import TrainingData
from dualview_plugin.data.identity import known_content
from tests.attribution.network_kinds import Dictionaries

N, HIDDEN = 400, 234
TEST = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))


class Held(Dataset[Any]):
    """Attributes, and a function that makes a sample of them."""

    def __init__(self, read: Callable[[Any, int], Any], **held: Any) -> None:
        vars(self).update(held)
        self.read = read

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.read(self, index)


def _texts(x: Tensor) -> list[str]:
    """Numbers with slashes between, as in a text."""
    return ["/".join(map(str, row)) for row in x.tolist()]


def _collated(samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([s["row"] for s in samples]), torch.tensor([s["label"] for s in samples])


def _rows(x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    return [{"row": row, "text": "as it is", "label": label} for row, label in zip(x.tolist(), y.tolist(), strict=True)]


HOLDERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "columns of tensors": lambda x, y: Held(
        lambda self, i: (self.encodings["x"][i], self.encodings["y"][i]), encodings={"x": x, "y": y}
    ),
    "dictionaries": lambda x, y: Held(
        lambda self, i: (torch.tensor(self.items[i]["row"]), self.items[i]["label"]), items=_rows(x, y)
    ),
    "lists of numbers": lambda x, y: Held(
        lambda self, i: (torch.tensor(self.rows[i]), self.y[i]), rows=x.tolist(), y=y.tolist()
    ),
    "pairs": lambda x, y: Held(lambda self, i: self.pairs[i], pairs=list(zip(x, y.tolist(), strict=True))),
    "texts": lambda x, y: Held(
        lambda self, i: (torch.tensor([float(part) for part in self.texts[i].split("/")]), self.y[i]),
        texts=_texts(x),
        y=y.tolist(),
    ),
    "a dataset under another name": lambda x, y: Held(lambda self, i: self.base[i], base=TensorDataset(x, y)),
    "more than it gives": lambda x, y: Held(
        lambda self, i: (self.x[i], int(self.y[i])), x=torch.cat([x, x[:1]]), y=torch.cat([y, y[:1]])
    ),
    "a table": lambda x, y: Held(
        lambda self, i: (torch.tensor(self.table.iloc[i, :4].tolist()), int(self.table.iloc[i, 4])),
        table=pd.DataFrame(torch.cat([x.double(), y[:, None].double()], 1).numpy()),
    ),
    "a list and a collate function": lambda x, y: DataLoader(
        _rows(x, y),  # type: ignore[arg-type]
        batch_size=50,
        collate_fn=_collated,
    ),
}


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def _method(data: Any, **options: Any) -> FeatureSimilarity:
    return FeatureSimilarity(_network(), "2", data, show_progress=False, **options)


def _data() -> tuple[Tensor, Tensor]:
    x, y = torch.randn(N, 4, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 3
    assert HIDDEN not in TrainingData(TensorDataset(x, y), 1, "a test")._positions(128)
    return x, y


@pytest.mark.parametrize("change", ["input", pytest.param("label", marks=pytest.mark.slow)])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_change_that_no_probe_reads_gets_another_store(holder: str, change: str, tmp_path: Path) -> None:
    x, y = _data()
    _method(HOLDERS[holder](x.clone(), y.clone()), cache_dir=tmp_path).fit()
    again = _method(HOLDERS[holder](x.clone(), y.clone()), cache_dir=tmp_path).fit()
    if change == "input":
        x[HIDDEN, 0] += 3
    else:
        y[HIDDEN] = (y[HIDDEN] + 1) % 3
    other = _method(HOLDERS[holder](x, y), cache_dir=tmp_path).fit()
    assert again.store_ is not None
    assert other.store_ is not None
    assert (again.store_.n_computed, other.store_.n_computed) == (0, 1)


def test_a_change_that_no_probe_reads_is_not_loaded(tmp_path: Path) -> None:
    x, y = _data()
    _method(HOLDERS["dictionaries"](x, y)).save(tmp_path / "fitted")
    x = x.clone()
    x[HIDDEN, 0] += 3
    with pytest.raises(StaleFitError, match="train_dataset"):
        FeatureSimilarity.load(tmp_path / "fitted", _network(), HOLDERS["dictionaries"](x, y), show_progress=False)


WRITES: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], object]]] = {
    "a column in place": (HOLDERS["columns of tensors"], lambda data: data.encodings["x"][HIDDEN].add_(3)),
    "another column": (HOLDERS["columns of tensors"], lambda data: data.encodings.update(x=data.encodings["x"] + 1e-9)),
    "a dictionary's entry": (HOLDERS["dictionaries"], lambda data: data.items[HIDDEN].update(row=[0.0] * 4)),
    "a pair's tensor in place": (HOLDERS["pairs"], lambda data: data.pairs[HIDDEN][0].add_(3)),
    "a wrapped tensor in place": (
        HOLDERS["a dataset under another name"],
        lambda data: data.base.tensors[0][HIDDEN].add_(3),
    ),
    "a list's tensor in place": (
        lambda x, y: Dictionaries([{"x": row, "labels": label} for row, label in zip(x, y.tolist(), strict=True)]),
        lambda data: data.samples[HIDDEN]["x"].add_(3),
    ),
}


class Named(nn.Module):
    """Takes its input by name too."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = _network()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.inside(x)
        return outputs


@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_what_a_dataset_holds_makes_a_fit_stale(write: str) -> None:
    holder, write_to = WRITES[write]
    data = holder(*_data())
    method = FeatureSimilarity(Named(), "inside.2", data, show_progress=False)
    test = {"x": TEST} if isinstance(data, Dictionaries) else TEST
    method.attribute(test)
    method.attribute(test)
    write_to(data)
    with pytest.raises(StaleFitError, match="other labels or samples"):
        method.attribute(test)


def _relabelled(x: Tensor, y: Tensor) -> Any:
    return Held(lambda self, i: (self.x[i], self.corrected.get(i, int(self.y[i]))), x=x, y=y, corrected={})


def _with_labels(labels: Any) -> Callable[[Tensor, Tensor], Any]:
    return lambda x, y: Held(lambda self, i: (self.x[i], self.y[i]), x=x, y=labels(y))


LABELS: dict[str, tuple[Callable[[Tensor, Tensor], Any], int | None]] = {
    "numbers of floating type": (_with_labels(lambda y: (y % 2).double().numpy()), 0),
    "a list of them": (_with_labels(lambda y: (y % 2).double().tolist()), 0),
    "several in a row": (_with_labels(lambda y: torch.stack([y % 2, y // 2 % 2], 1).numpy()), 0),
    "one in a row": (_with_labels(lambda y: (y % 2)[:, None].numpy()), 0),
    "corrections": (_relabelled, None),
}


@pytest.mark.parametrize("holder", LABELS)
def test_a_changed_label_is_seen_in_whatever_form_it_is_held(holder: str, tmp_path: Path) -> None:
    make, output = LABELS[holder]
    data, other = make(*_data()), make(*_data())
    method = _method(data, output=output)
    method.attribute(TEST)
    method.attribute(TEST)
    for changed in (data, other):
        if holder == "corrections":
            changed.corrected[HIDDEN] = 2
        elif holder in ("several in a row", "one in a row"):
            changed.y[HIDDEN, 0] = 1 - changed.y[HIDDEN, 0]
        else:
            changed.y[HIDDEN] = 1 - changed.y[HIDDEN]
    with pytest.raises(StaleFitError, match="other labels or samples"):
        method.attribute(TEST)
    _method(make(*_data()), output=output, cache_dir=tmp_path).fit()
    stored = _method(other, output=output, cache_dir=tmp_path).fit()
    assert stored.store_ is not None
    assert stored.store_.n_computed == 1


def test_texts_that_become_longer_make_a_fit_stale() -> None:
    def collated(samples: list[Any]) -> tuple[Tensor, Tensor]:
        texts = nn.utils.rnn.pad_sequence([text for text, _ in samples], batch_first=True)
        return texts, torch.tensor([label for _, label in samples])

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.fc(x.sum(1))
            return outputs

    texts = [torch.randn(2 + i % 3, 4) for i in range(20)]
    data = Held(lambda self, i: (torch.cat([self.texts[i]] * self.times), i % 3), texts=texts, times=1)
    data.__class__ = type("Twenty", (Held,), {"__len__": lambda _: 20})
    loader = DataLoader(data, batch_size=5, collate_fn=collated)
    method = FeatureSimilarity(Mean(), "fc", loader, show_progress=False)
    method.attribute(texts[0][None])
    data.times = 2
    with pytest.raises(StaleFitError, match="other inputs"):
        method.attribute(texts[0][None])


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    assert known_content([(torch.ones(2), 1), (torch.ones(2), 1.5)]).whole
    assert not known_content([(torch.ones(2), 1), (object(), 1)]).whole


def _kept_in(name: str) -> Callable[[Any, int], Any]:
    """A reading that looks into a cache of labels first, and fills it."""

    def read(self: Any, index: int) -> Any:
        cache = getattr(self, name)
        if index not in cache if isinstance(cache, dict) else int(cache[index]) < 0:
            cache[index] = int(self.labels()[index])
        if isinstance(cache, dict) and len(cache) > self.room:
            del cache[next(iter(cache))]
        label = cache.get(index, int(self.labels()[index])) if isinstance(cache, dict) else int(cache[index])
        return self.inputs()[index], label

    return read


def _counting(self: Any, index: int) -> Any:
    self.reads[index] += 1
    return self.inputs()[index], int(self.labels()[index])


def _in_one_buffer(self: Any, index: int) -> Any:
    self.buffer[:] = self.inputs()[index]
    return self.buffer.clone(), int(self.labels()[index])


def _whole_samples(self: Any, index: int) -> Any:
    if self.kept[index] is None:
        self.kept[index] = self.inputs()[index], int(self.labels()[index])
    return self.kept[index]


def _rows_in_an_array(self: Any, index: int) -> Any:
    if bool(self.kept[index].isnan().any()):
        self.kept[index] = self.inputs()[index]
    return self.kept[index].clone(), int(self.labels()[index])


# Datasets that write to themselves when they are read: what they hold at first, and how they read.
SELF_WRITING: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Any, int], Any]]] = {
    "a list of samples": (lambda: {"kept": [None] * N}, _whole_samples),
    "a tensor of rows": (lambda: {"kept": torch.full((N, 4), torch.nan)}, _rows_in_an_array),
    "a list of labels": (lambda: {"seen": [-1] * N}, _kept_in("seen")),
    "a tensor of labels": (lambda: {"seen": torch.full((N,), -1)}, _kept_in("seen")),
    "labels by position": (lambda: {"seen": {}, "room": N}, _kept_in("seen")),
    "the last labels": (lambda: {"seen": {}, "room": 7}, _kept_in("seen")),
    "counts in a list": (lambda: {"reads": [0] * N}, _counting),
    "counts in an array": (lambda: {"reads": np.zeros(N)}, _counting),
    "counts in a tensor": (lambda: {"reads": torch.zeros(N)}, _counting),
    "a buffer": (lambda: {"buffer": torch.zeros(4)}, _in_one_buffer),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", SELF_WRITING)
def test_what_a_reading_writes_is_no_change_of_the_data(kind: str, wrapped: bool, tmp_path: Path) -> None:
    x, y = _data()
    held, read = SELF_WRITING[kind]
    targets = y.tolist()

    def dataset() -> Any:
        own = Held(read, inputs=lambda: x, labels=lambda: targets, targets=targets, **held())
        return Subset(own, range(N)) if wrapped else own

    method = _method(data := dataset())
    expected = method.attribute(TEST)
    assert torch.equal(method.attribute(TEST), expected)
    assert torch.equal(_method(data).attribute(TEST), expected)  # of what has been read before
    assert torch.equal(method.attribute(TEST), expected)
    method.save(tmp_path / "fitted")
    loaded = FeatureSimilarity.load(tmp_path / "fitted", _network(), dataset(), show_progress=False)
    assert torch.equal(loaded.attribute(TEST), expected)
    n_computed = [_method(each, cache_dir=tmp_path / "store").fit().store_.n_computed for each in (dataset(), data)]  # type: ignore[union-attr]
    assert n_computed == [1, 0]
    targets[HIDDEN] = (targets[HIDDEN] + 1) % 3
    with pytest.raises(StaleFitError, match="other labels or samples"):
        method.attribute(TEST)


class Lazy(Held):
    """Finds its labels when it is first read; equal to every other one."""

    def __getitem__(self, index: int) -> Any:
        if not self.targets:
            self.targets += self.source
        return self.x[index], self.targets[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lazy)

    def __hash__(self) -> int:
        return 1


def test_an_edit_of_what_a_reading_has_filled_is_a_change() -> None:
    x, y = _data()
    data = Lazy(lambda *_: None, x=x, source=y.tolist(), targets=[])
    first = _method(data).fit()
    second = _method(data).fit()  # of data that no reading changes any more
    for method in (first, second):
        method.attribute(TEST)
    data.targets[HIDDEN] = (data.targets[HIDDEN] + 1) % 3
    for method in (first, second):
        with pytest.raises(StaleFitError, match="other labels or samples"):
            method.attribute(TEST)


def test_equal_datasets_have_their_own_changes() -> None:
    x, y = _data()
    _method(Lazy(lambda *_: None, x=x, source=y.tolist(), targets=[])).fit()
    data = Lazy(lambda *_: None, x=x, source=[], targets=y.tolist())
    method = _method(data).fit()
    data.targets[HIDDEN] = (data.targets[HIDDEN] + 1) % 3
    with pytest.raises(StaleFitError, match="other labels or samples"):
        method.attribute(TEST)


def test_an_edit_during_a_reading_is_a_change() -> None:
    x, y = _data()
    targets, edits = y.tolist(), list[int]()

    def read(_: Any, index: int) -> Any:
        if index == N - 1 and edits:  # as another thread may do meanwhile
            targets[edits.pop()] += 1
        return x[index], int(y[index])

    method = _method(Held(read, targets=targets))
    method.attribute(TEST)
    edits.append(HIDDEN)
    method.fit()
    with pytest.raises(StaleFitError, match="other labels or samples"):
        method.attribute(TEST)


def test_data_that_are_rewritten_when_they_are_read_are_known_by_their_content(tmp_path: Path) -> None:
    x, y = _data()

    def read(self: Any, index: int) -> Any:
        self.x[index] = self.x[index].clamp(-9, 9)
        return self.x[index].clone(), int(y[index])

    _method(Held(read, x=x.clone()), cache_dir=tmp_path).fit()
    x[HIDDEN, 0] += 3
    other = _method(Held(read, x=x), cache_dir=tmp_path).fit()
    assert other.store_ is not None
    assert other.store_.n_computed == 1


def test_a_label_that_a_function_changes_gets_another_store(tmp_path: Path) -> None:
    x, y = _data()

    def labels_of(value: int) -> Callable[[Any], Tensor]:
        return lambda batch: torch.where(batch[0][:, 0] == x[HIDDEN, 0], value, batch[1])

    for value in (0, 1):
        options = {"label_fn": labels_of(value), "forward": lambda model, batch: model(batch[0])}
        method = _method(TensorDataset(x, y), cache_dir=tmp_path, **options).fit()
        assert method.store_ is not None
        assert (method.store_.n_computed, method.store_.recognised_by) == (1, "whole content")
        assert int(method.train_labels_[HIDDEN]) == value
