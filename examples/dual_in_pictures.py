"""The dual on a plane: support points, their coefficients, and what they contribute to one decision, at two C.

Draws ``docs/dual_in_pictures.png``. Run it with ``python -m examples.dual_in_pictures``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualview_plugin import solve_crammer_singer

FIGURE = Path(__file__).parents[1] / "docs" / "dual_in_pictures.png"
COLORS = np.array([[0.80, 0.26, 0.32], [0.17, 0.52, 0.76], [0.16, 0.62, 0.36]])
TEST_POINT = np.array([0.35, 0.75])


def main() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(90) % 3
    centres = 1.6 * np.array([[np.sin(a), np.cos(a)] for a in 2 * np.pi * np.arange(3) / 3])
    points = (centres[labels] + 0.75 * rng.standard_normal((90, 2))).astype(np.float32)
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, C in zip(figure.subplots(1, 2), (0.01, 1.0), strict=True):
        draw(axes, points, labels, C)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=100)
    print(f"figure: {FIGURE}")


def draw(axes: Axes, points: np.ndarray, labels: np.ndarray, C: float) -> None:
    """One plane: regions, margins, points sized by |α|, and lines from the test point to its strongest points."""
    solution = solve_crammer_singer(points, labels, C)
    grid = np.stack(np.meshgrid(np.linspace(-4, 4, 300), np.linspace(-4, 4, 300)), axis=-1)
    scores = grid @ solution.weight.T
    axes.imshow(0.72 + 0.28 * COLORS[scores.argmax(-1)], extent=(-4, 4, -4, 4), origin="lower", interpolation="nearest")
    ordered = np.sort(scores, axis=-1)
    axes.contour(grid[..., 0], grid[..., 1], ordered[..., -1] - ordered[..., -2], levels=[1.0], colors="0.35")
    decision = int((TEST_POINT @ solution.weight.T).argmax())
    axes.scatter(*points.T, s=12, c=COLORS[labels], alpha=0.5)
    support = points[solution.support]
    size = 160 * np.abs(solution.dual_coef[np.arange(len(support)), labels[solution.support]]) / C
    axes.scatter(*support.T, s=size, c=COLORS[labels[solution.support]], edgecolors="black", linewidths=0.6)
    attributions = solution.dual_coef[:, decision] * (support @ TEST_POINT)
    for row in np.argsort(-np.abs(attributions))[:6]:
        color = "#b3261e" if attributions[row] > 0 else "#1f5fbf"
        width = 0.5 + 3 * abs(attributions[row]) / np.abs(attributions).max()
        axes.plot(*np.stack([TEST_POINT, support[row]]).T, color=color, linewidth=width)
    axes.scatter(*TEST_POINT, marker="*", s=180, c="white", edgecolors="black", zorder=3)
    axes.set(title=f"C = {C:g}: {solution.n_support} of {len(points)} are support points", xticks=[], yticks=[])


if __name__ == "__main__":
    main()
