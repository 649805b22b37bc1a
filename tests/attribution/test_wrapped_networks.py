"""Kinds of module around or inside a network: compiled, parallel, half precision, frozen, adapted; and other calls."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import (
    DataAttribution,
    DualView,
    DualViewError,
    GradientSimilarity,
    IdenticalClass,
    InfluenceFunctions,
    InvalidTypeError,
    InvalidValueError,
    PairwiseRelevance,
    RepresenterPoints,
    StaleFitError,
    SurrogateRelevance,
)
from tests.attribution.network_kinds import (
    LABELS,
    N_TRAIN,
    Cnn,
    Dictionaries,
    Transformer,
    TwoInputs,
    images,
    padded,
    sentences,
)
from tests.untouched import assert_untouched

METHODS: dict[str, tuple[type[DataAttribution], dict[str, Any]]] = {
    "DualView": (DualView, {"C": 0.5, "tol": 1e-9}),
    "GradientSimilarity": (GradientSimilarity, {}),
    "InfluenceFunctions": (InfluenceFunctions, {"damping": 0.1}),
    "RepresenterPoints": (RepresenterPoints, {"weight_decay": 0.05}),
}
over_methods = pytest.mark.parametrize("method", METHODS)


def made(method: str, model: Any, layer: Any, train: Any, **options: Any) -> DataAttribution:
    cls, own = METHODS[method]
    return cls(model, layer, train, batch_size=5, show_progress=False, **{**own, **options})


def world() -> tuple[Cnn, Tensor, Tensor]:
    torch.manual_seed(7)
    return Cnn(), images(N_TRAIN), images(4)


def lightning_like(model: nn.Module) -> nn.Module:
    """A module with a trainer that is there during training only, as Lightning's."""

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        @property
        def trainer(self) -> Any:
            raise RuntimeError("not attached to a trainer")

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    return Module()


WRAPPED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "compiled": (lambda model: torch.compile(model, backend="eager"), "head"),
    "compiled, the name inside": (lambda model: torch.compile(model, backend="eager"), "_orig_mod.head"),
    "DataParallel": (nn.DataParallel, "module.head"),
    "compiled DataParallel": (lambda model: torch.compile(nn.DataParallel(model), backend="eager"), "head"),
    "Lightning": (lightning_like, "net.head"),
    "channels last": (lambda model: model.to(memory_format=torch.channels_last), "head"),
    "frozen": (lambda model: model.requires_grad_(False), "head"),
}


@over_methods
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_network_is_explained_as_the_network_inside(kind: str, method: str) -> None:
    model, train, test = world()
    expected = made(method, copy.deepcopy(model), "head", TensorDataset(train, LABELS))
    wrap, layer = WRAPPED[kind]
    wrapped = wrap(model)
    found = made(method, wrapped, layer, TensorDataset(train, LABELS))
    with assert_untouched(wrapped):
        attributions, own = found.attribute(test), found.self_influence()
    for values, reference in ((attributions, expected.attribute(test)), (own, expected.self_influence())):
        torch.testing.assert_close(values, reference, atol=1e-4 * float(reference.abs().max()), rtol=0)
    assert found.for_model(wrapped) is found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@over_methods
