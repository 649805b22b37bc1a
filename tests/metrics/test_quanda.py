"""On the same attributions, quanda's scores and ours are one number; skipped where quanda is not installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dualview_plugin.metrics import DomainMismatch, IdenticalClass, IdenticalSubclass, poisoning_curve
from tests.metrics.world import N_CLASSES, N_TEST, N_TRAIN, TRAIN_DATASET, TRAIN_LABELS, X_TEST, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies
    pytest.importorskip("quanda")
    from quanda.metrics import downstream_eval

ATTRIBUTIONS = torch.randn(N_TEST, N_TRAIN, generator=torch.Generator().manual_seed(5))  # no ties
Y = np.arange(N_TEST) % N_CLASSES


@pytest.mark.parametrize("k", [1, 3])
def test_class_detection_is_identical_class(k: int) -> None:
    theirs = downstream_eval.ClassDetectionMetric(network(), TRAIN_DATASET, s=k)
    theirs.update(ATTRIBUTIONS, torch.from_numpy(Y))
    ours = IdenticalClass(TRAIN_LABELS, k=k)(None, X_TEST, Y, a_batch=ATTRIBUTIONS)
    assert theirs._per_sample_scores().tolist() == pytest.approx(ours)
    assert theirs.compute()["score"] == pytest.approx(np.mean(ours))


@pytest.mark.parametrize("k", [1, 3])
def test_subclass_detection_is_identical_subclass(k: int) -> None:
    train_subclasses, test_subclasses = torch.arange(N_TRAIN) % 4, torch.arange(N_TEST) % 4
    theirs = downstream_eval.SubclassDetectionMetric(network(), TRAIN_DATASET, train_subclasses, s=k)
    theirs.update(ATTRIBUTIONS, test_subclasses)
    ours = IdenticalSubclass(train_subclasses, test_subclasses, k=k)(None, X_TEST, Y, a_batch=ATTRIBUTIONS)
    assert theirs.compute()["score"] == pytest.approx(np.mean(ours))


def test_shortcut_detection_is_the_auprc_variant() -> None:
    marked = np.flatnonzero(TRAIN_LABELS == 2)[:3]
    theirs = downstream_eval.ShortcutDetectionMetric(
        network(), TRAIN_DATASET, marked.tolist(), 2, filter_by_non_shortcut=False, filter_by_shortcut_pred=False
    )
    theirs.update(ATTRIBUTIONS)
    ours = DomainMismatch(marked, variant="auprc")(None, X_TEST, Y, a_batch=ATTRIBUTIONS)
    assert theirs._per_sample_scores().tolist() == pytest.approx(ours)


def test_mislabeling_detection_has_our_curve() -> None:
    poisoned, self_influence = [1, 4, 11], torch.rand(N_TRAIN, generator=torch.Generator().manual_seed(6))
    theirs = downstream_eval.MislabelingDetectionMetric(
        network(), TRAIN_DATASET, poisoned, precomputed_self_influence=self_influence
    )
    ours = poisoning_curve(self_influence.numpy(), np.isin(np.arange(N_TRAIN), poisoned))
    np.testing.assert_allclose(theirs.compute()["curve"], ours[1:], atol=1e-6)
