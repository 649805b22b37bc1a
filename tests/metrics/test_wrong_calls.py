"""Wrong calls of metrics and their functions: the error names parameter, owner and constraint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dualview_plugin.errors import DualViewError
from dualview_plugin.metrics import (
    DomainMismatch,
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    LinearDatamodeling,
    MixedDatasets,
    Sparsity,
    TopCardinality,
    commonest_share,
    data_attribution,
    domain_mismatch,
    domain_mismatch_auprc,
    identical_class,
    label_poisoning,
    linear_datamodeling_interval,
    linear_datamodeling_score,
    mixed_datasets,
    poisoning_curve,
    rank_correlation,
    share_in_top_k,
    sparsity,
    top_cardinality,
)

# Five test points, seven training points.
A, X, Y, LABELS = np.arange(35.0).reshape(5, 7), np.zeros((5, 3)), np.zeros(5, int), np.arange(7) % 2
MASK = LABELS == 1
NAN = np.full((5, 7), np.nan)


def returns(attributions: Any) -> Any:
    return data_attribution(lambda model, inputs, targets: attributions)


WRONG: dict[str, Callable[[], Any]] = {
    # construction
    "k of IdenticalClass must be an integer of at least 1, got 0": lambda: IdenticalClass(k=0),
    "k of IdenticalClass must be an integer of at least 1, got 1.0": lambda: IdenticalClass(k=1.0),  # type: ignore[arg-type]
    "train_labels of IdenticalClass must be integers, got": lambda: IdenticalClass([0.5]),
    "train_labels of IdenticalClass must be one-dimensional": lambda: IdenticalClass([[0, 1]]),
    "train_labels of IdenticalClass must be one-dimensional and not": lambda: IdenticalClass(np.zeros(0, int)),
    "explained_class of IdenticalClass must be one of 'y_batch', 'decision', got 'label'": lambda: IdenticalClass(
        explained_class="label"  # type: ignore[arg-type]
    ),
    "explained_class of LabelPoisoning must be one of": lambda: LabelPoisoning([1], explained_class=None),  # type: ignore[arg-type]
    "k of IdenticalSubclass must be an integer": lambda: IdenticalSubclass([0], [0], k=True),
    "train_subclasses of IdenticalSubclass must be integers": lambda: IdenticalSubclass(["a"], [0]),  # type: ignore[list-item]
    "test_subclasses of IdenticalSubclass must be integers": lambda: IdenticalSubclass([0], [0.0]),
    "poisoned of LabelPoisoning must be a bool mask or integer indices": lambda: LabelPoisoning([0.5]),
    "poisoned of LabelPoisoning must be some of the training points, got none": lambda: LabelPoisoning([]),
    "poisoned of LabelPoisoning must be some of the training points, got all": lambda: LabelPoisoning([True]),
    "poisoned of LabelPoisoning must be a bool mask, or distinct indices": lambda: LabelPoisoning([1, 1]),
    "ranking of LabelPoisoning must be one of 'attributions', 'self_influence'": lambda: LabelPoisoning(
        [1],
        ranking="loss",  # type: ignore[arg-type]
    ),
    "marked of DomainMismatch must be one-dimensional": lambda: DomainMismatch([[True]]),
    "variant of DomainMismatch must be one of 'top', 'auprc', got 'mean'": lambda: DomainMismatch([1], variant="mean"),  # type: ignore[arg-type]
    "source of data_attribution must be a function": lambda: data_attribution("saliency"),  # type: ignore[arg-type]
    "k of TopCardinality must be an integer of at least 1, got 0": lambda: TopCardinality(k=0),
    "variant of TopCardinality must be one of 'distinct', 'commonest', got 'hubs'": lambda: TopCardinality(
        variant="hubs"  # type: ignore[arg-type]
    ),
    "variant of Sparsity must be one of 'l0', 'hoyer', 'mass', got 'gini'": lambda: Sparsity(variant="gini"),  # type: ignore[arg-type]
    "variant of MixedDatasets must be one of 'top', 'auprc'": lambda: MixedDatasets([0], [0], variant="mean"),  # type: ignore[arg-type]
    "train_sources of MixedDatasets must be integers": lambda: MixedDatasets([0.5], [0]),
    "test_sources of MixedDatasets must be among the sources of the training points, got [3]": lambda: MixedDatasets(
        [0, 1], [0, 3]
    ),
    "subsets of LinearDatamodeling must be a bool mask, got values of type": lambda: LinearDatamodeling(A, A[:, :2]),
    "subsets of LinearDatamodeling must be of two rows at least, (n_subsets, n_train), got shape (1, 7)": lambda: (
        LinearDatamodeling(A[:1] > 3, A[:1, :5])
    ),
    "outputs of LinearDatamodeling must be floating values": lambda: LinearDatamodeling(A > 3, np.zeros((5, 2), int)),
    "outputs of LinearDatamodeling must be a matrix with a row for each of the 5": lambda: LinearDatamodeling(
        A > 3, A[:3]
    ),
    "outputs of LinearDatamodeling must be finite, or NaN": lambda: LinearDatamodeling(A > 3, np.full((5, 2), np.inf)),
    "method of LinearDatamodeling must be one of those that were scored, [], got None": lambda: LinearDatamodeling(
        A > 3, A[:, :5]
    ).interval(),
    # calls
    "subsets of LinearDatamodeling must be of one column for each of 7 points": lambda: LinearDatamodeling(
        A[:, :3] > 3, A[:, :5]
    )(None, X, Y, a_batch=A),
    "k of TopCardinality must be at most the number of training points, 7": lambda: TopCardinality(k=8)(
        None, X, Y, a_batch=A
    ),
    "train_sources of MixedDatasets must be one for each of 7 points": lambda: MixedDatasets([0, 1], Y)(
        None, X, Y, a_batch=A
    ),
    "k of IdenticalClass must be at most the number of training points, 7, got 50": lambda: IdenticalClass(
        LABELS, k=50
    )(None, X, Y, a_batch=A),
    "k of IdenticalSubclass must be at most the number of training points, 7": lambda: IdenticalSubclass(
        LABELS, Y, k=8
    )(None, X, Y, a_batch=A),
    "train_labels of IdenticalClass must be one label for each of the 7": lambda: IdenticalClass([0, 1])(
        None, X, Y, a_batch=A
    ),
    "train_labels of IdenticalClass must be given where": lambda: IdenticalClass()(None, X, Y, a_batch=A),
    "train_subclasses of IdenticalSubclass must be one for each of 7": lambda: IdenticalSubclass([0], Y)(
        None, X, Y, a_batch=A
    ),
    "test_subclasses of IdenticalSubclass must be one for each of 5": lambda: IdenticalSubclass(LABELS, [0])(
        None, X, Y, a_batch=A
    ),
    "poisoned of LabelPoisoning must be a mask of 7": lambda: LabelPoisoning([True, False])(None, X, Y, a_batch=A),
    "poisoned of LabelPoisoning must be indices below": lambda: LabelPoisoning([7])(None, X, Y, a_batch=A),
    "marked of DomainMismatch must be indices below": lambda: DomainMismatch([7])(None, X, Y, a_batch=A),
    "a_batch of DomainMismatch must be attributions of the 5 points": lambda: DomainMismatch([1])(
        None, X, Y, a_batch=A[:3]
    ),
    "attributions of DomainMismatch must be finite, got NaN": lambda: DomainMismatch([1])(None, X, Y, a_batch=NAN),
    "attributions of LabelPoisoning must be finite, got NaN": lambda: LabelPoisoning([1])(None, X, Y, a_batch=NAN),
    "attributions of LabelPoisoning must be a matrix (n_test, n_train), got shape (5,)": lambda: LabelPoisoning([1])(
        None, X, Y, explain_func=returns(A[:, 0])
    ),
    "attributions of IdenticalClass must be real numbers": lambda: IdenticalClass(LABELS)(
        None, X, Y, explain_func=returns(A.astype(str))
    ),
    "explain_func of IdenticalClass must be a function that returns one row for each of its 5 inputs": lambda: (
        IdenticalClass(LABELS)(None, X, Y, explain_func=returns(A[:2]))
    ),
    "y_batch of IdenticalClass must be integer classes": lambda: IdenticalClass(LABELS)(None, X, X[:, 0], a_batch=A),
    "y_batch of IdenticalClass must be one class for each of the 5": lambda: IdenticalClass(LABELS)(
        None, X, Y[:2], a_batch=A
    ),
    "batch_size of IdenticalClass must be an integer of at least 1": lambda: IdenticalClass(LABELS)(
        None, X, Y, a_batch=A, batch_size=0
    ),
    "model of IdenticalClass must be a torch.nn.Module, Quantus' wrapper of one, or None, got int": lambda: (
        IdenticalClass(LABELS)(3, X, Y, a_batch=A)
    ),
    "model of IdenticalClass must be given for explained_class='decision'": lambda: IdenticalClass(
        LABELS, explained_class="decision"
    )(None, X, Y, explain_func=returns(A)),
    # functions
    "attributions of linear_datamodeling_score must be finite": lambda: linear_datamodeling_score(NAN, A > 3, A[:, :5]),
    "outputs of linear_datamodeling_score must be of one column for each of 5": lambda: linear_datamodeling_score(
        A, A > 3, A
    ),
    "confidence of linear_datamodeling_interval must be a real number in (0, 1], got 0": lambda: (
        linear_datamodeling_interval(A, A > 3, A[:, :5], confidence=0)
    ),
    "second of rank_correlation must be of the shape (5, 7) of the first": lambda: rank_correlation(A, A[:2]),
    "attributions of top_cardinality must be finite": lambda: top_cardinality(NAN),
    "attributions of top_cardinality must be of at least one test point": lambda: top_cardinality(A[:0]),
    "k of commonest_share must be at most the number of training points, 7": lambda: commonest_share(A, 8),
    "attributions of sparsity must be a matrix": lambda: sparsity(A[0]),
    "attributions of sparsity must be of at least one training point": lambda: sparsity(A[:, :0]),
    "variant of sparsity must be one of": lambda: sparsity(A, "gini"),  # type: ignore[arg-type]
    "train_sources of mixed_datasets must be one for each of 7 points": lambda: mixed_datasets(A, LABELS[:3], Y),
    "variant of mixed_datasets must be one of": lambda: mixed_datasets(A, LABELS, Y, 1, "mean"),  # type: ignore[arg-type]
    "k of identical_class must be at most the number of training points, 7": lambda: identical_class(A, LABELS, Y, 8),
    "train_labels of identical_class must be one for each of 7 points": lambda: identical_class(A, LABELS[:3], Y),
    "test_labels of identical_class must be one for each of 5 points": lambda: identical_class(A, LABELS, Y[:3]),
    "test_labels of identical_class must be integers": lambda: identical_class(A, LABELS, Y.astype(float)),
    "attributions of identical_class must be a matrix": lambda: identical_class(A[0], LABELS, Y),
    "attributions of identical_class must be finite": lambda: identical_class(NAN, LABELS, Y),
    "attributions of share_in_top_k must be finite": lambda: share_in_top_k(NAN, MASK),
    "k of share_in_top_k must be an integer": lambda: share_in_top_k(A, MASK, 0),
    "marked of domain_mismatch must be one for each of 7 points": lambda: domain_mismatch(A, MASK[:2]),
    "marked of domain_mismatch must be a bool mask": lambda: domain_mismatch(A, LABELS),  # type: ignore[arg-type]
    "marked of domain_mismatch_auprc must be some of": lambda: domain_mismatch_auprc(A, np.zeros(7, bool)),
    "poisoned of poisoning_curve must be a bool mask": lambda: poisoning_curve(A[0], LABELS),  # type: ignore[arg-type]
    "ranking of poisoning_curve must be one finite value": lambda: poisoning_curve(NAN[0], MASK),
    "ranking of label_poisoning must be one finite value": lambda: label_poisoning(A, MASK),
    "poisoned of label_poisoning must be some of the training points, got all": lambda: label_poisoning(
        A[0], np.ones(7, bool)
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_the_error_names_parameter_owner_and_constraint(message: str) -> None:
    with pytest.raises(DualViewError, match=re.escape(message)):
        WRONG[message]()
