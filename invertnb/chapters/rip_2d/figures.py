"""Figures of the chapter on the two-dimensional model-RIP."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from invertnb.chapters.rip_2d.activations import Recovered
from invertnb.chapters.rip_2d.coherent import Point
from invertnb.chapters.rip_2d.constants import VACUOUS, Constants
from invertnb.chapters.rip_2d.ratios import CONVENTIONS, SIDE, Ratios, border
from invertnb.notebook import PALETTE, figure
from invertnb.notebook.figures import Figure

COLOURS = dict(zip(CONVENTIONS, ("blue", "vermillion", "green"), strict=True))
FILTERS = {"learned": "vermillion", "random": "blue"}
BINS = 24


def expected(convention: str) -> float:
    """The ratio that the border alone leaves of 1, for random filters."""
    if convention == "full":
        return 1.0
    return border(SIDE) if convention == "cropped" else (1 + border(SIDE)) / 2


def draw_random(random: Mapping[float, Ratios]) -> Figure:
    """Histograms of the ratios of full-size random filters, by convention; lines: predictions."""
    fig, axes = figure(ncols=len(random), height=3.2, sharex=True, sharey=True)
    for ax, (percent, ratios) in zip(axes, random.items(), strict=True):
        for convention, colour in COLOURS.items():
            values = ratios.of(convention).cpu()
            ax.hist(values, bins=BINS // 3, color=PALETTE[colour], alpha=0.75, label=convention)
            ax.axvline(expected(convention), color=PALETTE["black"], lw=1, ls=":")
        ax.axvspan(0.95, 1.05, color=PALETTE["black"], alpha=0.06, lw=0)
        ax.set(xlabel=rf"$\|W^Tz\|\,/\,\|z\|$, {percent:g} % nonzero")
    axes[0].set_ylabel("codes")
    axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=3)
    return fig


def draw_layers(layers: Mapping[str, object]) -> Figure:
    """Ratios by layer, with and without signs; crosses are what the filters predict."""
    fig, (left, right) = figure(ncols=2, height=3.8)
    place = range(len(layers))
    for ax, kind, name in ((left, "signed", "blue"), (right, "unsigned", "vermillion")):
        for i, each in enumerate(layers.values()):
            ratios = getattr(each, kind)
            for shift, convention in ((-0.15, "full"), (0.15, "cropped")):
                low, high = map(float, ratios.of(convention).aminmax())
                colour = PALETTE[name if convention == "full" else "black"]
                ax.vlines(i + shift, low, high, color=colour, lw=4, alpha=0.7,
                          label=f"{convention}" if i == 0 else None)  # fmt: skip
        ax.set(xticks=place)
        ax.set_xticklabels(layers, rotation=60, ha="right", rotation_mode="anchor")
    left.plot(place, [each.cropped for each in layers.values()], "x", color=PALETTE["orange"],
              label="predicted, cropped")  # fmt: skip
    right.plot(place, [each.coherent for each in layers.values()], "x", color=PALETTE["green"],
               label="predicted, full")  # fmt: skip
    left.set_ylabel(r"$\|W^Tz\|\,/\,\|z\|$")
    for ax in (left, right):
        ax.axhline(1, color=PALETTE["black"], lw=0.8, ls=":")
        ax.legend(frameon=False)
    left.set_ylim(top=1.14)
    return fig


def draw_recovered(found: Mapping[tuple[str, str, float], Recovered]) -> Figure:
    """Ratio and residual of the codes that Algorithm 2 finds."""
    fig, axes = figure(ncols=2, height=3.4, sharex=True, sharey=True)
    markers = {share: marker for share, marker in zip(
        sorted({key[2] for key in found}, reverse=True), "osD^", strict=False)}  # fmt: skip
    for ax, side in zip(axes, ("before ReLU", "after ReLU"), strict=True):
        for (filters, of, share), each in found.items():
            if of == side:
                ax.plot(
                    each.ratios.full[each.kept].cpu(), each.residual[each.kept].cpu(),
                    markers[share], color=PALETTE[FILTERS[filters]], ms=6, alpha=0.8,
                    label=f"{filters}, {share:g}",
                )  # fmt: skip
        ax.axvspan(0.95, 1.05, color=PALETTE["black"], alpha=0.08, lw=0)
        ax.set(xlabel=rf"$\|W^Tz\|\,/\,\|z\|$, {side}", ylim=(0, 1.02))
    axes[0].set_ylabel(r"$\|x - W^Tz\|\,/\,\|x\|$")
    axes[1].legend(frameon=False, loc="lower right")
    return fig


def draw_constants(constants: Mapping[str, Mapping[float, Constants]]) -> Figure:
    """Sampled, attained and certified constants over the share of filled windows."""
    fig, axes = figure(ncols=2, height=3.4, sharex=True, sharey=True)
    for ax, (filters, found) in zip(axes, constants.items(), strict=True):
        x = list(found)
        for name, marker, colour in (
            ("certified", "v", "vermillion"), ("attained", "^", "blue"), ("sampled", "o", "green"),
        ):  # fmt: skip
            ax.plot(x, [getattr(each, name) for each in found.values()], marker + "-",
                    color=PALETTE[colour], label=name)  # fmt: skip
        ax.axhline(VACUOUS, color=PALETTE["black"], lw=1, ls="--")
        ax.axhline(0.05, color=PALETTE["black"], lw=1, ls=":")
        ax.set(xscale="log", yscale="log", xlabel=f"filled windows, {filters} filters")
    axes[0].set_ylabel(r"$\delta_k$")
    axes[0].legend(frameon=False, loc="center right")
    return fig


def draw_coherence(families: Mapping[str, Mapping[str, Point]]) -> Figure:
    """What is said to grow with the coherence, over the coherence."""
    fig, axes = figure(ncols=2, height=3.4, sharex=True)
    colours = ("vermillion", "blue", "green")
    for (name, points), colour, marker in zip(families.items(), colours, "osD", strict=True):
        mu = [each.coherence for each in points.values()]
        for ax, of in zip(axes, ("delta", "error"), strict=True):
            ax.plot(mu, [getattr(each, of) for each in points.values()], marker, ms=6,
                    color=PALETTE[colour], label=name, alpha=0.85)  # fmt: skip
    axes[0].set(xlabel="coherence", ylabel=r"sd of ratio$^2$", yscale="log")
    axes[1].set(xlabel="coherence", ylabel="error of one step")
    axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18), ncols=3)
    return fig


def draw_histogram(ratios: torch.Tensor, predicted: float, unit: str) -> Figure:
    """Ratios of one layer, and where they should center."""
    fig, ax = figure(height=2.6)
    ax.hist(ratios.cpu(), bins=BINS, range=(0.85, 1.15), color=PALETTE["sky"])
    ax.axvspan(0.95, 1.05, color=PALETTE["black"], alpha=0.06, lw=0)
    ax.axvline(predicted, color=PALETTE["vermillion"], lw=1.5, ls="--", label="predicted")
    ax.set(xlabel=rf"$\|W^Tz\|\,/\,\|z\|$, {unit}", ylabel="codes", ylim=(0, ratios.numel()))
    ax.legend(frameon=False)
    # Fixed margins: quicker than a computed layout, and no frame is displaced.
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.09, right=0.98, bottom=0.22, top=0.96)
    return fig
