"""Figures of the chapter's first half: Table 3, the two ratios, Figures 4 and 5."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from invertnb.chapters.inverting_vgg import verdicts
from invertnb.chapters.inverting_vgg.activation import (
    ACTIVATIONS, FITTING, LEARNED, METHODS, RANDOM, STATED, published,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.decoded import AS_IS, FEW, RECTIFIED, TRUE
from invertnb.chapters.inverting_vgg.verdicts import live_errors, recorded_errors
from invertnb.notebook.figures import PALETTE, Figure, Photographs, figure, photographs

COLOUR = {LEARNED: PALETTE["blue"], RANDOM: PALETTE["vermillion"], ACTIVATIONS: PALETTE["black"]}
COLUMNS = {
    TRUE: "decoded from f", LEARNED: "learned filters", RANDOM: "random filters",
    ACTIVATIONS: "random activations",
}  # fmt: skip


def draw_table3(data: Any) -> Figure:
    """Activation-space errors beside the paper's, by layer."""
    canvas, ax = figure(7.5, 4.2)
    ran = "real weights" if data.inputs.network.source.real else "stand-in"
    for i, pool in enumerate(data.inputs.pools):
        for shift, method in ((-0.12, LEARNED), (0.12, RANDOM)):
            paper = published("activation", method, pool)
            ax.plot(i + shift, paper, "s", ms=9, mfc="none", mec=COLOUR[method], mew=2,
                    label=f"paper, {method} filters" if not i else None)  # fmt: skip
            for reading, marker, off in ((FITTING, "o", 0.05), (STATED, "^", 0.1)):
                kind = "best reading" if reading == FITTING else "as stated"
                ax.errorbar(
                    i + shift + off, *live_errors(data, method, pool)[reading],
                    fmt=marker, ms=6, lw=1.2, color=COLOUR[method],
                    label=f"{ran}, {kind}, {method} filters" if not i else None,
                )  # fmt: skip
        for results in networks(data).values():
            for shift, method in ((-0.12, LEARNED), (0.12, RANDOM)):
                found = recorded_errors(results, method, pool) if results["real"] else {}
                for reading, marker, off in ((FITTING, "o", -0.05), (STATED, "^", -0.1)):
                    if reading in found:
                        kind = "best reading" if reading == FITTING else "as stated"
                        ax.errorbar(
                            i + shift + off, *found[reading], fmt=marker, ms=7, lw=1.2,
                            color=COLOUR[method], mfc="white",
                            label=f"real weights, {kind}, {method} filters" if not i else None,
                        )  # fmt: skip
    ax.axhline(1, color="#59636e", lw=1, ls="--")
    ax.annotate("an f_hat of zero", (-0.35, 1.005), fontsize=9)
    ax.set(
        xticks=range(len(data.inputs.pools)), xticklabels=data.inputs.pools,
        ylabel="relative error",
        xlim=(-0.4, len(data.inputs.pools) - 0.5),
    )  # fmt: skip
    ax.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return canvas


def draw_ratios(data: Any) -> Figure:
    """Every photograph by its two ratios, with lines of equal error."""
    canvas, ax = figure(7.5, 4.0)
    points = {
        (pool, method): data.steps[pool][method][FITTING]
        for pool in data.inputs.pools
        for method in (LEARNED, RANDOM)
    }
    most = 1.1 * max(float(step.kept.max()) for step in points.values())
    kept = np.linspace(0.01, most, 200)
    top = 1.1 * max(float(step.ratio.max()) for step in points.values())
    for error in (0.4, 0.6, 0.8, 1.0, 1.2):
        line = kept / (1 - error**2 / 2)
        ax.plot(kept, line, color="#59636e", lw=2.2 if error == 1 else 0.9, zorder=1)
        at = min(most, top * (1 - error**2 / 2))
        ax.annotate(f"{error:g}", (at, at / (1 - error**2 / 2)), fontsize=9, color="#59636e",
                    ha="left", va="bottom")  # fmt: skip
    for (pool, method), step in points.items():
        marker = "osD^"[int(pool[5]) - 1]
        ax.plot(
            step.kept.numpy(force=True), step.ratio.numpy(force=True), marker, ms=6,
            color=COLOUR[method], mfc="none" if method == RANDOM else COLOUR[method],
            label=f"{pool}, {method} filters",
        )  # fmt: skip
    ax.set(
        xlim=(0, most * 1.05), ylim=(0, top * 1.06), xlabel="kept, ||z|| / ||f||",
        ylabel="ratio, ||W^T z|| / ||z||",
    )  # fmt: skip
    ax.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return canvas


def draw_figure4(data: Any, pool: str, form: str = RECTIFIED) -> Photographs:
    """Figure 4: photographs and what is decoded at one layer."""
    rows = {f"photograph {i + 1}": _row(data, pool, i, form) for i in range(_few(data, 3))}
    return photographs(rows, ["photograph", *COLUMNS.values()])


def draw_figure5(data: Any, index: int = 2) -> Photographs:
    """Figure 5: one photograph at every layer."""
    index = min(index, _few(data, FEW) - 1)
    rows = {pool: _row(data, pool, index, RECTIFIED) for pool in data.inputs.pools}
    return photographs(rows, ["photograph", *COLUMNS.values()])


def networks(data: Any) -> dict[str, Any]:
    """Results of the networks that were recorded, by label."""
    return {label: each.results for label, each in verdicts.networks(data).items()}


def _few(data: Any, most: int) -> int:
    return min(most, len(data.inputs.pixels))


def _row(data: Any, pool: str, i: int, form: str) -> list[np.ndarray]:
    found = data.decoded[pool].images
    pictures = [data.inputs.pixels[i], found[TRUE, AS_IS][i]]
    pictures += [found[method, form][i] for method in METHODS]
    return [_picture(each) for each in pictures]


def _picture(image: Tensor) -> np.ndarray:
    return image.clamp(0, 1).permute(1, 2, 0).numpy(force=True)
