"""The bound of Theorem 3.3 beside measured errors.

The code z = M(W f, k) is itself a member of M_k. Its ratio ``||W^T z|| / ||z||`` shows that no
isometry constant below ``|ratio^2 - 1|`` will do; a search finds codes that are farther off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from invertnb import FilterBank, ModelSparse
from invertnb.chapters.inverting_vgg.activation import (
    LEARNED, RANDOM, STATED, WINDOW, Reading, Step, windows_kept,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.inputs import COHERENT, Inputs
from invertnb.rip import worst_code
from invertnb.theory import one_step

#: Where the theorem, as stated and in our form, begins to promise less than an f_hat of zero does.
VACUOUS = one_step.threshold(one_step.as_stated)
VACUOUS_GOLDEN = one_step.threshold(one_step.golden)
#: Side of the maps that the search runs on. In larger ones the code may be zero outside, and W^T z
#: only gains what the border of the small map cut off: its ratio is no smaller there.
SIDE = 14
STARTS, STEPS = 1, 6


class Bound(NamedTuple):
    """What Theorem 3.3 can say of one layer.

    Attributes:
        error: the mean measured error.
        own: the largest ``|ratio^2 - 1|`` among the photographs' own codes, at most delta_k.
        found: ratio^2 - 1 of a code that was searched for, on maps of at most `SIDE`.
    """

    error: float
    own: float
    found: float

    @property
    def delta(self) -> float:
        """delta_2k >= delta_k >= this."""
        return max(self.own, self.found)

    @property
    def bound(self) -> float | None:
        """The theorem's right side cannot be less than this; None where its hypothesis fails."""
        return one_step.as_stated(self.delta, self.delta) if self.delta < 1 else None

    @property
    def words(self) -> str:
        """What becomes of the theorem."""
        if self.bound is None:
            return "hypothesis fails"
        return f"vacuous, at least {self.bound:.1f}" if self.bound >= 1 else f"{self.bound:.2f}"


def compute(
    inputs: Inputs, steps: Mapping[str, Mapping[str, Mapping[Reading, Step]]],
    generator: Callable[[int], torch.Generator], reading: Reading = STATED,
) -> dict[str, dict[str, Bound]]:
    """By pooling and filters; in the reading that the theorem is about."""
    found: dict[str, dict[str, Bound]] = {}
    for pool in inputs.pools:
        side = min(SIDE, *inputs.f[pool].shape[2:])
        side -= side % WINDOW[0]
        found[pool] = {}
        for name, bank in ((LEARNED, inputs.learned[pool]), (RANDOM, inputs.random[pool][0])):
            own = steps[pool][name][reading]
            far = _search(bank, reading, pool, side, generator(COHERENT + 50 + int(pool[5])))
            off = float((own.ratio.square() - 1).abs().max())
            found[pool][name] = Bound(float(own.error.mean()), off, far)
    return found


def _search(
    bank: FilterBank, reading: Reading, pool: str, side: int, generator: torch.Generator
) -> float:
    """ratio^2 - 1 of a code of the model on small maps, the same share of its windows filled."""
    k = windows_kept(reading.keep, pool, bank.K * (side // WINDOW[0]) ** 2)
    ends = worst_code(
        bank, ModelSparse(WINDOW, k), (side, side), starts=STARTS, steps=STEPS, generator=generator
    )
    return ends.largest - 1
