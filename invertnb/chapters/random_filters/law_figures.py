"""Figures: errors over the number of filters; softmax beside ridge, and the spectrum behind it."""

from __future__ import annotations

import numpy as np

from invertnb.chapters.random_filters.law import Compared, Law
from invertnb.notebook.figures import PALETTE, Figure, figure

COLOURS = {"plain": "vermillion", "centered": "blue", "whitened": "green"}
OF_LAW = {"plateau": "-", "power": "--", "logarithm": ":"}
LOOKS = {"live": ("o", "blue"), "recorded": ("s", "vermillion")}


def draw_law(law: Law) -> Figure:
    """Test errors, with laws fitted to all of them but the last; the kernel's error."""
    fig, (left, right) = figure(ncols=2, height=3.4, width=8.0)
    for name, curve in law.curves.items():
        marker, colour = LOOKS[name]
        left.plot(curve.filters, curve.mean, marker, ms=6, color=PALETTE[colour], label=name)
        low, high = curve.errors.min(0), curve.errors.max(0)
        left.vlines(curve.filters, low, high, color=PALETTE[colour], lw=1.5)
        held = law.held(name)
        left.plot(curve.filters[-held:], curve.mean[-held:], marker, ms=11, mfc="none",
                  color=PALETTE[colour])  # fmt: skip
        K = np.geomspace(1, 2 * curve.filters[-1], 100)
        for kind, style in OF_LAW.items():
            values = law.judged[name][kind].known(K)
            left.plot(K, np.where(values > 0, values, np.nan), style, color=PALETTE[colour], lw=1.2)
    left.set(xscale="log", yscale="log", xlabel="filters $K$", ylabel="test error")
    left.legend(frameon=False)
    K = np.array(law.curves["live"].filters, dtype=float)
    right.plot(K, law.kernel, "o", ms=6, color=PALETTE["green"], label="kernel matrix")
    right.plot(K, law.kernel[0] * K**-0.5, "--", lw=1.2, color=PALETTE["black"], label="$K^{-1/2}$")
    for name, curve in law.curves.items():
        marker, colour = LOOKS[name]
        right.plot(curve.filters, curve.mean / curve.mean[0], marker, ms=6, color=PALETTE[colour],
                   label=f"test error, {name}")  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="filters $K$", ylabel="relative error")
    right.legend(frameon=False, fontsize=9)
    return fig


def draw_trained(law: Law) -> Figure:
    """Softmax beside ridge over epochs, and how far into the spectrum training comes."""
    shown = [each for name, each in law.compared.items() if name != "live"][:1]
    both = [law.compared["live"], *shown]
    fig, axes = figure(ncols=len(both) + 1, height=3.4, width=9.0)
    for ax, each, name in zip(axes, both, ("live", "recorded"), strict=False):
        _over_epochs(ax, each, name)
    axes[0].set_ylabel("test accuracy")
    axes[0].legend(frameon=False, fontsize=9)
    _spectrum(axes[-1], both[-1])
    return fig


def _over_epochs(ax, each: Compared, name: str) -> None:
    epochs = list(each.trained)
    for base, colour in COLOURS.items():
        reached = [each.best(number, base).test for number in epochs]
        ax.plot(epochs, reached, "o-", ms=5, color=PALETTE[colour], label=base)
        if base != "whitened":
            reached = [each.best(number, base, 0.5).test for number in epochs]
            ax.plot(epochs, reached, "o:", ms=4, lw=1.2, mfc="none", color=PALETTE[colour])
    ax.axhline(each.ridge[1], color=PALETTE["black"], lw=1.2, ls="--", label="ridge")
    ax.set(xscale="log", xlabel=f"epochs, {name}", xticks=epochs, xticklabels=epochs)
    ax.minorticks_off()


def _spectrum(ax, each: Compared) -> None:
    last = max(each.trained)
    ax.plot(each.condition.places, np.maximum(each.condition.eigenvalues, 1e-9),
            color=PALETTE["black"])  # fmt: skip
    for base in ("plain", "centered"):
        rate = each.best(last, base).setting.rate
        for number, style in ((min(each.trained), ":"), (last, "-")):
            ax.axhline(1 / each.reach(rate, number), color=PALETTE[COLOURS[base]], lw=1.2, ls=style)
    ax.axhline(each.decay / each.condition.places[-1], color=PALETTE["black"], lw=1.2, ls="--")
    ax.set(xscale="log", yscale="log", xlabel="place", ylabel="eigenvalue / variance")
