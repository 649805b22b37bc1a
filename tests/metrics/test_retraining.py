"""Curves, leave-one-out and brittleness where the effect of every training point is known: outputs are sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from dualview_plugin.errors import DualViewError
from dualview_plugin.metrics import (
    LeaveOneOut,
    brittleness,
    leave_one_out_correlation,
    leave_one_out_effects,
    retraining_curve,
    summed_attributions,
)

N_TEST, N_TRAIN = 3, 20
random = np.random.default_rng(0)
TRUE = np.round(random.normal(size=(N_TEST, N_TRAIN)), 2)
DATA = TensorDataset(torch.from_numpy(TRUE.T), torch.arange(N_TRAIN) % 2)


class Sums(nn.Module):
    """Its logits are the sums of its training points' effects on each test point."""

    def __init__(self, subset: Dataset[Any]) -> None:
        super().__init__()
        self.sums = torch.stack([effects for effects, _ in subset]).sum(dim=0)  # type: ignore[attr-defined]


def train(subset: Dataset[Any], seed: int) -> nn.Module:
    assert torch.initial_seed() == seed
    return Sums(subset)


def output(model: Any) -> np.ndarray:
    return model.sums.numpy()


def mean_output(model: Any) -> float:
    return float(model.sums.mean())


def test_curves_by_hand() -> None:
    values = summed_attributions(TRUE)
    np.testing.assert_allclose(values, TRUE.sum(axis=0))
    np.testing.assert_allclose(summed_attributions(TRUE, "absolute"), np.abs(TRUE).sum(axis=0))
    descending = np.sort(values)[::-1]
    for keep, ordered in (("top", descending), ("bottom", descending[::-1])):
        curve = retraining_curve(values, DATA, train, mean_output, keep=keep)  # type: ignore[arg-type]
        expected = [ordered[: 2 * tenth].sum() / N_TEST for tenth in range(1, 11)]
        np.testing.assert_allclose(curve.shares, np.arange(1, 11) / 10)
        np.testing.assert_allclose(curve.values, expected)
        area = np.mean((np.array(expected)[1:] + np.array(expected)[:-1]) / 2)
        assert curve.area == pytest.approx(area)


def test_the_perfect_ranking_has_the_largest_area_and_the_reversed_the_smallest() -> None:
    values = summed_attributions(TRUE)
    perfect, worst = (retraining_curve(sign * values, DATA, train, mean_output).area for sign in (1, -1))
    areas = [
        retraining_curve(random.permutation(N_TRAIN), DATA, train, mean_output, keep=keep).area  # type: ignore[arg-type]
        for keep in ("top", "bottom")
        for _ in range(20)
    ]
    assert worst < min(areas)
    assert max(areas) < perfect
    assert np.mean(areas[:20]) == pytest.approx(np.mean(areas[20:]), abs=1.5)
    drawn = {retraining_curve(np.zeros(N_TRAIN), DATA, train, mean_output, seed=seed).area for seed in range(3)}
    assert len(drawn) == 3  # equal values in random order


def test_leave_one_out_is_exact_for_sums() -> None:
    effects = leave_one_out_effects(np.arange(N_TRAIN), DATA, train, output)
    np.testing.assert_allclose(effects, TRUE, atol=1e-12)
    np.testing.assert_allclose(leave_one_out_correlation(TRUE, TRUE), 1)
    np.testing.assert_allclose(leave_one_out_correlation(-TRUE, TRUE), -1)
    np.testing.assert_array_equal(leave_one_out_correlation(np.ones_like(TRUE), TRUE), 0)
    removed, noise = np.array([3, 17, 5, 11, 2]), random.normal(size=TRUE.shape)
    some = leave_one_out_effects(removed, DATA, train, output)
    np.testing.assert_allclose(some, TRUE[:, removed], atol=1e-12)
    expected = [spearmanr(a, b).statistic for a, b in zip(noise[:, removed], some, strict=True)]
    np.testing.assert_allclose(leave_one_out_correlation(noise, some, removed), expected)
    metric = LeaveOneOut(some, removed)
    assert metric(None, np.zeros((N_TEST, 2)), np.zeros(N_TEST, int), a_batch=noise, batch_size=2) == pytest.approx(
        expected
    )


def test_a_random_attributor_correlates_with_nothing() -> None:
    draws = [leave_one_out_correlation(random.normal(size=TRUE.shape), TRUE).mean() for _ in range(300)]
    assert abs(np.mean(draws)) < 5 / np.sqrt(300 * N_TEST * (N_TRAIN - 1))


