"""Figures of the chapter, and the explorer of the bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invertnb.chapters.theorem_3_3 import bite, lemmas
from invertnb.chapters.theorem_3_3.layers import D, N, Step
from invertnb.notebook import PALETTE, Explorer, Slider, View, figure
from invertnb.notebook.figures import MUTED, Axes, Figure
from invertnb.theory import one_step as theory

COLOURS = dict(zip(theory.BOUNDS, ("vermillion", "orange", "blue"), strict=True))
VACUOUS = {"color": MUTED, "alpha": 0.15, "lw": 0}


def draw_studies(studies: Sequence[lemmas.Study], attained: Mapping[float, Step]) -> Figure:
    """Worst errors found over delta_2k: of the code with Lemma B.4, of the signal with Theorem 3.3.

    `attained` holds one step of the codes of `sharp`, by delta_2k.
    """
    fig, axes = figure(7.8, 3.6, ncols=2, sharey=True)
    code = {
        "as stated": theory.estimation,
        "last line but one": theory.estimation_penultimate,
        "golden ratio (ours)": theory.estimation_golden,
    }
    names = (r"$\|\hat z-z\|/\|z\|$", r"$\|x-\hat x\|/\|x\|$")
    for ax, bounds, name, field in zip(
        axes, (code, theory.BOUNDS), names, ("code", "signal"), strict=True
    ):
        _curves(ax, bounds, top=1.3)
        for study in studies:
            low, high = study.delta_2k
            error = getattr(study.worst, field)
            if low >= 1:
                continue
            ax.plot([low, min(high, 1)], [error, error], color=PALETTE["black"], lw=1.5)
            ax.plot(low, error, "o", color=PALETTE["black"], ms=3.5 if low == high else 0)
        for delta, step in attained.items():
            ax.plot(delta, getattr(step, field), "^", mfc="white", mec=PALETTE["black"], ms=6)
        ax.set(xlim=(0, 1), ylim=(0, 1.3), xlabel=r"$\delta_{2k}$")
        ax.set_title(name, fontsize=11)
    axes[0].set_ylabel("bound, or worst error found")
    axes[1].legend(frameon=False, fontsize=8.5, loc="lower right")
    return fig


def _curves(ax: Axes, bounds: Mapping, top: float) -> None:
    deltas = torch.linspace(0, 0.99, 397).tolist()
    ax.axhspan(1, top, **VACUOUS)
    ax.axhline(1, color=MUTED, lw=1, ls=":")
    for name, bound in bounds.items():
        values = [bound(delta, delta) for delta in deltas]
        ax.plot(deltas, values, color=PALETTE[COLOURS[name]], label=name)


def draw_gap(gaps: Mapping) -> Figure:
    """What sampling sees of delta_k and delta_2k at Figure 2's size, and the certified interval."""
    fig, axes = figure(7.5, 2.8, ncols=2, sharey=True)
    names = {1: r"$\delta_{10}$", 2: r"$\delta_{20}$"}
    for ax, (order, gap) in zip(axes, gaps.items(), strict=True):
        right = 1.1 * gap.certified.upper
        edges = torch.linspace(0, right, 120).tolist()
        for values, colour, label in (
            (gap.codes, "blue", "random codes"),
            (gap.supports, "orange", "random supports"),
        ):
            weights = torch.full_like(values, 1 / len(values))
            ax.hist(
                values, bins=edges, weights=weights, color=PALETTE[colour], label=label,
                histtype="stepfilled", alpha=0.8,
            )  # fmt: skip
        ends = gap.certified.lower, gap.certified.upper
        ax.axvspan(*ends, color=MUTED, alpha=0.3, lw=0, label="certified interval")
        ax.axvline(1, color=PALETTE["black"], lw=1, ls="--")
        ax.set(xlim=(0, right), xlabel=f"deviation from 1, for {names[order]}")
    axes[0].set_ylabel("share")
    # Above both panels; inside one it would cover the interval, beside one it would narrow both.
    entries = axes[1].get_legend_handles_labels()
    fig.legend(*entries, frameon=False, fontsize=9, ncols=3, loc="outside upper center")
    return fig


