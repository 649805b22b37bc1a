"""Real data: all of MNIST with the paper's network, trained here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import datasets
from benchmarks.networks import PaperCNN
from benchmarks.training import Recipe, accuracy, trained
from dualview_plugin.attribution import DualView
from tests.conftest import data_root


@pytest.mark.data
@pytest.mark.slow
def test_surrogate_agrees_and_proponents_have_the_explained_class(tmp_path: Path) -> None:
    data = datasets.load("mnist", data_root())
    x, y = data.test.tensors
    network = trained(
        PaperCNN, data.train, Recipe(epochs=1), name="mnist", seed=0, folder=tmp_path, show_progress=False
    )
    assert accuracy(network, x, y) > 0.97
    method = DualView(network, "fc", data.train, show_progress=False)
    with torch.no_grad():
        decisions = network(x).argmax(dim=1)
    agreement = method.surrogate_logits(x).argmax(dim=1) == decisions
    assert float(agreement.float().mean()) >= 0.98
    strongest = method.influence(x, k=1, target=decisions).indices[:, 0]
    identical = method.train_labels_[strongest] == decisions
    assert float(identical.float().mean()) >= 0.97
    assert method.solution_.duality_gap <= 1e-6
