"""Random filters of VGG-16's sizes: their inner products, and the random row of Table 4."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.proposition_1.coherence_law import (
    CoherenceLaw,
    deviation_test,
    leading_order,
    resampling_test,
    score_test,
)
from invertnb.notebook import PALETTE, Choice, Explorer, View, claims, figure

#: Filters K and input channels M of VGG-16's convolutions, each 3 x 3: the columns of Table 4.
LAYERS = {
    "(1,1)": (64, 3), "(1,2)": (64, 64), "(2,1)": (128, 64), "(2,2)": (128, 128),
    "(3,1)": (256, 128), "(3,2)": (256, 256), "(3,3)": (256, 256), "(4,1)": (512, 256),
    "(4,2)": (512, 512), "(4,3)": (512, 512), "(5,1)": (512, 512), "(5,2)": (512, 512),
    "(5,3)": (512, 512),
}  # fmt: skip
SIDE = 3
READINGS = ("absolute", "signed")
COLOURS = {"absolute": "blue", "signed": "green"}
BINS = 81  # of the histograms of inner products


def inner_products(bank: FilterBank) -> Tensor:
    """<w_i, w_j> of the unit filters for i < j, (K (K - 1) / 2,): rows of W in place."""
    w = bank.normalized().weight.flatten(1)
    above = torch.triu_indices(bank.K, bank.K, 1, device=w.device)
    return (w @ w.T)[above[0], above[1]]


def shifted_extremes(bank: FilterBank) -> tuple[float, float]:
    """Smallest and largest inner product of two unit rows that are shifted against each other.

    For images (dims = 2) at stride 1. A shift (a, b) and its negative give the same products, so
    half of the shifts suffice; of each, only the taps that overlap are multiplied.
    """
    w, reach = bank.normalized().weight, bank.l - 1
    lowest, highest = math.inf, -math.inf
    for a in range(reach + 1):
        for b in range(-reach if a else 1, reach + 1):
            first = w[:, :, a:, max(b, 0) : bank.l + min(b, 0)].flatten(1)
            second = w[:, :, : bank.l - a, max(-b, 0) : bank.l + min(-b, 0)].flatten(1)
            low, high = (first @ second.T).aminmax()
            lowest, highest = min(lowest, float(low)), max(highest, float(high))
    return lowest, highest


@dataclass(frozen=True)
class RandomFilters:
    """Banks of K filters (M, 3, 3): (draws, 2) lowest and highest inner products of distinct rows.

    `place` compares filters in place, `shifts` over all shifts (None: not compared at this size);
    `products` are those of the first draw, for the histogram.
    """

    K: int
    M: int
    place: Tensor
    shifts: Tensor | None
    products: Tensor

    def coherence(self, reading: str, shifts: str = "zero") -> Tensor:
        """The coherence of every draw in one of READINGS, (draws,)."""
        low, high = (self.place if shifts == "zero" else self.shifts).unbind(1)
        return high if reading == "signed" else torch.maximum(high, -low)

    @property
    def d(self) -> int:
        """Entries of a filter, M l^2."""
        return self.M * SIDE**2

    def law(self, reading: str) -> CoherenceLaw:
        """What theory predicts for the zero-shift coherence."""
        return CoherenceLaw(self.K, self.d, reading == "signed")


def draw_filters(
    K: int, M: int, generators: Iterable[torch.Generator], *, all_shifts: bool, device: str = "cpu"
) -> RandomFilters:
    """Draw one bank of N(0, 1) filters from each generator, and compare its rows."""
    place, shifts, first = [], [], None
    for generator in generators:
        bank = FilterBank.gaussian(K, M, SIDE, dims=2, generator=generator, device=device)
        products = inner_products(bank)
        low, high = map(float, products.aminmax())
        place.append((low, high))
        if all_shifts:
            lower, higher = shifted_extremes(bank)
            shifts.append((min(low, lower), max(high, higher)))
        first = products.cpu() if first is None else first
    kept = torch.tensor(shifts, dtype=torch.float64) if all_shifts else None
    return RandomFilters(K, M, torch.tensor(place, dtype=torch.float64), kept, first)


def published() -> dict[str, float]:
    """Table 4's random row, by layer."""
    book = claims.load()
    return {layer: book[f"table4.random.{layer}"].paper for layer in LAYERS}


