"""Lemmas B.1 to B.4 and Theorem 3.3, left side against right side, at toy size and at full size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.theorem_3_3 import bite, search
from invertnb.chapters.theorem_3_3.layers import (
    CHANNELS, Codes, Layer, Step, down, one_step, up,
)  # fmt: skip
from invertnb.notebook import Parameters
from invertnb.rip import exact_constant
from invertnb.theory import lemmas, one_step as theory

# Toy layers: every support of M_2 and of its sums can be tried.
TOY_K, TOY_L, TOY_D = 5, 3, 6
TOY_CHANNELS = (4, 8, 16, 32, 64, 128, 256)
ANGLES = 360
#: The full sizes at which the lemmas are searched: Figure 2's, and two with certified constants.
FULL_CHANNELS = (CHANNELS, 2048, 16384)
TOYS, SEARCH, CLIMB = 10, 20, 30  # streams of draws


class Row(NamedTuple):
    """One inequality: its left side at the worst found, its right side for either end of delta.

    `least` and `most` are the right side at the lower and the upper end of the constants (equal
    where these are exact); None where the inequality says nothing because delta_2k reaches 1.
    """

    name: str
    left: float
    least: float | None
    most: float | None

    @property
    def holds(self) -> bool | None:
        """Whether left <= right at the certified upper end."""
        return None if self.most is None else self.left <= self.most + 1e-12

    @property
    def tightness(self) -> tuple[float, float] | None:
        """left / right lies between these two."""
        if self.most is None or self.least is None:
            return None
        return self.left / self.most, min(self.left / self.least, 1.0)


class Study(NamedTuple):
    """One layer: its constants (lower and upper ends), its worst codes found, and all rows."""

    k: int
    channels: int
    delta_k: tuple[float, float]
    delta_2k: tuple[float, float]
    worst: search.Worst
    random: Step
    rows: list[Row]


def right(bound, delta_k: float, delta_2k: float) -> float | None:
    """A bound of `theory.one_step`; None where it needs delta_2k < 1 and that fails."""
    if delta_2k >= 1 and bound not in ANY:
        return None
    return bound(min(delta_k, delta_2k), delta_2k)


# These need no delta_2k < 1.
ANY = (theory.identification_tight, theory.estimation_golden)
STATED = {
    "B.3 (stated)": ("missed", theory.identification),
    "B.3 (ours)": ("missed", theory.identification_tight),
    "B.4 (stated)": ("code", theory.estimation),
    "B.4 (last line but one)": ("code", theory.estimation_penultimate),
    "B.4 (ours)": ("code", theory.estimation_golden),
    "3.3 (stated)": ("signal", theory.as_stated),
    "3.3 (last line but one)": ("signal", theory.penultimate),
    "3.3 (ours)": ("signal", theory.golden),
}


def rows_of(
    layer: Layer, k: int, delta_k: tuple[float, float], delta_2k: tuple[float, float],
    worst: search.Worst, supports: Tensor, pairs: tuple[Tensor, Tensor],
) -> list[Row]:
    """Every lemma at the supports and codes given."""
    found = []
    for name in ("(5)", "(6)", "(7)"):
        ends = [lemmas.lemma_b1(layer.atoms(k), supports, delta)[name] for delta in delta_k]
        tight = int((ends[1].left / ends[1].right).argmax())
        # (7) has its delta on the left.
        found.append(Row(
            f"B.1 {name}",
            *((float(ends[1].left[tight]), *(float(end.right[tight]) for end in ends))
              if name != "(7)" else _turned(ends, tight)),
        ))  # fmt: skip
    b2 = float(lemmas.lemma_b2(layer.atoms(k), *pairs, delta_2k[1]).left.max())
    found.append(Row("B.2", b2, *delta_2k))
    for name, (objective, bound) in STATED.items():
        ends = [right(bound, *both) for both in zip(delta_k, delta_2k, strict=True)]
        found.append(Row(name, getattr(worst, objective), *ends))
    return found


def _turned(ends: list, tight: int) -> tuple[float, float, float]:
    """1 - ||W_Om W_Om^T z|| <= delta: the same inequality as (7), with delta on the right."""
    least = float(ends[1].right[tight])
    return (1 - least, *(1 - float(end.left[tight]) for end in ends))


def toy(p: Parameters, M: int, draw: int = 0) -> Study:
    """A toy layer with k = 2: constants and lemmas by enumeration, codes by a scan of angles."""
    generator = p.generator(TOYS + 100 * M + draw)
    layer = Layer(FilterBank.gaussian(TOY_K, M, TOY_L, generator=generator).normalized(), TOY_D)
    delta_k, delta_2k = (
        exact_constant(layer.bank, layer.model(2), TOY_D, order=order) for order in (1, 2)
    )
    worst = search.exhaust(layer, ANGLES)
    supports = torch.cat(list(layer.atoms(2).every_support()))
    some = torch.arange(len(supports))
    pairs = torch.cartesian_prod(some, some)
    both = supports[pairs[:, 0]], supports[pairs[:, 1]]
    ends = (delta_k, delta_k), (delta_2k, delta_2k)
    rows = rows_of(layer, 2, *ends, worst, supports, both)
    random = one_step(layer, layer.sample(2, 500, generator))
    return Study(2, M, *ends, worst, random, rows)


def full(p: Parameters, M: int, k: int, codes: int, climbers: int, rounds: int) -> Study:
    """A layer of Figure 2's K, l and D: certified constants, and a search for the worst."""
    layer = bite.layer(p, M)
    once, twice = (bite.isometry(p, M, k, order) for order in (1, 2))
    generator = p.generator(SEARCH + 100 * M + k)
    starts = search.starting_codes(layer, k, climbers, [once.code, twice.code], generator)
    worst = search.climb(layer, starts, rounds, p.generator(CLIMB + 100 * M + k))
    # The witness of delta_k attains it.
    witness = layer.codes(once.code.to(layer.bank.weight), k)
    supports = [search.extreme_supports(layer, k, starts, sign) for sign in (1, -1)]
    supports = torch.cat([witness.index, *supports])
    pairs = search.opposite_supports(layer, k, Codes(starts.index, starts.values))
    ends = (once.lower, once.upper), (twice.lower, twice.upper)
    rows = rows_of(layer, k, *ends, worst, supports, pairs)
    random = one_step(layer, layer.sample(k, codes, generator))
    return Study(k, M, *ends, worst, random, rows)


def table(study: Study) -> str:
    """Left, right and tightness of each row of a study."""
    lines = [f"{'':26}{'left':>7}{'right':>18}{'left / right':>18}"]
    for row in study.rows:
        if row.most is None:
            lines.append(f"{row.name:26}{row.left:7.2f}{'says nothing':>18}{'-':>18}")
            continue
        exact = row.least == row.most
        if exact:
            lines.append(
                f"{row.name:26}{row.left:7.3f}{row.most:18.3f}{row.left / row.most:18.3f}"
            )
        else:
            low, high = row.tightness
            lines.append(
                f"{row.name:26}{down(row.left):>7}{f'{down(row.least)} to {up(row.most)}':>18}"
                f"{f'{low:.2f} to {high:.2f}':>18}"
            )
    return "\n".join(lines)


