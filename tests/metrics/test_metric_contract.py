"""What holds for every metric: its three sources agree, it streams, and it keeps Quantus' promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from scipy.sparse import csc_array

from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.metrics import (
    DataAttributionMetric,
    DomainMismatch,
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    LeaveOneOut,
    LinearDatamodeling,
    MixedDatasets,
    Sparsity,
    TopCardinality,
    data_attribution,
    register,
)
from tests.metrics.world import MATRIX, N_CLASSES, N_TEST, N_TRAIN, TRAIN_LABELS, X_TEST, TableAttribution, network

Build = Callable[..., DataAttributionMetric]
TEST_SUBCLASSES = np.arange(N_TEST) % 4
TRAIN_SOURCES, TEST_SOURCES = np.arange(N_TRAIN) % 5 // 2, np.arange(N_TEST) % 3
random = np.random.default_rng(5)
SUBSETS, OUTPUTS = random.random((13, N_TRAIN)) < 0.5, random.normal(size=(13, N_TEST))
EFFECTS = random.normal(size=(N_TEST, N_TRAIN))
METRICS: dict[str, Build] = {
    "IdenticalClass": lambda **options: IdenticalClass(TRAIN_LABELS, **options),
    "IdenticalClass, k = 3": lambda **options: IdenticalClass(TRAIN_LABELS, k=3, **options),
    "IdenticalSubclass": lambda **options: IdenticalSubclass(np.arange(N_TRAIN) % 4, TEST_SUBCLASSES, **options),
    "LabelPoisoning": lambda **options: LabelPoisoning([2, 3, 11], **options),
    "DomainMismatch": lambda **options: DomainMismatch([2, 3, 11], **options),
    "DomainMismatch, auprc": lambda **options: DomainMismatch([2, 3, 11], variant="auprc", **options),
    "MixedDatasets": lambda **options: MixedDatasets(TRAIN_SOURCES, TEST_SOURCES, k=3, **options),
    "MixedDatasets, auprc": lambda **options: MixedDatasets(TRAIN_SOURCES, TEST_SOURCES, variant="auprc", **options),
    "LeaveOneOut": lambda **options: LeaveOneOut(EFFECTS, **options),
    "LinearDatamodeling": lambda **options: LinearDatamodeling(SUBSETS, OUTPUTS, **options),
    "TopCardinality": lambda **options: TopCardinality(**options),
    "TopCardinality, commonest": lambda **options: TopCardinality(k=3, variant="commonest", **options),
    "Sparsity": lambda **options: Sparsity(**options),
    "Sparsity, l0": lambda **options: Sparsity(variant="l0", **options),
    "Sparsity, mass": lambda **options: Sparsity(variant="mass", **options),
}
FOR_ONE_TEST_POINT: dict[str, Callable[[], DataAttributionMetric]] = {
    "IdenticalSubclass": lambda: IdenticalSubclass(np.arange(N_TRAIN) % 4, TEST_SUBCLASSES[:1]),
    "LeaveOneOut": lambda: LeaveOneOut(EFFECTS[:1]),
    "LinearDatamodeling": lambda: LinearDatamodeling(SUBSETS, OUTPUTS[:, :1]),
    "MixedDatasets": lambda: MixedDatasets(TRAIN_SOURCES, TEST_SOURCES[:1]),
}
LOWER_IS_BETTER = ("TopCardinality, commonest", "Sparsity, l0", "Sparsity, mass")
Y = np.arange(N_TEST) % N_CLASSES
EXPLAINED = MATRIX[torch.arange(N_TEST), torch.from_numpy(Y)].numpy()


@pytest.fixture(params=METRICS)
def build(request: pytest.FixtureRequest) -> Build:
    return METRICS[request.param]


def n_scores(metric: DataAttributionMetric) -> int:
    return 1 if isinstance(metric, (LabelPoisoning, TopCardinality)) else N_TEST


def test_matrix_object_and_function_score_alike(build: Build) -> None:
    @data_attribution
    def table(model: Any, inputs: np.ndarray, targets: np.ndarray) -> torch.Tensor:
        rows = [int(np.flatnonzero((point == X_TEST).all(axis=(1, 2, 3)))[0]) for point in inputs]
        return MATRIX[rows, targets]

    metric, model = build(), network()
    expected = metric(model, X_TEST, Y, a_batch=EXPLAINED)
    assert len(expected) == n_scores(metric)
    largest = N_TRAIN if isinstance(metric, Sparsity) and metric.variant != "hoyer" else 1
    smallest = -1 if isinstance(metric, (LeaveOneOut, LinearDatamodeling)) else 0
    assert all(isinstance(score, float) and smallest <= score <= largest for score in expected)
    assert metric(model, X_TEST, Y, explain_func=TableAttribution(model)) == pytest.approx(expected)
    assert metric(model, X_TEST, Y, explain_func=table, explain_func_kwargs={"unknown": 1}) == pytest.approx(expected)
    assert metric(model, X_TEST, Y, a_batch=torch.from_numpy(EXPLAINED)) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize(
    "sparse", [lambda a: torch.from_numpy(a).to_sparse_csr(), lambda a: torch.from_numpy(a).to_sparse(), csc_array]
)
def test_a_sparse_matrix_scores_as_the_dense_one(build: Build, sparse: Callable[[np.ndarray], Any]) -> None:
    dense = np.where(EXPLAINED > 0.5, EXPLAINED, 0)
    expected = build()(None, X_TEST, Y, a_batch=dense)
    assert build()(None, X_TEST, Y, a_batch=sparse(dense), batch_size=4) == pytest.approx(expected)
    with pytest.raises(InvalidValueError, match=r"a_batch of \w+ must be attributions of the 11"):
        build()(None, X_TEST, Y, a_batch=sparse(dense[:-1]))


def test_any_batch_size_scores_alike_and_blocks_stay_small(build: Build) -> None:
    model = network()
    scores = []
    for block_size in (1, 4, 100):
        explainer = TableAttribution(model, block_size=block_size)
        scores.append(build()(model, X_TEST, Y, explain_func=explainer))
        assert explainer.largest_block == min(block_size, N_TEST)
        scores.append(build()(model, X_TEST, Y, a_batch=EXPLAINED, batch_size=block_size))
    for other in scores[1:]:
        assert other == pytest.approx(scores[0])


def test_a_permuted_training_set_scores_alike() -> None:
    order = np.random.default_rng(3).permutation(N_TRAIN)
    poisoned = np.isin(np.arange(N_TRAIN), [2, 3, 11])
    pairs = [
        (IdenticalClass(TRAIN_LABELS), IdenticalClass(TRAIN_LABELS[order])),
        (LabelPoisoning(poisoned), LabelPoisoning(poisoned[order])),
        (DomainMismatch(poisoned), DomainMismatch(poisoned[order])),
        (MixedDatasets(TRAIN_SOURCES, TEST_SOURCES), MixedDatasets(TRAIN_SOURCES[order], TEST_SOURCES)),
        (LinearDatamodeling(SUBSETS, OUTPUTS), LinearDatamodeling(SUBSETS[:, order], OUTPUTS)),
        (TopCardinality(k=3), TopCardinality(k=3)),
        (Sparsity(variant="mass"), Sparsity(variant="mass")),
    ]
    for metric, permuted in pairs:
        expected = metric(None, X_TEST, Y, a_batch=EXPLAINED)
        assert permuted(None, X_TEST, Y, a_batch=EXPLAINED[:, order]) == pytest.approx(expected)


def test_a_saliency_method_scores_nan_with_one_warning(build: Build) -> None:
    metric = build()
    with pytest.warns(NotApplicableWarning, match="does not apply and scores NaN: Saliency gives no") as caught:
        scores = metric(
            network(),
            X_TEST,
            Y,
            a_batch=np.ones_like(X_TEST),
            explain_func=quantus.explain,
            explain_func_kwargs={"method": "Saliency"},
        )
    assert len(caught) == 1
    assert len(scores) == n_scores(metric)
    assert np.isnan(scores).all()
    assert np.isnan(build(disable_warnings=True)(network(), X_TEST, Y, explain_func=quantus.explain)).all()


def test_no_test_points_score_nan_with_a_warning(build: Build) -> None:
    with pytest.warns(NotApplicableWarning, match="there are no test points"):
        scores = build()(network(), X_TEST[:0], Y[:0], explain_func=TableAttribution(network()))
    assert len(scores) == 1
    assert np.isnan(scores[0])


def test_a_batch_of_one(build: Build) -> None:
    metric = FOR_ONE_TEST_POINT.get(build().__class__.__name__, build)()
    assert len(metric(network(), X_TEST[:1], Y[:1], explain_func=TableAttribution(network()))) == 1


def test_aggregates_and_history(build: Build) -> None:
    plain, mean, largest = build(), build(return_aggregate=True), build(return_aggregate=True, aggregate_func=np.max)
    scores = plain(None, X_TEST, Y, a_batch=EXPLAINED)
    assert mean(None, X_TEST, Y, a_batch=EXPLAINED) == pytest.approx([np.mean(scores)])
    assert largest(None, X_TEST, Y, a_batch=EXPLAINED) == pytest.approx([np.max(scores)])
    plain(None, X_TEST, Y, a_batch=EXPLAINED)
    assert plain.evaluation_scores == scores
    assert plain.all_evaluation_scores == scores + scores


def test_abs_and_normalise_act_on_each_test_point(build: Build) -> None:
    expected = build(abs=True)(None, X_TEST, Y, a_batch=EXPLAINED)
    assert build(abs=True)(None, X_TEST, Y, a_batch=-EXPLAINED) == pytest.approx(expected)
    scaled = EXPLAINED * np.linspace(1, 9, N_TEST)[:, None]
    expected = build(normalise=True)(None, X_TEST, Y, a_batch=EXPLAINED)
    assert build(normalise=True)(None, X_TEST, Y, a_batch=scaled) == pytest.approx(expected)
    by_sum = {"normalise": True, "normalise_func": lambda row, power: row / np.abs(row).sum() ** power}
    expected = build(**by_sum, normalise_func_kwargs={"power": 1})(None, X_TEST, Y, a_batch=EXPLAINED)
    assert build(**by_sum, normalise_func_kwargs={"power": 1})(None, X_TEST, Y, a_batch=scaled) == pytest.approx(
        expected
    )


def test_quantus_conveniences(
    build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PYTEST", "GITHUB_ACTIONS"):  # Quantus switches its bars off there
        monkeypatch.delenv(variable, raising=False)
    metric = build(display_progressbar=True)
    metric(None, X_TEST, Y, a_batch=EXPLAINED)
    assert f"{metric.name}: 100%" in capsys.readouterr().err
    metric.interpret_scores()
    assert "random attributor" in capsys.readouterr().out
    parameters = metric.get_params
    assert parameters["return_aggregate"] is False
    assert "evaluation_scores" not in parameters
    drawn: list[Any] = []
    metric.plot(plot_func=lambda scores: drawn.extend(scores), show=False, scores=metric.evaluation_scores)
    assert drawn == metric.evaluation_scores
    assert pickle.loads(pickle.dumps(metric)).get_params.keys() == parameters.keys()
    lower = build in [METRICS[name] for name in LOWER_IS_BETTER]
    assert metric.score_direction.value == ("lower" if lower else "higher")


def test_leaves_the_callers_arrays_alone(build: Build) -> None:
    arrays = [X_TEST.copy(), Y.copy(), EXPLAINED.copy()]
    build(abs=True, normalise=True)(None, arrays[0], arrays[1], a_batch=arrays[2])
    for array, original in zip(arrays, (X_TEST, Y, EXPLAINED), strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_nan_and_infinite_attributions(build: Build, bad: float) -> None:
    spoilt = EXPLAINED.copy()
    spoilt[7, 5] = bad
    with pytest.raises(InvalidValueError, match="attributions of .* must be finite"):  # noqa: RUF043
        build()(None, X_TEST, Y, a_batch=spoilt, batch_size=4)


def test_refuses_arguments_that_do_not_fit_each_other(build: Build) -> None:
    with pytest.raises(InvalidValueError, match=r"a_batch of \w+ must be attributions of the 11"):
        build()(None, X_TEST, Y, a_batch=EXPLAINED[:-1])
    with pytest.raises(InvalidValueError, match="y_batch of .* one class for each of the 11"):  # noqa: RUF043
        build()(None, X_TEST, Y[:-1], a_batch=EXPLAINED)
    with pytest.raises(InvalidTypeError, match="y_batch of .* integer classes"):  # noqa: RUF043
        build()(None, X_TEST, Y.astype(float), a_batch=EXPLAINED)
    with pytest.raises(InvalidValueError, match="batch_size of"):
        build()(None, X_TEST, Y, a_batch=EXPLAINED, batch_size=0)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        build()(None, X_TEST, Y, a_batch=EXPLAINED, custom=1)
    with pytest.raises(InvalidValueError, match="explained_class of .* must be one of"):  # noqa: RUF043
        build(explained_class="truth")
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        build(unknown=True)


def test_refuses_other_training_points_before_any_attribution() -> None:
    explainer = TableAttribution(network())
    metrics = {
        "train_labels of IdenticalClass": IdenticalClass([0, 1]),
        "train_subclasses of IdenticalSubclass": IdenticalSubclass([0, 1], TEST_SUBCLASSES),
        "test_subclasses of IdenticalSubclass": IdenticalSubclass(np.zeros(N_TRAIN, int), [0, 1]),
        "poisoned of LabelPoisoning": LabelPoisoning([True, False]),
        "marked of DomainMismatch": DomainMismatch([N_TRAIN]),
        "train_sources of MixedDatasets": MixedDatasets([0, 1], np.zeros(N_TEST, int)),
        "test_sources of MixedDatasets": MixedDatasets(TRAIN_SOURCES, [0, 1]),
        "subsets of LinearDatamodeling": LinearDatamodeling(SUBSETS[:, 1:], OUTPUTS),
        "outputs of LinearDatamodeling": LinearDatamodeling(SUBSETS, OUTPUTS[:, 1:]),
        "k of TopCardinality": TopCardinality(k=N_TRAIN + 1),
    }
    for message, metric in metrics.items():
        with pytest.raises(InvalidValueError, match=message):
            metric(network(), X_TEST, Y, explain_func=explainer)
        with pytest.raises(InvalidValueError, match=message):
            metric(network(), X_TEST, Y, a_batch=EXPLAINED)
    assert explainer.explained == []


def test_register_lists_the_metrics_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualview_plugin.metrics.registration.AVAILABLE_METRICS", available := {"Complexity": {}})
    register()
    register()
    names = ["Identical Class", "Identical Subclass", "Label Poisoning", "Domain Mismatch"]
    names += ["Linear Datamodeling", "Leave-One-Out", "Mixed Datasets", "Top Cardinality", "Sparsity"]
    names += ["Model Randomization"]
    assert list(available) == ["Complexity", "Data Attribution"]
    assert list(available["Data Attribution"]) == names
    assert available["Data Attribution"]["Identical Class"] is IdenticalClass


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_attributions_of_any_floating_type_score_as_their_values(build: Build, dtype: torch.dtype) -> None:
    attributions = torch.from_numpy(EXPLAINED).to(dtype)
    expected = build()(None, X_TEST, Y, a_batch=attributions.double().numpy())
    assert build()(None, X_TEST, Y, a_batch=attributions) == pytest.approx(expected)

    @data_attribution
    def by_row(model: Any, inputs: np.ndarray, targets: np.ndarray) -> torch.Tensor:
        rows = [int(np.flatnonzero((point == X_TEST).all(axis=(1, 2, 3)))[0]) for point in inputs]
        return attributions[rows]

    assert build()(None, X_TEST, Y, explain_func=by_row, batch_size=4) == pytest.approx(expected)


def test_inputs_may_be_tensors_of_any_floating_type(build: Build) -> None:
    model = network()
    expected = build()(model, X_TEST, Y, explain_func=TableAttribution(model))
    for dtype in (torch.float64, torch.float32):
        x = torch.from_numpy(X_TEST).to(dtype).requires_grad_()
        assert build()(model, x, torch.from_numpy(Y), explain_func=TableAttribution(model)) == pytest.approx(expected)
