"""Mixed Datasets: perfect, reversed and random attributions, and scikit-learn's average precision."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dualview_plugin.metrics import MixedDatasets, mixed_datasets

N_TEST, N_TRAIN = 11, 23
TRAIN, TEST = np.arange(N_TRAIN) % 5 // 2, np.arange(N_TEST) % 3
OWN = np.equal.outer(TEST, TRAIN)
NOISE = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN))


@pytest.mark.parametrize("variant", ["top", "auprc"])
def test_perfect_and_reversed(variant: str) -> None:
    perfect = OWN + 0.1 * np.abs(NOISE) / np.abs(NOISE).max()
    options = {"k": 3, "variant": variant}
    np.testing.assert_allclose(mixed_datasets(perfect, TRAIN, TEST, **options), 1)  # type: ignore[arg-type]
    worst = mixed_datasets(-perfect, TRAIN, TEST, **options)  # type: ignore[arg-type]
    assert (worst == 0).all() if variant == "top" else (worst < OWN.mean(axis=1) + 0.05).all()


def test_a_random_attributor_scores_the_share_of_the_source() -> None:
    rows = np.random.default_rng(1).normal(size=(6000, N_TRAIN))
    sources = np.arange(6000) % 3
    score = mixed_datasets(rows, TRAIN, sources, k=2)
    for source in range(3):
        assert score[sources == source].mean() == pytest.approx((source == TRAIN).mean(), abs=0.03)


def test_the_area_equals_average_precision() -> None:
    expected = [average_precision_score(own, row) for own, row in zip(OWN, NOISE, strict=True)]
    np.testing.assert_allclose(mixed_datasets(NOISE, TRAIN, TEST, variant="auprc"), expected)
    metric = MixedDatasets(TRAIN, TEST, variant="auprc")
    scores = metric(None, np.zeros((N_TEST, 2)), np.zeros(N_TEST, int), a_batch=NOISE, batch_size=4)
    assert scores == pytest.approx(expected)
