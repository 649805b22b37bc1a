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
        counts: numbers of training points, ascending.
        shares: the mean share of the mass that so many points hold, in [0, 1].
        needed: for each test point, how many training points hold 90 % of its mass; 0 where all τ are zero.
    """

    method: str
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]
    needed: list[int]

    def count_for(self, share: float) -> int:
        """The smallest number in ``counts`` of points that hold this share."""
        return int(self.counts[int(np.argmax(self.shares >= share - 1e-9))])


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
        >>> curve.counts.tolist(), curve.shares.tolist(), curve.needed
        ([1, 2, 3], [0.875, 1.0, 1.0], [2, 1])
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
    n_train = len(total)
    counts = np.unique(np.geomspace(1, n_train, _N_POINTS).round().astype(np.int64))
    mean = (total / max(n_rows, 1))[torch.from_numpy(counts - 1)].numpy()
    return MassCurve(method, counts, mean, needed)


def svg(curves: list[MassCurve]) -> str:
    """The curves over a logarithmic axis of training points, as an SVG element without its own colours.

    The lines have the classes ``line-0``, ``line-1`` and so on, which the page colours.
    """
    n_train = int(curves[0].counts[-1])
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
        points = " ".join(f"{x_of(c):.1f},{y_of(s):.1f}" for c, s in zip(curve.counts, curve.shares, strict=True))
        parts.append(f'<polyline class="line line-{number % 8}" points="{points}"/>')
    label = f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">training points, strongest first</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="curves-title">'
        '<title id="curves-title">Share of the attribution mass over the number of training points. '
        f"The table below has the same numbers.</title>{''.join(parts)}{label}</svg>"
    )
