"""Right or refused: what comes in through the public calls of every method, and what must stay outside."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dualview_plugin.attribution import DataAttribution, DualView, GradientSimilarity
from dualview_plugin.errors import (
    CacheWarning,
    DualViewError,
    InvalidTypeError,
    InvalidValueError,
    SparseAttributionWarning,
    StaleFitError,
)
from tests.attribution.method_factories import METHODS, NETWORK_FREE, NOT_DIFFERENTIABLE, Factory, over
from tests.attribution.test_contract import CLOSE, TARGET, assert_same_fit
from tests.untouched import assert_untouched
from tests.worlds import N_TEST, N_TRAIN, World, small_world

FOREIGN = nn.Linear(3, 2)
RANDOM = {"RandomAttribution"}
CALLS: dict[str, Callable[[DataAttribution, World], Any]] = {
    "fit": lambda method, _: method.fit(),
    "attribute": lambda method, world: method.attribute(world.x_test),
    "attribute to a target": lambda method, world: method.attribute(world.x_test, 2),
    "attribute_blocks": lambda method, world: list(method.attribute_blocks(world.x_test)),
    "influence": lambda method, world: method.strongest(world.x_test, 2),
    "self_influence": lambda method, _: method.self_influence(),
    "input_attribution": lambda method, world: method.input_attribution(world.x_test),
    "Quantus' call": lambda method, world: method(world.model, world.x_test.numpy(), TARGET.numpy()),
    "training_inputs": lambda method, _: method.training_inputs(torch.tensor([3, 1])),
}


@over()
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_call_leaves_a_trace(make: Factory, call: Callable[[DataAttribution, World], Any]) -> None:
    world = small_world()
    world.model.norm.eval()  # a mixed mode
    with assert_untouched(world.model, *world.train.tensors, world.x_test):
        call(make(world), world)


@over()
@pytest.mark.parametrize("call", ["fit", "attribute", "self_influence", "input_attribution"])
def test_no_failed_call_leaves_a_trace(make: Factory, call: str) -> None:
    world = small_world()
    method = make(world)
    passes: list[int] = []

    def fail(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 3:
            raise InterruptedError

    with assert_untouched(world.model, *world.train.tensors, world.x_test):
        handle = world.model.hidden.register_forward_hook(fail)
        try:
            with pytest.raises(InterruptedError):
                CALLS[call](method, world)
        finally:
            handle.remove()


@over()
@pytest.mark.parametrize("call", ["fit", "attribute", "self_influence"])
def test_no_reading_that_fails_leaves_a_trace(make: Factory, call: str) -> None:
    world, reads = small_world(), []

    class Failing(Dataset[Any]):
        def __len__(self) -> int:
            return N_TRAIN

        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            torch.randn(3), np.random.rand()  # noqa: NPY002
            if len(reads) == N_TRAIN:  # behind the probe
                raise KeyError
            return world.train[index]

    method = make(world, Failing())
    with assert_untouched(world.model, *world.train.tensors, world.x_test), pytest.raises(KeyError):
        CALLS[call](method, world)


@over(RANDOM)
def test_weights_that_change_after_the_fit_are_noticed(make: Factory) -> None:
    world = small_world()
    method = make(world).fit()
    world.model.conv.weight.data[0, 0, 0, 0] += 0.5  # unseen by version counters
    for call in ("attribute", "self_influence", "input_attribution", "Quantus' call"):
        with pytest.raises(StaleFitError, match=f"model of {method.get_name()} must be as it was at the fit"):
            CALLS[call](method, world)
    found = method.fit().attribute(world.x_test, TARGET)
    assert_same_fit(method, found, make(world).attribute(world.x_test, TARGET))


@over()
def test_labels_that_change_and_data_that_grow_after_the_fit_are_noticed(make: Factory) -> None:
    world = small_world()
    method = make(world).fit()
    world.train.tensors[1][11] = 0 if world.train.tensors[1][11] else 1
    with pytest.raises(StaleFitError, match=f"train_dataset of {method.get_name()} must be .*got other labels"):
        method.attribute(world.x_test)
    samples = [(point, int(label)) for point, label in zip(*world.train.tensors, strict=True)]
    method = make(world, samples).fit()
    samples.append(samples[0])
    with pytest.raises(StaleFitError, match=f"got {N_TRAIN + 1} samples in place of {N_TRAIN}"):
        method.attribute(world.x_test)


@over()
def test_a_fit_that_fails_leaves_the_old_one_whole(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world()
    method = make(world)
    expected = method.attribute(world.x_test, TARGET)

    def broken(self: DataAttribution) -> None:
        self.train_labels_ = torch.zeros(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(method), "_fit", broken)
        with pytest.raises(KeyboardInterrupt):
            method.fit()
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, **CLOSE)
    assert len(method.train_labels_) == N_TRAIN


def test_an_argument_that_is_assigned_is_validated_and_used() -> None:
    world = small_world()
    method = METHODS["DualView"](world)
    method.fit()
    with pytest.raises(InvalidValueError, match="C of DualView must be a finite real number"):
        method.C = -1  # type: ignore[attr-defined]
    assert method.C == 0.05  # type: ignore[attr-defined]
    method.C = 10.0  # type: ignore[attr-defined]
    expected = DualView(world.model, "fc", world.train, C=10.0, show_progress=False).attribute(world.x_test)
    torch.testing.assert_close(method.attribute(world.x_test), expected)
    other = small_world(seed=5)
    method.train_dataset = other.train
    assert torch.equal(method.fit().train_labels_, other.train.tensors[1])
    with pytest.raises(InvalidTypeError, match="train_dataset of DualView"):
        method.train_dataset = 3


@over()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_training_and_test_data_come_in_any_floating_type(make: Factory, dtype: torch.dtype) -> None:
    world = small_world()
    for tensor in (world.train.tensors[0], world.x_test):
        tensor.copy_(tensor.half().float())  # so that half precision has the same values
    expected = make(world).attribute(world.x_test, TARGET)
    train = TensorDataset(world.train.tensors[0].to(dtype), world.train.tensors[1])
    method = make(world, train)
    torch.testing.assert_close(method.attribute(world.x_test.to(dtype), TARGET), expected, **CLOSE)
    torch.testing.assert_close(method.attribute(world.x_test.to(dtype).numpy(), TARGET), expected, **CLOSE)


@over(RANDOM)
def test_a_test_point_of_nan_is_refused(make: Factory) -> None:
    world = small_world()
    method = make(world)
    world.x_test[3, 0, 0, 0] = torch.nan
    for call in (
        lambda: method.attribute(world.x_test, 1),
        lambda: method.influence(world.x_test, k=2),
        lambda: method.influence(world.x_test, k=2, target=1),
    ):
        with pytest.raises(InvalidValueError, match=f"inputs of {method.get_name()} must be .*3"):
            call()


@over()
def test_inference_mode_changes_nothing(make: Factory) -> None:
    world = small_world()
    fresh = make(world)
    expected, maps = fresh.attribute(world.x_test, TARGET), fresh.input_attribution(world.x_test, TARGET)
    with torch.inference_mode():
        method = make(world)
        torch.testing.assert_close(method.attribute(world.x_test.clone(), TARGET), expected, **CLOSE)
        torch.testing.assert_close(method.input_attribution(world.x_test.clone(), TARGET), maps, **CLOSE)
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, **CLOSE)
    torch.testing.assert_close(method.input_attribution(world.x_test, TARGET), maps, **CLOSE)


@over()
def test_autocast_changes_nothing(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(make(world).attribute(world.x_test, TARGET), expected, **CLOSE)


@over()
def test_a_compiled_network_is_its_original(make: Factory) -> None:
    world = small_world()
    expected = make(world).attribute(world.x_test, TARGET)
    world.model = torch.compile(world.model, backend="eager")  # type: ignore[assignment]
    for layer in ("fc", "_orig_mod.fc", world.model._orig_mod.fc):  # type: ignore[union-attr]
        world.final_fc_layer = layer  # type: ignore[assignment]
        torch.testing.assert_close(make(world).attribute(world.x_test, TARGET), expected, **CLOSE)


class Writing(nn.Module):
    """A network that normalises its input in place."""

    def __init__(self, net: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs.sub_(0.5) if self.in_place else inputs - 0.5)


@over()
def test_a_network_that_writes_to_its_input_writes_to_a_copy(make: Factory) -> None:
    found = []
    for in_place in (False, True):
        world = small_world()
        world.model, world.final_fc_layer = Writing(world.model, in_place=in_place), "net.fc"
        options = {"layers": ["net.conv", "net.fc"]} if "layers" in make(small_world())._arguments else {}
        method = make(world, **options)
        with assert_untouched(world.model, *world.train.tensors, world.x_test):
            found.append([method.attribute(world.x_test, TARGET), method.input_attribution(world.x_test, TARGET)])
    for plain, written in zip(*found, strict=True):
        torch.testing.assert_close(written, plain, **CLOSE)


@over()
def test_two_threads_get_the_right_values(make: Factory) -> None:
    world = small_world()
    method = make(world).fit()
    expected, found = method.attribute(world.x_test, TARGET), []

    def ask() -> None:
        found.append(method.attribute(world.x_test, TARGET))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    with assert_untouched(world.model):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    for values in found:
        torch.testing.assert_close(values, expected, **CLOSE)


class Scaled(nn.Module):
    """A network whose outputs hang on what no state_dict has."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor
        self.register_buffer("shift", torch.tensor(factor), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.last = self.net.conv(inputs)  # what is kept is no leaf, which deepcopy refuses
        return self.net(inputs * self.factor + self.shift)


@over(NOT_DIFFERENTIABLE)
@pytest.mark.parametrize("change", ["factor", "shift"])
def test_another_network_is_told_apart_by_all_that_it_computes_with(make: Factory, change: str) -> None:
    world = small_world()
    first, second = Scaled(world.model, 1.0), Scaled(world.model, 1.0)
    setattr(second, change, -1.0 if change == "factor" else torch.tensor(-1.0))
    world.final_fc_layer = "net.fc"
    options = {"layers": ["net.conv", "net.fc"]} if "layers" in make(small_world())._arguments else {}
    world.model = second
    first(world.x_test), second(world.x_test)
    expected = make(world, **options).attribute(world.x_test, TARGET)
    world.model = first
    method = make(world, **options).fit()
    other = method.for_model(second)
    assert_same_fit(other, other.attribute(world.x_test, TARGET), expected)
    assert method.for_model(second) is other
    assert method.for_model(first) is method
    assert method.for_model(None) is method


@over(NETWORK_FREE)
def test_a_network_that_is_randomised_again_is_explained_again(make: Factory) -> None:
    world = small_world()
    method, other = make(world), copy.deepcopy(world.model)
    values = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        nn.init.normal_(other.hidden.weight)
        values.append(method.for_model(other).attribute(world.x_test, TARGET))
    assert not torch.allclose(values[0], values[1], rtol=1e-2)
    torch.testing.assert_close(values[0], values[2], **CLOSE)


@over()
def test_loaders_that_pad_each_batch_to_its_length_work(make: Factory) -> None:
    world = small_world()
    x, labels = world.train.tensors
    loader = DataLoader(TensorDataset(x, labels), batch_size=4)
    test = DataLoader(TensorDataset(world.x_test), batch_size=3)
    torch.testing.assert_close(
        make(world, loader).attribute(test, TARGET), make(world).attribute(world.x_test, TARGET), **CLOSE
    )


@over()
def test_a_missing_batch_axis_is_named(make: Factory) -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match=r"inputs of \w+ must be .*write inputs\[None\]"):
        make(world).attribute(world.x_test[0])


