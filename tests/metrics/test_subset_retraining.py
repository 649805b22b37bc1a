"""Retraining on subsets: it resumes, refuses other settings, leaves random states alone, and outputs are right."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin.errors import CacheWarning, DualViewError, InvalidTypeError, InvalidValueError
from dualview_plugin.metrics import LinearDatamodeling, SubsetOutputs, retrain_on_subsets

N_TRAIN, N_TEST, N_FEATURES, N_CLASSES = 23, 7, 5, 3
generator = torch.Generator().manual_seed(0)
LABELS = torch.arange(N_TRAIN) % N_CLASSES
TRAIN = TensorDataset(torch.randn(N_TRAIN, N_FEATURES, generator=generator) + LABELS[:, None], LABELS)
X = torch.randn(N_TEST, N_FEATURES, generator=generator)
Y, DECISIONS = np.arange(N_TEST) % N_CLASSES, (np.arange(N_TEST) + 1) % N_CLASSES


class Trainer:
    """A linear network of random weights plus class means; it keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], int]] = []

    def __call__(self, subset: Any, seed: int) -> nn.Module:
        self.calls.append((list(subset.indices), seed))
        model = nn.Linear(N_FEATURES, N_CLASSES)
        images, labels = map(torch.stack, zip(*subset, strict=True))
        with torch.no_grad():
            for label in range(N_CLASSES):
                model.weight[label] += images[labels == label].mean(dim=0)
        return model


def run(train: Any, folder: Path, **options: Any) -> SubsetOutputs:
    arguments: dict[str, Any] = {"n_subsets": 5, "folder": folder} | options
    return retrain_on_subsets(train, TRAIN, X, Y, DECISIONS, **arguments)


