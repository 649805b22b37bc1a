"""The wheel and the source distribution build, install into an empty folder, and carry what they must and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_has_the_package_and_its_templates_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dualview_plugin"}
    for kept in (
        "py.typed",
        "report/templates/report.html",
        "report/templates/report.css",
        "report/templates/report.js",
    ):
        assert f"dualview_plugin/{kept}" in names
    sources = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_the_source_distribution_is_small_and_has_the_tests(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = archive.getnames()
    assert any(name.endswith("tests/test_packaging.py") for name in names)
    assert not any("/benchmarks/results/" in name for name in names)
    assert source.stat().st_size < 3_000_000


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_into_an_empty_environment_and_its_import_is_silent(built: Path, tmp_path: Path, kind: str) -> None:
    """Its dependencies are read from the environment of the tests; the package itself is the installed one."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith("site-packages")]
    (site / "tested.pth").write_text("\n".join(paths))
    (artifact,) = built.glob(kind)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet"]

    def run(*command: object) -> str:
        texts = [str(part) for part in command]
        return subprocess.run(
            texts, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    run(python, "-m", "pip", "install", *options, artifact)
    assert run(python, "-W", "error", "-c", "import dualview_plugin; print(dualview_plugin.__file__)").startswith(
        str(site)
    )
    version = run(python, "-c", "import dualview_plugin; print(dualview_plugin.__version__)")
    assert run(tmp_path / "venv" / "bin" / "dualview", "--version") == f"dualview, version {version}"
    assert f"-{version}" in artifact.name


def test_the_import_costs_little_beside_torch() -> None:
    code = "import time, torch; start = time.perf_counter(); import dualview_plugin;print(time.perf_counter() - start)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    times = [
        float(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.3
