"""input_attribution at a layer: gradient × activation, written out with autograd on the method's own formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import Tensor, nn

from dualview_plugin import (
    TRAK,
    ArnoldiInfluence,
    DataAttribution,
    DualView,
    FeatureSimilarity,
    GradCos,
    GradientSimilarity,
    InfluenceFunctions,
    InvalidTypeError,
    InvalidValueError,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
)
from dualview_plugin.network import guest
from tests.attribution.network_kinds import Kind, lstm, padded, resnet, tokens, two_inputs
from tests.untouched import assert_untouched

METHODS: dict[str, tuple[type[DataAttribution], dict[str, Any]]] = {
    "DualView": (DualView, {"C": 0.5}),
    "InfluenceFunctions": (InfluenceFunctions, {"damping": 0.1}),
    "RepresenterPoints": (RepresenterPoints, {"weight_decay": 0.05}),
    "GradientSimilarity": (GradientSimilarity, {}),
    "ProjectedGradientSimilarity": (ProjectedGradientSimilarity, {"n_components": 5}),
    "GradCos": (GradCos, {}),
    "TRAK": (TRAK, {"n_components": 5, "damping": 0.1}),
    "ArnoldiInfluence": (ArnoldiInfluence, {"arnoldi_dim": 6}),
    "FeatureSimilarity": (FeatureSimilarity, {}),
}


def made(kind: Kind, method: str = "DualView") -> DataAttribution:
    cls, options = METHODS[method]
    return cls(kind.model, kind.layer, kind.train, batch_size=5, show_progress=False, **options)


def seeded(make: Any) -> Kind:
    torch.manual_seed(5)
    return make()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_of_tokens_is_the_slope_along_each_embedding(method: str) -> None:
    """Finite differences: the evidence when one token's embedding shrinks by a factor 1 − ε."""
    kind = seeded(tokens)
    kind.model.double()
    explained = made(kind, method)
    target = explained.decisions(kind.test)
    best = explained.influence(kind.test, 2, target).indices
    with assert_untouched(kind.model):
        found = explained.input_attribution(kind.test, target, k=2, at="embedding")
    whole = padded(kind.test)
    assert found.shape == whole["input_ids"].shape
    assert float(found[whole["attention_mask"] == 0].abs().max()) < 1e-9
    step, row = 1e-5, 2
    for position in range(3):
        values = []
        for factor in (1 - step, 1 + step):

            def scaled(_: nn.Module, __: Any, output: Tensor, factor: float = factor, place: int = position) -> Tensor:
                added = torch.zeros_like(output)
                added[:, place] = (factor - 1) * output[:, place].detach()
                return output + added

            evidence = explained._evidence(padded([kind.test[row]]), target[row : row + 1], best[row : row + 1])
            handle = kind.model.embedding.register_forward_hook(scaled)
            with guest(kind.model):
                values.append(evidence(padded([kind.test[row]])).detach())
            handle.remove()
        slope = float((values[1] - values[0]) / (2 * step))
        assert float(found[row, position]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_batches_of_several_lengths_get_zeros_behind_the_shorter() -> None:
    kind = seeded(tokens)
    method = made(kind)
    loader = torch.utils.data.DataLoader(kind.test, batch_size=1, collate_fn=padded)
    method.batch_size = 1
    found = method.input_attribution(loader, at=kind.model.embedding)
    torch.testing.assert_close(found, method.input_attribution(kind.test, at="embedding"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["DualView", "GradientSimilarity"])
def test_at_the_input_itself_it_is_the_map_of_the_inputs(method: str) -> None:
    kind = seeded(resnet)
    kind.model.stem = nn.Sequential(nn.Identity(), kind.model.stem)
    explained = made(kind, method)
    at_layer = explained.input_attribution(kind.test, at="stem.0")
    torch.testing.assert_close(at_layer, explained.input_attribution(kind.test).sum(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["DualView", "GradientSimilarity"])
def test_maps_of_several_inputs_have_their_structure(method: str) -> None:
    kind = seeded(two_inputs)
    explained = made(kind, method)
    image, table = explained.input_attribution(kind.test, k=2)
    assert (image.shape, table.shape) == (kind.test[0].shape, kind.test[1].shape)
    target, points = explained.decisions(kind.test), [part.clone().requires_grad_() for part in kind.test]
    best = explained.influence(kind.test, 2, target).indices
    with guest(kind.model):
        value = explained._pair_attribution(tuple(points), target, best).sum()
    for found, point, gradient in zip((image, table), points, torch.autograd.grad(value, points), strict=True):
        torch.testing.assert_close(found, (gradient * point).detach())


def test_noise_has_a_map_of_tokens_too() -> None:
    kind = seeded(tokens)
    noise = RandomAttribution(kind.model, kind.layer, kind.train, show_progress=False)
    found = noise.input_attribution(kind.test, at="embedding")
    assert found.shape == padded(kind.test)["input_ids"].shape
    assert found.unique().numel() == found.numel()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_metrics_of_quantus_get_the_map_of_tokens() -> None:
    kind = seeded(lstm)
    method, y = made(kind), made(kind).decisions(kind.test).numpy()
    scores = quantus.evaluate(
        {"sparseness": quantus.Sparseness(disable_warnings=True)}, {"DualView": method}, kind.model, kind.quantus, y,
        explain_func_kwargs={"at": "embedding"},
    )  # fmt: skip
    maps = method.input_attribution(kind.test, torch.from_numpy(y), at="embedding").numpy()
    np.testing.assert_array_equal(method(kind.model, kind.quantus, y, at="embedding"), maps)
    expected = quantus.Sparseness(disable_warnings=True)(kind.model, kind.quantus, y, a_batch=maps)
    assert scores["DualView"]["sparseness"] == pytest.approx(expected)


def test_what_has_no_map_is_refused() -> None:
    kind = seeded(tokens)
    method = made(kind)
    with pytest.raises(InvalidTypeError, match=r"floating, to be differentiated; of tokens pass at=, the embedding"):
        method.input_attribution(kind.test)
    with pytest.raises(InvalidValueError, match=r"at of DualView must be one of embedding, block, .* got 'nowhere'"):
        method.input_attribution(kind.test, at="nowhere")
    with pytest.raises(InvalidValueError, match=r"at of DualView must be a module of the model"):
        method.input_attribution(kind.test, at=nn.Linear(2, 2))
    kind.model.unused = nn.Linear(2, 2)
    again = made(kind)
    with pytest.raises(InvalidValueError, match=r"runs exactly once in a forward pass, got 'unused' with 0 runs"):
        again.input_attribution(kind.test, at="unused")
