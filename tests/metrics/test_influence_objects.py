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

from dualview_plugin.errors import InvalidValueError, NotApplicableWarning
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
