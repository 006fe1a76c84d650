"""Figures of the chapter on sparsity and coherence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from invertnb.chapters.proposition_1.coherence_law import CoherenceLaw
from invertnb.chapters.proposition_1.random_filters import LAYERS, SIDE, published
from invertnb.chapters.sparsity import activity
from invertnb.chapters.sparsity.activity import SHARES, Activity
from invertnb.chapters.sparsity.banks import Bank
from invertnb.chapters.sparsity.rows import Row
from invertnb.networks.architecture import Architecture, VGG16
from invertnb.notebook import PALETTE, claims, figure
from invertnb.notebook.figures import Figure

if TYPE_CHECKING:
    from invertnb.chapters.sparsity import Data

COLOURS = {"paper": "vermillion", "recorded": "blue", "live": "green", "random": "black"}
THUMBNAIL = 32  # side of a photograph above its maps, in pixels
LIMIT = 8  # standard deviations shown
MARKS = {"paper": "x", "recorded": "o", "live": "s", "random": "."}


def paper_percent(table: int, chain: Architecture = VGG16) -> dict[str, float]:
    """Table 2 or 7 by our names of layers."""
    book = claims.load()
    return {ours: book[f"table{table}.{name}"].paper for ours, name in chain.published.items()}


def draw_curves(card: Mapping[str, Any]) -> Figure:
    """How the embedded network was trained: its accuracy over epochs."""
    fig, ax = figure(width=4.5, height=1.9)
    for part, colour in (("train", "black"), ("test", "blue")):
        curve = card["curves"][part]
        ax.plot(range(1, len(curve) + 1), [100 * a for a in curve], color=PALETTE[colour],
                label=part)  # fmt: skip
    ax.set(xlabel="epoch", ylabel="percent right", ylim=(40, 100))
    ax.legend(frameon=False, loc="lower right")
    return fig


def draw_densities(
    live: Mapping[str, Activity], recorded: Mapping[str, Activity], random: Mapping[str, Activity]
) -> Figure:
    """Percent of nonzeros by layer: the paper, recorded real weights, live, random."""
    names = list(VGG16.layers)
    fig, ax = figure(height=3.1)
    for i, name in enumerate(names):
        if name.startswith("pool"):
            ax.axvspan(i - 0.5, i + 0.5, color="#eef1f4", lw=0)
    series = {"random": random, "live": live, "recorded": recorded}
    paper = paper_percent(2)
    for shift, (kind, layers) in zip((0.22, 0.08, -0.08), series.items(), strict=True):
        at = [i + shift for i, name in enumerate(names) if name in layers]
        given = [layers[name] for name in names if name in layers]
        if given:
            ax.errorbar(
                at, [each.percent for each in given], [each.sd for each in given], fmt=MARKS[kind],
                ms=5, lw=1, color=PALETTE[COLOURS[kind]], label=kind,
            )  # fmt: skip
    ax.plot([i - 0.22 for i in range(len(names))], [paper[name] for name in names], "x", ms=7,
            color=PALETTE["vermillion"], label="paper")  # fmt: skip
    ax.set(ylabel="percent of nonzeros", xticks=range(len(names)), ylim=(0, 102))
    ax.set_xticklabels([VGG16.published[name] for name in names], rotation=90)
    ax.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def draw_pooling(
    live: Mapping[str, Activity], random: Mapping[str, Activity],
    recorded: Mapping[str, Activity],
) -> Figure:
    """Density after 2 x 2 pooling over density before it, with the two extremes."""
    fig, ax = figure(width=5.6, height=2.6)
    p = np.linspace(0, 1, 101)
    ax.plot(100 * p, 100 * activity.independent(p), color=PALETTE["black"],
            label="independent: $1-(1-p)^4$")  # fmt: skip
    ax.plot(100 * p, 100 * p, ":", color=PALETTE["black"], label="whole windows: $p$")
    ax.plot(100 * p, 100 * np.minimum(4 * p, 1), "--", color=PALETTE["sky"],
            label="one per window: $4p$")  # fmt: skip
    paper = paper_percent(2)
    for kind, layers in (("recorded", recorded), ("live", live), ("random", random)):
        pairs = [(layers[a].percent, layers[b].percent) for a, b in poolings() if b in layers]
        if pairs:
            ax.plot(*zip(*pairs, strict=True), MARKS[kind], ms=6, color=PALETTE[COLOURS[kind]],
                    label=kind)  # fmt: skip
    pairs = [(paper[a], paper[b]) for a, b in poolings()]
    ax.plot(*zip(*pairs, strict=True), "x", ms=8, mew=2, color=PALETTE["vermillion"], label="paper")
    ax.set(xlabel="percent of nonzeros before pooling", ylabel="after pooling", ylim=(0, 103))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def poolings() -> list[tuple[str, str]]:
    """VGG-16's convolutions before a pooling, with that pooling."""
    pairs = zip(VGG16.layers, VGG16.layers[1:], strict=False)
    return [(a, b) for a, b in pairs if b.startswith("pool")]