def row_tests(
    filters: Mapping[str, RandomFilters], reading: str, generator: torch.Generator
) -> dict[str, float]:
    """Three probabilities of a row as odd as the paper's, if it is one draw in this reading."""
    row = [published()[layer] for layer in filters]
    laws = [bank.law(reading) for bank in filters.values()]
    samples = [bank.coherence(reading) for bank in filters.values()]
    return {
        "deviations, draws": resampling_test(row, samples, generator),
        "deviations, law": deviation_test(row, laws, generator),
        "scores, law": score_test(row, laws),
    }


def draw_coherence(filters: Mapping[str, RandomFilters]):
    """Coherence by layer: theory, draws and the paper's row; and the row's place in each law."""
    fig, (left, right) = figure(ncols=2, height=3.6, gridspec_kw={"width_ratios": [3, 2]})
    row, banks, place = published(), list(filters.values()), range(len(filters))
    left.plot(
        place, [leading_order(bank.K, bank.d) for bank in banks], ":",
        color=PALETTE["black"], label=r"$\sqrt{2\log N/d}$",
    )  # fmt: skip
    for (reading, colour), shift in zip(COLOURS.items(), (-0.13, 0.13), strict=True):
        laws = [bank.law(reading) for bank in banks]
        ends = [[float(law.quantile(q)) for law in laws] for q in (0.05, 0.95)]
        at = [i + shift for i in place]
        left.vlines(at, *ends, color=PALETTE[colour], lw=5, alpha=0.5, label=f"law, {reading}")
        left.plot(at, [float(b.coherence(reading).mean()) for b in banks], "_", ms=9,
                  color=PALETTE[colour])  # fmt: skip
        levels = [float(law.probability(x)) for law, x in zip(laws, row.values(), strict=True)]
        right.plot(levels, place, "o", ms=6, color=PALETTE[colour], label=reading)
    left.plot(place, list(row.values()), "x", ms=6, color=PALETTE["vermillion"], label="paper")
    left.set(yscale="log", ylabel="coherence", xticks=place, yticks=[0.05, 0.1, 0.2, 0.5])
    left.set_yticklabels(["0.05", "0.1", "0.2", "0.5"])
    left.tick_params(which="minor", labelleft=False)
    left.set_xticklabels(LAYERS, rotation=60)
    left.legend(frameon=False)
    right.axvline(0.5, color=PALETTE["black"], lw=0.8)
    right.set(xlabel="probability of a smaller value", yticks=place, xlim=(-0.02, 1.02))
    right.set_yticklabels(LAYERS)
    right.invert_yaxis()
    right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig


def explorer(filters: Mapping[str, RandomFilters]) -> Explorer:
    """All inner products of one random bank per layer, with the paper's number."""
    row = published()

    def show(layer: str) -> View:
        bank = filters[layer]
        low, high = bank.place[0].tolist()
        fig, ax = figure()
        reach = 1.1 * max(high, -low, row[layer])
        ax.hist(bank.products, bins=BINS, range=(-reach, reach), histtype="stepfilled",
                color="#c9d1d9", log=True)  # fmt: skip
        for reading, colour in COLOURS.items():
            ends = map(float, bank.law(reading).quantile((0.05, 0.95)))
            ax.axvspan(*ends, alpha=0.35, color=PALETTE[colour], lw=0, label=f"law, {reading}")
        ax.axvline(low, color=PALETTE["black"], lw=1.5, ls=":", label="smallest")
        ax.axvline(high, color=PALETTE["black"], lw=1.5, label="largest")
        ax.axvline(row[layer], color=PALETTE["vermillion"], ls="--", label="paper")
        ax.set(xlabel=r"$\langle w_i, w_j\rangle$", ylabel="pairs of filters")
        ax.minorticks_off()
        ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
        # Fixed margins: quicker than a computed layout, and no frame is displaced.
        fig.set_layout_engine(None)
        fig.subplots_adjust(left=0.09, right=0.98, bottom=0.17, top=0.88)
        values = {"smallest": low, "largest": high, "paper": row[layer]}
        for reading in READINGS:
            law = bank.law(reading)
            values[f"{reading} coherence, as the law expects it"] = law.mean
            values[f"{reading}: probability of a value below the paper's"] = float(
                law.probability(row[layer])
            )
        values["nearest partner, degrees from -w"] = math.degrees(math.acos(-low))
        return View(fig, values)

    return Explorer(
        "random-coherence", [Choice("layer", list(LAYERS), "layer", "(1,2)")], show,
        alt="Histogram of the inner products of random filters of conv{layer}, with the coherence "
        "that theory expects in both readings and the paper's number.",
        caption="Every pair of filters of one random bank. The smallest product is the nearest "
        "that two of them come to being a pair; the bands hold 90 % of the draws of each coherence.",
    )  # fmt: skip
