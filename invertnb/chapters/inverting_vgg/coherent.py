"""Does a lower coherence go with a better reconstruction? Layers, families, and what decides.

One step keeps z, entries of h = W f, and gives back W^T z at the norm of f. Its error depends on
two ratios, how much z keeps of f and how much W^T changes its length, see `activation.Step`. The
coherence of W enters neither; what filters have in common enters both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from scipy.stats import spearmanr
from torch import Tensor

from invertnb import FilterBank, coherence, notebook
from invertnb.chapters.inverting_vgg.activation import (
    FITTING, STATED, Reading, Step, following, published, steps,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.inputs import COHERENT, Inputs, middle
from invertnb.chapters.rip_2d.coherent import CRITERION, blended, twinned
from invertnb.networks import VGG16
from invertnb.notebook import PALETTE, figure
from invertnb.notebook.figures import Figure
from invertnb.notebook.real_networks import words

#: The model as section 2.3 defines it, of which the claim is judged; and what fits Table 3 best,
#: of which the families are shown.
READINGS = (STATED, FITTING)
#: Draws of the blends: of filters, and of what they have in common.
DRAWS = 3
#: Photographs for the families, to save time.
FEW = 5
#: Maps that are larger are cut to their middle: those of the layers, and those of the families.
SIDE, FAMILY_SIDE = 28, 14
#: The share of learned filters, and how much of their products is taken away.
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: The share of photographs that must agree; the change of an error that is none.
SHARE, TENTH = 0.9, 0.1
COLOURS = {"blends": "orange", "mixtures": "green", "decorrelated": "purple", "twins": "black"}


class Point(NamedTuple):
    """One bank.

    Attributes:
        coherence: absolute, filters in place, as Table 4 defines it.
        steps: one step by reading.
    """

    coherence: float
    steps: Mapping[Reading, Step]

    def mean(self, what: str, reading: Reading = FITTING) -> float:
        """Of "error", "kept", "ratio" or "cosine", over photographs."""
        return float(getattr(self.steps[reading], what).mean())


class Layer(NamedTuple):
    """The filters behind one pooling, learned and random."""

    learned: Point
    random: Sequence[Point]

    def random_error(self, reading: Reading = FITTING) -> Tensor:
        """Mean error over draws, by photograph."""
        return torch.stack([each.steps[reading].error for each in self.random]).mean(0)

    def lower(self) -> bool:
        """Whether random filters, on average over draws, are less coherent than learned ones."""
        mean = sum(each.coherence for each in self.random) / len(self.random)
        return mean < self.learned.coherence

    def better(self, reading: Reading = FITTING) -> int:
        """For how many photographs the less coherent filters have the smaller error."""
        gain = self.learned.steps[reading].error - self.random_error(reading)
        return int(((gain > 0) == self.lower()).sum())


@dataclass(frozen=True)
class Coherent:
    """Everything of this part.

    Attributes:
        layers: by pooling.
        families: by pooling and family, draws, each by member; of the last two poolings, on FEW
            photographs, in the reading FITTING.
        real: whether the network may be the paper's.
        words: on its weights.
        label: the network and its images.
        photographs: how many.
    """

    layers: Mapping[str, Layer]
    families: Mapping[str, Mapping[str, Sequence[Mapping[str, Point]]]]
    real: bool
    words: str
    label: str
    photographs: int


def compute(inputs: Inputs, generator: Callable[[int], torch.Generator]) -> Coherent:
    """Coherence and one step for the layers of a network, and for families of filters.

    Args:
        inputs: network, photographs and random filters.
        generator: generator(stream), a fresh one for each stream.
    """
    found, families = {}, {}
    for pool in inputs.pools:
        f = middle(inputs.f[pool], SIDE)
        learned, *random = (
            point(f, bank, pool) for bank in (inputs.learned[pool], *inputs.random[pool])
        )
        found[pool] = Layer(learned, tuple(random))
    for pool in inputs.pools[-2:]:
        f, learned = middle(inputs.f[pool][:FEW], FAMILY_SIDE), inputs.learned[pool]
        draws = generator(COHERENT + int(pool[5]))
        banks = {
            "blends": [blended(learned.K, learned.M, draws) for _ in range(DRAWS)],
            "mixtures": [mixtures(learned, each) for each in inputs.random[pool]],
            "decorrelated": [decorrelated(learned)],
            "twins": [twinned(learned.K, learned.M, draws)],
        }
        families[pool] = {
            family: [
                {name: point(f, like(bank, learned), pool, (FITTING,)) for name, bank in members}
                for members in drawn
            ]
            for family, drawn in banks.items()
        }
    source = inputs.network.source
    label = f"{source.label}; {inputs.pictures.label}"
    return Coherent(
        found, families, source.real, words(inputs.network), label, len(inputs.pixels)
    )  # fmt: skip


def point(
    f: Tensor, bank: FilterBank, pool: str, readings: Sequence[Reading] = READINGS
) -> Point:
    """Coherence of a bank, and one step with it on the output of `pool`."""
    return Point(float(coherence(bank.weight)), steps(f, bank, pool, readings))


def like(bank: FilterBank, other: FilterBank) -> FilterBank:
    """Its filters with the padding, dtype and place of the other."""
    return FilterBank(bank.weight, padding=other.padding).to(
        other.weight.device, other.weight.dtype
    )


def mixtures(learned: FilterBank, random: FilterBank) -> Iterator[tuple[str, FilterBank]]:
    """From random filters to learned ones, of unit norm."""
    for part in PARTS:
        mixed = (1 - part) ** 0.5 * random.weight + part**0.5 * learned.weight
        yield f"{part:.0%} learned", FilterBank(mixed).normalized()


def decorrelated(bank: FilterBank) -> Iterator[tuple[str, FilterBank]]:
    """Filters less and less correlated that span what the bank's filters span, of unit norm.

    G^(-s/2) W with the filters as rows of W and G = W W^T: the bank itself for s = 0; orthonormal
    rows, coherence 0, for s = 1, where the filters are independent. Otherwise, of more filters than
    entries in one, the rows of a tight frame.
    """
    rows = bank.weight.double().flatten(1)
    left, size, right = torch.linalg.svd(rows, full_matrices=False)
    exists = size > 1e-6 * size.max()
    for part in PARTS:
        scaled = torch.where(exists, size ** (1 - part), 0.0)
        weight = (left * scaled @ right).view_as(bank.weight)
        yield f"{part:.0%} decorrelated", FilterBank(weight.to(bank.weight.dtype)).normalized()


def rank(points: Sequence[Point], what: str = "error", reading: Reading = FITTING) -> float:
    """Spearman's rank correlation of coherence and another mean; NaN for fewer than three banks."""
    if len(points) < 3:
        return math.nan
    mu = [each.coherence for each in points]
    return float(spearmanr(mu, [each.mean(what, reading) for each in points]).statistic)