def draw_bite(intervals: Mapping[tuple[int, int], tuple[float, float]]) -> Figure:
    """Certified intervals of delta_2k over M, and what the bounds ask for."""
    fig, ax = figure(7.0, 3.6)
    sparsities = sorted({k for k, _ in intervals})
    colours = ("green", "sky", "purple", "black")
    for i, (k, colour) in enumerate(zip(sparsities, colours, strict=True)):
        for M in sorted({M for _, M in intervals}):
            lower, upper = intervals[k, M]
            x = M * 1.16 ** (i - 1.5)
            ax.plot([x, x], [lower, upper], color=PALETTE[colour], lw=4,
                    solid_capstyle="butt")
            ax.plot(x, lower, "_", color=PALETTE[colour], ms=9, mew=2)
        ax.plot([], [], color=PALETTE[colour], lw=4, label=f"$k={k}$")
    for name, bound in theory.BOUNDS.items():
        ax.axhline(theory.threshold(bound), color=PALETTE[COLOURS[name]], lw=1.2, ls="--")
        ax.text(2.2e4, theory.threshold(bound), name, color=PALETTE[COLOURS[name]], fontsize=8.5,
                va="center")
    ax.axhline(1, color=MUTED, lw=1, ls=":")
    ax.text(2.2e4, 1, "hypothesis", color=MUTED, fontsize=8.5, va="center")
    spanning = bite.K * N // D  # K n >= M D up to here
    ax.axvspan(20, spanning, **VACUOUS)
    channels = sorted({M for _, M in intervals})
    ax.set(xscale="log", yscale="log", xlim=(20, 2e4), xlabel="channels $M$",
           ylabel=r"certified $\delta_{2k}$")
    ax.set_xticks(channels, [str(M) for M in channels])
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8.5, loc="lower left", ncols=2)
    return fig


def _frame() -> tuple[Figure, Axes]:
    """An explorer's canvas: its axes stand still from frame to frame, whatever the tick labels."""
    fig, ax = figure(7.0, 2.8)
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.1, right=0.98, bottom=0.19, top=0.97)
    return fig, ax


def draw_histogram(errors: Tensor, guaranteed: Mapping[str, float]) -> Figure:
    """Errors of random codes, and those bounds that lie below 1."""
    fig, ax = _frame()
    ax.axvspan(1, 1.1, **VACUOUS)
    edges = torch.linspace(0, 1.1, 111).tolist()
    weights = torch.full_like(errors, 1 / len(errors))
    ax.hist(errors, edges, weights=weights, color=MUTED, histtype="stepfilled")
    for name, bound in guaranteed.items():
        if bound < 1:
            ax.axvline(bound, color=PALETTE[COLOURS[name]], lw=2, label=name)
    if any(bound < 1 for bound in guaranteed.values()):
        ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    ax.set(xlim=(0, 1.1), ylabel="share of codes", xlabel=r"relative error $\|x-\hat x\|/\|x\|$")
    return fig


def bound_explorer() -> Explorer:
    """The three bounds where delta_2k is known up to an interval only."""

    def show(low: float, width: float) -> View:
        high = low + width
        fig, ax = _frame()
        ax.axvspan(low, high, color=PALETTE["sky"], alpha=0.35, lw=0)
        ax.axvline(low, color=PALETTE["sky"], lw=1)
        _curves(ax, theory.BOUNDS, top=1.5)
        ax.set(xlim=(0, 0.6), ylim=(0, 1.5), xlabel=r"$\delta_{2k}$", ylabel="bound")
        ax.legend(frameon=False, fontsize=8.5, loc="lower right")
        values = {}
        for name, bound in theory.BOUNDS.items():
            ends = [bound(delta, delta) for delta in (low, high)]
            if ends[0] >= 1:
                values[name] = "vacuous"
            elif ends[1] >= 1:
                values[name] = f"{ends[0]:.2f} at best, 1 or more at worst"
            else:
                values[name] = f"{ends[1]:.2f}" if not width else f"{ends[0]:.2f} to {ends[1]:.2f}"
        return View(fig, values)

    return Explorer(
        "bounds",
        [
            Slider("low", (0.05, 0.1, 0.2, 0.3), "lower end of delta_2k", 0.1),
            Slider("width", (0.0, 0.1), "width of the interval", 0.1),
        ],
        show,
        alt="The three bounds of Theorem 3.3 as curves over delta_2k, with the interval from {low} "
        "of width {width} shaded",
        caption="The bounds with delta_k = delta_2k. Only the right end of the shaded interval is "
        "a guarantee; the left end says what a better certificate could still win. Gray: vacuous.",
    )


