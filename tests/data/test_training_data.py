"""The training stream: the dataset's order, every sample once, or a refusal that says what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError

N = 13
X, Y = torch.arange(2.0 * N).reshape(N, 2), torch.arange(N) % 3
DATA = TensorDataset(X, Y)
Collate = Callable[[list[Any]], Any]


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(DATA, **options)


def batched(order: list[int], size: int = 4) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


class Reversed(SequentialSampler):
    """A sampler that inherits a name and keeps no promise."""

    def __iter__(self) -> Any:
        return iter(range(len(self) - 1, -1, -1))


class Halved(BatchSampler):
    """A batch sampler that drops every other batch."""

    def __iter__(self) -> Any:
        return iter(list(super().__iter__())[::2])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(DATA)


@pytest.mark.parametrize("size", [1, 4, N, 100])
def test_batches_are_the_dataset_in_order(size: int) -> None:
    for data in (DATA, loader(batch_size=size), Subset(DATA, range(N))):
        batches = list(TrainingData(data, size, "Owner").batches())
        assert torch.equal(torch.cat([inputs for inputs, _ in batches]), X)
        assert torch.equal(torch.cat([labels for _, labels in batches]), Y)


def test_loaders_that_keep_the_order_are_taken() -> None:
    plain = BatchSampler(SequentialSampler(DATA), 5, drop_last=False)
    complete = BatchSampler(SequentialSampler(DATA), N, drop_last=True)
    for data in (loader(batch_sampler=plain), loader(batch_sampler=complete), loader(num_workers=1)):
        assert sum(len(labels) for _, labels in TrainingData(data, 1, "Owner").batches()) == N


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: loader(shuffle=True), "in a fixed order.*RandomSampler"),
        (lambda: loader(sampler=RandomSampler(DATA)), "in a fixed order.*RandomSampler"),
        (lambda: loader(sampler=SubsetRandomSampler(range(N))), "in a fixed order.*SubsetRandomSampler"),
        (lambda: loader(sampler=WeightedRandomSampler([1.0] * N, N)), "in a fixed order"),
        (lambda: loader(sampler=Reversed(DATA)), "in a fixed order.*Reversed"),
        (lambda: loader(sampler=list(range(N))), "in a fixed order.*list"),
        (lambda: loader(batch_sampler=batched(list(range(N))[::-1])), "in a fixed order.*list"),
        (lambda: loader(batch_sampler=Halved(SequentialSampler(DATA), 4, False)), "in a fixed order.*Halved"),
        (lambda: loader(sampler=SequentialSampler(range(5))), "complete: a loader over all 13 samples.*sampler of 5"),
        (lambda: loader(sampler=SequentialSampler(range(20))), "complete.*sampler of 20"),
        (lambda: loader(batch_size=4, drop_last=True), "complete.*drop_last=True"),
        (
            lambda: loader(batch_sampler=BatchSampler(SequentialSampler(DATA), 4, drop_last=True)),
            "complete.*drop_last=True",
        ),
        (lambda: loader(batch_size=None), "single samples, batched by the loader.*batch_size=None"),
        (lambda: TensorDataset(X[:0], Y[:0]), "not empty"),
        (lambda: DataLoader(TensorDataset(X[:0], Y[:0])), "not empty"),
        (Stream, "a map-style Dataset"),
        (lambda: DataLoader(Stream()), "a map-style Dataset"),
        (lambda: 3, "a map-style Dataset"),
        (lambda: "photos/train", "a map-style Dataset"),
        (lambda: None, "a map-style Dataset"),
    ],
)
def test_other_loaders_are_refused_before_a_sample_is_read(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DualViewError, match=f"train_dataset of Owner must be .*{message}"):
        TrainingData(make(), 4, "Owner")


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        (lambda samples: default_collate(samples[1:] or samples[:0] or samples), "keeps every sample.*3 rows for 4"),
        (lambda samples: default_collate([*samples, samples[0]]), "keeps every sample.*5 rows for 4"),
        (lambda samples: [default_collate(samples)[0], torch.tensor([0])], "keeps every sample.*1 rows for 4"),
        (lambda samples: [torch.tensor(1.0), default_collate(samples)[1]], "keeps every sample.*0 rows for 4"),
        (lambda samples: default_collate(samples)[0], r"\(input, label\) pairs, .*, got Tensor"),
        (lambda samples: [default_collate(samples)[0]], r"\(input, label\) pairs, .*, got a list of Tensor"),
        (lambda samples: {"x": default_collate(samples)[0]}, "hold 'labels' or 'label'; else .*, got the names x"),
        (lambda samples: [*default_collate(samples), 1], "collated to a tensor, got labels of type int"),
        (lambda samples: [default_collate(samples)[0], [s[1] for s in samples]], "collated to a tensor, got .* list"),
        (
            lambda samples: [default_collate(samples)[0], ("cat",) * len(samples)],
            "by the number of its class, .* 'cat'",
        ),
        (lambda samples: [default_collate(samples)[0], torch.rand(len(samples))], "one integer label"),
        (lambda samples: [default_collate(samples)[0], torch.ones(len(samples), 1, dtype=int)], "one integer label"),
    ],
)
def test_batches_without_a_row_for_each_sample_are_refused(collate: Collate, message: str) -> None:
    data = TrainingData(loader(batch_size=4, collate_fn=collate), 4, "Owner")
    with pytest.raises(DualViewError, match=message):
        list(data.batches())


def test_a_loader_that_yields_other_batches_than_it_says_is_refused() -> None:
    class Short(DataLoader[Any]):
        def __iter__(self) -> Any:
            return iter(list(super().__iter__())[:2])

    class Long(DataLoader[Any]):
        def __iter__(self) -> Any:
            return iter([*super().__iter__(), next(super().__iter__())])

    for kind, message in ((Short, "fewer batches"), (Long, "more batches")):
        with pytest.raises(InvalidValueError, match=f"yields every sample.*{message}"):
            list(TrainingData(kind(DATA, batch_size=4), 4, "Owner").batches())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint64, torch.bool])
def test_integer_labels_of_any_type_become_int64(dtype: torch.dtype) -> None:
    labels = (Y % 2).to(dtype)
    data = TrainingData(TensorDataset(X, labels), 4, "Owner")
    found = torch.cat([part for _, part in data.batches()])
    assert found.dtype == torch.int64
    assert torch.equal(found, Y % 2)


def test_samples_that_torch_does_not_collate_are_refused_with_what_to_write() -> None:
    class Unlabelled(Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Tensor, None]:
            return torch.ones(2), None

    with pytest.raises(InvalidTypeError, match="pass a DataLoader with a collate_fn, got a tuple of Tensor, NoneType"):
        TrainingData(Unlabelled(), 2, "Owner").at([0, 1])


def test_the_loaders_generator_is_kept() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    data = TrainingData(loader(batch_size=4, generator=generator), 4, "Owner")
    list(data.batches())
    assert torch.equal(generator.get_state(), before)


def test_points_at_positions_are_collated_as_in_a_batch() -> None:
    pads = lambda samples: (torch.stack([s[0] for s in samples]) + 1, torch.tensor([int(s[1]) for s in samples]))  # noqa: E731
    inputs, labels = TrainingData(loader(collate_fn=pads), 4, "Owner").at([7, 2])
    assert torch.equal(inputs, X[[7, 2]] + 1)
    assert torch.equal(labels, Y[[7, 2]])


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(len(data)))])
def test_the_stamp_sees_growth_and_labels_in_memory(wrap: Callable[[Dataset[Any]], Dataset[Any]]) -> None:
    class Listed(Dataset[tuple[Tensor, int]]):
        def __init__(self) -> None:
            self.targets = Y.tolist()

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return X[index % N], self.targets[index]

    for dataset, change in (
        (Listed(), lambda data: data.targets.append(1)),
        (Listed(), lambda data: data.targets.__setitem__(5, 7)),
        (TensorDataset(X, Y.clone()), lambda data: data.tensors[1].__setitem__(5, 7)),
        (TensorDataset(X, Y.clone()), lambda data: data.tensors[1].__setitem__(slice(0, 2), Y[:2].flip(0))),
    ):
        data = TrainingData(wrap(dataset), 4, "Owner")
        before = data.version
        assert data.version == before
        change(dataset)
        assert data.version == before + 1
        assert data.version == before + 1


def test_the_type_of_the_error_is_the_built_in_one() -> None:
    with pytest.raises(TypeError):
        TrainingData(3, 4, "Owner")
    with pytest.raises(InvalidTypeError):
        TrainingData(3, 4, "Owner")
    with pytest.raises(ValueError, match="fixed order"):
        TrainingData(loader(shuffle=True), 4, "Owner")


@pytest.mark.parametrize("columns", [tuple, list, lambda pair: tuple(part.numpy() for part in pair)])
def test_columns_in_a_tuple_are_no_samples(columns: Any) -> None:
    pair = (torch.zeros(6, 2), torch.arange(6) % 2)
    with pytest.raises(InvalidTypeError, match=r"samples \(input, label\), such as TensorDataset.* of 2 arrays"):
        TrainingData(columns(pair), 4, "example")


def test_a_dictionary_is_a_dataset_if_its_keys_are_positions() -> None:
    with pytest.raises(InvalidTypeError, match=r"a dataset of samples: one of the values.*got a dict of \['train'\]"):
        TrainingData({"train": [(torch.zeros(2), 0)]}, 4, "example")  # type: ignore[arg-type]
    by_position = {index: (torch.full((2,), float(index)), index % 2) for index in range(5)}
    ((inputs, labels),) = TrainingData(by_position, 5, "example").batches()  # type: ignore[arg-type]
    assert inputs.shape == (5, 2)
    assert labels.tolist() == [0, 1, 0, 1, 0]
