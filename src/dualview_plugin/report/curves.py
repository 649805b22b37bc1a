"""How many training points carry an explanation: curves, drawn as SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WIDTH, _HEIGHT, _MARGIN = 560, 260, 44
_N_POINTS = 60
_MOST = 0.9


@dataclass(frozen=True)
class MassCurve:
    """The share of Σ_i |τ_i| that the largest |τ_i| hold, averaged over test points.

    Attributes:
        method: the method's name.
        shares: the mean share of the mass that 1, 2, … training points hold, in [0, 1], (n_train,).
        needed: for each test point, how many training points hold 90 % of its mass; 0 where all τ are zero.
    """

    method: str
    shares: NDArray[np.float64]
    needed: list[int]

    def count_for(self, share: float) -> int:
        """The smallest number of training points that hold this share; 0 if all attributions are zero."""
        reached = self.shares >= share - 1e-9
        return int(np.argmax(reached)) + 1 if reached.any() else 0

    def drawn(self) -> list[tuple[int, float]]:
        """Numbers of training points, evenly spaced as the drawing's axis has them, and their shares."""
        n_train = len(self.shares)
        counts = np.unique(np.geomspace(1, n_train, _N_POINTS).round().astype(np.int64)).tolist()
        return [(count, float(self.shares[count - 1])) for count in counts]


def mass_curve(method: str, blocks: Iterable[Tensor]) -> MassCurve:
    """The curve of one method.

    Args:
        method: its name.
        blocks: blocks of attributions, (n_block, n_train). Test points whose attributions are all zero do not count in
            the mean.

    Example:
        >>> import torch
        >>> from dualview_plugin.report.curves import mass_curve
        >>> curve = mass_curve("M", [torch.tensor([[3.0, -1.0, 0.0], [0.0, 0.0, 4.0]])])
        >>> curve.shares.tolist(), curve.needed, curve.count_for(0.8)
        ([0.875, 1.0, 1.0], [2, 1], 1)
    """
    total: Tensor | None = None
    n_rows = 0
    needed: list[int] = []
    for block in blocks:
        mass = block.double().abs().sort(dim=1, descending=True).values.cumsum(dim=1)
        some = mass[:, -1] > 0
        shares = mass / mass[:, -1:].clamp(min=torch.finfo(mass.dtype).tiny)
        needed += (((shares < _MOST).sum(dim=1) + 1) * some).tolist()
        part = shares[some].sum(dim=0).cpu()
        total, n_rows = part if total is None else total + part, n_rows + int(some.sum())
    assert total is not None  # test inputs are never empty
    return MassCurve(method, (total / max(n_rows, 1)).numpy(), needed)


def svg(curves: list[MassCurve]) -> str:
    """The curves over a logarithmic axis of training points, as an SVG element without its own colours.

    The lines have the classes ``line-0``, ``line-1`` and so on, which the page colours.
    """
    n_train = len(curves[0].shares)
    decades = max(float(np.log10(n_train)), 1e-9)
    inner_width, inner_height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def x_of(count: float) -> float:
        return _MARGIN + inner_width * float(np.log10(count)) / decades

    def y_of(share: float) -> float:
        return _HEIGHT - _MARGIN - inner_height * share

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = y_of(share)
        parts.append(f'<line class="grid" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for power in range(int(decades + 1e-9) + 1):
        x = x_of(10**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y_of(0):.1f}" y2="{y_of(1):.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y_of(0) + 16:.1f}" text-anchor="middle">{10**power:,}</text>')
    for number, curve in enumerate(curves):
        points = " ".join(f"{x_of(c):.1f},{y_of(s):.1f}" for c, s in curve.drawn())
        parts.append(f'<polyline class="line line-{number % 8}" points="{points}"/>')
    label = f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">training points, strongest first</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="curves-title">'
        '<title id="curves-title">Share of the attribution mass over the number of training points. '
        f"The table below has the same numbers.</title>{''.join(parts)}{label}</svg>"
    )
