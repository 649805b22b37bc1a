"""Captum's influence objects as sources of attributions, against slow references of what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.influence import DataInfluence, SimilarityInfluence, TracInCP, TracInCPFast
from captum.influence._core.similarity_influence import cosine_similarity, euclidean_distance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, default_collate

from dualview_plugin.errors import DualViewError, InvalidValueError, NotApplicableWarning
from dualview_plugin.metrics import IdenticalClass, LabelPoisoning, data_attribution
from dualview_plugin.metrics.sources.influence_source import InfluenceSource
from dualview_plugin.metrics.sources.similarity_source import SimilaritySource
from tests.metrics.world import (
    N_CLASSES,
    N_TEST,
    TRAIN_DATASET,
    TRAIN_LABELS,
    X_TEST,
    Network,
    decisions,
    network,
)

Y = np.arange(N_TEST) % N_CLASSES


@pytest.fixture
def model() -> Network:
    return network()  # in train mode, with dropout: the sources must switch that off


@pytest.fixture
def checkpoint(model: Network, tmp_path: Path) -> str:
    path = tmp_path / "checkpoint.pt"
    torch.save(model.state_dict(), path)
    return str(path)


def tracin(kind: Any, model: Network, checkpoint: str) -> Any:
    loss = nn.CrossEntropyLoss(reduction="sum")
    last = ("fc",) if kind is TracInCPFast else ()
    options = {} if kind is TracInCPFast else {"layers": ["fc"], "sample_wise_grads_per_batch": True}
    return kind(model, *last, TRAIN_DATASET, [checkpoint], loss_fn=loss, batch_size=5, **options)


def last_layer_gradient(model: Network, image: Tensor, label: int) -> Tensor:
    model.eval()
    loss = cross_entropy(model(image[None]), torch.tensor([label]))
    return torch.autograd.grad(loss, model.fc.weight)[0].flatten()


def slow_tracin(model: Network, labels: np.ndarray) -> np.ndarray:
    """Dot products of last-layer loss gradients, one pair at a time."""
    test = [last_layer_gradient(model, x, int(y)) for x, y in zip(torch.from_numpy(X_TEST), labels, strict=True)]
    train = [last_layer_gradient(model, x, int(y)) for x, y in TRAIN_DATASET]
    return np.array([[float(a @ b) for b in train] for a in test])


@pytest.mark.parametrize("kind", [TracInCPFast, TracInCP])
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_tracin_in_batches_equals_the_gradients_dot_products(kind: Any, model: Network, checkpoint: str) -> None:
    source = InfluenceSource(tracin(kind, model, checkpoint), model, batch_size=4, owner="IdenticalClass")
    np.testing.assert_allclose(np.concatenate(list(source.blocks(X_TEST, Y))), slow_tracin(model, Y), atol=1e-5)
    model.train()
    decided = np.concatenate(list(source.blocks(X_TEST, None)))
    assert model.training
    np.testing.assert_allclose(decided, slow_tracin(model, decisions(model)), atol=1e-5)


def test_tracin_scores_with_and_without_the_marker(model: Network, checkpoint: str) -> None:
    influence, expected = tracin(TracInCPFast, model, checkpoint), slow_tracin(model, Y)
    metric = IdenticalClass(TRAIN_LABELS)
    scores = metric(model, X_TEST, Y, a_batch=expected)
    assert metric(model, X_TEST, Y, explain_func=influence) == scores
    assert metric(model, X_TEST, Y, explain_func=data_attribution(influence), batch_size=3) == scores
    with pytest.raises(InvalidValueError, match="train_labels of IdenticalClass must be given"):
        IdenticalClass()(model, X_TEST, Y, explain_func=influence)


def test_tracin_self_influence_ranks_poisoned_points(model: Network, checkpoint: str) -> None:
    poisoned = [1, 4, 5]
    gradients = [last_layer_gradient(model, x, int(y)) for x, y in TRAIN_DATASET]
    expected = np.array([float(gradient @ gradient) for gradient in gradients])
    metric, by_value = LabelPoisoning(poisoned, ranking="self_influence"), LabelPoisoning(poisoned, normalise=False)
    scores = metric(model, X_TEST, Y, explain_func=tracin(TracInCPFast, model, checkpoint))
    assert scores == pytest.approx(by_value(model, X_TEST, Y, a_batch=np.tile(expected, (N_TEST, 1))))


def similarity(model: nn.Module, tmp_path: Path, layers: Any = "hidden", **options: Any) -> SimilarityInfluence:
    return SimilarityInfluence(model, layers, TRAIN_DATASET, str(tmp_path), batch_size=5, **options)


@pytest.mark.parametrize(
    ("metric", "direction", "sign"), [(cosine_similarity, "max", 1), (euclidean_distance, "min", -1)]
)
def test_similarity_of_one_layer_works_although_captums_own_call_fails(
    model: Network, tmp_path: Path, metric: Any, direction: str, sign: int
) -> None:
    influence = similarity(model, tmp_path, similarity_metric=metric, similarity_direction=direction)
    source = SimilaritySource(influence, model, batch_size=4, owner="IdenticalClass")
    rows = np.concatenate(list(source.blocks(X_TEST, None)))
    assert model.training
    assert not model.hidden._forward_hooks
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        test = model.hidden(torch.from_numpy(X_TEST).flatten(1))
        train = model.hidden(TRAIN_DATASET.tensors[0].flatten(1))
    for row, a in zip(rows, test, strict=True):
        slow = [
            float(a @ b / (a.norm() * b.norm())) if metric is cosine_similarity else float((a - b).norm())
            for b in train
        ]
        np.testing.assert_allclose(row, sign * np.array(slow), atol=1e-5)


def test_similarity_follows_the_network_not_a_cache(model: Network, tmp_path: Path) -> None:
    metric = IdenticalClass(TRAIN_LABELS)
    before = metric(model, X_TEST, Y, explain_func=similarity(model, tmp_path))
    with torch.no_grad():
        model.hidden.weight.copy_(torch.randn_like(model.hidden.weight))
    after = metric(model, X_TEST, Y, explain_func=similarity(model, tmp_path))
    assert before != after


def test_similarity_of_several_layers_is_refused(model: Network, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"a SimilarityInfluence of one layer, got \['hidden', 'fc'\]"):
        IdenticalClass(TRAIN_LABELS)(model, X_TEST, Y, explain_func=similarity(model, tmp_path, ["hidden", "fc"]))


def test_similarity_has_no_self_influence(model: Network, tmp_path: Path) -> None:
    with pytest.warns(NotApplicableWarning, match="has no self-influence"):
        scores = LabelPoisoning([1, 2], ranking="self_influence")(
            model, X_TEST, Y, explain_func=similarity(model, tmp_path)
        )
    assert np.isnan(scores).all()


def test_an_influence_object_of_the_users_own(model: Network) -> None:
    class Constant(DataInfluence):
        model: nn.Module

        def influence(self, inputs: Any = None, **kwargs: Any) -> Tensor:
            batch, labels = inputs
            assert kwargs == {"k": None}
            return (labels[:, None] == TRAIN_LABELS).float() + 0 * batch.flatten(1)[:, :1]

    influence = Constant()
    influence.model = model
    assert IdenticalClass(TRAIN_LABELS)(model, X_TEST, Y, explain_func=influence) == [1.0] * N_TEST
    with pytest.warns(NotApplicableWarning, match="has no self-influence"):
        LabelPoisoning([1, 2], ranking="self_influence")(model, X_TEST, Y, explain_func=influence)


def normalised() -> nn.Sequential:
    """A network with buffers and an in-place layer behind a layer of interest."""
    n_inputs = int(np.prod(X_TEST.shape[1:]))
    layers = nn.Flatten(), nn.Linear(n_inputs, 13), nn.BatchNorm1d(13), nn.ReLU(inplace=True)
    return nn.Sequential(*layers, nn.Linear(13, N_CLASSES))


def checkpoints_of(n_checkpoints: int) -> list[dict[str, Tensor]]:
    """States of networks that have seen different data, buffers included."""
    networks = [normalised() for _ in range(n_checkpoints)]
    for position, each in enumerate(networks):
        each(torch.from_numpy(X_TEST) + position)
    return [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in networks]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_tracin_leaves_the_weights_it_was_given(assign: bool, fails: bool) -> None:
    states, model = checkpoints_of(4), normalised()
    model.load_state_dict(states[0])
    model.train()
    model[4].weight.grad = torch.ones_like(model[4].weight)
    parameters = list(model.parameters())

    def load(network: nn.Module, checkpoint: str) -> float:
        network.load_state_dict({name: part.clone() for name, part in states[int(checkpoint)].items()}, assign=assign)
        if fails and checkpoint == "2":
            raise RuntimeError("unreadable checkpoint")
        return 1.0

    loss = nn.CrossEntropyLoss(reduction="sum")
    influence = TracInCPFast(model, model[4], TRAIN_DATASET, ["1", "2", "3"], load, loss_fn=loss, batch_size=5)
    metrics = [
        IdenticalClass(TRAIN_LABELS, explained_class="decision"),
        LabelPoisoning([1, 2], ranking="self_influence"),
    ]
    for metric in metrics:
        if fails:
            with pytest.raises(RuntimeError, match="unreadable checkpoint"):
                metric(model, X_TEST, Y, explain_func=influence, batch_size=4)
        else:
            assert np.isfinite(metric(model, X_TEST, Y, explain_func=influence, batch_size=4)).all()
        assert all(torch.equal(part, states[0][name]) for name, part in model.state_dict().items())
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight))
        assert model.training


def test_tracin_explains_the_decisions_of_the_networks_own_weights() -> None:
    states, model = checkpoints_of(4), normalised()
    model.load_state_dict(states[0])
    explained: list[int] = []

    class Recording(TracInCPFast):
        def influence(self, inputs: Any = None, **kwargs: Any) -> Any:
            explained.extend(inputs[1].tolist())
            return super().influence(inputs, **kwargs)

    def load(network: nn.Module, checkpoint: str) -> float:
        network.load_state_dict(states[int(checkpoint)])
        return 1.0

    decided = decisions(model).tolist()
    loss = nn.CrossEntropyLoss(reduction="sum")
    influence = Recording(model, model[4], TRAIN_DATASET, ["1", "2", "3"], load, loss_fn=loss, batch_size=5)
    IdenticalClass(TRAIN_LABELS, explained_class="decision")(model, X_TEST, Y, explain_func=influence, batch_size=2)
    assert explained == decided


@pytest.mark.parametrize("layer", ["2", "1", "0"])
def test_similarity_is_that_of_the_layers_own_output(layer: str, tmp_path: Path) -> None:
    model = normalised().eval()
    source = SimilaritySource(similarity(model, tmp_path, layer), model, batch_size=4, owner="IdenticalClass")
    with torch.no_grad():
        upto = model[: int(layer) + 1]
        test, train = (nn.functional.normalize(upto(x)) for x in (torch.from_numpy(X_TEST), TRAIN_DATASET.tensors[0]))
    rows = np.concatenate(list(source.blocks(X_TEST, None)))
    np.testing.assert_allclose(rows, test @ train.T, atol=1e-5)


class ViewThenInPlace(nn.Module):
    """Returns a view of the layer's output that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.fc = nn.Linear(int(np.prod(X_TEST.shape[1:])), N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        flat = self.flat(images)
        flat[:, ::2].zero_()
        return self.fc(flat)