def test_brittleness_by_hand() -> None:
    effects = np.where(np.arange(10) < 4, 1.0, -0.5)  # sum 1: negative without two of the proponents
    data = TensorDataset(torch.from_numpy(effects[:, None]), torch.arange(10) % 2)
    always = TensorDataset(torch.ones(10, 1), torch.arange(10) % 2)

    def predict(model: Any) -> np.ndarray:
        return (model.sums.numpy() >= 0).astype(int)

    counts = [1, 2, 3, 6, 9]
    assert brittleness(effects[None], [1], data, train, predict, counts=counts).tolist() == [2]
    assert brittleness(-effects[None], [1], data, train, predict, counts=counts).tolist() == [np.inf]
    assert brittleness(effects[None], [1], always, train, predict, counts=counts).tolist() == [np.inf]


def test_wrong_calls() -> None:
    values = np.zeros(N_TRAIN)
    wrong: dict[str, Any] = {
        "ranking of retraining_curve must be one for each of 20": lambda: retraining_curve(
            values[1:], DATA, train, mean_output
        ),
        "ranking of retraining_curve must be finite": lambda: retraining_curve(values / 0, DATA, train, mean_output),
        "shares of retraining_curve must be two or more, ascending": lambda: retraining_curve(
            values, DATA, train, mean_output, shares=(0.5, 0.2)
        ),
        "keep of retraining_curve must be one of 'top', 'bottom', got 'all'": lambda: retraining_curve(
            values,
            DATA,
            train,
            mean_output,
            keep="all",  # type: ignore[arg-type]
        ),
        "train of retraining_curve must be a function that returns": lambda: retraining_curve(
            values,
            DATA,
            lambda subset, seed: None,
            mean_output,  # type: ignore[arg-type,return-value]
        ),
        "sign of summed_attributions must be one of": lambda: summed_attributions(TRUE, "plus"),  # type: ignore[arg-type]
        "removed of leave_one_out_effects must be distinct positions": lambda: leave_one_out_effects(
            [1, 1], DATA, train, output
        ),
        "effects of leave_one_out_correlation must be of shape": lambda: leave_one_out_correlation(TRUE, TRUE[:, :3]),
        "effects of LeaveOneOut must be finite": lambda: LeaveOneOut(TRUE / 0),
        "effects of LeaveOneOut must be of shape": lambda: LeaveOneOut(TRUE[:2])(
            None, np.zeros((N_TEST, 2)), np.zeros(N_TEST, int), a_batch=TRUE
        ),
        "removed of LeaveOneOut must be given where": lambda: LeaveOneOut(TRUE[:, :4])(
            None, np.zeros((N_TEST, 2)), np.zeros(N_TEST, int), a_batch=TRUE
        ),
        "counts of brittleness must be ascending and below n_train": lambda: brittleness(
            TRUE, [0, 0, 0], DATA, train, output, counts=[20]
        ),
        "decisions of brittleness must be one for each of 3": lambda: brittleness(
            TRUE, [0], DATA, train, output, counts=[2]
        ),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        for message, call in wrong.items():
            with pytest.raises(DualViewError, match=message):
                call()


def test_outputs_are_copied_before_the_network_is_trained_on() -> None:
    network = nn.Linear(1, 1)

    def same_network(subset: Dataset[Any], seed: int) -> nn.Module:
        nn.init.constant_(network.weight, sum(float(x) for x, _ in subset))  # type: ignore[attr-defined]
        return network

    data = TensorDataset(torch.tensor([[1.0], [3.0], [8.0]]), torch.arange(3))
    found = leave_one_out_effects([0, 2], data, same_network, lambda model: model.weight[0].detach())  # type: ignore[index]
    np.testing.assert_array_equal(found, [[1.0, 8.0]])


@pytest.mark.parametrize("wrong", [lambda model: model.sums[:, None], lambda model: 1.0, lambda model: ["a", "b", "c"]])
def test_outputs_of_another_kind_are_refused(wrong: Any) -> None:
    with pytest.raises(DualViewError, match="output of leave_one_out_effects must be a function that returns real"):
        leave_one_out_effects([0, 1], DATA, train, wrong)


@pytest.mark.parametrize(
    "wrong", [lambda model: model.sums[:2] > 0, lambda model: model.sums, lambda model: np.ones((3, 1), int)]
)
def test_predictions_of_another_kind_are_refused(wrong: Any) -> None:
    with pytest.raises(DualViewError, match="predict of brittleness must be a function that returns classes"):
        brittleness(TRUE, [0, 1, 1], DATA, train, wrong, counts=[1])


def test_complex_effects_are_refused() -> None:
    with pytest.raises(DualViewError, match="effects of leave_one_out_correlation must be real numbers"):
        leave_one_out_correlation(TRUE, TRUE * 1j)
