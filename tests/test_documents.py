"""What the README and the pages show runs, and prints what they say it prints; their tables come from results files."""

from __future__ import annotations

import ast
import builtins
import csv
import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NEEDS_ITS_OWN_ENVIRONMENT = {"quanda.md", "dattri.md"}
NEEDS = {"ray.md": "ray"}  # skipped without this package
WITH_CODE = [page for page in PAGES if "```python" in page.read_text() and page.name not in NEEDS_ITS_OWN_ENVIRONMENT]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
QUIET = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore:Mean of empty slice", "ignore::FutureWarning"
)


def run(text: str, name: str) -> dict[str, Any]:
    """Run the Python blocks of a text as one program, and return its names."""
    names: dict[str, Any] = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), name, "exec"), names)
    return names


def same_words_and_numbers(printed: str, said: str) -> bool:
    """Equal words, and numbers within a tenth: training is not the same to the last bit on every processor."""
    number = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    words = [re.sub(number, "#", text).split() for text in (printed, said)]
    values = [[float(found) for found in re.findall(number, text)] for text in (printed, said)]
    return words[0] == words[1] and values[0] == pytest.approx(values[1], abs=0.05, rel=0.1)


@QUIET
@pytest.mark.slow
def test_the_readme_explains_a_resnet_on_a_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "resnet18.pt")
    monkeypatch.chdir(tmp_path)
    names = run(README.replace("(224, 224)", "(48, 48)"), "README.md")  # smaller images, a shorter test
    assert "cat" in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text().count("<article") == 4
    assert names["dualview"].attribute(names["x"]).shape == (4, 12)


def test_the_readme_needs_nothing_that_is_not_installed() -> None:
    assert len(README.splitlines()) <= 120
    for text in (README, *(page.read_text() for page in PAGES)):
        assert not re.search(r"^(from|import) (examples|benchmarks|tests)", text, re.MULTILINE)


@QUIET
@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    run(text, page.name)
    said = "".join(re.findall(r"prints\n\n```text\n(.*?)```", text, re.DOTALL))
    printed = capsys.readouterr().out
    assert not said or same_words_and_numbers(printed, said)


def test_the_two_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command} " in README
        assert f"\n{command}: " in makefile


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def table_after(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of the page of results."""
    text = (ROOT / "docs" / "results.md").read_text().split(f"## {heading}\n")[1]
    lines = [line for line in text.split("\n## ")[0].splitlines() if line.startswith("| ") and "| --- |" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows_of(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "results" / name).open() as file:
        return list(csv.DictReader(file))


def test_the_table_of_times_is_that_of_the_results() -> None:
    measured = {row["method"]: row for row in rows_of("table1-mnist.csv") if row["n_train"] == "60000"}
    columns = ("fit_seconds_mean", "explain_seconds_mean", "measured_kept_mib")
    for method, *cells in table_after("Time and memory, MNIST")[1:]:
        for cell, column in zip(cells, columns, strict=True):
            digits = len(cell.split(".")[1])
            assert float(cell) == pytest.approx(float(measured[method][column]), abs=0.51 * 10**-digits), method


def test_the_table_of_scores_is_that_of_the_results() -> None:
    measured = {(row["metric"], row["method"]): float(row["mean"]) for row in rows_of("table2-mnist.csv")}
    (_, *metrics), *rows = table_after("The paper's four metrics, MNIST")
    for method, *cells in rows:
        for metric, cell in zip(metrics, cells, strict=True):
            assert float(cell) == pytest.approx(measured[metric, method], abs=0.00051)


def test_the_reference_has_every_public_name() -> None:
    import dualview_plugin

    text = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    missing = [
        name
        for room, names in dualview_plugin._PUBLIC.items()
        for name in names
        if room != "errors" and f":: dualview_plugin.{room}.{name}\n" not in text
    ]
    assert not missing


def test_every_method_metric_and_function_has_an_example_that_is_executed() -> None:
    """pytest runs all doctests of src but the skipped ones; data classes and errors need none."""
    import dualview_plugin
    from dualview_plugin import DataAttribution, DataAttributionMetric, demo

    bases = (DataAttribution, DataAttributionMetric)
    functions = [getattr(demo, name) for name in ("accuracy", "load_digits", "small_cnn", "train")]
    for name in dualview_plugin.__all__:
        public = getattr(dualview_plugin, name)
        if inspect.isfunction(public) or (issubclass(public, bases) and not inspect.isabstract(public)):
            functions.append(public)
    parser = doctest.DocTestParser()
    for public in functions:
        lines = [line for line in parser.get_examples(public.__doc__ or "") if doctest.SKIP not in line.options]
        assert any(line.want for line in lines), f"{public.__name__} has no example that prints something"


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_examples_of_a_module_import_what_they_use(path: Path) -> None:
    """A reader copies an example without the imports of the module around it, in which pytest runs it."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, _DOCUMENTED)]
    parser = doctest.DocTestParser()
    for text in (ast.get_docstring(node) for node in nodes):
        lines = [line for line in parser.get_examples(text or "") if doctest.SKIP not in line.options]
        example = ast.parse("".join(line.source for line in lines))
        names = [node for node in ast.walk(example) if isinstance(node, ast.Name)]
        imported = [node for node in ast.walk(example) if isinstance(node, ast.Import | ast.ImportFrom)]
        known = {alias.asname or alias.name for node in imported for alias in node.names} | set(dir(builtins))
        known |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        known |= {node.name for node in ast.walk(example) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        known |= {node.arg for node in ast.walk(example) if isinstance(node, ast.arg)}
        assert {name.id for name in names} <= known