def draw_maps(pixels: Tensor, names: Sequence[str], maps: Mapping[str, Tensor]) -> Figure:
    """Photographs above their maps of active channels, a row for each layer."""
    fig, axes = figure(
        width=len(names) + 0.4, height=1.05 * (len(maps) + 1),
        nrows=len(maps) + 1, ncols=len(names), squeeze=False,
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set_visible(False)
    for ax, image, name in zip(axes[0], pixels, names, strict=True):
        small = F.adaptive_avg_pool2d(image, THUMBNAIL)
        ax.imshow(small.permute(1, 2, 0).numpy(), interpolation="nearest")
        ax.set_xlabel(name)
    for line, (layer, each) in zip(axes[1:], maps.items(), strict=True):
        line[0].set_ylabel(layer)
        top = float(each.max())
        for ax, picture in zip(line, each, strict=False):
            ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    return fig


def draw_coherence(data: Data) -> Figure:
    """Table 4 by layer: learned filters, live and recorded, and random filters of full size."""
    fig, ax = figure(height=3.6)
    names = [f"conv{layer}" for layer in LAYERS]
    book = claims.load()
    learned = [book[f"table4.learned.{layer}"].paper for layer in LAYERS]
    place = range(len(names))
    ax.plot(place, learned, "x", ms=7, color=PALETTE["vermillion"], label="paper, learned")
    ax.plot(place, list(published().values()), "+", ms=8, color=PALETTE["orange"],
            label="paper, random")  # fmt: skip
    elsewhere = data.recorded[0].banks if data.recorded else {}
    measured = {"recorded": elsewhere, "live": data.live.banks}
    for kind, banks in measured.items():
        for sign, fill in (("absolute", None), ("signed", "none")):
            points = [(i, banks[n].coherence(sign)) for i, n in enumerate(names) if n in banks]
            if points:
                ax.plot(*zip(*points, strict=True), MARKS[kind], ms=6, ls="",
                        color=PALETTE[COLOURS[kind]], markerfacecolor=fill,
                        label=f"{kind}, {sign}")  # fmt: skip
    laws = [CoherenceLaw(K, M * SIDE**2, signed=False) for K, M in LAYERS.values()]
    ends = [[float(law.quantile(q)) for law in laws] for q in (0.05, 0.95)]
    ax.vlines(place, *ends, color=PALETTE["black"], lw=5, alpha=0.4, label="random, absolute")
    ax.set(yscale="log", ylabel="coherence", xticks=place, yticks=[0.05, 0.1, 0.2, 0.5, 1])
    ax.set_yticklabels(["0.05", "0.1", "0.2", "0.5", "1"])
    ax.tick_params(which="minor", labelleft=False)
    ax.set_xticklabels(list(LAYERS), rotation=90)
    ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def draw_rows(rows: Mapping[str, Row], paper: Mapping[str, float]) -> Figure:
    """Table 6's random row in each reading: deviations from the mean, in standard deviations."""
    fig, ax = figure(width=5.2, height=0.22 * len(rows) + 0.8)
    layers = list(paper)
    markers = dict(zip(layers, "osD^v", strict=True))
    for y, row in enumerate(rows.values()):
        for layer in layers:
            samples = row.samples[layer]
            score = (paper[layer] - float(samples.mean())) / float(samples.std())
            ax.plot(max(min(score, LIMIT), -LIMIT), y, markers[layer], ms=5.5,
                    color=PALETTE["blue" if row.sign == "absolute" else "green"],
                    label=layer if y == 0 else None)  # fmt: skip
    ax.axvspan(-3, 3, color="#eef1f4", lw=0)
    ax.axvline(0, color=PALETTE["black"], lw=0.8)
    ax.set(yticks=range(len(rows)), xlim=(-LIMIT - 0.5, LIMIT + 0.5),
           xlabel="deviation in standard deviations")  # fmt: skip
    short = (name.removesuffix(", in place").replace("AlexNet of ", "") for name in rows)
    ax.set_yticklabels([name.replace("'s AlexNet", "") for name in short])
    ax.invert_yaxis()
    ax.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(-0.6, 1), columnspacing=1,
              handletextpad=0.2)
    return fig


