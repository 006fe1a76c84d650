"""Does a smaller coherence bring better ratios and reconstructions? Layers, blends and twins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from invertnb import FilterBank, coherence
from invertnb.chapters.rip_2d.ratios import PERCENT, WINDOW, codes, nonzeros, width
from invertnb.model import ModelSparse
from invertnb.networks import Network

#: Side of the codes.
SIDE = 8
#: Share of a filter's energy that is one common filter; far enough apart that coherences, which
#: are maxima over pairs, keep their order from draw to draw.
BLENDS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7)
#: Pairs of equal filters.
TWINS = (0, 1, 8)
#: The rank correlation from which on "the smaller, the smaller" holds.
CRITERION = 0.8


class Point(NamedTuple):
    """One bank.

    Attributes:
        coherence: absolute, filters in place.
        delta: standard deviation of the squared ratio of random codes with signs, full boundary,
            as `ratios.width` has it, so free of chance.
        error: mean relative error of one step, the switches known, at the norm of the signal.
    """

    coherence: float
    delta: float
    error: float


def point(bank: FilterBank, samples: int, generator: torch.Generator, *, side: int = SIDE) -> Point:
    """The coherence of a bank beside what is said to go with it."""
    k = nonzeros(PERCENT, bank.K, side)
    z = codes(bank, k, samples, generator, side=side)
    whole = FilterBank(bank.weight)
    size = (side + bank.l - 1,) * 2
    x = whole.synthesis(z, size)
    error = one_step_error(x, whole, ModelSparse(WINDOW, k), size)
    return Point(float(coherence(bank.weight)), 2 * width(bank, side), float(error.mean()))


def one_step_error(
    x: Tensor, bank: FilterBank, model: ModelSparse, size: tuple[int, int]
) -> Tensor:
    """``||x - c x_hat|| / ||x||`` with x_hat = W^T M(Wx, k) at the norm of x, as in section 4.5."""
    x_hat = bank.synthesis(model.project(bank.analysis(x)).code, size)
    length = x.flatten(1).norm(dim=1)
    scale = (length / x_hat.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    return (x - scale * x_hat).flatten(1).norm(dim=1) / length


def layers(network: Network, samples: int, generator: torch.Generator) -> dict[str, Point]:
    """Every layer of a network that has more than three input channels."""
    return {
        name: point(network.bank(name), samples, generator)
        for name in network.convolutions[1:]
    }  # fmt: skip


def blends(K: int, M: int, samples: int, generator: torch.Generator) -> dict[str, Point]:
    """Random filters that share one filter, to a growing part."""
    banks = blended(K, M, generator)
    return {name: point(bank, samples, generator) for name, bank in banks}


def blended(K: int, M: int, generator: torch.Generator) -> Iterator[tuple[str, FilterBank]]:
    """The banks of `blends` with their names."""
    own = _random(K, M, generator)
    common = _random(1, M, generator)
    for share in BLENDS:
        mixed = (1 - share) ** 0.5 * own + share**0.5 * common
        yield f"{share:.0%} common", FilterBank(mixed).normalized()


def twins(K: int, M: int, samples: int, generator: torch.Generator) -> dict[str, Point]:
    """Random filters of which a few are there twice, which makes the coherence 1."""
    banks = twinned(K, M, generator)
    return {name: point(bank, samples, generator) for name, bank in banks}


def twinned(K: int, M: int, generator: torch.Generator) -> Iterator[tuple[str, FilterBank]]:
    """The banks of `twins` with their names, each drawn when it is asked for.

    Of fewer filters than two a pair, as many pairs as they can make.
    """
    for pairs in dict.fromkeys(min(pairs, K // 2) for pairs in TWINS):
        weight = _random(K, M, generator)
        weight[:pairs] = weight[K - pairs :] if pairs else weight[:0]
        yield f"{pairs} pairs", FilterBank(weight)


def _random(K: int, M: int, generator: torch.Generator) -> Tensor:
    return FilterBank.gaussian(
        K, M, 3, dims=2, generator=generator, dtype=torch.float32
    ).normalized().weight  # fmt: skip


def rank_correlations(points: dict[str, Point]) -> dict[str, float]:
    """Spearman's rank correlation of the coherence with delta, and with the error of one step."""
    mu = [each.coherence for each in points.values()]
    return {
        name: float(spearmanr(mu, [getattr(each, name) for each in points.values()]).statistic)
        for name in ("delta", "error")
    }


def worse(before: Point, after: Point, by: float = 0.1) -> bool:
    """Whether ratios and errors both grew by a tenth."""
    return after.delta > (1 + by) * before.delta and after.error > (1 + by) * before.error


def holds(correlations: dict[str, float]) -> bool:
    """The claim's criterion: both rank correlations reach CRITERION."""
    return all(value >= CRITERION for value in correlations.values())