def test_half_precision_and_autocast(method: str, dtype: torch.dtype) -> None:
    model, train, test = world()
    expected = made(method, copy.deepcopy(model), "head", TensorDataset(train, LABELS)).attribute(test, 1)
    half = made(method, copy.deepcopy(model).to(dtype), "head", TensorDataset(train, LABELS)).attribute(test, 1)
    assert half.dtype == torch.float32
    if method != "DualView":  # whose support may change with the features' rounding
        assert float((half - expected).norm() / expected.norm()) < 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = made(method, model, "head", TensorDataset(train, LABELS)).attribute(test, 1)
    assert torch.equal(cast, expected)


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter, as LoRA's: a frozen base, and two small matrices."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A, self.lora_B = (
            nn.Linear(base.in_features, 2, bias=False),
            nn.Linear(2, base.out_features, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 0.5 * self.lora_B(self.lora_A(x))


def test_gradients_in_adapters_alone() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(Adapted(nn.Linear(3, 7)), nn.Tanh(), Adapted(nn.Linear(7, 7)), nn.Tanh(), nn.Linear(7, 3))
    train, test = torch.randn(N_TRAIN, 3), torch.randn(4, 3)
    layers = [name for name, _ in model.named_modules() if name.endswith(("lora_A", "lora_B"))]
    method = GradientSimilarity(model, "4", TensorDataset(train, LABELS), layers=layers, show_progress=False)
    chosen = [p for name, p in model.named_parameters() if "lora" in name]

    def gradient(x: Tensor, label: int) -> Tensor:
        parts = torch.autograd.grad(model(x[None])[0, label], chosen)
        return nn.functional.normalize(torch.cat([part.flatten() for part in parts]), dim=0)

    of_train = torch.stack([gradient(x, int(y)) for x, y in zip(train, LABELS, strict=True)])
    found, target = method.attribute(test), model(test).argmax(1)
    found = found / found.norm(dim=1, keepdim=True)
    expected = torch.stack([gradient(x, int(c)) for x, c in zip(test, target, strict=True)]) @ of_train.mT
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@over_methods
def test_torchscript_is_refused_with_what_to_do(method: str) -> None:
    model, train, _ = world()
    for scripted in (torch.jit.trace(model.eval(), train[:2]), nn.DataParallel(torch.jit.trace(model, train[:2]))):
        with pytest.raises(InvalidTypeError, match=r"model of .* the module itself, before torch\.jit\.script or"):
            made(method, scripted, "head", TensorDataset(train, LABELS))


@pytest.mark.filterwarnings("ignore::dualview_plugin.SparseAttributionWarning")
@over_methods
def test_calls_in_captums_spelling(method: str) -> None:
    torch.manual_seed(2)
    model, train, test = TwoInputs(), (images(N_TRAIN), torch.randn(N_TRAIN, 3)), (images(4), torch.randn(4, 3))
    explained = made(method, model, "fc", TensorDataset(*train, LABELS))
    expected = explained.attribute(test)
    assert torch.equal(explained.attribute(list(test)), expected)
    assert torch.equal(explained.attribute(test[0], additional_forward_args=test[1]), expected)
    assert torch.equal(explained.attribute((test[0],), None, (test[1],)), expected)
    assert torch.equal(explained.influence(test[0], additional_forward_args=test[1]), expected)
    assert torch.equal(explained.influence(test[0], k=3, additional_forward_args=test[1]).influence_scores,
                       expected.topk(3).values)  # fmt: skip
    for loader in (DataLoader(TensorDataset(*test), batch_size=3), DataLoader(TensorDataset(*test, torch.zeros(4)), 3)):
        torch.testing.assert_close(explained.attribute(loader), expected)
    nested = made(method, model, "fc", [((image, row), int(y)) for image, row, y in zip(*train, LABELS, strict=True)])
    torch.testing.assert_close(nested.attribute(test), expected)


@over_methods
def test_forward_and_label_functions(method: str) -> None:
    """A network that wants a scale and returns its logits among other things; labels inside the input."""

    class Unusual(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, record: dict[str, Tensor], scale: float) -> list[Any]:
            return ["nothing", self.inner(record["picture"] * scale)]

    model, train, test = world()
    records = Dictionaries([{"picture": x, "meta": {"class": y}} for x, y in zip(train, LABELS, strict=True)])
    unusual = Unusual(copy.deepcopy(model))
    explained = made(
        method, unusual, "inner.head", records,
        forward=lambda network, batch: network(batch, scale=2.0)[1], label_fn=lambda batch: batch["meta"]["class"],
    )  # fmt: skip
    expected = made(method, model, "head", TensorDataset(2 * train, LABELS))
    inputs = {"picture": test}  # another structure is the function's affair
    with assert_untouched(unusual):
        found = explained.attribute(inputs)
    torch.testing.assert_close(found, expected.attribute(2 * test), atol=1e-4 * float(found.abs().max()), rtol=0)
    torch.testing.assert_close(
        explained.self_influence(), expected.self_influence(), rtol=1e-4, atol=1e-4 * float(found.abs().max())
    )


def test_masks_through_a_function_score_in_a_metric() -> None:
    """Tokens as one array; the function makes the mask."""
    torch.manual_seed(4)
    model = Transformer()
    whole = padded([{"input_ids": ids} for ids in sentences(N_TRAIN + 4)])
    ids = whole["input_ids"]
    by_function = made(
        "DualView", model, "score", TensorDataset(ids[:N_TRAIN], LABELS),
        forward=lambda network, batch: network(input_ids=batch, attention_mask=(batch != 0).long()),
    )  # fmt: skip
    rows = Dictionaries([{"input_ids": ids[i], "labels": int(LABELS[i])} for i in range(N_TRAIN)])
    test = {name: value[N_TRAIN:] for name, value in whole.items()}
    loader = DataLoader(rows, batch_size=5, collate_fn=lambda batch: {
        **padded(batch), "attention_mask": (torch.stack([row["input_ids"] for row in batch]) != 0).long()
    })  # fmt: skip
    by_dictionary = made("DualView", model, "score", loader)
    expected = by_dictionary.attribute(test)
    torch.testing.assert_close(by_function.attribute(ids[N_TRAIN:]), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_dictionary.attribute(UserDict(test)), expected)
    y = by_dictionary.decisions(test).numpy()
    scores = IdenticalClass()(model, test, y, explain_func=by_dictionary)
    assert scores == IdenticalClass()(model, ids[N_TRAIN:].numpy(), y, explain_func=by_function)


def test_what_does_not_fit_is_refused_in_words() -> None:
    model, train, test = world()
    data = TensorDataset(train, LABELS)
    several = TensorDataset(train, torch.ones(N_TRAIN, 4))
    two = TwoInputs()
    pairs = made("DualView", two, "fc", TensorDataset(train, torch.randn(N_TRAIN, 3), LABELS))
    make = partial(made, "DualView", model, "head")
    for call, message in (
        (lambda: make(data, forward=3), "forward of DualView must be a function"),
        (lambda: make(data, label_fn=3), "label_fn of DualView must be a function"),
        (lambda: make(data, output=-1), "output of DualView must be an integer of at least 0"),
        (lambda: make(several, output=7).fit(), "output of DualView must be in 0 … 3, the outputs that the dataset"),
        (lambda: make(several, output=3).fit(), "output of DualView must be in 0 … 2, the network's outputs"),
        (lambda: make(several).fit(), "one integer label for each sample; .*, output=… takes one"),
        (lambda: make(data, output=1).fit(), "whose labels of an output are 0 or 1"),
        (lambda: pairs.attribute(test), r"structure, \(tensor, tensor\), got tensor"),
        (lambda: pairs.attribute((test, torch.zeros(3, 3))), "all have the samples along their first axis"),
        (lambda: pairs.attribute((test, ["a"] * 4)), "tuples and dictionaries of tensors, got str"),
        (lambda: pairs.attribute((test, torch.zeros(4, 3, 3))), "of 2 axes, as a batch of the training inputs"),
        (lambda: pairs.attribute({"x": test}), r"\(tensor, tensor\), got \{x: tensor\}"),
    ):
        with pytest.raises(DualViewError, match=message):
            call()


def test_a_squeezed_activation_behind_the_head_has_pooled_features_and_no_linear_head() -> None:
    """SqueezeNet: the head of 1 × 1 convolutions is followed by a ReLU."""
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(2, 7, 3), nn.ReLU())
    model = nn.Sequential(body, nn.Conv2d(7, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    train, test = images(N_TRAIN), images(4)
    method = made("DualView", model, "1", TensorDataset(train, LABELS))
    torch.testing.assert_close(method.extractor(test)[0], body(test).mean((2, 3)))
    assert method.attribute(test).isfinite().all()
    for linear in ("InfluenceFunctions", "RepresenterPoints"):
        with pytest.raises(InvalidValueError, match=r"final_fc_layer of .* must be the linear layer whose outputs"):
            made(linear, model, "1", TensorDataset(train, LABELS)).fit()


@pytest.mark.parametrize("relevance", [PairwiseRelevance, SurrogateRelevance])
def test_relevance_of_several_inputs_is_refused(relevance: Any) -> None:
    two = TwoInputs()
    method = made("DualView", two, "fc", TensorDataset(images(N_TRAIN), torch.randn(N_TRAIN, 3), LABELS))
    explained = relevance(method, "epsilon_plus")
    with pytest.raises(InvalidTypeError, match=r"inputs of .*Relevance must be one tensor: relevance is not"):
        explained.attribute((images(2), torch.randn(2, 3)))


def test_padding_without_a_mask_is_refused() -> None:
    class Unmasked(Transformer):
        def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return super().hidden(input_ids, torch.ones_like(attention_mask))

    torch.manual_seed(4)
    data = Dictionaries([{"input_ids": ids, "labels": 0} for ids in sentences(N_TRAIN)])
    method = made("DualView", Unmasked(), "score", DataLoader(data, batch_size=5, collate_fn=padded))
    with pytest.raises(InvalidValueError, match=r"model of .* treats each sample by itself; .* padding without a mask"):
        method.fit()


def test_dictionaries_are_cached_and_changes_noticed(tmp_path: Path) -> None:
    torch.manual_seed(4)
    samples = [{"input_ids": ids, "labels": int(y)} for ids, y in zip(sentences(N_TRAIN), LABELS, strict=True)]
    model, test = Transformer(), [{"input_ids": ids} for ids in sentences(3)]

    def method(samples: list[Any]) -> DataAttribution:
        loader = DataLoader(Dictionaries(samples), batch_size=5, collate_fn=padded)
        return made("DualView", model, "score", loader, cache_dir=tmp_path)

    first = method(samples)
    expected = first.attribute(test)
    (entry,) = tmp_path.iterdir()
    assert torch.equal(method(samples).attribute(test), expected)
    assert list(tmp_path.iterdir()) == [entry]
    samples[3]["labels"] = (samples[3]["labels"] + 1) % 3
    with pytest.raises(StaleFitError, match="train_dataset of DualView must be as it was at the fit, got other labels"):
        first.attribute(test)
    assert not torch.equal(method(samples).attribute(test), expected)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without distributed")
def test_a_distributed_network_is_explained_as_the_network_inside() -> None:
    model, train, test = world()
    expected = made("DualView", copy.deepcopy(model), "head", TensorDataset(train, LABELS)).attribute(test)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        found = made("DualView", parallel, parallel.module.head, TensorDataset(train, LABELS))
        torch.testing.assert_close(found.attribute(test), expected)
    finally:
        torch.distributed.destroy_process_group()