def draw_partners(measured: Mapping[str, Mapping[str, Bank]]) -> Figure:
    """The most negative cosine of every filter, by layer, with random and mixed banks' medians."""
    widths = [len(banks) for banks in measured.values()]
    fig, axes = figure(
        height=3.0, ncols=len(measured), sharey=True, squeeze=False,
        gridspec_kw={"width_ratios": widths},
    )
    for ax, (kind, banks) in zip(axes[0], measured.items(), strict=True):
        for i, bank in enumerate(banks.values()):
            cosines = np.array(bank.negative)
            ends = np.quantile(cosines, (0.1, 0.9))
            ax.vlines(i, *ends, color="#c9d1d9", lw=9)
            ax.plot(i, cosines.min(), ".", ms=5, color="#8c959f")
            marks = [(bank.median, "blue", "median"), (min(bank.random), "black", "random, lowest"),
                     (min(bank.mixed), "orange", "mixtures, lowest")]  # fmt: skip
            for median, colour, label in marks:
                ax.hlines(median, i - 0.38, i + 0.38, color=PALETTE[colour], lw=2,
                          label=label if i == 0 else None)  # fmt: skip
        ax.set(xticks=range(len(banks)), ylim=(-1, 0.02), xlabel=kind)
        ax.set_xticklabels([name.removeprefix("conv") for name in banks], rotation=90)
    axes[0, 0].set_ylabel("nearest $-$ partner")
    axes[0, -1].legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return fig


def draw_errors(measured: Mapping[str, Mapping[str, Activity]]) -> Figure:
    """Relative error of the largest share of entries, for convolutions before a pooling."""
    fig, ax = figure(width=4.6, height=2.4)
    cycle = ("blue", "sky", "green", "orange", "vermillion")
    for (kind, layers), style in zip(measured.items(), ("-", "--"), strict=False):
        for (name, _), colour in zip(poolings(), cycle, strict=True):
            if name in layers:
                ax.plot(100 * np.array(SHARES), layers[name].errors, style, color=PALETTE[colour],
                        label=f"{VGG16.published[name]}, {kind}")  # fmt: skip
    ax.set(xscale="log", xticks=[0.5, 1, 3, 10, 30, 100], ylim=(0, 1),
           xlabel="percent of entries kept", ylabel=r"$\Vert h-h_s\Vert/\Vert h\Vert$")  # fmt: skip
    ax.set_xticklabels(["0.5", "1", "3", "10", "30", "100"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
