"""Rows: append-only, resumable, with their origin; old files taken over whole; documents equal to their rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import migrate, report
from benchmarks.rows import Rows, settings_of


def test_rows_are_measured_once_and_written_one_by_one(tmp_path: Path) -> None:
    rows, measured = Rows("experiment", "small", tmp_path), []

    def measure(arguments: dict[str, int]) -> dict[str, int]:
        measured.append(arguments["seed"])
        if arguments["seed"] == 2:
            raise KeyboardInterrupt
        return {"score": 10 * arguments["seed"]}

    with pytest.raises(KeyboardInterrupt):
        rows.run([{"seed": seed} for seed in range(4)], measure)
    assert rows.flat() == [{"seed": 0, "score": 0}, {"seed": 1, "score": 10}]
    found = rows.run([{"seed": seed} for seed in (1, 3)], measure)
    assert [row["result"]["score"] for row in found] == [10, 30]
    assert measured == [0, 1, 2, 3]
    assert {"commit", "machine", "versions", "date"} <= found[0]["environment"].keys()
    assert settings_of("experiment", tmp_path) == ["small"]


def test_the_last_row_of_the_same_arguments_counts_and_none_is_lost(tmp_path: Path) -> None:
    rows = Rows("experiment", "small", tmp_path)
    for score in (1, 2):
        rows.append({"seed": 0, "method": "a"}, {"score": score})
    assert rows.find({"method": "a", "seed": 0})["result"] == {"score": 2}
    assert [row["result"]["score"] for row in rows.history()] == [1, 2]


def test_a_row_that_was_broken_off_is_left_out(tmp_path: Path) -> None:
    rows = Rows("experiment", "small", tmp_path)
    rows.append({"seed": 0}, {"score": 1})
    with rows.path.open("a") as file:
        file.write('{"arguments": {"seed": 1}, "resu')
    assert rows.flat() == [{"seed": 0, "score": 1}]
    rows.append({"seed": 1}, {"score": 2})
    assert rows.flat() == [{"seed": 0, "score": 1}, {"seed": 1, "score": 2}]


def test_old_files_are_taken_over_without_loss(tmp_path: Path) -> None:
    first = {"seed": 0, "world": "standard", "n_test": 29, "network": "a", "recipe": {"epochs": 1}, "method": "IF"}
    old = {"environment": {"commit": "abc"}, "rows": [{**first, "options": {}, "score": 0.5, "curve": [1, 2]}]}
    old["rows"].append({**old["rows"][0], "seed": 1, "commit": "def"})
    for _ in range(2):  # again, as when an old script has written once more
        (tmp_path / "table2-digits.json").write_text(json.dumps(old))
        migrate.main(tmp_path)
    rows = Rows("table2", "digits", tmp_path)
    assert rows.flat() == old["rows"]
    assert len(rows.history()) == 2
    assert [row["environment"]["commit"] for row in rows.read()] == [None, "def"]
    assert not (tmp_path / "table2-digits.json").exists()


def test_every_table_in_the_documents_is_equal_to_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m benchmarks.report`` writes them."""
    assert report.main(["--check"]) == 0, capsys.readouterr().out
    assert len(report.pages()) >= 1
    assert len(report.csv_files()) >= 10


def test_a_table_that_was_changed_by_hand_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "README.md").write_text("nothing\n")
    page = tmp_path / "docs" / "page.md"
    page.write_text("<!-- table: scores on mnist -->\n| method |\n<!-- end -->\n")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "csv_files", list)
    assert report.main(["--check"]) == 1
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    assert "| DV |" in page.read_text()