def test_similarity_of_a_layer_whose_output_is_a_view(tmp_path: Path) -> None:
    model = ViewThenInPlace()
    x_test, x_train = torch.from_numpy(X_TEST.copy()).flatten(1), TRAIN_DATASET.tensors[0].clone().flatten(1)
    dataset = TensorDataset(TRAIN_DATASET.tensors[0].clone(), TRAIN_LABELS)
    influence = SimilarityInfluence(model, "flat", dataset, str(tmp_path), batch_size=5)
    source = SimilaritySource(influence, model, batch_size=4, owner="IdenticalClass")
    rows = np.concatenate(list(source.blocks(X_TEST.copy(), None)))
    expected = nn.functional.normalize(x_test) @ nn.functional.normalize(x_train).T
    np.testing.assert_allclose(rows, expected, atol=1e-5)


class TwiceAndTuple(nn.Module):
    """A layer that runs twice, one whose output is a tuple, and one whose output has another first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.pair = nn.Identity(), nn.LSTM(35, 13, batch_first=True)
        self.transposed, self.fc = nn.Flatten(0, 1), nn.Linear(13, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        rows, _ = self.pair(self.twice(self.twice(images)).flatten(2))
        self.transposed(rows)
        return self.fc(rows[:, -1])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "exactly once .* with 2 runs"),
        ("pair", "one tensor"),
        ("transposed", "a row for each sample"),
    ],
)
def test_similarity_of_a_layer_without_one_row_for_each_sample_is_refused(
    layer: str, message: str, tmp_path: Path
) -> None:
    model = TwiceAndTuple()
    with pytest.raises(DualViewError, match=f"explain_func of IdenticalClass must be .*{message}"):
        IdenticalClass(TRAIN_LABELS)(model, X_TEST, Y, explain_func=similarity(model, tmp_path, layer))


def influence_over(loader: DataLoader[Any], model: Network, tmp_path: Path, checkpoint: str) -> dict[str, Any]:
    loss = nn.CrossEntropyLoss(reduction="sum")
    by_similarity = similarity(model, tmp_path)
    by_similarity.influence_src_dataloader = loader  # its constructor takes no loader, but users put theirs in place
    return {
        "influence_src_dataset": by_similarity,
        "train_dataset": TracInCPFast(model, "fc", loader, [checkpoint], loss_fn=loss),
    }


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"drop_last": True}, {"sampler": range(N_TEST)}], ids=["shuffled", "dropped", "part"]
)
def test_loaders_in_another_order_are_refused(
    options: dict[str, Any], model: Network, tmp_path: Path, checkpoint: str
) -> None:
    loader = DataLoader(TRAIN_DATASET, batch_size=5, **options)
    for parameter, influence in influence_over(loader, model, tmp_path, checkpoint).items():
        with pytest.raises(InvalidValueError, match=f"{parameter} of IdenticalClass must be"):
            IdenticalClass(TRAIN_LABELS)(model, X_TEST, Y, explain_func=influence)


@pytest.mark.filterwarnings("ignore:Unable to determine the number of batches")
def test_loaders_that_lose_samples_are_refused(model: Network, tmp_path: Path, checkpoint: str) -> None:
    def skipping(samples: list[Any]) -> Any:
        return default_collate(samples[:-1] or samples)

    loader = DataLoader(TRAIN_DATASET, batch_size=5, collate_fn=skipping)
    for influence in influence_over(loader, model, tmp_path, checkpoint).values():
        with pytest.raises(InvalidValueError, match=r"of LabelPoisoning must be (read whole|one column)"):
            LabelPoisoning([1, 2])(model, X_TEST, Y, explain_func=influence)


def test_an_influence_object_without_a_network_takes_the_metrics(model: Network) -> None:
    class Constant(DataInfluence):
        def influence(self, inputs: Any = None, **_: Any) -> Tensor:
            return (inputs[1][:, None] == TRAIN_LABELS).float()

    decided, metric = decisions(model), IdenticalClass(TRAIN_LABELS, explained_class="decision")
    assert metric(model, X_TEST, decided, explain_func=Constant()) == [1.0] * N_TEST
    assert IdenticalClass(TRAIN_LABELS)(None, X_TEST, Y, explain_func=Constant()) == [1.0] * N_TEST
    with pytest.raises(InvalidValueError, match="model of IdenticalClass must be given for explained_class"):
        metric(None, X_TEST, Y, explain_func=Constant())
