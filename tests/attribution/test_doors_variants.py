"""Neighbours of the inputs in test_doors: each was wrong without a word once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate
from zennit.composites import EpsilonPlus

from dualview_plugin.attribution import DataAttribution, DualView
from dualview_plugin.errors import (
    DualViewError,
    InvalidTypeError,
    InvalidValueError,
    RandomDataWarning,
    RandomNetworkWarning,
    StaleFitError,
)
from tests.untouched import assert_untouched

N, N_CLASSES = 40, 4
X, Y = torch.randn(N, 6, generator=torch.Generator().manual_seed(3)), torch.arange(N) % N_CLASSES
TEST = torch.randn(9, 6, generator=torch.Generator().manual_seed(4))


def network(middle: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), middle or nn.ReLU(), nn.Linear(8, N_CLASSES))


def dualview(data: Any = None, model: nn.Module | None = None, layer: str = "2", **options: Any) -> DataAttribution:
    train = TensorDataset(X, Y) if data is None else data
    return DualView(network() if model is None else model, layer, train, **{"show_progress": False, **options})


class Reversed(DataLoader[Any]):
    """A loader whose samplers say nothing of its order."""

    def __iter__(self) -> Any:
        return iter(list(super().__iter__())[::-1])


class Batched(Dataset[Any]):
    """A dataset that reads a batch in another order than it was asked for."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in sorted(indices, key=lambda index: float(X[index, 0]))]


def mixing(samples: list[Any]) -> Any:
    """A collate function that mixes large batches."""
    inputs, labels = default_collate(samples)
    return (0.5 * inputs + 0.5 * inputs.flip(0) if len(inputs) > 5 else inputs), labels


@pytest.mark.parametrize(
    "data",
    [
        Reversed(TensorDataset(X, Y), batch_size=8),
        DataLoader(Batched(), batch_size=8),
        Batched(),
        DataLoader(TensorDataset(X, Y), batch_size=20, collate_fn=mixing),
    ],
    ids=["loader", "getitems in a loader", "getitems", "mixing"],
)
def test_training_rows_that_are_other_samples_are_refused(data: Any) -> None:
    with pytest.raises(InvalidValueError, match="train_dataset of DualView must be"):
        dualview(data).fit()


@pytest.mark.parametrize(
    "loader",
    [
        Reversed(TensorDataset(TEST), batch_size=4),
        DataLoader(list(TEST), batch_size=4, collate_fn=lambda rows: torch.stack(sorted(rows, key=lambda r: r[0]))),
        DataLoader(list(TEST), batch_size=4, collate_fn=lambda rows: torch.stack(rows) - torch.stack(rows).mean(0)),
        DataLoader(list(TEST), batch_size=4, collate_fn=lambda rows: torch.stack([rows[0]] * len(rows))),
    ],
    ids=["loader", "sorts", "subtracts the mean", "repeats"],
)
def test_test_rows_that_are_other_samples_are_refused(loader: DataLoader[Any]) -> None:
    with pytest.raises(InvalidValueError, match="inputs of DualView must be a"):
        dualview().attribute(loader)


def test_random_test_data_are_warned_about() -> None:
    class Noisy(Dataset[Tensor]):
        def __len__(self) -> int:
            return len(TEST)

        def __getitem__(self, index: int) -> Tensor:
            return TEST[index] + torch.randn(6)

    with pytest.warns(RandomDataWarning, match="inputs of DualView differ from one reading to the next"):
        dualview().attribute(DataLoader(Noisy(), batch_size=4))


