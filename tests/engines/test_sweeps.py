"""Passes over the training data for a block of test points: shard by shard, what one pass gives, and never twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview_plugin import CacheWarning, InvalidTypeError, InvalidValueError, Storage
from dualview_plugin.attribution import DataAttribution, GradientSimilarity
from dualview_plugin.attribution.common.training_store import N_PROBES
from dualview_plugin.data.samples import probe_indices
from tests.attribution.method_factories import METHODS
from tests.engines.processes import communicated, started
from tests.untouched import assert_untouched
from tests.worlds import N_TEST, N_TRAIN, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
SWEEPING = sorted(
    name
    for name, make in METHODS.items()
    if make(small_world())._sweeps  # which methods take a pass
)
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
SIZE = 8
N_SHARDS = -(-N_TRAIN // SIZE)


def stored(name: str, folder: Path, world: World | None = None, **options: Any) -> DataAttribution:
    """A method with shards of eight training points."""
    of_storage = {key: options.pop(key) for key in ("results", "verify", "engine") if key in options}
    storage = Storage(folder, shard_size=SIZE, **of_storage)
    return METHODS[name](world or small_world(), cache_dir=storage, **options)


def test_these_methods_take_a_pass() -> None:
    assert {name.partition(",")[0].partition(" ")[0] for name in SWEEPING} == {
        *("EKFACInfluence", "GradCos", "GradientSimilarity", "InfluenceFunctions", "InputSimilarity", "TracIn"),
    }


@pytest.mark.parametrize("name", SWEEPING)
def test_shards_give_what_one_pass_gives_and_are_computed_once(name: str, tmp_path: Path) -> None:
    world = small_world()
    plain = METHODS[name](world)
    expected, own = plain.attribute(world.x_test, TARGET), plain.self_influence()
    first = stored(name, tmp_path)
    with assert_untouched(first.model):
        rows = first.attribute(world.x_test, TARGET)
    assert first.sweep_ is not None
    assert first.sweep_.n_computed == first.sweep_.n_shards == N_SHARDS
    torch.testing.assert_close(rows, expected, **CLOSE)
    torch.testing.assert_close(first.self_influence(), own, **CLOSE)
    second = stored(name, tmp_path)
    assert torch.equal(second.attribute(world.x_test, TARGET), rows)
    assert second.sweep_ is not None
    assert second.sweep_.n_computed == 0
    assert torch.equal(second.self_influence(), first.self_influence())
    assert second.sweep_.n_computed == 0


@pytest.mark.slow
@pytest.mark.parametrize("proponents", [True, False])
@pytest.mark.parametrize("k", [1, 3, 11, N_TRAIN])  # below and above the size of a shard
@pytest.mark.parametrize("name", ["GradientSimilarity", "InfluenceFunctions", "TracIn"])
def test_the_strongest_of_shards_are_merged(name: str, k: int, proponents: bool, tmp_path: Path) -> None:
    world = small_world()
    expected = METHODS[name](world).attribute(world.x_test, TARGET)
    order = expected.sort(dim=1, descending=proponents)  # the slow reference
    for n_computed in (N_SHARDS, 0):
        method = stored(name, tmp_path)
        found = method.influence(world.x_test, k, TARGET, proponents)
        assert method.sweep_ is not None
        assert method.sweep_.n_computed == n_computed
        torch.testing.assert_close(found.influence_scores, order.values[:, :k], **CLOSE)
        torch.testing.assert_close(expected.gather(1, found.indices), found.influence_scores, **CLOSE)
        assert all(len(set(row)) == k for row in found.indices.tolist())
    kept = sum(path.stat().st_size for path in method.sweep_.folder.glob("*.values.npy"))
    assert kept <= N_SHARDS * (128 + 8 * min(k, SIZE) * N_TEST)


def test_blocks_of_test_points_have_stores_of_their_own(tmp_path: Path) -> None:
    world = small_world()
    budget = 8_000
    blocks = list(stored("GradientSimilarity", tmp_path, memory_budget=budget).attribute_blocks(world.x_test, TARGET))
    assert len(blocks) > 1
    torch.testing.assert_close(torch.cat(blocks), METHODS["GradientSimilarity"](world).attribute(world.x_test, TARGET))
    assert len(list(tmp_path.glob("attributions-*"))) == len(blocks)


@pytest.mark.parametrize("change", ["inputs", "target", "k", "side", "setting", "network", "data", "storage dtype"])
def test_another_question_gets_another_answer(change: str, tmp_path: Path) -> None:
    def make(changed: bool, folder: Path | None) -> Any:
        world, options = small_world(), {}
        inputs, target, k, proponents = world.x_test.clone(), TARGET.clone(), 3, True
        if changed and change == "inputs":
            inputs[2, 0, 0, 0] += 1
        if changed and change == "target":
            target[2] = 3
        if changed and change == "k":
            k = 4
        if changed and change == "side":
            proponents = False
        if changed and change == "setting":
            options = {"normalize_train": False}
        if changed and change == "network":
            with torch.no_grad():
                world.model.fc.weight[1, 2] += 1
        if changed and change == "data":
            world.train.tensors[0][3] += 1
        dtype = "float16" if changed and change == "storage dtype" else None
        storage = None if folder is None else Storage(folder, shard_size=SIZE, dtype=dtype)
        method = METHODS["GradientSimilarity"](world, cache_dir=storage, **options)
        found = method.influence(inputs, k, target, proponents)
        return method, found

    make(False, tmp_path)
    method, found = make(True, tmp_path)
    assert method.sweep_.n_computed == N_SHARDS
    _, expected = make(True, None)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.influence_scores, expected.influence_scores, **CLOSE)


def test_the_same_weights_in_other_code_get_another_store(tmp_path: Path) -> None:
    def doubled(model: Any, x: Tensor) -> Tensor:
        return 2 * model(x)

    world = small_world()
    stored("GradientSimilarity", tmp_path).attribute(world.x_test, TARGET)
    method = stored("GradientSimilarity", tmp_path, forward=doubled)
    expected = METHODS["GradientSimilarity"](world, forward=doubled).attribute(world.x_test, TARGET)
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected)
    assert method.sweep_ is not None
    assert method.sweep_.n_computed == N_SHARDS


class Interrupted(Dataset[Any]):
    """Knows nothing without reading, and may break off when a sample is read for the second time."""

    def __init__(self, source: Any) -> None:
        self.read, self.length = lambda index: source[index], len(source)
        self.stop, self.seen, self.change = -1, 0, 0.0
        self.hidden = min({*range(len(source))} - {*probe_indices(len(source), N_PROBES)}, default=-1)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.seen += index == self.stop
        if self.seen == 2:
            raise KeyboardInterrupt
        x, y = self.read(index)
        return x + self.change * (index == self.hidden), int(y)


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world = small_world()
    data = Interrupted(world.train)
    storage = Storage(tmp_path, shard_size=SIZE)
    options: dict[str, Any] = {"cache_dir": storage, "show_progress": False, "batch_size": 4}
    method = GradientSimilarity(world.model, "fc", data, **options).fit()
    data.stop = 20  # once to recognise the data, once in the third shard
    with assert_untouched(world.model), pytest.raises(KeyboardInterrupt) as stopped:
        method.attribute(world.x_test, TARGET)
    (note,) = stopped.value.__notes__
    finished = int(note.split()[0])
    assert note.startswith(f"{finished} of {N_SHARDS} shards are kept in ")
    assert 0 < finished < N_SHARDS
    data.stop = -1
    data.seen = 0
    again = GradientSimilarity(world.model, "fc", data, **options)
    rows = again.attribute(world.x_test, TARGET)
    assert again.sweep_ is not None
    assert again.sweep_.n_computed == N_SHARDS - finished
    torch.testing.assert_close(rows, METHODS["GradientSimilarity"](world).attribute(world.x_test, TARGET), **CLOSE)
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("k", [None, 3])
def test_a_damaged_shard_alone_is_computed_again(k: int | None, tmp_path: Path) -> None:
    world = small_world()
    expected = stored("GradientSimilarity", tmp_path).influence(world.x_test, k, TARGET)
    (folder,) = tmp_path.glob("attributions-*")
    path = folder / f"shard-000001.{'scores' if k is None else 'indices'}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    method = stored("GradientSimilarity", tmp_path)
    with pytest.warns(CacheWarning, match=f"{path.name} cannot be read and is computed again: its checksum is another"):
        found = method.influence(world.x_test, k, TARGET)
    assert method.sweep_ is not None
    assert method.sweep_.n_computed == 1
    pairs = [(found, expected)] if k is None else list(zip(found, expected, strict=True))
    assert all(torch.equal(mine, other) for mine, other in pairs)


def test_without_results_nothing_but_labels_is_kept(tmp_path: Path) -> None:
    world = small_world()
    method = stored("GradientSimilarity", tmp_path, results=False)
    expected = METHODS["GradientSimilarity"](world).attribute(world.x_test, TARGET)
    assert torch.equal(method.attribute(world.x_test, TARGET), expected)
    assert method.sweep_ is None
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["labels"]
    with pytest.raises(InvalidTypeError, match="results of Storage must be True or False, got 'no'"):
        Storage(tmp_path, results="no")  # type: ignore[arg-type]


def test_a_loaded_method_takes_its_passes_through_the_store(tmp_path: Path) -> None:
    world = small_world()
    METHODS["GradientSimilarity"](world).save(tmp_path / "fitted.zip")
    expected = METHODS["GradientSimilarity"](world).attribute(world.x_test, TARGET)
    for n_computed in (N_SHARDS, 0):
        storage = Storage(tmp_path / "store", shard_size=SIZE)
        options: dict[str, Any] = {"cache_dir": storage, "show_progress": False}
        method = DataAttribution.load(tmp_path / "fitted.zip", world.model, world.train, **options)
        torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, **CLOSE)
        assert method.sweep_ is not None
        assert method.sweep_.n_computed == n_computed


@pytest.mark.parametrize("k", [None, 2])
def test_test_points_without_finite_attributions_are_named_by_their_position(k: int | None, tmp_path: Path) -> None:
    world = small_world()
    inputs = world.x_test.clone()
    inputs[4] = 3e38
    for cache in (None, Storage(tmp_path, shard_size=SIZE)):
        method: Any = METHODS["InputSimilarity, dot"](world, cache_dir=cache)
        with pytest.raises(InvalidValueError, match=r"inputs of InputSimilarity must be .*, got .*4"):
            method.influence(inputs, k, torch.zeros(N_TEST, dtype=torch.int64))


def test_verify_full_takes_no_pass_over_other_samples_for_granted(tmp_path: Path) -> None:
    """A sample that no probe reads changes; a fit that reads all samples notices, and so do its passes."""

    world = small_world()
    big = torch.utils.data.TensorDataset(
        *(tensor.repeat(8, *[1] * (tensor.ndim - 1)) for tensor in world.train.tensors)
    )
    data = Interrupted(big)
    make = lambda **options: GradientSimilarity(  # noqa: E731
        world.model, "fc", data, cache_dir=Storage(tmp_path, **options), show_progress=False
    )
    make().attribute(world.x_test, TARGET)
    data.change = 1.0
    with pytest.warns(CacheWarning, match="was made of other samples and is computed again"):
        rows = make(verify="full").attribute(world.x_test, TARGET)
    expected = GradientSimilarity(world.model, "fc", data, show_progress=False).attribute(world.x_test, TARGET)
    torch.testing.assert_close(rows, expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "engine"),
    [
        ("GradientSimilarity", "ranks"),
        ("GradientSimilarity", "local"),
        ("InfluenceFunctions", "local"),
        ("TracIn", "ranks"),
    ],
)
def test_two_processes_share_a_pass(method: str, engine: str, tmp_path: Path) -> None:
    done = communicated(
        [started("sweeping", method, engine, tmp_path, RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    )
    first, second = (json.loads(output) for output in done)
    assert first["computed"] + second["computed"] == first["shards"] == 25
    assert first["computed"] * second["computed"] > 0
    assert first["indices"] == second["indices"]
    assert first["values"] == second["values"]
    alone = json.loads(communicated([started("sweeping", method, "local", tmp_path / "alone")])[0])
    assert alone["computed"] == 25
    assert alone["indices"] == first["indices"]
    assert alone["values"] == first["values"]  # bit for bit: the same shards
