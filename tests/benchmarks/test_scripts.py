"""The benchmark scripts, in miniature on digits: they run, resume, and write what they say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import figures, measuring, representer_variants, sparsity, table1, table2
from benchmarks.explainers import CLASSES
from benchmarks.rows import Rows
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
    written = Rows("table2", "digits", folder)
    assert written.flat() == rows
    assert all(row["environment"]["versions"]["torch"] for row in written.read())
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
    assert all(row[f"gap_{world}"] <= 1e-6 for row in rows for world in WORLDS)
    assert (folder / "sparsity-digits.png").stat().st_size > 10_000


def test_representer_variants_are_scored_in_a_world_and_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representer_variants, "REFERENCE_STEPS", 20)
    chosen = arguments(folder, "--n-test", "29", "--worlds", "standard")
    rows = representer_variants.main(chosen)
    assert [row["variant"] for row in rows] == list(representer_variants.VARIANTS)
    minimiser, stopped = rows[0], rows[-1]
    assert minimiser["stationarity"] < 1e-3 < stopped["stationarity"]
    assert max(row["score"] for row in rows) > 0.9
    monkeypatch.setattr(representer_variants, "score", None)
    assert representer_variants.main(chosen) == rows


def test_figures_are_drawn_from_the_results(folder: Path, tmp_path: Path) -> None:
    for method in ("DV", "RAND"):
        rows = Rows("table2", "digits", tmp_path)
        rows.append({"method": method, "seed": 0}, {"curve": np.linspace(0, 1, table2.CURVE_POINTS).tolist()})
    paths = figures.main(arguments(folder, "--results", str(tmp_path)))
    assert {path.name for path in paths} >= {"figure1-2-digits.png", "figure3-digits.png"}
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_table1_measures_each_method_in_a_process_and_resumes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = arguments(folder, "--fits", "2", "--n-explained", "5", "--only", "RAND", "DV")
    rows = table1.main(chosen)
    assert [(row["method"], row["n_train"]) for row in rows] == [("RAND", 1297), ("DV", 1297)]
    assert all(len(row[key]) == 2 and min(row[key]) > 0 for row in rows for key in ("fit_seconds", "explain_seconds"))
    assert rows[0]["keeps_mib"] == 8 * 1297 / 2**20 < rows[1]["keeps_mib"]
    assert all(row["fit_peak_mib"] > 0 for row in rows)
    assert "| DV | 1,297 | 2 |" in capsys.readouterr().out
    assert Rows("table1", "digits", folder).flat() == rows
    with (folder / "table1-digits.csv").open() as file:
        assert [row["n_fits"] for row in csv.DictReader(file)] == ["2", "2"]

    def forbidden(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring, "in_a_process", forbidden)
    assert table1.main(chosen) == rows
    setting = SETTINGS["digits"]
    monkeypatch.setitem(SETTINGS, "digits", Setting(setting.network, Recipe(epochs=1), setting.label))
    with pytest.raises(AssertionError, match="measured again"):
        table1.main(chosen)


def test_table1_compares_a_neighbour_with_ours_at_the_same_number_of_points() -> None:
    assert table1.jobs(["RPS", "dattri RPS"], "mnist", 60_000) == [
        ("RPS", 60_000),
        ("dattri RPS", 5_000),
        ("RPS", 5_000),
    ]
    times = {("RPS", 60_000): 9.0, ("dattri RPS", 5_000): 6.0, ("RPS", 5_000): 2.0}
    rows = [
        {"method": method, "n_train": n_train, "fit_seconds": [time, time, 99.0], "explain_seconds": [1.0, 1.0, 1.0]}
        for (method, n_train), time in times.items()
    ]
    (ratio,) = table1.ratios(rows)
    assert ratio == {"pair": "dattri RPS / RPS", "n_train": 5_000, "fit": 3.0, "explain": 1.0, "both": 7 / 3}
