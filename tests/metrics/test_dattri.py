"""Our linear datamodeling score against dattri's, where dattri is installed: it transposes, and takes indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualview_plugin import linear_datamodeling_score

N_SUBSETS, N_TEST, N_TRAIN, N_CHOSEN = 11, 5, 29, 13


def test_dattri_scores_the_same() -> None:
    metrics = pytest.importorskip("dattri.metric.metrics")
    generator = np.random.default_rng(0)
    attributions = generator.standard_normal((N_TEST, N_TRAIN))
    outputs = generator.standard_normal((N_SUBSETS, N_TEST))
    chosen = np.stack([generator.permutation(N_TRAIN)[:N_CHOSEN] for _ in range(N_SUBSETS)])
    subsets = np.zeros((N_SUBSETS, N_TRAIN), dtype=bool)
    np.put_along_axis(subsets, chosen, values=True, axis=1)
    expected, _ = metrics.lds(torch.as_tensor(attributions.T), (torch.as_tensor(outputs), torch.as_tensor(chosen)))
    np.testing.assert_allclose(linear_datamodeling_score(attributions, subsets, outputs), expected.numpy(), rtol=1e-9)
