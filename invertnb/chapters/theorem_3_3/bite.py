"""Where Theorem 3.3 says something: certified constants over the number of channels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

from invertnb import FilterBank
from invertnb.chapters.theorem_3_3.layers import K, L, Layer, folded, up
from invertnb.notebook import Parameters
from invertnb.rip import Isometry, block_coherence, certify, gershgorin, semidefinite_bound
from invertnb.theory.one_step import BOUNDS

GRID = tuple(32 * 2**i for i in range(10))  # M, up to 16384
SPARSITIES = (1, 2, 5, 10)
PROGRAM_FROM = 5  # below this k the program is slow
HOPE = 0.7  # the program takes less than 30 percent off the row sums: do not try where more is needed
BANKS, SEARCHES = 1000, 100_000  # streams of draws


@functools.lru_cache(maxsize=32)
def bank(p: Parameters, M: int, unit_rows: bool = True) -> FilterBank:
    """The Gaussian bank with K = 96, l = 5 and M channels, folded to at most K l of them."""
    gaussian = FilterBank.gaussian(K, M, L, generator=p.generator(BANKS + M), device=p.device)
    return folded(gaussian.normalized() if unit_rows else gaussian)


@functools.lru_cache(maxsize=4)
def layer(p: Parameters, M: int) -> Layer:
    """The layer of this bank; its W W^T is large, so only a few are kept."""
    return Layer(bank(p, M))


@functools.cache
def rows(p: Parameters, M: int, k: int, order: int) -> float:
    """Gershgorin's upper bound; for two atoms of unit norm it is the constant itself."""
    return gershgorin(Layer(bank(p, M)).atoms(k, order))


@functools.cache
def searched(p: Parameters, M: int, k: int, order: int) -> Isometry:
    """The interval of delta_k (order 1) or delta_2k (order 2) from row sums and a search."""
    at = Layer(bank(p, M))
    stream = SEARCHES + 100 * M + 2 * k + order
    return certify(
        at.bank, at.model(k), at.size, order=order, sdp=False, starts=16,
        generator=p.generator(stream),
    )  # fmt: skip


@functools.cache
def programmed(p: Parameters, M: int, k: int, order: int) -> float:
    """The semidefinite bound; 1e-9 is more than rounding can take from it."""
    atoms = Layer(bank(p, M)).atoms(k, order)
    return semidefinite_bound(block_coherence(atoms), atoms.per_block, atoms.entries) + 1e-9


def isometry(p: Parameters, M: int, k: int, order: int) -> Isometry:
    """The certified interval that figures and tables show; see `program`."""
    found = searched(p, M, k, order)
    if order == 1 or not program(k, M):
        return found
    bound = programmed(p, M, k, order)
    return dataclasses.replace(found, upper=min(found.upper, bound), sdp=bound)


def ends(p: Parameters, M: int, k: int) -> tuple[float, float]:
    """The certified interval of delta_2k that the figure and the explorer show."""
    if k == 1:  # row sums are exact for two atoms of unit norm
        return max(rows(p, M, 1, 2) - 1e-9, 0.0), rows(p, M, 1, 2)
    found = isometry(p, M, k, 2)
    return found.lower, found.upper


def program(k: int, M: int) -> bool:
    """Whether to take the semidefinite program's bound: around the crossings, where it matters.

    There delta_2k, which goes like k / sqrt(M), is somewhat below 1.
    """
    return k >= PROGRAM_FROM and 10 <= M / k**2 <= 200


class Crossing(NamedTuple):
    """The grid of M for one k and one bound.

    Attributes:
        certified: the smallest M at which the bound is certified to lie below 1; None if none is.
        by: "rows" or "program", whichever certified it.
        vacuous: the largest M at which a code proves that the bound is 1 or more, or that
            delta_2k is; None if none does.
    """

    certified: int | None
    by: str
    vacuous: int | None


def value(bound, delta_k: float, delta_2k: float) -> float:
    """A bound of Theorem 3.3; infinite where delta_2k reaches 1 and the theorem says nothing."""
    return bound(min(delta_k, delta_2k), delta_2k) if delta_2k < 1 else float("inf")


def guarantees(delta_k: float, delta_2k: float) -> dict[str, float]:
    """All bounds at certified upper ends; infinite where the hypothesis is not certified."""
    return {name: value(bound, delta_k, delta_2k) for name, bound in BOUNDS.items()}


def verdict(guaranteed: float, vacuous: Callable[[], bool]) -> str:
    """A bound in words: its certified value, "vacuous", or "not certified"."""
    if guaranteed < 1:
        return up(guaranteed)
    return "vacuous" if vacuous() else "not certified"


def proved_vacuous(p: Parameters, M: int, k: int, bound) -> bool:
    """Whether codes prove that the bound is 1 or more, or that delta_2k is.

    The bounds increase with both constants, so lower ends of both serve; that of delta_k is
    searched for only where zero does not do.
    """
    twice = lower(p, M, k)
    if value(bound, 0.0, twice) >= 1:
        return True
    return k > 1 and value(bound, searched(p, M, k, 1).lower, twice) >= 1


def upper(p: Parameters, M: int, k: int, bound, sdp: bool = False) -> float:
    """The bound at the certified upper ends: what the theorem guarantees."""
    twice = min(rows(p, M, k, 2), programmed(p, M, k, 2)) if sdp else rows(p, M, k, 2)
    return value(bound, rows(p, M, k, 1), twice)


def crossing(p: Parameters, k: int, bound) -> Crossing:
    """Row sums first; where they fail, down the grid by the semidefinite program."""
    by_rows = [M for M in GRID if upper(p, M, k, bound) < 1]
    certified, by = (min(by_rows), "rows") if by_rows else (None, "")
    place = GRID.index(certified) if certified else len(GRID)
    while k >= PROGRAM_FROM and place > 0:
        M = GRID[place - 1]
        hoped = value(bound, rows(p, M, k, 1), HOPE * rows(p, M, k, 2))
        if hoped >= 1 or upper(p, M, k, bound, sdp=True) >= 1:
            break
        place -= 1
        certified, by = GRID[place], "program"
    # Further down, the codes found show from where on no certificate can help.
    proved = (M for M in reversed(GRID[:place]) if proved_vacuous(p, M, k, bound))
    return Crossing(certified, by, next(proved, None))


def lower(p: Parameters, M: int, k: int) -> float:
    """A certified lower bound on delta_2k; at k = 1 the constant itself."""
    return rows(p, M, 1, 2) if k == 1 else searched(p, M, k, 2).lower


@functools.cache
def crossings(p: Parameters) -> dict[tuple[int, str], Crossing]:
    """`Crossing` for every k and every bound."""
    return {
        (k, name): crossing(p, k, bound)
        for k in SPARSITIES
        for name, bound in BOUNDS.items()
    }
