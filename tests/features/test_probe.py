"""What a probe of a few samples finds before heavy work, and what it notices later."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import InvalidValueError, RandomDataWarning, RandomNetworkWarning
from dualview_plugin.features import FeatureExtractor, Probe, take_probe
from tests.untouched import assert_untouched

N, N_CLASSES = 19, 3
X, Y = torch.randn(N, 5, generator=torch.Generator().manual_seed(1)), torch.arange(N) % N_CLASSES


class Net(nn.Module):
    """A hidden layer, what a test makes of it, and a last layer."""

    def __init__(self, middle: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.fc = nn.Linear(5, 7), nn.Linear(7, N_CLASSES)
        self.middle = nn.Identity() if middle is None else middle

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.middle(torch.relu(self.hidden(inputs))))


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


def probe_of(model: nn.Module, data: Any = None, layer: str = "fc") -> Probe:
    training = TrainingData(TensorDataset(X, Y) if data is None else data, 4, "Owner")
    return take_probe(FeatureExtractor(model, layer, "Owner"), training, "Owner", lambda *_: None)


def test_a_probe_has_the_networks_answers() -> None:
    model = Net().eval()
    with assert_untouched(model, X):
        probe = probe_of(model)
    assert len(set(probe.indices)) == 4
    assert probe.indices != sorted(probe.indices)
    torch.testing.assert_close(probe.logits, model(X[probe.indices]).detach())
    torch.testing.assert_close(probe.features, torch.relu(model.hidden(X[probe.indices])).detach())
    assert probe.repeatable
    assert probe.n_classes == N_CLASSES


INTERACTING = {
    "batch statistics": nn.BatchNorm1d(7, track_running_stats=False),
    "the batch's mean": Apply(lambda values: values - values.mean(0)),
    "the batch's largest": Apply(lambda values: values / values.max()),
    "a softmax over samples": Apply(lambda values: values.softmax(0)),
    "a sort of samples": Apply(lambda values: values.sort(0).values),
    "another sample's": Apply(lambda values: values.roll(1, 0)),
    "one token for all": Apply(lambda values: values[:1].expand_as(values) + values),
}


@pytest.mark.parametrize("middle", INTERACTING.values(), ids=INTERACTING)
def test_samples_that_interact_are_refused(middle: nn.Module) -> None:
    with pytest.raises(InvalidValueError, match="model of Owner must be a network that treats each sample by itself"):
        probe_of(Net(middle))


def test_attention_over_the_samples_is_refused_and_over_tokens_is_taken() -> None:
    class Attending(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(4, 2, batch_first=batch_first), nn.Linear(4, N_CLASSES)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))

    tokens = TensorDataset(torch.randn(N, 3, 4), Y)
    probe_of(Attending(batch_first=True), tokens)
    with pytest.raises(InvalidValueError, match="attention without batch_first=True"):
        probe_of(Attending(batch_first=False), tokens)


@pytest.mark.parametrize("n_train", [1, 2, N])
def test_a_lost_batch_axis_is_given_back(n_train: int) -> None:
    squeezing = Net(Apply(torch.squeeze))
    extractor = FeatureExtractor(squeezing, "fc", "Owner")
    data = TrainingData(TensorDataset(X[:n_train], Y[:n_train]), 4, "Owner")
    take_probe(extractor, data, "Owner", lambda *_: None)
    assert extractor.doubles_single
    for found, expected in zip(extractor(X[:1]), FeatureExtractor(Net(), "fc")(X[:1]), strict=True):
        torch.testing.assert_close(found, expected)


def test_padding_without_a_mask_is_refused_and_with_one_is_taken() -> None:
    texts = [torch.randint(1, 30, (length,)) for length in [2, 7, 3, 5, 4, 6, 3, 2, 8, 4, 5, 3, 2, 6, 7, 4, 3, 5, 9]]

    def collate(samples: list[int]) -> tuple[Tensor, Tensor]:
        return pad_sequence([texts[i] for i in samples], batch_first=True), Y[samples]

    loader = DataLoader(range(N), batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    masked = nn.Sequential(nn.EmbeddingBag(30, 8, padding_idx=0), nn.Linear(8, N_CLASSES))
    assert probe_of(masked, loader, "1").repeatable
    bare = nn.Sequential(nn.Embedding(30, 8), Apply(lambda values: values.mean(1)), nn.Linear(8, N_CLASSES))
    with pytest.raises(InvalidValueError, match="padding without a mask"):
        probe_of(bare, loader, "2")


@pytest.mark.parametrize("key", [lambda sample: float(sample[0].norm()), lambda sample: -int(sample[1])])
def test_a_collate_function_that_sorts_is_refused(key: Any) -> None:
    loader = DataLoader(
        TensorDataset(X, Y), batch_size=4, collate_fn=lambda batch: default_collate(sorted(batch, key=key))
    )
    with pytest.raises(InvalidValueError, match=r"train_dataset of Owner must be .* in their order"):
        probe_of(Net(), loader)


class Noisy(Dataset[tuple[Tensor, int]]):
    """A dataset with random augmentation."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index] + 0.1 * torch.randn(5), int(Y[index])


def test_random_data_are_warned_about_by_name() -> None:
    with pytest.warns(RandomDataWarning, match="train_dataset of Owner gives other inputs at every reading"):
        probe = probe_of(Net(), Noisy())
    assert not probe.repeatable
    assert probe.data_change(TrainingData(Noisy(), 4, "Owner")) is None


def test_a_random_network_is_warned_about_by_name() -> None:
    model = Net(Apply(lambda values: nn.functional.dropout(values, 0.5, training=True)))
    with pytest.warns(RandomNetworkWarning, match="model of Owner draws random numbers in eval mode"):
        probe = probe_of(model)
    assert probe.network_change(FeatureExtractor(model, "fc")) is None


def test_nan_is_found_before_heavy_work() -> None:
    x = X.clone()
    x[TrainingData(TensorDataset(X, Y), 4, "Owner").probe_indices()[2]] = torch.nan
    with pytest.raises(InvalidValueError, match="train_dataset of Owner must be data with finite features"):
        probe_of(Net(), TensorDataset(x, Y))


def test_the_networks_changes_are_noticed() -> None:
    model = Net()
    probe, extractor = probe_of(model), FeatureExtractor(model, "fc")
    assert probe.network_change(extractor) is None
    model.fc.bias.data[0] += 1e-6
    assert probe.network_change(extractor) == "other weights"
    model = Net(Apply(lambda values: values))
    probe, extractor = probe_of(model), FeatureExtractor(model, "fc")
    model.middle.function = lambda values: 2 * values
    assert probe.network_change(extractor) == "the same weights but other outputs"


def test_the_datas_changes_are_noticed() -> None:
    probe = probe_of(Net())
    assert probe.data_change(TrainingData(TensorDataset(X, Y), 7, "Owner")) is None
    for data, expected in (
        (TensorDataset(X[:-1], Y[:-1]), "18 samples in place of 19"),
        (TensorDataset(X, Y.flip(0)), "other labels or samples"),
        (TensorDataset(-X, Y), "other inputs"),
    ):
        assert probe.data_change(TrainingData(data, 4, "Owner")) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_networks_of_every_precision_pass(dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = probe_of(Net().to(dtype))
    assert probe.features.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
