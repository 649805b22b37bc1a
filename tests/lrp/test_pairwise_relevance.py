"""Pairwise relevance against LRP of one pair at a time through a network cut in two, and against closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus, EpsilonPlusFlat, NameMapComposite
from zennit.rules import Epsilon, Flat, ZPlus

from dualview_plugin.attribution import RandomAttribution
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.lrp import PairwiseRelevance, RelevantPairs
from tests.lrp.kernel_world import N_CLASSES, N_FEATURES, N_TEST, N_TRAIN, SHAPE, DrawnKernel, K, cnn, images, kernel

CLOSE = {"rtol": 1e-7, "atol": 1e-10}
TARGET = torch.tensor([2, 0, 4])
X_TEST = images(N_TEST, seed=1)
COMPOSITES = {
    "epsilon_plus": EpsilonPlus,
    "epsilon_plus_flat": EpsilonPlusFlat,
    "epsilon_alpha2_beta1": EpsilonAlpha2Beta1,
    "epsilon_gamma_box": lambda: EpsilonGammaBox(low=0.0, high=1.0),
    "name_map": lambda: NameMapComposite([(["conv1"], Flat()), (["conv2"], ZPlus()), (["hidden"], Epsilon())]),
}


def positions(pairs: RelevantPairs) -> Iterator[tuple[int, int, int]]:
    """Row, column and training point of each pair."""
    for t, row in enumerate(pairs.train_indices.tolist()):
        yield from ((t, j, i) for j, i in enumerate(row))


def shares_by_hand(method: DrawnKernel, t: int, i: int) -> torch.Tensor:
    """α_ic φ_m(x_i) φ_m(x_t), features from the network without its final layer, α from the dense table."""
    body = method.model[:-1].eval()
    alpha = torch.zeros(N_TRAIN, N_CLASSES, dtype=torch.float64).index_copy(
        0, method.support_indices_, method.dual_coef_
    )
    images = torch.stack([method.train_dataset.tensors[0][i], X_TEST[t]])
    return (alpha[i, TARGET[t]] * method.transform_features(body(images)).prod(dim=0)).detach()


def one_pair(model: nn.Sequential, image: torch.Tensor, start: torch.Tensor, composite) -> torch.Tensor:
    """The slow reference: Zennit's own attributor on the network without its final layer, for one image."""
    body = model[:-1].eval()
    with Gradient(body, composite) as attributor:
        _, relevance = attributor(image[None].clone(), start[None])
    return relevance[0].detach()


@pytest.mark.parametrize("make", COMPOSITES.values(), ids=COMPOSITES)
@pytest.mark.parametrize("side", ["test", "train"])
def test_agrees_with_one_pass_a_pair_through_the_network_cut_in_two(make, side):
    method = kernel(cnn(bias=True))
    pairs = PairwiseRelevance(method, make()).attribute(X_TEST, TARGET, k=K)
    for t, j, i in positions(pairs):
        image = X_TEST[t] if side == "test" else method.train_dataset.tensors[0][i]
        start = shares_by_hand(method, t, i)
        found = pairs.test_relevance if side == "test" else pairs.train_relevance
        torch.testing.assert_close(found[t, j], one_pair(method.model, image, start, make()), **CLOSE)


@pytest.mark.parametrize("options", [{}, {"standardize": False}, {"offset": 1.0}], ids=str)
@pytest.mark.parametrize("proponents", [True, False])
def test_pairs_and_their_attributions_are_those_of_the_method(options, proponents):
    method = kernel(cnn(bias=True), **options)
    pairs = PairwiseRelevance(method).attribute(X_TEST, TARGET, k=K, proponents=proponents)
    expected = method.attribute(X_TEST, TARGET).topk(K, dim=1, largest=proponents)
    assert torch.equal(pairs.train_indices, expected.indices)
    assert torch.equal(pairs.target, TARGET)
    torch.testing.assert_close(pairs.attribution, expected.values, **CLOSE)
    for t, j, i in positions(pairs):
        total = shares_by_hand(method, t, i).sum() + pairs.intercept_share[t, j]
        torch.testing.assert_close(total, expected.values[t, j], **CLOSE)


