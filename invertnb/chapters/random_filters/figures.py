"""Figures of Table 1: the cells beside the paper's, training curves, small networks."""

from __future__ import annotations

import statistics
from typing import Any

from invertnb.chapters.random_filters.table1 import CELLS, DEPTHS, PAPER, ROWS
from invertnb.chapters.random_filters.verdicts import closed
from invertnb.notebook.figures import PALETTE, Figure, figure

COLOUR = {"random": PALETTE["vermillion"], "learned": PALETTE["blue"]}


def draw_table1(data: Any) -> Figure:
    """Accuracy by depth: the paper's, and ours as recorded at the paper's sizes."""
    canvas, ax = figure(7.5, 4.0)
    for row in ROWS:
        colour = COLOUR[row]
        ax.plot(DEPTHS, PAPER[row], "s--", ms=9, mfc="none", mec=colour, mew=2, lw=1, color=colour,
                label=f"paper, {row} filters")  # fmt: skip
        cells = [cell for cell in data.cells if cell.row == row]
        ax.errorbar(
            [cell.depth for cell in cells], [cell.mean for cell in cells],
            [cell.spread or 0.0 for cell in cells], fmt="o-", ms=6, lw=1.8, color=colour,
            label=f"trained by gradient descent, {row} filters",
        )  # fmt: skip
    if "closed" in data.inputs.recorded:
        results = data.inputs.recorded["closed"].results
        fits = {depth: closed(results, depth) for depth in DEPTHS}
        depths = [depth for depth in DEPTHS if fits[depth]]
        ax.plot(
            depths, [statistics.fmean(fits[depth]) for depth in depths], "^", ms=8,
            color=PALETTE["purple"], label="closed form, random filters",
        )  # fmt: skip
    ax.set(
        xticks=DEPTHS, xticklabels=CELLS, ylabel="accuracy on CIFAR-10's test images, %",
        xlim=(0.8, 3.2), ylim=(58, 104),
    )  # fmt: skip
    ax.legend(fontsize=9.5, loc="upper left", frameon=False)
    return canvas


def draw_curves(data: Any) -> Figure:
    """Training and validation accuracy by epoch, seed 0, of all cells."""
    canvas, axes = figure(8.4, 3.4, ncols=2)
    for ax, row in zip(axes, ROWS, strict=True):
        for cell in data.cells:
            if cell.row != row:
                continue
            history = cell.runs[0]["history"]
            epochs = range(1, len(history["train"]) + 1)
            colour = list(PALETTE.values())[cell.depth - 1]
            ax.plot(epochs, [100 * x for x in history["validation"]], color=colour, label=cell.name)
            ax.plot(epochs, [100 * x for x in history["train"]], ":", color=colour, lw=1.6)
        most = max((len(c.runs[0]["history"]["train"]) for c in data.cells if c.row == row), default=1)
        ax.set(xlabel="epoch", title=f"{row} filters", ylim=(30, 95), xticks=range(0, most + 1, 2))
        ax.legend(fontsize=9.5, loc="lower right", frameon=False)
    axes[0].set_ylabel("accuracy, %")
    return canvas


def draw_small(data: Any) -> Figure:
    """The small networks of this page by depth."""
    canvas, ax = figure(6.2, 3.4)
    for row in ROWS:
        for seed in range(len(data.small.runs[row][DEPTHS[0]])):
            ax.plot(
                DEPTHS, [data.small.accuracies(row, depth)[seed] for depth in DEPTHS], "o-", ms=5,
                lw=1.4, color=COLOUR[row], alpha=0.75, label=None if seed else f"{row} filters",
            )  # fmt: skip
    ax.set(xticks=DEPTHS, xticklabels=CELLS, ylabel="accuracy on test images, %", xlim=(0.8, 3.2))
    ax.legend(fontsize=10, loc="lower left", frameon=False)
    return canvas
