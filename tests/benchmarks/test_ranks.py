"""Ranks of methods: high scores first, low ones where the metric says so, ties shared, seeds averaged."""

from __future__ import annotations

import pytest

from benchmarks.ranks import draw, mean_rank, ranks


def row(method: str, metric: str, seed: int, score: float | None) -> dict[str, object]:
    return {"method": method, "metric": metric, "seed": seed, "score": score}


SCORES = [
    *(row(method, "Identical Class", 0, score) for method, score in {"a": 0.9, "b": 0.5, "c": 0.5}.items()),
    *(row(method, "Identical Class", 1, score) for method, score in {"a": 0.1, "b": 0.5, "c": 0.6}.items()),
    *(row(method, "model randomisation", 0, score) for method, score in {"a": 0.9, "b": 0.1, "c": None}.items()),
    row("a", "a metric without a direction", 0, 1.0),
]


def test_ranks_are_means_over_seeds() -> None:
    found = ranks(SCORES)
    assert found["a"] == {"Identical Class": 2.0, "model randomisation": 2.0}
    assert found["b"] == {"Identical Class": 2.25, "model randomisation": 1.0}
    assert found["c"] == {"Identical Class": 1.75}


def test_the_best_mean_rank_comes_first() -> None:
    found = ranks(SCORES)
    assert list(found) == ["b", "c", "a"]
    assert mean_rank(found["b"]) == pytest.approx(1.625)


def test_the_figure_has_a_row_for_each_method() -> None:
    axes = draw(ranks(SCORES)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "mean rank",
        "Identical Class",
        "model randomisation",
    ]
