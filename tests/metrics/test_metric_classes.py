"""What each metric adds to the contract: by hand, and with the options of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.metrics import (
    DomainMismatch,
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    Sparsity,
    data_attribution,
)
from dualview_plugin.metrics.label_poisoning import MAX_CURVES
from tests.metrics.world import (
    MATRIX,
    N_CLASSES,
    N_TEST,
    N_TRAIN,
    TRAIN_LABELS,
    X_TEST,
    TableAttribution,
    decisions,
    network,
)

# Five test points, seven training points.
ATTRIBUTIONS = np.array(
    [
        [0.0, 0.1, 0.9, 0.0, -2.0, 0.0, 0.2],
        [0.0, 0.8, 0.1, 0.0, -2.0, 0.0, 0.2],
        [0.7, 0.7, 0.1, 0.0, 0.0, 0.7, 0.7],
        [-1.0, -3.0, -0.5, -1.0, -9.0, -1.0, -1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])
X = np.zeros((5, 1, 3, 3))


def test_identical_class_by_hand() -> None:
    y = np.array([2, 2, 0, 2, 1])
    assert IdenticalClass(LABELS)(None, X, y, a_batch=ATTRIBUTIONS) == pytest.approx([1, 0, 1 / 2, 1, 2 / 7])
    assert IdenticalClass(LABELS, abs=True)(None, X, y, a_batch=ATTRIBUTIONS) == pytest.approx([0, 0, 1 / 2, 0, 2 / 7])
    expected = [1 / 2, 0, 1 / 2, (1 + 1 / 4) / 2, 2 / 7]
    assert IdenticalClass(LABELS, k=2)(None, X, y, a_batch=ATTRIBUTIONS) == pytest.approx(expected)


def test_identical_subclass_by_hand() -> None:
    superclasses, subclasses = np.zeros(5, int), [2, 2, 0, 2, 1]
    metric = IdenticalSubclass(LABELS, subclasses)
    for batch_size in (1, 3, 64):
        scores = metric(None, X, superclasses, a_batch=ATTRIBUTIONS, batch_size=batch_size)
        assert scores == pytest.approx([1, 0, 1 / 2, 1, 2 / 7])


def test_domain_mismatch_by_hand() -> None:
    metric = DomainMismatch([0, 2])
    assert metric(None, X, np.zeros(5, int), a_batch=ATTRIBUTIONS) == pytest.approx([1, 0, 1 / 4, 1, 2 / 7])


def test_label_poisoning_by_hand() -> None:
    poisoned = np.array([False, False, True, False, True, False, False])
    metric = LabelPoisoning(poisoned)
    magnitudes = np.abs(ATTRIBUTIONS)
    ranking = (magnitudes[:4] / magnitudes[:4].max(axis=1, keepdims=True)).sum(axis=0)
    (score,) = metric(None, X, np.zeros(5, int), a_batch=ATTRIBUTIONS, batch_size=2)
    assert score == pytest.approx(roc_auc_score(poisoned, ranking))
    assert metric.curve is not None
    assert metric.curve.shape == (8,)
    np.testing.assert_allclose(metric.curve[[0, 1, 7]], [0, 0.5, 1])  # the first point of the ranking is number 4
    (plain,) = LabelPoisoning(poisoned, normalise=False)(None, X, np.zeros(5, int), a_batch=ATTRIBUTIONS)
    assert plain == pytest.approx(roc_auc_score(poisoned, magnitudes.sum(axis=0)))
    (signed,) = LabelPoisoning(poisoned, normalise=False, abs=False)(None, X, np.zeros(5, int), a_batch=ATTRIBUTIONS)
    assert signed == pytest.approx(roc_auc_score(poisoned, ATTRIBUTIONS.sum(axis=0)))


def test_label_poisoning_by_self_influence_asks_for_no_attributions() -> None:
    poisoned, model = np.arange(N_TRAIN) % 4 == 1, network()
    explainer, metric = TableAttribution(model), LabelPoisoning(poisoned, ranking="self_influence")
    (score,) = metric(model, X_TEST, np.zeros(N_TEST, int), explain_func=explainer)
    assert score == pytest.approx(roc_auc_score(poisoned, np.arange(N_TRAIN)))
    assert explainer.explained == []
    with pytest.warns(NotApplicableWarning, match="attributions has no self-influence"):
        (score,) = metric(model, X_TEST, np.zeros(N_TEST, int), a_batch=np.ones((N_TEST, N_TRAIN)))
    assert np.isnan(score)


def test_label_poisoning_keeps_a_curve_for_each_method() -> None:
    metric = LabelPoisoning([2, 4])
    for name, sign in (("first", 1), ("second", -1)):
        attributions = np.exp(sign * ATTRIBUTIONS)
        metric(None, X, np.zeros(5, int), a_batch=attributions, explain_func_kwargs={"method": name})
    assert list(metric.curves) == ["first", "second"]
    assert metric.curve is metric.curves["second"]
    assert not np.array_equal(metric.curves["first"], metric.curves["second"])


def test_label_poisoning_keeps_the_curves_of_the_latest_methods_only() -> None:
    metric = LabelPoisoning([2, 4])
    for number in (*range(MAX_CURVES + 3), 5):
        arguments = {"explain_func_kwargs": {"method": f"method {number}"}}
        metric(None, X, np.zeros(5, int), a_batch=ATTRIBUTIONS, **arguments)
    expected = [f"method {number}" for number in (3, 4, *range(6, MAX_CURVES + 3), 5)]
    assert list(metric.curves) == expected


def test_identical_class_takes_the_methods_own_labels() -> None:
    model, y = network(), np.arange(N_TEST) % N_CLASSES
    own = IdenticalClass()(model, X_TEST, y, explain_func=TableAttribution(model))
    assert own == IdenticalClass(TRAIN_LABELS)(model, X_TEST, y, explain_func=TableAttribution(model))
    with pytest.raises(InvalidValueError, match="train_labels of IdenticalClass must be given where"):
        IdenticalClass()(model, X_TEST, y, a_batch=np.ones((N_TEST, N_TRAIN)))


def test_decision_explains_the_networks_decision_and_scores_against_y() -> None:
    model = network()
    decided = decisions(model)
    y = (decided + 1) % N_CLASSES
    expected = IdenticalClass(TRAIN_LABELS)(None, X_TEST, y, a_batch=MATRIX[torch.arange(N_TEST), decided].numpy())
    explainer = TableAttribution(model)
    metric = IdenticalClass(explained_class="decision")
    assert metric(model, X_TEST, y, explain_func=explainer) == pytest.approx(expected)
    assert explainer.explained == decided.tolist()

    seen: list[int] = []

    @data_attribution
    def table(model: object, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        seen.extend(targets.tolist())
        return np.zeros((len(inputs), N_TRAIN))

    IdenticalClass(TRAIN_LABELS, explained_class="decision")(model, X_TEST, y, explain_func=table, batch_size=3)
    assert seen == decided.tolist()
    with pytest.raises(InvalidValueError, match="model of IdenticalClass must be given"):
        IdenticalClass(TRAIN_LABELS, explained_class="decision")(None, X_TEST, y, explain_func=table)


def test_tabular_inputs_as_wide_as_the_training_set() -> None:
    """A map of the inputs and the matrix have one shape then: only without an explanation function is it the matrix."""
    x, y = np.random.default_rng(0).normal(size=(5, 7)), np.array([2, 2, 0, 2, 1])
    metric = IdenticalClass(LABELS)
    assert metric(None, x, y, a_batch=ATTRIBUTIONS) == pytest.approx([1, 0, 1 / 2, 1, 2 / 7])
    with pytest.warns(NotApplicableWarning):
        assert np.isnan(metric(None, x, y, a_batch=ATTRIBUTIONS, explain_func=lambda **_: ATTRIBUTIONS)).all()
    marked = data_attribution(lambda model, inputs, targets: ATTRIBUTIONS[: len(inputs)])
    scores = metric(None, x, y, a_batch=np.ones((5, 7)), explain_func=marked)
    assert scores == pytest.approx([1, 0, 1 / 2, 1, 2 / 7])


def test_channels_last_inputs_are_turned_for_the_method() -> None:
    model, y = network(), np.arange(N_TEST) % N_CLASSES
    expected = IdenticalClass()(model, X_TEST, y, explain_func=TableAttribution(model))
    last = np.moveaxis(X_TEST, 1, -1)
    assert IdenticalClass()(model, last, y, explain_func=TableAttribution(model), channel_first=False) == expected


def test_device_reaches_a_function_that_takes_it() -> None:
    seen: dict[str, object] = {}

    @data_attribution
    def table(model: object, inputs: np.ndarray, targets: np.ndarray, **arguments: object) -> np.ndarray:
        seen.update(arguments)
        return ATTRIBUTIONS

    IdenticalClass(LABELS)(
        None, X, np.zeros(5, int), explain_func=table, explain_func_kwargs={"depth": 3}, device="cpu"
    )
    assert seen == {"depth": 3, "device": "cpu"}


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["a"]])
def test_refuses_labels_that_are_no_integers(labels: list[object]) -> None:
    with pytest.raises(InvalidTypeError, match="train_labels of IdenticalClass must be integers"):
        IdenticalClass(labels)
    with pytest.raises(InvalidTypeError, match="test_subclasses of IdenticalSubclass must be integers"):
        IdenticalSubclass([0, 1], labels)


def test_refuses_functions_without_a_matrix() -> None:
    flat = data_attribution(lambda model, inputs, targets: np.zeros(len(inputs)))
    with pytest.raises(InvalidValueError, match=r"must be a matrix \(n_test, n_train\), got shape \(5,\)"):
        IdenticalClass(LABELS)(None, X, np.zeros(5, int), explain_func=flat)
    short = data_attribution(lambda model, inputs, targets: np.zeros((1, 7)))
    with pytest.raises(InvalidValueError, match=r"one row for each of its 5 inputs, got shape \(1, 7\)"):
        IdenticalClass(LABELS)(None, X, np.zeros(5, int), explain_func=short)
    with pytest.raises(InvalidTypeError, match="source of data_attribution must be a function"):
        data_attribution("saliency")


@pytest.mark.parametrize("n_test", [3, 64, 70, 128, 150])
def test_a_matrix_that_one_has_goes_in_as_a_function(n_test: int) -> None:
    """As docs/metrics.md says, whatever the number of test points and the block size."""
    matrix = np.random.default_rng(0).normal(size=(n_test, 9))
    x, y = np.zeros((n_test, 2), np.float32), np.zeros(n_test, int)
    found = Sparsity()(nn.Linear(2, 2), x, y, explain_func=data_attribution(lambda **_: matrix))
    np.testing.assert_allclose(found, Sparsity()(nn.Linear(2, 2), x, y, a_batch=matrix))


def test_a_function_of_another_number_of_rows_is_refused() -> None:
    matrix, x = np.ones((69, 9)), np.zeros((70, 2), np.float32)
    with pytest.raises(InvalidValueError, match="explain_func of Sparsity must be a function that returns one row"):
        Sparsity()(nn.Linear(2, 2), x, np.zeros(70, int), explain_func=data_attribution(lambda **_: matrix))