def test_subsets_seeds_and_outputs(tmp_path: Path) -> None:
    train = Trainer()
    state = torch.get_rng_state()
    found = run(train, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.subsets.shape == (5, N_TRAIN)
    assert (found.subsets.sum(axis=1) == round(N_TRAIN / 2)).all()
    assert [np.flatnonzero(row).tolist() for row in found.subsets] == [indices for indices, _ in train.calls]
    assert len({seed for _, seed in train.calls}) == 5
    indices, seed = train.calls[3]
    torch.manual_seed(seed)
    with torch.no_grad():
        logits = Trainer()(torch.utils.data.Subset(TRAIN, indices), seed)(X).double().numpy()
    for t in range(N_TEST):
        probabilities = np.exp(logits[t]) / np.exp(logits[t]).sum()
        assert found.log_softmax[3, t] == pytest.approx(np.log(probabilities[DECISIONS[t]]))
        others = np.delete(logits[t], Y[t])
        assert found.margin[3, t] == pytest.approx(logits[t, Y[t]] - np.log(np.exp(others).sum()))
    scores = LinearDatamodeling(found.subsets, found.margin)(None, X, Y, a_batch=np.ones((N_TEST, N_TRAIN)))
    assert scores == [0.0] * N_TEST


def test_an_interrupted_run_goes_on_and_more_subsets_are_added(tmp_path: Path) -> None:
    whole = run(Trainer(), tmp_path / "whole", n_subsets=7)

    class Interrupted(Trainer):
        def __call__(self, subset: Any, seed: int) -> nn.Module:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(subset, seed)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), tmp_path / "parts")
    resumed, enlarged = Trainer(), Trainer()
    run(resumed, tmp_path / "parts")
    again = run(enlarged, tmp_path / "parts", n_subsets=7)
    assert (len(resumed.calls), len(enlarged.calls)) == (3, 2)
    for name in ("subsets", "log_softmax", "margin"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("options", "what"),
    [({"seed": 1}, "seed"), ({"share": 0.4}, "n_chosen"), ({"settings": {"epochs": 3}}, "settings")],
)
def test_other_settings_are_refused(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    run(Trainer(), tmp_path, settings={"epochs": 2})
    run(Trainer(), tmp_path, settings={"epochs": 2})
    with pytest.raises(InvalidValueError, match=f"folder of retrain_on_subsets must be .* outputs of other .*{what}"):
        run(Trainer(), tmp_path, **({"settings": {"epochs": 2}} | options))


def test_other_test_points_and_a_spoilt_manifest_are_refused(tmp_path: Path) -> None:
    run(Trainer(), tmp_path)
    with pytest.raises(InvalidValueError, match="outputs of other test_points"):
        retrain_on_subsets(Trainer(), TRAIN, X + 1, Y, DECISIONS, folder=tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([1]))
    with pytest.raises(InvalidValueError, match="outputs of other format"):
        run(Trainer(), tmp_path)
    manifest.write_text("{")
    with pytest.raises(InvalidValueError, match="one with a readable manifest"):
        run(Trainer(), tmp_path)


@pytest.mark.parametrize("spoil", [lambda content: content[:40], lambda content: b"", lambda content: content[::-1]])
def test_a_damaged_file_is_trained_again(tmp_path: Path, spoil: Any) -> None:
    expected = run(Trainer(), tmp_path)
    path = tmp_path / "subset-00002.npz"
    path.write_bytes(spoil(path.read_bytes()))
    train = Trainer()
    with pytest.warns(CacheWarning, match="is trained again"):
        found = run(train, tmp_path)
    assert len(train.calls) == 1
    np.testing.assert_array_equal(found.margin, expected.margin)


def test_a_network_that_diverged_leaves_nan(tmp_path: Path) -> None:
    def diverged(subset: Any, seed: int) -> nn.Module:
        model = nn.Linear(N_FEATURES, N_CLASSES)
        nn.init.constant_(model.weight, torch.nan)
        return model

    found = run(diverged, tmp_path)
    assert np.isnan(found.margin).all()
    assert np.isnan(found.log_softmax).all()


def test_wrong_calls(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "n_subsets of retrain_on_subsets must be an integer of at least 2, got 1": {"n_subsets": 1},
        "share of retrain_on_subsets must be a real number in": {"share": 0},
        "share of retrain_on_subsets must be enough for one training point": {"share": 0.001},
        "seed of retrain_on_subsets must be an integer of at least 0": {"seed": -1},
        "settings of retrain_on_subsets must be values that JSON has": {"settings": {"loss": print}},
    }
    for message, options in wrong.items():
        with pytest.raises(DualViewError, match=message):
            run(Trainer(), tmp_path, **options)
    with pytest.raises(InvalidValueError, match="labels of retrain_on_subsets must be one for each of 7 points"):
        retrain_on_subsets(Trainer(), TRAIN, X, Y[:2], DECISIONS, folder=tmp_path)
    with pytest.raises(InvalidTypeError, match="train of retrain_on_subsets must be a function that returns"):
        run(lambda subset, seed: None, tmp_path)
    with pytest.raises(InvalidValueError, match="a network with outputs"):
        run(lambda subset, seed: nn.Linear(N_FEATURES, 2), tmp_path)


def test_other_training_inputs_of_the_same_labels_are_refused(tmp_path: Path) -> None:
    run(Trainer(), tmp_path)
    other = TensorDataset(TRAIN.tensors[0] + 1, LABELS)
    with pytest.raises(InvalidValueError, match="got outputs of other train_inputs"):
        retrain_on_subsets(Trainer(), other, X, Y, DECISIONS, folder=tmp_path, n_subsets=5)


def test_data_that_are_augmented_at_each_reading_resume(tmp_path: Path) -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return N_TRAIN

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = TRAIN[index]
            return x + torch.rand(1), y

    first, second = Trainer(), Trainer()
    for train in (first, second):
        retrain_on_subsets(train, Augmented(), X, Y, DECISIONS, folder=tmp_path, n_subsets=3)
    assert (len(first.calls), len(second.calls)) == (3, 0)


def test_every_random_state_starts_from_the_seed_of_the_subset(tmp_path: Path) -> None:
    drawn: list[tuple[float, float, float]] = []

    def train(subset: Any, seed: int) -> nn.Module:
        drawn.append((float(torch.rand(1)), float(np.random.rand()), random.random()))  # noqa: NPY002
        return nn.Linear(N_FEATURES, N_CLASSES)

    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    run(train, tmp_path / "once")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    random.seed(4)
    run(train, tmp_path / "again")
    assert drawn[:5] == drawn[5:]
    assert [len({one[state] for one in drawn}) for state in range(3)] == [5, 5, 5]
