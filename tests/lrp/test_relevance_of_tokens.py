"""Pairwise relevance that ends at a layer, against autograd on a network whose weights of attention are constants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from zennit.composites import EpsilonPlus

from dualview_plugin import InvalidTypeError, InvalidValueError, PairwiseRelevance, SurrogateRelevance
from dualview_plugin.lrp import FunctionRules
from tests.attribution.network_kinds import WORDS, Dictionaries, sentences
from tests.lrp.kernel_world import N_CLASSES, N_TRAIN, SHAPE, DrawnKernel, K, images, kernel
from tests.untouched import assert_untouched

WIDTH, N_TEST, PAD = 8, 5, 0
LABELS = torch.arange(N_TRAIN) % N_CLASSES


class TokenNetwork(nn.Module):
    """One head of attention, a norm and a gate of ReLUs over the words of a sentence, and their mean; no biases.

    In the oracle weights of attention and normalisers are constants, as for LRP.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH, padding_idx=PAD)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.norm, self.hidden = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11, bias=False)
        self.fc = nn.Linear(11, N_CLASSES)

    def features(self, x: Tensor, mask: Tensor, *, constant: bool = False) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / WIDTH**0.5
        weights = scores.masked_fill(mask[:, None] == 0, -torch.inf).softmax(-1)
        x = x + (weights.detach() if constant else weights) @ self.value(x)
        centred = x - x.mean(-1, keepdim=True)
        scale = (x.var(-1, keepdim=True, correction=0) + self.norm.eps).sqrt()
        x = centred / scale.detach() if constant else self.norm(x)
        hidden = torch.relu(self.hidden(x))
        share = mask[..., None] / mask.sum(1)[:, None, None]
        return (hidden * share.to(hidden)).sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.fc(self.features(self.embedding(input_ids), attention_mask)))


class Padded:
    """Puts samples together with padding behind them, or in front."""

    def __init__(self, in_front: bool) -> None:
        self.in_front = in_front

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(sample["input_ids"]) for sample in batch)
        rows = []
        for sample in batch:
            missing = longest - len(sample["input_ids"])
            rows.append(nn.functional.pad(sample["input_ids"], (missing, 0) if self.in_front else (0, missing)))
        ids = torch.stack(rows)
        collated = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        return collated | ({"labels": torch.tensor([s["labels"] for s in batch])} if "labels" in batch[0] else {})


def world(in_front: bool = False, **options: Any) -> tuple[DrawnKernel, list[Tensor], list[Tensor]]:
    torch.manual_seed(2)
    model = TokenNetwork().double()
    train, test = sentences(N_TRAIN), sentences(N_TEST)
    rows = [{"input_ids": ids, "labels": int(label)} for ids, label in zip(train, LABELS, strict=True)]
    loader = DataLoader(Dictionaries(rows), batch_size=4, collate_fn=Padded(in_front))
    return DrawnKernel(model, "fc", loader, **options), train, test


def by_autograd(method: DrawnKernel, ids: Tensor, shares: Tensor) -> Tensor:
    """Gradient × input of Σ_m R_m φ_m / φ_m at one sentence alone, where weights and normalisers are constants."""
    model = method.model
    x = model.embedding(ids[None]).detach().requires_grad_()
    phi = model.features(x, torch.ones(1, len(ids)), constant=True)
    ratio = torch.where(phi == 0, 0.0, shares / phi).detach()
    (gradient,) = torch.autograd.grad((ratio * phi).sum(), x)
    return (gradient * x).sum(-1)[0].detach()


def exact() -> EpsilonPlus:
    """Without stabilizers that count."""
    return EpsilonPlus(epsilon=1e-12, canonizers=[FunctionRules(softmax="constant", stabilizer=1e-12)])