@pytest.mark.parametrize("proponents", [True, False])
def test_conservation_without_biases(proponents):
    method = kernel()
    pairs = PairwiseRelevance(method, "epsilon_plus_flat").attribute(X_TEST, TARGET, k=1, proponents=proponents)
    assert pairs.conservation.shape == (N_TEST, 1, 2)
    torch.testing.assert_close(pairs.conservation, torch.ones(N_TEST, 1, 2, dtype=torch.float64), rtol=0, atol=0.01)
    for side, relevance in enumerate((pairs.test_relevance, pairs.train_relevance)):
        sums = relevance.sum(dim=(2, 3, 4))
        torch.testing.assert_close(pairs.conservation[:, :, side], sums / pairs.attribution, **CLOSE)


def test_a_linear_network_has_a_closed_form():
    torch.manual_seed(0)
    hidden, fc = nn.Linear(7, N_FEATURES, bias=False).double(), nn.Linear(N_FEATURES, N_CLASSES).double()
    x_train, x_test = images(N_TRAIN, (7,)), images(N_TEST, (7,), seed=1)
    train = TensorDataset(x_train, torch.arange(N_TRAIN) % N_CLASSES)
    method = DrawnKernel(nn.Sequential(hidden, fc), "1", train, standardize=False)
    pairs = PairwiseRelevance(method, EpsilonPlus(epsilon=1e-12)).attribute(x_test, TARGET, k=K)
    for t in range(N_TEST):
        for j, i in enumerate(pairs.train_indices[t].tolist()):
            alpha = method.coefficients(torch.tensor([[i]]), TARGET[t : t + 1]).item()
            # The share of pixel p in feature m is w_mp x_p: with α and the other image's feature, Σ_m w_mp x_p α φ_m.
            for found, own, other in (
                (pairs.test_relevance, x_test[t], x_train[i]),
                (pairs.train_relevance, x_train[i], x_test[t]),
            ):
                expected = own * (hidden.weight.T @ (alpha * (hidden.weight @ other)))
                torch.testing.assert_close(found[t, j], expected.detach(), **CLOSE)


