"""The benchmark scripts, in miniature on digits: they run, resume, and write what they say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import figures, sparsity, table2
from benchmarks.explainers import CLASSES
from benchmarks.training import Recipe
from benchmarks.worlds import SETTINGS, WORLDS, Setting

pytestmark = [
    pytest.mark.slow,
    # Quantus' and torch's own notices.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore:Mean of empty slice"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS["digits"]
    recipe = Recipe(epochs=5, learning_rate=4e-3, batch_size=64)
    monkeypatch.setitem(SETTINGS, "digits", Setting(setting.network, recipe, setting.label))


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--data", "digits", "--results", str(folder), "--checkpoints", str(folder / "checkpoints"), *more]


def test_table2_scores_every_method_in_every_world_and_resumes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table2.main(arguments(folder, "--n-test", "29"))
    assert {(row["world"], row["method"]) for row in rows} == {(w, m) for w in WORLDS for m in CLASSES}
    scores = {(row["metric"], row["method"]): row["score"] for row in rows}
    assert scores["Identical Class", "DV"] > 0.9
    assert scores["Label Poisoning", "IF"] > 0.8
    assert "| DV |" in capsys.readouterr().out
    written = json.loads((folder / "table2-digits.json").read_text())
    assert written["rows"] == rows
    assert written["environment"]["versions"]["torch"]
    with (folder / "table2-digits.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == set(CLASSES)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(table2, "make_world", forbidden)
    assert table2.main(arguments(folder, "--n-test", "29")) == rows


def test_sparsity_runs_over_the_constants(folder: Path) -> None:
    rows = sparsity.main(arguments(folder, "--n-test", "29", "--constants", "1e-3", "1e-1"))
    assert [row["C"] for row in rows] == [1e-3, 1e-1]
    assert rows[0]["n_support"] > rows[1]["n_support"] == sum(rows[1]["support_per_class"])
    assert all(row["duality_gap"] <= 1e-6 for row in rows)
    assert (folder / "sparsity-digits.png").stat().st_size > 10_000


def test_figures_are_drawn_from_the_results(folder: Path) -> None:
    paths = figures.main(arguments(folder))
    assert {path.name for path in paths} >= {"figure1-2-digits.png", "figure3-digits.png"}
    assert all(path.stat().st_size > 10_000 for path in paths)
