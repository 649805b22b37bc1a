"""The choice of the next step, as a table: one row for each rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualview_plugin.solver.screening.strategy import Situation, Step, next_step

# A soft margin in the middle of a solve: descent goes well.
USUAL = Situation(
    method="auto",
    last_step="screen",
    relative_gap=1e-2,
    gap_ratio=0.05,
    passes=5.0,
    scaled_c=1.0,
    n_points=1000,
    n_free=500,
    n_weights=700,
)
STALLED = {"last_step": "descent", "missed_target": True, "gap_ratio": 0.5}
NEAR_END = {"relative_gap": 2e-3, "passes": 20.0}
CROWDED = {"last_step": "descent", "missed_target": True, "n_free": 7001, "scaled_c": 5.0}

TABLE: dict[str, tuple[dict[str, object], Step]] = {
    "descent is the default": ({}, "descent"),
    "after descent that reached its target comes a screen": ({"last_step": "descent"}, "screen"),
    "after descent that missed it but does not stall too": ({"last_step": "descent", "missed_target": True}, "screen"),
    "where descent stalls Newton follows at once": (STALLED, "newton"),
    "or the interior point if the face is larger than W": (STALLED | {"n_free": 701}, "interior"),
    "but only once": (STALLED | {"n_free": 701, "interior_done": True}, "newton"),
    "and with a large W only after Newton has failed": (STALLED | {"n_free": 9000, "n_weights": 8000}, "newton"),
    "or where Newton stalls": (
        {"newton_works": True, "newton_ratio": 0.6, "n_free": 9000, "n_weights": 8000},
        "interior",
    ),
    "not while it does well": (
        {"newton_works": True, "newton_ratio": 0.4, "n_free": 9000, "n_weights": 8000},
        "newton",
    ),
    "then it runs": (STALLED | {"n_weights": 8000, "newton_failed": True}, "interior"),
    "up to the size of its matrix": (STALLED | {"n_weights": 16_001, "newton_failed": True}, "newton"),
    "a failed Newton run leads to the interior point": (STALLED | {"newton_failed": True}, "interior"),
    "a crowded hard margin does not wait for descent to stall": (CROWDED, "interior"),
    "a softer one does": (CROWDED | {"scaled_c": 4.9}, "screen"),
    "and so does one that descent has solved": (CROWDED | {"missed_target": False}, "screen"),
    "near the end Newton saves long rounds of descent": (NEAR_END, "newton"),
    "short ones cost less": (NEAR_END | {"passes": 19.0}, "descent"),
    "more free multipliers than weights need the interior point": (NEAR_END | {"n_free": 701}, "interior"),
    "however many there are": (NEAR_END | {"n_free": 50_000}, "interior"),
    "not if the system is large": (NEAR_END | {"n_free": 2001, "n_weights": 2001}, "descent"),
    "not for soft margins": (NEAR_END | {"scaled_c": 0.04}, "descent"),
    "not after it has failed": (NEAR_END | {"newton_failed": True}, "descent"),
    "Newton goes on while it works": ({"newton_works": True}, "newton"),
    "after Newton comes a screen": ({"last_step": "newton", "newton_works": True}, "screen"),
    "after a round of the interior point too": ({"last_step": "interior", "interior_runs": True}, "screen"),
    "then its next round": ({"interior_runs": True}, "interior"),
    "without competing points there is nothing to do": ({"n_points": 0, "n_free": 0}, "screen"),
    "cd descends": (NEAR_END | {"method": "cd"}, "descent"),
    "and never turns to Newton": (STALLED | {"method": "cd"}, "screen"),
    "newton does not descend": ({"method": "newton"}, "newton"),
    "and never turns to the interior point": ({"method": "newton", "n_free": 701, "newton_failed": True}, "newton"),
    "interior starts with the interior point": ({"method": "interior"}, "interior"),
    "and ends with Newton": ({"method": "interior", "interior_done": True}, "newton"),
}


@pytest.mark.parametrize("rule", TABLE)
def test_next_step(rule: str) -> None:
    changes, expected = TABLE[rule]
    assert next_step(replace(USUAL, **changes)) == expected  # type: ignore[arg-type]
