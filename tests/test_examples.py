"""The examples for other networks run, in miniature: each draws its figure and scores better than chance."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("text_classifier", "DualDA", {"n_train": 300, "epochs": 6}),
        ("image_and_table", "RepresenterPoints", {"n_train": 400, "epochs": 3}),
        ("vit_digits", "last block", {"n_train": 300, "epochs": 2}),
    ],
)
def test_an_example_draws_and_scores(name: str, method: str, options: dict[str, int], tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    table = import_module(f"examples.{name}").main(figure, **options)
    assert figure.stat().st_size > 10_000
    assert table.loc["Identical Class", method] > table.loc["Identical Class", "Random"] + 0.2