def explained(points: Sequence[Point], what: str) -> float:
    """Spearman's rank correlation of the error with "kept", "ratio", "cosine" or "coherence"."""
    seen = [each.coherence if what == "coherence" else each.mean(what) for each in points]
    return float(spearmanr(seen, [each.mean("error") for each in points]).statistic)


def ranks(drawn: Sequence[Mapping[str, Point]]) -> list[float]:
    """Rank correlation of coherence and mean error within a family, by draw."""
    return [rank(list(members.values())) for members in drawn]


def growth(drawn: Sequence[Mapping[str, Point]], what: str) -> list[float]:
    """The factor by which a mean grows from the first to the last member of a family, by draw."""
    ends = [tuple(members.values()) for members in drawn]
    return [members[-1].mean(what) / members[0].mean(what) for members in ends]


def every(found: Coherent) -> list[Point]:
    """All banks, of layers and of families."""
    layers = [point for each in found.layers.values() for point in (each.learned, *each.random)]
    families = [
        point for each in found.families.values() for drawn in each.values()
        for members in drawn for point in members.values()
    ]  # fmt: skip
    return layers + families


def gap(layer: Layer, reading: Reading = FITTING) -> tuple[float, float]:
    """How far the logarithms of "kept" and of "ratio" are apart, learned less random, on average.

    Their difference is the gap of the logarithm of the cosine.
    """

    def mean(points: Sequence[Point], what: str) -> float:
        logs = [getattr(each.steps[reading], what).log().mean() for each in points]
        return float(torch.stack(logs).mean())

    return tuple(
        mean([layer.learned], what) - mean(layer.random, what) for what in ("kept", "ratio")
    )


def within(found: Coherent, reading: Reading = FITTING) -> bool:
    """The criterion within layers: the less coherent filters, random or learned, have the smaller
    error in every layer, for most photographs."""
    enough = SHARE * found.photographs
    return all(each.better(reading) >= enough for each in found.layers.values())


def across(found: Coherent, reading: Reading = FITTING) -> bool | None:
    """The criterion over learned filters of all layers; None for fewer than three layers."""
    value = rank([each.learned for each in found.layers.values()], reading=reading)
    return None if math.isnan(value) else value >= CRITERION


def harmless(twins: Mapping[str, Point]) -> bool:
    """Whether a pair of equal filters, which makes the coherence 1, leaves the error as it was."""
    without, one, *_ = twins.values()
    change = abs(one.mean("error") - without.mean("error"))
    return one.coherence > 0.99 and change < TENTH * without.mean("error")


