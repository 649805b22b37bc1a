"""The notebook runs from top to bottom, and shows what it shows in the repository; skipped without nbclient."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.test_documents import same_words_and_numbers

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def printed(cell: dict[str, Any]) -> str:
    """What a cell prints to its output stream."""
    streams = (output for output in cell["outputs"] if output["output_type"] == "stream" and output["name"] == "stdout")
    return "".join("".join(output["text"]) for output in streams)


def test_the_outputs_are_in_the_file() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    kinds = {kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert NOTEBOOK.stat().st_size < 500_000


@pytest.mark.slow
def test_it_runs_and_prints_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nbclient = pytest.importorskip("nbclient")
        nbformat = pytest.importorskip("nbformat")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        notebook = nbformat.read(NOTEBOOK, 4)
        stored = [printed(cell) for cell in notebook.cells if cell.cell_type == "code"]
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    found = [printed(cell) for cell in notebook.cells if cell.cell_type == "code"]
    for now, before in zip(found, stored, strict=True):
        assert same_words_and_numbers(now, before)