@pytest.mark.parametrize("in_front", [False, True], ids=["padded behind", "padded in front"])
@pytest.mark.parametrize("options", [{}, {"standardize": False}], ids=["standardised", "raw"])
def test_tokens_of_both_sides_have_the_relevance_that_autograd_finds(options: dict[str, Any], in_front: bool) -> None:
    method, train, test = world(in_front, **options)
    model = method.model
    loader = DataLoader(Dictionaries([{"input_ids": ids} for ids in test]), batch_size=2, collate_fn=Padded(in_front))
    target = torch.tensor([2, 0, 4, 1, 3])
    relevance = PairwiseRelevance(method, exact(), batch_size=2 * K)
    with assert_untouched(model):
        pairs = relevance.attribute(loader, target, k=K, at="embedding")
    ids = method.training_inputs(pairs.train_indices)["input_ids"].view(N_TEST, K, -1)
    assert pairs.train_relevance.shape == ids.shape
    assert pairs.test_relevance.shape == (N_TEST, K, max(map(len, test)))
    for t in range(N_TEST):
        phi, _ = method.extract(Padded(in_front)([{"input_ids": test[t]}]))
        shares = method.feature_shares(phi, target[t : t + 1], pairs.train_indices[t : t + 1])[0].detach()
        for j, i in enumerate(pairs.train_indices[t].tolist()):
            for found, own in ((pairs.test_relevance[t, j], test[t]), (pairs.train_relevance[t, j], train[i])):
                missing = len(found) - len(own)
                inside = found[missing:] if in_front else found[: len(own)]
                torch.testing.assert_close(inside, by_autograd(method, own, shares[j]), rtol=1e-6, atol=1e-8)
                assert float(found.abs().sum() - inside.abs().sum()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_plus_flat"])
def test_what_arrives_at_the_tokens_is_what_started_at_the_features(name: str, offset: float) -> None:
    method, _, test = world(offset=offset, standardize=False)  # standardised, inactive units would have shares
    pairs = PairwiseRelevance(method, name).attribute([{"input_ids": ids} for ids in test], k=K, at="embedding")
    started = pairs.attribution - pairs.intercept_share
    for side, relevance in enumerate((pairs.test_relevance, pairs.train_relevance)):
        torch.testing.assert_close(relevance.sum(2), started, rtol=0.02, atol=1e-4)
        torch.testing.assert_close(pairs.conservation[..., side], relevance.sum(2) / pairs.attribution)


@pytest.mark.parametrize("in_front", [False, True], ids=["padded behind", "padded in front"])
def test_the_surrogates_map_of_tokens_is_the_sum_over_all_training_points(in_front: bool) -> None:
    method, _, test = world(in_front, standardize=False)
    rows = [{"input_ids": ids} for ids in test]
    target = torch.tensor([2, 0, 4, 1, 3])
    loader = DataLoader(Dictionaries(rows), batch_size=2, collate_fn=Padded(in_front))
    method.batch_size = 2
    found = SurrogateRelevance(method, exact()).attribute(loader, target, at=method.model.embedding)
    indices = torch.arange(N_TRAIN)
    pairs = PairwiseRelevance(method, exact()).attribute(rows, target, train_indices=indices, at="embedding")
    torch.testing.assert_close(found, pairs.test_relevance.sum(1), rtol=1e-5, atol=1e-7)
    whole = Padded(in_front)(rows)
    record = np.zeros(whole["input_ids"].shape, [(name, "i8") for name in whole])
    for key, value in whole.items():
        record[key] = value
    array = SurrogateRelevance(method, exact())(method.model, record, target.numpy(), at="embedding")
    np.testing.assert_allclose(array, found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("in_front", [False, True], ids=["padded behind", "padded in front"])
def test_input_maps_of_batches_of_several_lengths_stand_where_the_tokens_stand(in_front: bool) -> None:
    method, _, test = world(in_front)
    rows = [{"input_ids": ids} for ids in test]
    loader = DataLoader(Dictionaries(rows), batch_size=2, collate_fn=Padded(in_front))
    expected = method.input_attribution(Padded(in_front)(rows), at="embedding")
    method.batch_size = 2
    torch.testing.assert_close(method.input_attribution(loader, at="embedding"), expected, rtol=1e-6, atol=1e-9)


def test_at_an_image_layer_it_is_the_sum_over_the_last_axis() -> None:
    model = kernel().model
    with_identity = nn.Sequential()
    with_identity.add_module("first", nn.Identity())
    for name, module in model.named_children():
        with_identity.add_module(name, module)
    x, target = images(3, seed=1), torch.tensor([2, 0, 4])
    expected = PairwiseRelevance(kernel(model), "epsilon_plus").attribute(x, target, k=K)
    found = PairwiseRelevance(kernel(with_identity), "epsilon_plus").attribute(x, target, k=K, at="first")
    torch.testing.assert_close(found.test_relevance, expected.test_relevance.sum(-1))
    torch.testing.assert_close(found.train_relevance, expected.train_relevance.sum(-1))
    assert found.test_relevance.shape == (3, K, *SHAPE[:2])
    deeper = PairwiseRelevance(kernel(model), "epsilon_plus").attribute(x, target, k=K, at="conv2")
    torch.testing.assert_close(deeper.test_relevance.sum((2, 3)), deeper.attribution, rtol=0.01, atol=0)


def test_what_has_no_relevance_of_tokens_is_refused() -> None:
    method, _, test = world()
    rows = [{"input_ids": ids} for ids in test]
    relevance = PairwiseRelevance(method, "epsilon_plus")
    method.model.unused = nn.Linear(2, 2)
    for at, message in (
        (None, r"inputs of PairwiseRelevance must be one tensor: .* pass at=, a layer such as the embedding"),
        ("nowhere", r"at of PairwiseRelevance must be one of embedding, query, .* got 'nowhere'"),
        ("fc", r"at of PairwiseRelevance must be a layer on whose output the features depend, .* got 'fc'"),
        ("unused", r"a layer that runs exactly once in a forward pass, got 'unused' with 0 runs"),
    ):
        with pytest.raises((InvalidTypeError, InvalidValueError), match=message):
            relevance.attribute(rows, at=at)