def test_a_network_that_is_its_final_layer_relates_inputs_directly():
    fc = nn.Linear(7, N_CLASSES).double()
    x_train, x_test = images(N_TRAIN, (7,)), images(N_TEST, (7,), seed=1)
    train = TensorDataset(x_train, torch.arange(N_TRAIN) % N_CLASSES)
    method = DrawnKernel(nn.Sequential(fc), "0", train, standardize=False)
    pairs = PairwiseRelevance(method).attribute(x_test, TARGET, k=K)
    torch.testing.assert_close(pairs.test_relevance, pairs.train_relevance, **CLOSE)
    torch.testing.assert_close(pairs.conservation, torch.ones(N_TEST, K, 2, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batch_size_equivalence(batch_size):
    expected = PairwiseRelevance(kernel()).attribute(X_TEST, TARGET, k=3)
    found = PairwiseRelevance(kernel(), batch_size=batch_size).attribute(X_TEST, TARGET, k=3)
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(vars(found)[name], tensor, equal_nan=True, **CLOSE)


def test_passes_are_counted_by_batches_and_not_by_pairs():
    method = kernel().fit()
    runs = []
    method.model.conv1.register_forward_hook(lambda *_: runs.append(1))
    relevance = PairwiseRelevance(method, batch_size=100)
    indices = torch.arange(7)
    relevance.attribute(X_TEST, TARGET, train_indices=indices)
    # One check of the target, one pass for the features, one without the composite, and one for each side.
    assert len(runs) == 5


def test_given_training_points():
    relevance = PairwiseRelevance(kernel())
    indices = torch.stack([torch.randperm(N_TRAIN)[:3] for _ in range(N_TEST)])
    found = relevance.attribute(X_TEST, TARGET, train_indices=indices)
    assert torch.equal(found.train_indices, indices)
    everything = relevance.method.attribute(X_TEST, TARGET)
    torch.testing.assert_close(found.attribution, everything.gather(1, indices), **CLOSE)
    shared = relevance.attribute(X_TEST, TARGET, train_indices=indices[2].tolist())
    torch.testing.assert_close(shared.test_relevance[2], found.test_relevance[2], **CLOSE)


def test_points_without_a_coefficient_have_no_relevance_and_no_conservation():
    method = kernel().fit()
    outside = [i for i in range(N_TRAIN) if i not in method.support_indices_][:2]
    pairs = PairwiseRelevance(method).attribute(X_TEST, TARGET, train_indices=outside)
    assert not pairs.test_relevance.any()
    assert not pairs.train_relevance.any()
    assert pairs.conservation.isnan().all()


def test_an_intercept_has_its_share_but_no_pixels():
    pairs = PairwiseRelevance(kernel(offset=1.0)).attribute(X_TEST, TARGET, k=K)
    coefficients = kernel(offset=1.0).coefficients(pairs.train_indices, TARGET)
    torch.testing.assert_close(pairs.intercept_share, coefficients, **CLOSE)
    corrected = pairs.conservation * (pairs.attribution / (pairs.attribution - pairs.intercept_share))[:, :, None]
    torch.testing.assert_close(corrected, torch.ones(N_TEST, K, 2, dtype=torch.float64), rtol=0, atol=0.01)


def test_inputs_of_any_kind_and_the_decision_as_target():
    method = kernel()
    decisions = method.model.eval()(X_TEST).argmax(dim=1)
    expected = PairwiseRelevance(method).attribute(X_TEST, decisions, k=K)
    for inputs in (X_TEST, DataLoader(TensorDataset(X_TEST, TARGET), batch_size=2)):
        found = PairwiseRelevance(method).attribute(inputs, k=K)
        torch.testing.assert_close(found.train_relevance, expected.train_relevance, **CLOSE)
        assert torch.equal(found.target, decisions)
    assert found.test_relevance.shape == (N_TEST, K, *SHAPE)


def test_a_method_without_a_kernel_is_refused_with_the_reason():
    method = RandomAttribution(cnn(), "fc", TensorDataset(images(N_TRAIN), torch.zeros(N_TRAIN, dtype=torch.int64)))
    message = r"method of PairwiseRelevance must be a method with a feature kernel .* got RandomAttribution"
    with pytest.raises(InvalidTypeError, match=message):
        PairwiseRelevance(method)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_indices": [[0, 1]]}, InvalidValueError, r"train_indices of PairwiseRelevance must be of shape"),
        ({"train_indices": [0, N_TRAIN]}, InvalidValueError, r"must be in 0 … 12, got values from 0 to 13"),
        ({"train_indices": [-1]}, InvalidValueError, r"got values from -1 to -1"),
        ({"train_indices": [0.5]}, InvalidTypeError, r"train_indices of PairwiseRelevance must be integers"),
        ({"k": 0}, InvalidValueError, r"k of PairwiseRelevance must be an integer of at least 1"),
        ({"target": 9}, InvalidValueError, r"target of DrawnKernel must be in 0 … 4"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        PairwiseRelevance(kernel()).attribute(X_TEST, **options)


def test_bad_composites_are_refused():
    with pytest.raises(InvalidValueError, match=r"composite of PairwiseRelevance must be one of .*'epsilon_plus'"):
        PairwiseRelevance(kernel(), "gamma")
    with pytest.raises(InvalidTypeError, match=r"composite of PairwiseRelevance must be a composite of Zennit"):
        PairwiseRelevance(kernel(), EpsilonPlus)
    with pytest.raises(InvalidValueError, match=r"batch_size of PairwiseRelevance"):
        PairwiseRelevance(kernel(), batch_size=0)
