"""Every metric and every method in one call of quantus.evaluate, on a small world."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import nn
from torch.utils.data import Dataset

import dualview_plugin
from dualview_plugin.attribution import (
    TRAK,
    ArnoldiInfluence,
    DataAttribution,
    FeatureKernelAttribution,
    InfluenceFunctions,
)
from dualview_plugin.errors import NotApplicableWarning
from dualview_plugin.metrics import (
    DataAttributionMetric,
    DomainMismatch,
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    LeaveOneOut,
    LinearDatamodeling,
    MixedDatasets,
    ModelRandomization,
    Sparsity,
    TopCardinality,
    data_attribution,
    retrain_on_subsets,
)
from dualview_plugin.metrics.registration import _METRICS
from tests.worlds import N_CLASSES, N_TEST, N_TRAIN, small_world

OPTIONS: dict[type, dict[str, Any]] = {
    ArnoldiInfluence: {"n_components": 5, "arnoldi_dim": 10},
    TRAK: {"n_components": 16, "damping": 0.1},  # for few training points
}
BATCH_TOTALS = ("LabelPoisoning", "TopCardinality")


def train(subset: Dataset[Any], seed: int) -> nn.Module:
    world = small_world()
    images, labels = map(torch.stack, zip(*subset, strict=True))
    world.model.eval()
    optimizer = torch.optim.SGD(world.model.fc.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(world.model(images), labels).backward()
        optimizer.step()
    return world.model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_every_metric_scores_every_method(tmp_path: Any) -> None:
    world = small_world()
    world.model.eval()
    with torch.no_grad():
        decided = world.model(world.x_test).argmax(dim=1).numpy()
    retrained = retrain_on_subsets(train, world.train, world.x_test, decided, decided, folder=tmp_path, n_subsets=5)
    sources = np.arange(N_TRAIN) % 2
    metrics: dict[str, DataAttributionMetric] = {
        "IdenticalClass": IdenticalClass(world.train.tensors[1]),
        "IdenticalSubclass": IdenticalSubclass(np.arange(N_TRAIN) % 3, np.arange(N_TEST) % 3),
        "LabelPoisoning": LabelPoisoning([2, 5, 7]),
        "DomainMismatch": DomainMismatch([2, 5, 7]),
        "LinearDatamodeling": LinearDatamodeling(retrained.subsets, retrained.log_softmax),
        "LeaveOneOut": LeaveOneOut(np.random.default_rng(1).normal(size=(N_TEST, N_TRAIN))),
        "MixedDatasets": MixedDatasets(sources, np.arange(N_TEST) % 2),
        "TopCardinality": TopCardinality(k=2),
        "Sparsity": Sparsity(),
        "ModelRandomization": ModelRandomization(variant="cumulative"),
    }
    assert {type(metric) for metric in metrics.values()} == set(_METRICS)
    abstract = (DataAttribution, FeatureKernelAttribution)
    kinds = [getattr(dualview_plugin, name) for name in dualview_plugin._PUBLIC["attribution"]]
    kinds = [kind for kind in kinds if isinstance(kind, type) and kind not in abstract]
    methods: dict[str, Any] = {
        kind.__name__: kind(world.model, "fc", world.train, show_progress=False, **OPTIONS.get(kind, {}))
        for kind in kinds
    }
    assert InfluenceFunctions.__name__ in methods
    methods["matrix"] = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN))
    methods["function"] = data_attribution(
        lambda model, inputs, targets: np.equal.outer(targets, np.arange(N_TRAIN) % N_CLASSES).astype(float)
    )
    with pytest.warns(NotApplicableWarning, match="matrix|attributions"):
        scores = quantus.evaluate(metrics, methods, world.model, world.x_test.numpy(), decided, explain_func_kwargs={})
    for method, by_metric in scores.items():
        for name, values in by_metric.items():
            assert len(values) == (1 if name in BATCH_TOTALS else N_TEST)
            nothing = name == "ModelRandomization" and method == "matrix"
            assert np.isnan(values).all() == nothing, (method, name)
    assert scores["RandomAttribution"]["ModelRandomization"] == pytest.approx([1.0] * N_TEST)
    assert scores["function"]["ModelRandomization"] == pytest.approx([1.0] * N_TEST)
