"""What was learned is read by the next process; whatever it depends on changes, it is learned again."""

from __future__ import annotations

import json
import pickle
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin import ArnoldiInfluence, CacheWarning, ConvergenceWarning, DualView, EKFACInfluence
from dualview_plugin.attribution import (
    arnoldi_influence,
    dualview,
    ekfac_influence,
    influence_functions,
    representer_points,
    trak,
)
from dualview_plugin.attribution.common import kept_state as kept_state_module
from dualview_plugin.storage import Storage
from tests.attribution.method_factories import METHODS
from tests.storage.worlds import TEST, Decoded, network
from tests.storage.worlds import dualview as made
from tests.worlds import small_world

# What each method keeps, and the function that learns it.
LEARNERS: dict[str, tuple[str, Any, str]] = {
    "DualView": ("solution", dualview.DualView, "_solve"),
    "RepresenterPoints": ("weights", representer_points.RepresenterPoints, "_retrain"),
    "InfluenceFunctions": ("factor", influence_functions.CholeskyInverse, "__init__"),
    "EKFACInfluence": ("curvature", ekfac_influence.EKFACInfluence, "_curvature"),
    "ArnoldiInfluence": ("eigenpairs", arnoldi_influence.ArnoldiInfluence, "_embedded"),
    "TRAK": ("errors", trak.TRAK, "_errors"),
}


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """A list that gets the name at every call of a function."""
    calls: list[str] = []
    function = getattr(owner, name)

    def noted(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, noted)
    return calls


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_the_next_object_learns_nothing_and_gives_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, owner, function = LEARNERS[name]
    calls = counted(monkeypatch, owner, function)
    results, world = [], small_world()
    for recalled in ((), (what,)):
        method = METHODS[name](small_world(), cache_dir=Storage(tmp_path, results=True)).fit()
        assert method.store_ is not None
        assert method.store_.recalled == recalled
        method.sweep_ = None
        results.append(
            (method._attribute_block(world.x_test, torch.zeros(7, dtype=torch.int64)), method.self_influence())
        )
    assert len(calls) == 1
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def _options(change: str) -> dict[str, Any]:
    return {"C": {"C": 0.2}, "tol": {"tol": 1e-5}, "intercept": {"fit_intercept": True}}.get(change, {})


