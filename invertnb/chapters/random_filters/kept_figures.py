"""Figures of what one step keeps and what a reader makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from invertnb.chapters.random_filters.kept import Kept, Point
from invertnb.notebook.figures import PALETTE, Figure, Photographs, figure, photographs

#: Color and marker by what stands for the image.
STYLES = {
    "one step, 2 x 2": (PALETTE["blue"], "o-"), "one step, 4 x 4": (PALETTE["sky"], "s-"),
    "largest responses": (PALETTE["purple"], "v-"), "more steps": (PALETTE["green"], "D-"),
    "averages": (PALETTE["black"], "x"), "noise": (PALETTE["orange"], ":"),
    "blur": (PALETTE["vermillion"], "--"),
}  # fmt: skip


def draw(found: Mapping[str, Kept]) -> Figure:
    """For each of these, by name: accuracy over filters, relative error and numbers kept."""
    canvas, axes = figure(9.5, 0.6 + 2.8 * len(found), nrows=len(found), ncols=3, squeeze=False)
    for line, (name, kept) in zip(axes, found.items(), strict=True):
        for draw_one, ax in zip((_filters, _errors, _numbers), line, strict=True):
            draw_one(ax, kept)
            ax.axhline(kept.original, color="0.6", lw=1, zorder=0)
            ax.axhline(kept.chance, color="0.6", lw=1, ls=":", zorder=0)
            ax.set(ylim=(0, 1))
        for ax in line[1:]:
            ax.set_yticklabels([])
        line[0].set(ylabel=f"accuracy, {name}")
    for ax, where in zip(axes[0], ("lower right", "upper right", "lower right"), strict=True):
        ax.legend(fontsize=8, frameon=False, loc=where)
    return canvas


def pictures(kept: Kept) -> Photographs:
    """Test images and what stands for them."""
    rows = {
        name: [_colour(image.numpy()) for image in some] for name, some in kept.pictures.items()
    }
    return photographs(rows, [""] * len(next(iter(rows.values()))), width=7.5)


def _colour(image: np.ndarray) -> np.ndarray:
    """(C, H, W) as (H, W, 3)."""
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)


def _line(ax: Axes, name: str, places: list[float], accuracies: list[float]) -> None:
    color, marks = STYLES[name]
    pairs = sorted(zip(places, accuracies, strict=True))
    ax.plot(*zip(*pairs, strict=True), marks, color=color, ms=4, label=name)


def _ways(kept: Kept) -> dict[str, list[Point]]:
    """Points by what they have in common; with fewer and fewer responses or more and more steps."""
    found = {f"one step, {w} x {w}": kept.steps(window=w) for w in (2, 4)}
    fewer = [each for each in kept.steps(share=None) if each.step.share < 1]
    more = [each for each in kept.steps(steps=None) if each.step.steps > 1]
    found["largest responses"] = fewer
    found["more steps"] = more
    found["averages"] = kept.averages()
    return {name: points for name, points in found.items() if points}


def _filters(ax: Axes, kept: Kept) -> None:
    for window in (2, 4):
        points = kept.steps(window=window)
        color, marks = STYLES[f"one step, {window} x {window}"]
        ax.plot(
            [each.step.ratio for each in points], [each.accuracy for each in points], marks,
            color=color, ms=4, label=f"reader, {window} x {window}",
        )  # fmt: skip
    ax.plot(
        list(kept.retrained), list(kept.retrained.values()), "*", ms=9,
        color=PALETTE["vermillion"], label="reader trained on them",
    )  # fmt: skip
    ax.plot(
        list(kept.random), list(kept.random.values()), "--", color=PALETTE["black"], lw=1.2,
        label="random classifier",
    )  # fmt: skip
    ax.set_xscale("log", base=2)
    ticks = list(kept.random)
    ax.set(xlabel="filters for each channel", xticks=ticks, xticklabels=ticks)


def _errors(ax: Axes, kept: Kept) -> None:
    for name, points in _ways(kept).items():
        _line(ax, name, [each.error for each in points], [each.accuracy for each in points])
    errors = [each.error for each in kept.points]
    _line(ax, "noise", errors, [each.noise for each in kept.points])
    _line(ax, "blur", errors, [each.blur for each in kept.points])
    ax.set(xlabel="relative error")


def _numbers(ax: Axes, kept: Kept) -> None:
    size = int(np.prod(kept.image))
    for name, points in _ways(kept).items():
        if name != "more steps":
            share = [each.kept / size for each in points]
            _line(ax, name, share, [each.accuracy for each in points])
    ticks = [4.0**power for power in range(-2, 3)]
    ax.set_xscale("log", base=2)
    ax.axvline(1, color="0.8", lw=1, zorder=0)
    ax.set(xlabel="numbers kept / the image's")
    ax.set(xticks=ticks, xticklabels=["1/16", "1/4", "1", "4", "16"])