def test_fewer_points_than_asked_for_are_spoken_of() -> None:
    world = small_world()
    method = METHODS["DualView hard"](world)
    with pytest.warns(SparseAttributionWarning, match=f"of {N_TEST} test points have fewer than k = {N_TRAIN}"):
        method.influence(world.x_test, k=N_TRAIN)


def test_a_cache_folder_that_cannot_be_made_is_refused_before_data_are_read(tmp_path: Any) -> None:
    world, reads = small_world(), []

    class Counted(Dataset[Any]):
        def __len__(self) -> int:
            return N_TRAIN

        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return world.train[index]

    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InvalidValueError, match="cache_dir of DualView must be a folder that can be written, or None"):
        METHODS["DualView"](world, Counted(), cache_dir=file)
    assert not reads


@pytest.mark.parametrize("suffix", ["features.npy", "labels.npy", "json"])
@pytest.mark.parametrize("position", [0, 60, -1])
def test_a_flipped_bit_in_the_cache_is_noticed(position: int, suffix: str, tmp_path: Any) -> None:
    world = small_world()
    make = METHODS["DualView"]
    expected = make(world, cache_dir=tmp_path).attribute(world.x_test, TARGET)
    (path,) = tmp_path.glob(f"*/shard-000000.{suffix}")
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(bytes(content))
    with pytest.warns(CacheWarning, match="cannot be read and is computed again"):
        found = make(world, cache_dir=tmp_path).attribute(world.x_test, TARGET)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(make(world, cache_dir=tmp_path).attribute(world.x_test, TARGET), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda method, x: method.attribute(x, "a"), "target of DualView must be an integer or integers"),
        (lambda method, x: method.attribute(x, 1.5), "target of DualView must be an integer or integers"),
        (lambda method, x: method.attribute(x, True), "target of DualView must be an integer or integers"),
        (lambda method, x: method.attribute(x, [1, None]), "target of DualView must be an integer or integers"),
        (lambda method, x: method.attribute(x, np.ones(7)), "target of DualView must be an integer or integers"),
        (lambda method, x: method.attribute(x, [[1]] * 7), "target of DualView must be one class"),
        (lambda method, x: method.attribute(x, []), "target of DualView must be"),
        (lambda method, x: method.attribute(x, 5), "target of DualView must be in 0 … 4"),
        (lambda method, x: method.attribute(x, -1), "target of DualView must be in 0 … 4"),
        (lambda method, x: method.attribute(x, 10**12), "target of DualView must be in 0 … 4"),
        (lambda method, x: method.attribute(x.tolist()), "inputs of DualView must be a tensor"),
        (lambda method, x: method.attribute(None), "inputs of DualView must be a tensor"),
        (lambda method, x: method.attribute(x[:0]), "inputs of DualView must be not empty"),
        (lambda method, x: method.attribute(x[0]), "inputs of DualView must be a batch"),
        (lambda method, x: method.attribute(x[None]), "inputs of DualView must be of 4 axes"),
        (lambda method, x: method.influence(x, k=0), "k of DualView must be an integer of at least 1"),
        (lambda method, x: method.influence(x, k=-2), "k of DualView must be an integer of at least 1"),
        (lambda method, x: method.influence(x, k=1.0), "k of DualView must be an integer of at least 1"),
        (lambda method, x: method.influence(x, k=True), "k of DualView must be an integer of at least 1"),
        (lambda method, x: method.influence(x, k=32), "k of DualView must be at most n_train = 31"),
        (lambda method, x: method.input_attribution(x, k=0), "k of DualView must be an integer of at least 1"),
        (lambda method, x: method.input_attribution(x, k=32), "k of DualView must be at most n_train = 31"),
        (lambda method, x: method.surrogate_logits(x[0]), "inputs of DualView must be a batch"),
        (lambda method, x: method.surrogate_logits("x"), "inputs of DualView must be a tensor"),
        (lambda method, x: method.for_model(FOREIGN), "final_fc_layer of DualView must be one of"),
        (lambda method, x: method.for_model(3), "model of DualView must be a torch.nn.Module"),
    ],
)
def test_wrong_calls_are_refused_in_words(call: Callable[..., Any], message: str) -> None:
    world = small_world()
    method = METHODS["DualView"](world)
    with assert_untouched(world.model), pytest.raises(DualViewError, match=message):
        call(method, world.x_test)


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: 3, "model of .* must be a torch.nn.Module"),
    "two outputs": (lambda: Outputs(lambda y: (y, y)), r"model of .* outputs of shape \(n_samples, n_classes\).*tuple"),
    "a dictionary": (lambda: Outputs(lambda y: {"scores": y}), "model of .* outputs of shape .*dict"),
    "one logit": (lambda: Outputs(lambda y: y[:, 0]), "train_dataset of .* labelled from 0 to 1"),
    "a map of logits": (lambda: Outputs(lambda y: y[:, :, None]), "model of .* outputs of shape"),
    "a sum": (lambda: Outputs(lambda y: y.sum()), "model of .* outputs of shape"),
    "a decision": (lambda: Outputs(lambda y: y.argmax(1, keepdim=True)), "model of .* floating outputs"),
    "batch statistics": (lambda: Outputs(lambda y: y - y.mean(0)), "model of .* treats each sample by itself"),
    "nan": (lambda: Outputs(lambda y: y * torch.nan), "train_dataset of .* finite features and outputs"),
}


