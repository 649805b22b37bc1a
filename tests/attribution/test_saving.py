"""A saved method gives the same attributions to its own network and data, and refuses others."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import (
    TRAK,
    DataAttribution,
    DualView,
    InvalidValueError,
    ProjectedGradientSimilarity,
    StaleFitError,
    TracIn,
)
from tests.attribution.method_factories import METHODS
from tests.worlds import small_world


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_saved_method_gives_the_same(name: str, tmp_path: Path) -> None:
    world, path = small_world(), tmp_path / "fitted.zip"
    method = METHODS[name](world)
    expected, own = method.attribute(world.x_test), method.self_influence()
    method.save(path)
    again = small_world()
    for kind in (type(method), DataAttribution):
        loaded = kind.load(path, again.model, again.train, show_progress=False)
        assert type(loaded) is type(method)
        assert loaded._fitted
        assert torch.equal(loaded.attribute(world.x_test), expected)
    assert torch.equal(loaded.self_influence(), own)
    assert torch.equal(loaded.strongest(world.x_test, 3).indices, method.strongest(world.x_test, 3).indices)
    loaded.save(tmp_path / "again.zip")
    assert torch.equal(
        type(method)
        .load(tmp_path / "again.zip", world.model, world.train, show_progress=False)
        .attribute(world.x_test),
        expected,
    )


def _tracin(world: Any, checkpoints: Any, **options: Any) -> TracIn:
    return TracIn(world.model, "fc", world.train, checkpoints=checkpoints, show_progress=False, **options)


@pytest.mark.parametrize("n_components", [None, 9])
def test_checkpoints_are_given_anew_and_must_be_those_of_the_fit(n_components: int | None, tmp_path: Path) -> None:
    world, path = small_world(), tmp_path / "fitted.zip"
    early, late = (small_world(seed).model.state_dict() for seed in (3, 4))
    method = _tracin(world, [early, late], learning_rates=[0.5, 0.25], n_components=n_components)
    expected = method.attribute(world.x_test)
    method.save(path)
    loaded = TracIn.load(path, world.model, world.train, checkpoints=[early, late], show_progress=False)
    assert torch.equal(loaded.attribute(world.x_test), expected)
    assert torch.equal(loaded.self_influence(), method.self_influence())
    torch.save(late, tmp_path / "late.pt")
    loaded = TracIn.load(path, world.model, world.train, checkpoints=[early, tmp_path / "late.pt"], show_progress=False)
    assert torch.equal(loaded.attribute(world.x_test), expected)
    with pytest.raises(StaleFitError, match=r"checkpoints of TracIn.load must be those of the fit, got other weights"):
        TracIn.load(path, world.model, world.train, checkpoints=[late, early], show_progress=False)
    with pytest.raises(InvalidValueError, match="learning_rates of TracIn must be one for each of the 1 checkpoints"):
        TracIn.load(path, world.model, world.train, show_progress=False)


def _saved(folder: Path) -> tuple[Any, Path]:
    world, path = small_world(), folder / "fitted.zip"
    METHODS["DualView"](world).save(path)
    return world, path


def test_another_network_is_refused(tmp_path: Path) -> None:
    world, path = _saved(tmp_path)
    with torch.no_grad():
        world.model.fc.weight[1, 2] += 1e-3
    with pytest.raises(StaleFitError, match=r"model of DualView.load must be that of the fit in .*, got another class"):
        DualView.load(path, world.model, world.train)


def test_the_same_weights_in_other_code_are_refused(tmp_path: Path) -> None:
    world, path = _saved(tmp_path)

    def doubled(model: Any, x: Any) -> Any:
        return 2 * model(x)

    with pytest.raises(StaleFitError, match="got the same weights but other outputs"):
        DualView.load(path, world.model, world.train, forward=doubled)


@pytest.mark.parametrize("change", ["value", "label", "number"])
def test_other_data_are_refused(change: str, tmp_path: Path) -> None:
    world, path = _saved(tmp_path)
    x, y = (tensor.clone() for tensor in world.train.tensors)
    if change == "value":
        x[17, 0, 0, 0] += 1e-3
    elif change == "label":
        y[17] = (y[17] + 1) % 3
    else:
        x, y = x[:-1], y[:-1]
    with pytest.raises(StaleFitError, match=r"train_dataset of DualView.load must be that of the fit"):
        DualView.load(path, world.model, TensorDataset(x, y))


def test_a_file_of_another_class_is_refused(tmp_path: Path) -> None:
    world, path = small_world(), tmp_path / "fitted.zip"
    METHODS["RepresenterPoints"](world).save(path)
    with pytest.raises(InvalidValueError, match="it holds a RepresenterPoints"):
        DualView.load(path, world.model, world.train)


def test_a_missing_file_and_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match=r"path of DualView.load must be a file that save\(\) wrote"):
        DualView.load(tmp_path / "no", world.model, world.train)
    with pytest.raises(InvalidValueError, match=r"path of DualView.save must be a file that can be written"):
        METHODS["DualView"](world).save(tmp_path / "no" / "fitted.zip")


def _rewritten(path: Path, **changes: Any) -> None:
    """The file with parts of its description, or members, in place of its own."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members["description.json"])
    for name, change in changes.items():
        if name == "member":
            members["array-0000.npy"] = change
        else:
            description[name] = change(description[name])
    members["description.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _objects() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": lambda _: 99},
        {"learned": lambda learned: {**learned, "model": 3}},
        {"learned": lambda learned: {**learned, "solution_": {"object": "Popen", "fields": {"args": "ls"}}}},
        {"learned": lambda learned: {**learned, "solution_": {"tensor": 10**6}}},
        {"learned": lambda _: 3},
        {"arrays": lambda arrays: [{**arrays[0], "shape": [10**15]}, *arrays[1:]]},
        {"arrays": lambda arrays: [{**arrays[0], "shape": [-1]}, *arrays[1:]]},
        {"arrays": lambda arrays: [{**arrays[0], "dtype": "object"}, *arrays[1:]]},
        {"arrays": lambda arrays: arrays[:1]},
        {"arguments": lambda arguments: {**arguments, "nonsense": 1}},
        {"member": pickle.dumps([1, 2])},
        {"member": _objects()},
    ],
)
def test_hostile_files_are_refused(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, path = _saved(tmp_path)
    _rewritten(path)
    DualView.load(path, world.model, world.train, show_progress=False)  # as it is, it is taken
    _rewritten(path, **changes)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    with pytest.raises(InvalidValueError, match=r"path of DualView.load must be a file that save\(\) wrote, got"):
        DualView.load(path, world.model, world.train)


def test_flipped_bits_and_cut_files_are_refused(tmp_path: Path) -> None:
    world, path = _saved(tmp_path)
    content = path.read_bytes()
    expected = DualView.load(path, world.model, world.train, show_progress=False).attribute(world.x_test)
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 40).tolist():
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        try:
            loaded = DualView.load(path, world.model, world.train, show_progress=False)
        except InvalidValueError:
            continue
        assert torch.equal(loaded.attribute(world.x_test), expected)  # a date or a flag of the archive
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidValueError, match=r"path of DualView.load"):
        DualView.load(path, world.model, world.train)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DualView", {"C": 0.5}),
        ("DualView", {"standardize": False}),
        ("ProjectedGradientSimilarity", {"seed": 5}),
        ("ProjectedGradientSimilarity", {"n_components": 9}),
        ("InfluenceFunctions", {"damping": 0.7}),
        ("RepresenterPoints", {"output": 1}),
        ("RepresenterPoints", {"nonsense": 1}),
    ],
)
def test_what_was_learned_with_other_options_is_refused(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    world = small_world()
    method = METHODS[name](world)
    method.save(tmp_path / "fitted")
    (option,) = options
    with pytest.raises(InvalidValueError, match=rf"{option} of {name}\.load must be left out"):
        type(method).load(tmp_path / "fitted", world.model, world.train, show_progress=False, **options)
    options = {"batch_size": 3} | {key: value for key, value in method._arguments.items() if key in options}
    loaded = type(method).load(tmp_path / "fitted", world.model, world.train, show_progress=False, **options)
    torch.testing.assert_close(loaded.attribute(world.x_test), method.attribute(world.x_test), rtol=1e-4, atol=1e-5)


def _padded(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    ids = nn.utils.rnn.pad_sequence([ids for ids, _ in samples], batch_first=True)
    return ids, torch.tensor([label for _, label in samples])


class Words(nn.Module):
    """The mean of hidden positions, without padding: no batch size changes its outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.hidden, self.fc = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0)[..., None]
        return self.fc((torch.tanh(self.hidden(self.words(ids))) * mask).sum(1) / mask.sum(1))


@pytest.mark.parametrize("method", [ProjectedGradientSimilarity, TRAK])
@pytest.mark.parametrize(("saved", "loaded"), [(7, 1), (1, 7)])
def test_a_projection_is_that_of_the_fit_whatever_batches_are_padded_to(
    method: Any, saved: int, loaded: int, tmp_path: Path
) -> None:
    draw = torch.Generator().manual_seed(0)
    samples = [(torch.randint(1, 9, (1 + i % 6,), generator=draw), i % 3) for i in range(30)]

    def loader(size: int) -> DataLoader[Any]:
        return DataLoader(samples, batch_size=size, collate_fn=_padded)  # type: ignore[arg-type]

    options = {"n_components": 16, "show_progress": False}
    test = _padded(samples[:5])[0]
    fitted = method(Words(), "fc", loader(saved), **options)
    expected = fitted.attribute(test, target=1)
    fitted.save(tmp_path / "fitted")
    found = method.load(tmp_path / "fitted", Words(), loader(loaded), show_progress=False).attribute(test, target=1)
    fresh = method(Words(), "fc", loader(loaded), **options).attribute(test, target=1)
    for values in (found, fresh):
        torch.testing.assert_close(values, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)
