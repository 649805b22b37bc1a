"""The rooms depend on each other in one direction, and the neighbours' packages enter by one door each."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dualview_plugin"
# Each room with the rooms that it may import from, beside itself; what a room does not list it does not know.
_DOORS = {"errors", "validation", "batches", "network", "data"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "validation": {"errors"},
    "batches": set(),
    "network": {"errors", "validation", "batches"},
    "data": {"errors", "validation", "batches", "network"},
    "storage": {"errors", "validation", "network"},
    "sums": set(),
    "engines": {"errors", "validation", "network", "data", "storage", "sums"},
    "modifications": {"errors", "validation", "network"},
    "features": _DOORS,
    "gradients": _DOORS,
    "last_layer": {"errors", "validation", "sums"},
    "solver": {"errors", "validation"},
    "attribution": {*_DOORS, "storage", "sums", "engines", "features", "gradients", "last_layer", "solver"},
    "lrp": {*_DOORS, "features", "attribution"},
    "metrics": {*_DOORS, "storage", "attribution"},
    "plots": {*_DOORS, "attribution", "lrp", "metrics"},
    "version": set(),
    "report": {*_DOORS, "storage", "attribution", "lrp", "plots", "version"},
    "demo": set(),
    "bridges": {*_DOORS, "attribution"},
    "cli": {*_DOORS, "storage", "attribution", "metrics", "modifications", "plots", "report", "demo", "version"},
    "__init__": {
        *("attribution", "data", "engines", "errors", "lrp", "metrics", "modifications", "plots", "report", "solver"),
        *("storage", "version"),
    },
}
ONLY_IN = {
    "quantus": {"metrics"},
    "zennit": {"lrp"},
    "matplotlib": {"plots"},
    "numba": {"solver"},
    "click": {"cli"},
    "jinja2": {"report"},
    "quanda": {"bridges"},
    "dattri": {"bridges"},
    "ray": {"engines"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports() -> list[tuple[str, str, str]]:
    """Every import in the package, at any depth: (file, its room, imported module)."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in {path}"
                names = [node.module or ""]
                if node.module == "dualview_plugin":
                    names = [f"dualview_plugin.{alias.name}" for alias in node.names]
            found += [(str(path.relative_to(PACKAGE)), room_of(path), name) for name in names]
    return found


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms <= set(MAY_IMPORT)


def test_the_table_has_no_circle() -> None:
    remaining = dict(MAY_IMPORT)
    while remaining:
        ready = [room for room, below in remaining.items() if not below & remaining.keys()]
        assert ready, f"a circle among {sorted(remaining)}"
        remaining = {room: below for room, below in remaining.items() if room not in ready}


def test_each_room_imports_what_the_table_allows() -> None:
    own = [(file, room, name.split(".")[1]) for file, room, name in imports() if name.startswith("dualview_plugin.")]
    assert own
    forbidden = [(file, other) for file, room, other in own if other not in MAY_IMPORT[room] | {room}]
    assert not forbidden


def test_the_solver_knows_no_model() -> None:
    foreign = [
        (file, name)
        for file, room, name in imports()
        if room == "solver" and name.split(".")[0] in {"torch", "torchvision", "captum"}
    ]
    assert not foreign


@pytest.mark.parametrize("package", ONLY_IN)
def test_neighbours_enter_by_one_door(package: str) -> None:
    elsewhere = [
        (file, name) for file, room, name in imports() if name.split(".")[0] == package and room not in ONLY_IN[package]
    ]
    assert not elsewhere


def test_importing_the_package_loads_none_of_the_neighbours() -> None:
    code = (
        "import sys, dualview_plugin; "
        "print([name for name in ('torch', 'captum', 'quantus', 'zennit', 'matplotlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(PACKAGE.parent)}
    )
    assert result.stdout.strip() == "[]"


def test_type_checkers_see_the_table_of_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen: dict[str, list[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        seen.setdefault(node.module.removeprefix("dualview_plugin."), []).extend(alias.name for alias in node.names)
        assert all(alias.asname == alias.name for alias in node.names)
    import dualview_plugin

    assert {room: tuple(names) for room, names in seen.items()} == dualview_plugin._PUBLIC


@pytest.mark.parametrize("room", ["attribution", "errors", "metrics", "modifications", "plots", "report", "solver"])
def test_what_a_room_offers_is_public(room: str) -> None:
    import dualview_plugin

    module = import_module(f"dualview_plugin.{room}")
    classes = {name for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_")}
    offered = set(getattr(module, "__all__", classes))
    assert offered == set(dualview_plugin._PUBLIC[room])


def test_former_names_warn_and_give_the_same_class() -> None:
    import dualview_plugin
    from dualview_plugin import modifications

    for module, former, name in (
        (dualview_plugin, "ClassGrouping", "GroupedClasses"),
        (dualview_plugin, "ClassMarking", "MarkedImages"),
        (modifications, "ClassGrouping", "GroupedClasses"),
        (modifications, "ClassMarking", "MarkedImages"),
        (modifications, "LabelPoisoning", "PoisonedLabels"),
    ):
        with pytest.warns(DeprecationWarning, match=f"{former} is now called {name}") as caught:
            assert getattr(module, former) is getattr(dualview_plugin, name)
        assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = modifications.nonsense


def test_every_public_name_is_there() -> None:
    import dualview_plugin

    for name in dualview_plugin.__all__:
        assert getattr(dualview_plugin, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dualview_plugin.nonsense
