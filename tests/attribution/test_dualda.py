"""DualDA: DualView in the successor's settings, against liblinear's own solution of its problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import DualView, dualda
from dualview_plugin.errors import InvalidValueError
from tests.worlds import N_CLASSES, N_TRAIN, small_world


@pytest.mark.parametrize("C", [1e-5, 1e-3, 1e-1])
def test_attributions_add_up_to_liblinears_decision(C: float) -> None:
    world = small_world()
    labels = torch.arange(N_TRAIN) % N_CLASSES  # liblinear knows no class without points
    train = TensorDataset(world.train.tensors[0], labels)
    method = dualda(world.model, "fc", train, C, tol=1e-9, show_progress=False)
    attributions = method.attribute(world.x_test, 1).double().numpy()
    features = method.extractor(world.train.tensors[0])[0].detach().double().numpy()
    test = method.extractor(world.x_test)[0].detach().double().numpy()
    machine = LinearSVC(multi_class="crammer_singer", C=C, fit_intercept=True, tol=1e-10, max_iter=10**6)
    decision = machine.fit(features, labels.numpy()).decision_function(test)
    # liblinear leaves out steps below 1e-12, which is felt at C = 1e-5
    np.testing.assert_allclose(attributions.sum(axis=1), decision[:, 1], rtol=0, atol=5e-3 * np.abs(decision).max())


def test_it_is_dualview_with_raw_features_and_an_intercept() -> None:
    world = small_world()
    own = dualda(world.model, "fc", world.train, show_progress=False)
    other = DualView(world.model, "fc", world.train, C=1e-3, standardize=False, fit_intercept=True, show_progress=False)
    assert type(own) is DualView
    assert torch.equal(own.attribute(world.x_test), other.attribute(world.x_test))
    with pytest.raises(TypeError, match="standardize"):
        dualda(world.model, "fc", world.train, standardize=True)
    with pytest.raises(InvalidValueError, match="C of DualView must be"):
        dualda(world.model, "fc", world.train, 0.0)
