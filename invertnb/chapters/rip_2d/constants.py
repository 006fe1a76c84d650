"""delta_k of a layer three ways: sampled, attained by a code, and certified for all codes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch

from invertnb import FilterBank, coherence
from invertnb.chapters.rip_2d.ratios import WINDOW, deviation, sample
from invertnb.model import ModelSparse
from invertnb.rip import LocalRows, local_rows, spectral_bound, worst_code
from invertnb.theory import one_step

#: Where Theorem 3.3 as stated becomes vacuous, for delta_k = delta_2k.
VACUOUS = one_step.threshold(one_step.as_stated)
#: Shares of the windows that are filled; the last is that of conv(5,2) in Table 2.
FILLED = (0.01, 0.1, 0.824)
#: Side of the code: most of a map is like its middle, and a small one costs less.
SMALL = 8


@dataclass(frozen=True)
class Constants:
    """What is known of delta_k.

    Attributes:
        sampled: the largest ``|ratio^2 - 1|`` of random codes: typical ones.
        pair: the coherence, which two nonzeros attain.
        smallest, largest: ratios ``||W^T z||^2 / ||z||^2`` that codes of M_k attain.
        rows: Gershgorin's bound for k nonzeros, by others in a stripe.
        spectral: ``max(||W||^2 - 1, 1)``, which holds for every code.
    """

    k: int
    sampled: float
    pair: float
    smallest: float
    largest: float
    rows: LocalRows
    spectral: float

    @property
    def attained(self) -> float:
        """A lower bound on delta_k, for k of at least 2, with a code that proves it."""
        return max(self.pair, self.largest - 1, 1 - self.smallest)

    @property
    def certified(self) -> float:
        """An upper bound on delta_k."""
        return min(self.spectral, self.rows.bound(self.k - 1))


def by_filling(
    bank: FilterBank, samples: int, generator: torch.Generator, *, side: int = SMALL,
    filled: tuple[float, ...] = FILLED, starts: int = 1, steps: int = 10,
) -> dict[float, Constants]:
    """The three numbers for codes (K, side, side), full boundary, by share of filled windows."""
    whole, size = FilterBank(bank.weight), (side + bank.l - 1,) * 2
    spectral = spectral_bound(whole, size)
    rows = locally(bank, side)
    pair, found = float(coherence(bank.weight)), {}
    for share in filled:
        k = max(2, round(share * bank.K * (side // 2) ** 2))
        at = ModelSparse(WINDOW, k)
        ends = worst_code(whole, at, size, starts=starts, steps=steps, generator=generator)
        ratios = sample(bank, k, samples, generator, side=side).full
        found[share] = Constants(
            k, float(deviation(ratios).max()), pair, ends.smallest, ends.largest, rows, spectral
        )
    return found


def corner(bank: FilterBank) -> float:
    """delta_1 of the cropped layer: the most that a row loses, at a corner of the map."""
    edge = (bank.l - 1) // 2
    energy = bank.weight.double().square().sum(1)
    shapes = [
        energy[:, u : u + bank.l - edge, v : v + bank.l - edge].sum((1, 2))
        for u in (0, edge) for v in (0, edge)
    ]
    return 1 - float(torch.stack(shapes).min())


def locally(bank: FilterBank, side: int = SMALL) -> LocalRows:
    """Gershgorin's bound of a bank with full boundary, by others in a stripe, for any k.

    It does not depend on the side once a whole stripe fits in.
    """
    whole = FilterBank(bank.weight)
    return local_rows(whole, ModelSparse(WINDOW, None), (side + bank.l - 1,) * 2)


def allowed(rows: LocalRows, level: float) -> int:
    """The most others in a stripe with a certificate below a level, -1 where not even none is."""
    found = rows.largest(level)
    return -1 if found is None else found


def bound(delta: float) -> float:
    """Theorem 3.3 as stated, for delta_k = delta_2k = delta; infinite from 1 on."""
    return inf if delta >= 1 else one_step.as_stated(delta, delta)