@pytest.mark.parametrize(
    "change", ["nothing", "batch_size", "C", "tol", "intercept", "weights", "value", "label", "dtype"]
)
def test_what_it_depends_on_is_in_its_name(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_with = {"C": 0.05}

    def fitted(changed: str, folder: Path | None) -> DualView:
        world = small_world()
        x, y = (tensor.clone() for tensor in world.train.tensors)
        if changed == "weights":
            with torch.no_grad():
                world.model.fc.weight[1, 2] += 1  # the head, which the features do not show
        if changed == "value":
            x[17, 0, 0, 0] += 1
        if changed == "label":
            y[17] = 4
        storage = None if folder is None else Storage(folder, dtype="float16" if changed == "dtype" else None)
        options = {**made_with, **_options(changed), "batch_size": 5 if changed == "batch_size" else 256}
        method = DualView(world.model, "fc", TensorDataset(x, y), cache_dir=storage, show_progress=False, **options)
        return method.fit()

    fitted("nothing", tmp_path)
    calls = counted(monkeypatch, DualView, "_solve")
    again = fitted(change, tmp_path)
    assert len(calls) == (change not in ("nothing", "batch_size"))
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if change == "dtype" else {"rtol": 1e-3, "atol": 1e-5}
    x_test = small_world().x_test
    torch.testing.assert_close(again.attribute(x_test), fitted(change, None).attribute(x_test), **tolerance)


def test_a_warning_of_the_fit_is_given_again(tmp_path: Path) -> None:
    for recalled in ((), ("solution",)):
        with pytest.warns(ConvergenceWarning, match="stopped") as caught:
            method = made(tmp_path, tol=1e-12, max_iter=1).fit()
        assert len([warning for warning in caught if warning.category is ConvergenceWarning]) == 1
        assert method.store_ is not None
        assert method.store_.recalled == recalled


def kept_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.zip")
    return path


def _members(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _described(**changes: Any) -> Callable[[Path], None]:
    def change(members: dict[str, bytes]) -> None:
        members["description.json"] = json.dumps({**json.loads(members["description.json"]), **changes}).encode()

    return lambda path: _members(path, change)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def _link(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


def _deep(path: Path) -> None:
    _members(path, lambda members: members.update({"description.json": b"[" * 10**6}))


DAMAGES = {
    "flip": _flip,
    "cut": _cut,
    "pickle": _pickled,
    "link": _link,
    "deep": _deep,
    "format": _described(format=99),
    "parts": _described(parts={}),
    "class": _described(value={"object": "Popen", "fields": {"args": "ls"}}),
    "array": _described(value={"tensor": 10**6}),
    "shape": _described(arrays=[{"dtype": "float64", "shape": [10**15]}]),
    "warning": _described(warnings=[["SystemExit", "text"]]),
    "no warnings": _described(warnings=3),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_or_hostile_file_is_named_and_learned_again(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(tmp_path).attribute(TEST)
    damage(kept_file(tmp_path))
    calls = counted(monkeypatch, DualView, "_solve")
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    with pytest.warns(CacheWarning, match=r"DualView-solution-.*zip cannot be read and is computed again: "):
        assert torch.equal(made(tmp_path).attribute(TEST), expected)
    assert len(calls) == 1
    assert torch.equal(made(tmp_path).attribute(TEST), expected)
    assert len(calls) == 1  # the file was written again


def test_of_two_at_a_time_one_learns_and_the_other_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, tol=1e-3).fit()  # the features are there
    models = [network(), network()]
    solve, calls = DualView._solve, list[float]()

    def slow(*args: Any) -> Any:
        calls.append(time.perf_counter())
        time.sleep(0.5)
        return solve(*args)

    monkeypatch.setattr(DualView, "_solve", slow)
    results: list[Any] = [None, None]

    def fit(number: int) -> None:
        results[number] = made(tmp_path, model=models[number]).attribute(TEST)

    threads = [threading.Thread(target=fit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert torch.equal(*results)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_full_disk_costs_a_warning_and_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_state_module, "write_saved", full)
    with pytest.warns(CacheWarning, match="cannot be written, and is not kept: .*No space"):
        values = made(tmp_path).attribute(TEST)
    torch.testing.assert_close(values, made(None).attribute(TEST), rtol=1e-4, atol=1e-6)


def test_a_fit_that_fails_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DualView, "_solve", broken)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path).fit()
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("*.lock"))


def test_without_results_nothing_is_kept(tmp_path: Path) -> None:
    method = DualView(small_world().model, "fc", small_world().train, cache_dir=Storage(tmp_path, results=False))
    method.show_progress = False
    method.fit()
    assert not list(tmp_path.rglob("*.zip"))


def test_other_samples_that_a_full_reading_found_are_learned_from(tmp_path: Path) -> None:
    data = Decoded(400)
    made(tmp_path, data).fit()
    read, hidden = data.read, 234
    other = Decoded(400)
    other.read = lambda index: (read(index)[0] + 3 * (index == hidden), read(index)[1])
    with pytest.warns(CacheWarning, match="was made of other samples and is computed again"):
        method = made(tmp_path, other, verify="full").fit()
    assert method.store_ is not None
    assert method.store_.recalled == ()
    torch.testing.assert_close(method.attribute(TEST), made(None, other).attribute(TEST), rtol=1e-3, atol=1e-5)
    again = made(tmp_path, other).fit()
    assert again.store_ is not None
    assert again.store_.recalled == ("solution",)
    assert torch.equal(again.attribute(TEST), method.attribute(TEST))


class Tempered(nn.Module):
    """A network whose code has a constant."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.fc, self.temperature = nn.Linear(4, 5), nn.Linear(5, 3), temperature

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.fc(self.hidden(x / self.temperature).tanh())
        return outputs


@pytest.mark.parametrize("kind", [ArnoldiInfluence, EKFACInfluence])
def test_what_was_learned_through_other_code_is_not_recalled(kind: Any, tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)

    def made(temperature: float, folder: Path | None) -> Any:
        return kind(Tempered(temperature), "fc", data, cache_dir=folder, show_progress=False)

    made(1.0, tmp_path).fit()
    again, other = made(1.0, tmp_path).fit(), made(3.0, tmp_path).fit()
    assert again.store_.recalled
    assert not other.store_.recalled
    expected = made(3.0, None)
    torch.testing.assert_close(other.attribute(data.tensors[0], 1), expected.attribute(data.tensors[0], 1))
    torch.testing.assert_close(other.self_influence(), expected.self_influence())