def paper() -> dict[str, dict[str, tuple[float, float]]]:
    """Coherence and error as the paper prints them, by filters and pooling.

    Under "learned, one place on" the coherence stands one place earlier in Table 4 than printed, as
    its learned row turns out to do where the weights are at hand.
    """
    book = notebook.claims.load()
    names = VGG16.convolutions
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for pool in (f"pool({i})" for i in range(1, 5)):
        layer = following(pool)
        before = names[names.index(layer) - 1]
        for words, kind, place in (
            ("learned", "learned", layer), ("learned, one place on", "learned", before),
            ("random", "random", layer),
        ):  # fmt: skip
            mu = float(book[f"table4.{kind}.{place.removeprefix('conv')}"].paper)
            found.setdefault(words, {})[pool] = mu, published("activation", kind, pool)
    return found


def verdict(found: Coherent) -> dict[str, Any]:
    """Arguments of `record` for section4.5.coherence; the value is that of a real network's four
    layers, in the reading as stated; a family's reading holds where it does for every draw."""
    value = None
    readings: dict[str, bool] = {}
    live = f"{found.words} ({found.photographs} photographs)"
    for reading in READINGS:
        judged = {
            f"{len(found.layers)} layers, learned beside random filters": within(found, reading),
            "learned filters from layer to layer": across(found, reading),
        }
        known = {what: each for what, each in judged.items() if each is not None}
        if found.real and len(found.layers) == 4 and reading == STATED:
            value = all(known.values())
        readings |= {f"{live}, {what}, {reading}": each for what, each in known.items()}
    for pool, families in found.families.items():
        for family, drawn in families.items():
            name = f"{live}, {following(pool)}, {family}"
            if family == "twins":
                harm = not all(map(harmless, drawn))
                readings[f"{name}: a pair of equal filters matters"] = harm
            else:
                readings[name] = min(ranks(drawn)) >= CRITERION
    return {
        "value": value,
        "readings": readings,
        "note": f"criterion, on {STATED}: the less coherent filters are better for {SHARE:.0%}"
        " of the photographs in every layer, and rank correlations are at least"
        f" {CRITERION:g}; {found.label}",
    }


def draw(found: Coherent) -> Figure:
    """Errors over coherences (left); what decides them, the ratio over the part kept (right)."""
    fig, (left, right) = figure(ncols=2, height=4.3)

    def mean(x: str, y: str) -> Callable[[Point], tuple[float, float]]:
        return lambda point: (
            point.coherence if x == "coherence" else point.mean(x), point.mean(y)
        )  # fmt: skip

    _draw(left, found, mean("coherence", "error"))
    _draw(right, found, mean("kept", "ratio"))
    left.set(xlabel="coherence", ylabel="error of one step", xlim=(-0.03, 1.12))
    right.set(xscale="log", yscale="log", xlabel=r"kept $\|z\|\,/\,\|f\|$",
              ylabel=r"ratio $\|W^Tz\|\,/\,\|z\|$")  # fmt: skip
    limits, (low, high) = right.get_xlim(), right.get_ylim()
    for error in (0.8, 1.0, 1.2, 1.35):
        cosine = 1 - error**2 / 2
        right.plot((cosine * low, cosine * high), (low, high), color="0.6", lw=0.8, ls=":",
                   zorder=0)  # fmt: skip
        top = high < limits[1] / cosine  # where the line leaves the axes
        at = high if top else limits[1] / cosine
        right.annotate(f"{error:g}", (cosine * at, at), (0, 2) if top else (3, 0), color="0.4",
                       textcoords="offset points", fontsize=9, ha="center" if top else "left",
                       va="bottom" if top else "center")  # fmt: skip
    right.set(xlim=limits, ylim=(low, high))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    right.set_xticks([0.5, 1, 2])
    right.set_yticks([1, 2, 4, 8])
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=6, frameon=False,
               columnspacing=1.0, handlelength=1.6)  # fmt: skip
    return fig


def _draw(
    ax: Axes, found: Coherent, at: Callable[[Point], tuple[float, float]]
) -> None:
    """All banks at their places: families as lines, learned ones with the number of their layer."""
    for i, families in enumerate(found.families.values()):
        style = "--" if i == 0 and len(found.families) > 1 else "-"
        for family, drawn in families.items():
            for k, members in enumerate(drawn):
                x, y = zip(*map(at, members.values()), strict=True)
                ax.plot(x, y, "o", ls=style, ms=2.5, lw=1, color=PALETTE[COLOURS[family]],
                        label=family if i == k == 0 else None)  # fmt: skip
    for i, (pool, layer) in enumerate(found.layers.items()):
        ax.plot(*at(layer.learned), "s", ms=9, color=PALETTE["blue"],
                label="learned" if i == 0 else None)  # fmt: skip
        ax.annotate(pool[5], at(layer.learned), fontsize=8, color="white", ha="center", va="center")
        x, y = zip(*map(at, layer.random), strict=True)
        ax.plot(x, y, "D", ms=4, color=PALETTE["vermillion"], label="random" if i == 0 else None)