class Outputs(nn.Module):
    """A network with whatever a function makes of its logits."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.hidden, self.fc, self.function = nn.Linear(3, 7), nn.Linear(7, 5), function

    def forward(self, inputs: Tensor) -> Any:
        return self.function(self.fc(torch.relu(self.hidden(inputs))))


@pytest.mark.parametrize("method", [DualView, GradientSimilarity])
@pytest.mark.parametrize("make", MODELS)
def test_networks_of_another_kind_are_refused_in_words(make: str, method: type[DataAttribution]) -> None:
    model, message = MODELS[make][0](), MODELS[make][1]
    data = TensorDataset(torch.randn(12, 3), torch.arange(12) % 5)
    with pytest.raises(DualViewError, match=message):
        method(model, "fc", data, show_progress=False).attribute(torch.randn(2, 3))


def test_arrays_of_every_layout_and_order_of_bytes() -> None:
    world = small_world()
    method = DualView(world.model, "fc", world.train, show_progress=False)
    expected, x = method.attribute(world.x_test, TARGET), world.x_test.numpy()
    for inputs in (x.astype(x.dtype.newbyteorder()), x[::-1].copy()[::-1], np.asfortranarray(x)):
        for target in (TARGET.numpy()[::-1].copy()[::-1], TARGET.numpy().astype(">i8"), TARGET.numpy().astype(">i2")):
            assert torch.equal(method.attribute(inputs, target), expected)
