"""The choice of the next step between two screens: a pure function of a small description of the situation.

Descent is the default: its passes are cheap and need no system. Where it stalls, Newton's method takes over, or the
interior point if more multipliers are free than W has entries: Newton's systems are then singular on the face of β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["descent", "newton", "interior", "screen"]

# Descent has stalled if a round of it leaves more than this fraction of the gap of the whole problem.
STALLED_GAP_RATIO = 0.3
# Newton's method is tried before descent has stalled if the relative gap is below this value.
NEARLY_SOLVED = 3e-3
# It is tried early only if this many free multipliers, or entries of W, are the unknowns: the system is then cheap.
SMALL_FACE = 2_000
# It is tried early only above this scaled C: for softer margins a few passes of descent are enough.
MIN_SCALED_C_NEWTON = 0.05
# It is tried early only if the last round of descent took this many passes: shorter rounds cost less than its systems.
MIN_PASSES_NEWTON = 20
# Even if its first round goes well, descent stalls later with more free multipliers than this per entry of W …
CROWDED_PER_WEIGHT = 10
# … at a scaled C of at least this value.
MIN_SCALED_C_CROWDED = 5.0
# Up to this many entries of W the interior point runs as soon as more multipliers are free than W has entries.
QUICK_INTERIOR = 6_000
# Up to this many it runs where Newton's method stalls or has failed, or on request. Its matrix then takes 2 GB.
LARGEST_INTERIOR = 16_000
# Newton's method has stalled if a round of it leaves more than this fraction of the gap of the whole problem.
STALLED_NEWTON_RATIO = 0.5


@dataclass(frozen=True)
class Situation:
    """What the next step depends on.

    Attributes:
        method: The method that the user asked for.
        last_step: What has been done since the last screen; "screen" if nothing has.
        relative_gap: The relative gap of the last screen.
        gap_ratio: Its absolute gap, divided by that of the screen before, if descent was all that ran between them;
            else 0.
        passes: Passes over the working set in the last round of descent, where a pass over a part counts as that part;
            0 if something else has run since.
        scaled_c: C · mean ‖φ_i‖².
        n_points: Points in the working set.
        n_free: Free multipliers: Σ_i (positive β_ic − 1).
        n_weights: Entries of W.
        missed_target: Whether descent has just ended above its target.
        newton_works: Whether the last run of Newton's method reached its goal, with no descent since.
        newton_failed: Whether the last run of Newton's method did not reach its goal.
        newton_ratio: The absolute gap of the last screen, divided by that before the last run of Newton's method; 0 if
            something else has run since.
        interior_runs: Whether a run of the interior point is unfinished.
        interior_done: Whether the interior point has been used; it is used once.
    """

    method: str
    last_step: Step
    relative_gap: float
    gap_ratio: float
    passes: float
    scaled_c: float
    n_points: int
    n_free: int
    n_weights: int
    missed_target: bool = False
    newton_works: bool = False
    newton_failed: bool = False
    newton_ratio: float = 0.0
    interior_runs: bool = False
    interior_done: bool = False


def next_step(situation: Situation) -> Step:
    """What to do now: one of the three methods on the working set, or the next screen."""
    if situation.last_step in ("newton", "interior"):
        return "screen"
    if situation.interior_runs:
        return "interior"
    if not situation.n_points:
        return "screen"
    if _needs_newton(situation):
        return "interior" if _interior_fits(situation) else "newton"
    return "descent" if situation.last_step == "screen" else "screen"


def _needs_newton(situation: Situation) -> bool:
    """Whether descent is not, or no longer, the method to use."""
    if situation.method != "auto":
        return situation.method != "cd"
    if situation.last_step == "descent":
        stalls = situation.gap_ratio > STALLED_GAP_RATIO or _is_crowded(situation)
        return situation.missed_target and stalls
    return situation.newton_works or _newton_is_cheap(situation)


def _newton_is_cheap(situation: Situation) -> bool:
    if situation.newton_failed or situation.scaled_c < MIN_SCALED_C_NEWTON:
        return False
    is_slow = situation.passes >= MIN_PASSES_NEWTON
    is_small = min(situation.n_free, situation.n_weights) <= SMALL_FACE
    return is_slow and is_small and situation.relative_gap < NEARLY_SOLVED


def _is_crowded(situation: Situation) -> bool:
    hard = situation.scaled_c >= MIN_SCALED_C_CROWDED
    available = not situation.interior_done and situation.n_weights <= QUICK_INTERIOR
    return hard and available and situation.n_free > CROWDED_PER_WEIGHT * situation.n_weights


def _interior_fits(situation: Situation) -> bool:
    if situation.interior_done or situation.method == "newton" or situation.n_weights > LARGEST_INTERIOR:
        return False
    if situation.method == "interior" or situation.newton_failed:
        return True
    may_run = situation.n_weights <= QUICK_INTERIOR or situation.newton_ratio > STALLED_NEWTON_RATIO
    return may_run and situation.n_free > situation.n_weights