def test_rows_that_interact_in_large_batches_alone_are_refused() -> None:
    class Capacity(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return torch.cat([values[:10], torch.zeros_like(values[10:])])

    with pytest.raises(InvalidValueError, match="treats each sample by itself"):
        dualview(model=network(Capacity()), batch_size=40).fit()


class Named(Dataset[Any]):
    """A dataset with labels under a name of its own."""

    def __init__(self, labels: Any) -> None:
        self.classes_of_things = labels

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return X[index], int(self.classes_of_things[index])


def _listed() -> list[Any]:
    return [(point, int(label)) for point, label in zip(X, Y, strict=True)]


LABELLED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a list of samples": (_listed, lambda data: data.__setitem__(5, (X[5], 3))),
    "two samples of a list swapped": (_listed, lambda data: data.insert(4, data.pop(12))),
    "a tensor": (lambda: Named(Y.clone()), lambda data: data.classes_of_things.__setitem__(5, 3)),
    "an array": (lambda: Named(Y.numpy().copy()), lambda data: data.classes_of_things.__setitem__(5, 3)),
    "a list of labels": (lambda: Named(Y.tolist()), lambda data: data.classes_of_things.__setitem__(5, 3)),
    "labels with the same weighted sum": (
        lambda: Named(Y.clone()),
        lambda data: data.classes_of_things.__setitem__(slice(0, 3), torch.tensor([2, 0, 2])),
    ),
    "joined datasets": (
        lambda: ConcatDataset([Named(Y.clone()), TensorDataset(X[:2], Y[:2])]),
        lambda data: data.datasets[0].classes_of_things.__setitem__(5, 3),
    ),
    "a part of joined datasets": (
        lambda: Subset(ConcatDataset([Named(Y.clone())]), range(30)),
        lambda data: data.dataset.datasets[0].classes_of_things.__setitem__(5, 3),
    ),
    "an input in memory": (
        lambda: TensorDataset(X.clone(), Y),
        lambda data: data.tensors[0].__setitem__(5, 9.0),
    ),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_data_that_change_after_the_fit_are_noticed(kind: str) -> None:
    data = LABELLED[kind][0]()
    method = dualview(data).fit()
    method.attribute(TEST)
    LABELLED[kind][1](data)
    with pytest.raises(StaleFitError, match="train_dataset of DualView must be as it was at the fit"):
        method.attribute(TEST)


class Looking(nn.Module):
    """A layer that looks features up in a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(8, generator=torch.Generator().manual_seed(1))
        self.tables = {"second": [self.table.clone()]}

    def forward(self, values: Tensor) -> Tensor:
        self.seen = values  # an activation, which says nothing of the network
        return torch.relu(values * self.table + self.tables["second"][0] * (values > 1.5))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].weight.data.copy_(model[0].weight.data.flip(0)),
        lambda model: model[1].table.mul_(1.001),
        lambda model: setattr(model[1], "table", model[1].table.flip(0)),
        lambda model: model[1].tables["second"][0].fill_(7.0),
    ],
    ids=["weights change places", "a plain tensor", "another plain tensor", "a tensor in a list in a dictionary"],
)
def test_a_network_that_changes_after_the_fit_is_noticed(change: Callable[[Any], Any], tmp_path: Any) -> None:
    model = network(Looking())
    method = dualview(model=model, cache_dir=tmp_path).fit()
    model(TEST)  # an activation that is kept changes nothing
    method.attribute(TEST)
    change(model)
    with pytest.raises(StaleFitError, match="model of DualView must be as it was at the fit"):
        method.attribute(TEST)
    expected = dualview(model=model).attribute(TEST)
    torch.testing.assert_close(dualview(model=model, cache_dir=tmp_path).attribute(TEST), expected)


def test_blocks_of_two_networks_are_never_one_result() -> None:
    model = network()
    blocks = dualview(model=model, batch_size=3).attribute_blocks(TEST)
    next(blocks)
    model[0].weight.data.neg_()
    with pytest.raises(StaleFitError, match="must stay as it is between blocks"):
        next(blocks)


class Hoarding(nn.Module):
    """A layer that writes to whatever it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.log, self.stats, self.array = torch.zeros(1), [0], {"a": {"n": 0}}, np.zeros(1)
        self.generators = [torch.Generator(), np.random.default_rng(0), random.Random(0)]

    def forward(self, values: Tensor) -> Tensor:
        self.count += 1
        self.log.append(len(values))
        self.stats["a"]["n"] += 1
        self.array += 1
        torch.randn(1, generator=self.generators[0])
        self.generators[1].normal()
        self.generators[2].random()
        return torch.relu(values)

    def state(self) -> str:
        own, numpy, python = self.generators
        states = own.get_state().tolist(), numpy.bit_generator.state, python.getstate()
        return repr((self.count, self.log, self.stats, self.array, states))


def test_what_a_network_holds_in_plain_attributes_is_as_before() -> None:
    model = network(Hoarding())
    before = model[1].state()
    dualview(model=model).attribute(TEST)
    assert model[1].state() == before


def test_generators_of_a_dataset_are_as_before() -> None:
    class Drawing(TensorDataset):
        shared = torch.Generator()

        def __init__(self) -> None:
            super().__init__(X, Y)
            self.own = np.random.default_rng(0)

        def __getitem__(self, index: int) -> Any:
            torch.randn(1, generator=self.shared), self.own.normal()
            return super().__getitem__(index)

    data = Drawing()
    before = data.shared.get_state(), repr(data.own.bit_generator.state)
    dualview(data).attribute(DataLoader(Subset(data, range(5)), batch_size=2))
    assert torch.equal(data.shared.get_state(), before[0])
    assert repr(data.own.bit_generator.state) == before[1]


class Merging(nn.Linear):
    """A LoRA layer of the kind that merges its adapter into the weight when its mode changes."""

    def __init__(self) -> None:
        super().__init__(6, 8)
        self.adapter, self.merged = nn.Parameter(torch.randn(8, 6)), False

    def train(self, mode: bool = True) -> Merging:
        if mode == self.merged:
            self.weight.data += self.adapter.data if not mode else -self.adapter.data
            self.merged = not mode
        return super().train(mode)

    def forward(self, values: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.adapter
        return nn.functional.linear(values, weight, self.bias)


class Renormalising(nn.Linear):
    """A layer that keeps its weight short, in its forward pass."""

    def forward(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(0.9)
        return super().forward(values)


@pytest.mark.parametrize("layer", [Merging, lambda: Renormalising(6, 8)], ids=["merging", "renormalising"])
@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.RandomNetworkWarning")
def test_parameters_that_a_network_writes_are_as_before(layer: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(layer(), nn.ReLU(), nn.Linear(8, N_CLASSES))
    method = dualview(model=model)
    for _ in range(2):
        with assert_untouched(model):
            method.attribute(TEST)


def test_layers_that_a_forward_pass_makes_are_refused() -> None:
    class Lazy(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            if not hasattr(self, "made"):
                self.made = nn.Linear(8, 8)
            return self.made(values)

    with pytest.raises(
        InvalidValueError, match="model of DualView must be initialised: run one batch through it first"
    ):
        dualview(model=network(Lazy())).fit()


def test_a_network_that_draws_from_other_generators_is_warned_about_and_stays_fitted() -> None:
    class Drawing(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values * float(np.random.rand()) + random.random()  # noqa: NPY002

    with pytest.warns(RandomNetworkWarning, match="model of DualView draws random numbers"):
        method = dualview(model=network(Drawing())).fit()
    assert method.attribute(TEST).shape == (9, N)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size of DualView"),
        ("batch_size", "a", "batch_size of DualView"),
        ("device", "cuda:7", "device of DualView"),
        ("cache_dir", 123, "cache_dir of DualView"),
        ("cache_dir", "a\0b", "cache_dir of DualView"),
        ("tol", -1.0, "tol of DualView"),
        ("forward_func", 3, "model of DualView"),
        ("final_fc_layer", "no", "final_fc_layer of DualView"),
    ],
)
def test_arguments_left_at_their_default_are_validated_when_assigned(name: str, value: Any, message: str) -> None:
    method = dualview()
    with pytest.raises(DualViewError, match=message):
        setattr(method, name, value)


def test_a_cache_folder_that_is_assigned_is_used(tmp_path: Any) -> None:
    method = dualview()
    method.cache_dir = tmp_path
    method.fit()
    assert list(tmp_path.iterdir())


def test_a_map_under_registered_rules_is_the_networks_own() -> None:
    model = network()
    method = dualview(model=model)
    expected = method.input_attribution(TEST)
    with EpsilonPlus().context(model):
        torch.testing.assert_close(method.input_attribution(TEST), expected)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (torch.randn(3, 7), InvalidValueError),
        (torch.randint(5, (3, 6)), InvalidValueError),
        (torch.zeros(3, 6, dtype=torch.uint8), InvalidValueError),
        (torch.zeros(3, 6, dtype=torch.complex64), InvalidValueError),
        (torch.eye(6).to_sparse(), InvalidTypeError),
        (torch.empty(3, 6, device="meta"), InvalidTypeError),
    ],
    ids=["width", "integers", "bytes", "complex", "sparse", "meta"],
)
def test_inputs_that_the_network_does_not_take_are_refused_in_words(inputs: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="inputs of DualView must be"):
        dualview().attribute(inputs)


@pytest.mark.parametrize(
    "data",
    [TensorDataset(torch.randn(N, 7), Y), TensorDataset(torch.zeros(N, 6, dtype=torch.int64), Y)],
    ids=["width", "integers"],
)
def test_training_data_that_the_network_does_not_take_are_refused_in_words(data: TensorDataset) -> None:
    with pytest.raises(InvalidValueError, match="train_dataset of DualView must be such that the network takes them"):
        dualview(data).fit()


def test_a_second_name_of_a_layer_is_a_name() -> None:
    model = network()
    model.alias = model[2]  # type: ignore[assignment]
    nn.Module.__delattr__(model, "alias")
    wrapped = nn.ModuleDict({"body": model, "head": model[2]})
    wrapped.forward = model.forward  # type: ignore[method-assign]
    torch.testing.assert_close(dualview(model=wrapped, layer="head").attribute(TEST), dualview().attribute(TEST))


def test_one_output_decides_between_two_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    data = TensorDataset(X, torch.arange(N) % 2)
    found = dualview(data, model)
    assert torch.equal(found.attribute(TEST), found.attribute(TEST, (model(TEST)[:, 0] > 0).long()))
    assert found.n_classes_ == 2
