"""Chapter 6: Theorem 3.3, what one step reconstructs (section 3.2 and appendix B).

The lemmas of appendix B are evaluated where a search makes them as bad as it can, the theorem's
bound is set beside the worst error found, and certified isometry constants say at which sizes it
promises anything. `layers` holds the layers, `search` the searches, `lemmas` left and right sides,
`bite` the certificates over the number of channels, `steps` what stands beside the theorem.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import notebook
from invertnb.chapters.theorem_3_3 import bite, lemmas, sharp, steps
from invertnb.chapters.theorem_3_3.figures import (  # noqa: F401
    bound_explorer, draw_bite, draw_gap, draw_histogram, draw_studies,
)  # fmt: skip
from invertnb.chapters.theorem_3_3.layers import CHANNELS, SPARSITY, interval, one_step
from invertnb.notebook import Explorer, Slider, View, parameter
from invertnb.notebook.figures import Figure
from invertnb.rip import Isometry, sample_extremes, sample_ratios

PAPER = {"codes": 3000, "supports": 20_000, "climbers": 192, "rounds": 600, "toys": 5}

GAP, EXPLORED = 50, 60  # streams of draws
#: The explorer's sizes, which are drawn as a figure too.
EXPLORER_CHANNELS = (32, 128, 512, 2048, 8192)


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """How much is drawn and searched; the sizes are those of Figure 2."""

    codes: int = parameter(300, minimum=10, help="random codes at each full size")
    supports: int = parameter(2000, minimum=10, help="random supports at Figure 2's size")
    climbers: int = parameter(48, minimum=6, help="codes that climb towards larger errors")
    rounds: int = parameter(60, minimum=1, help="rounds of that search")
    toys: int = parameter(2, minimum=1, help="toy layers for each number of channels")


class Gap(NamedTuple):
    """One constant at Figure 2's size, sampled and certified.

    Attributes:
        codes: ``| ||W^T z||^2 / ||z||^2 - 1 |`` of random codes.
        supports: the largest such value on each of the random supports.
        certified: the interval.
    """

    codes: Tensor
    supports: Tensor
    certified: Isometry


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        toys: toy layers, by enumeration.
        full: the layers of `lemmas.FULL_CHANNELS` at k = 10, by search.
        gaps: delta_k and delta_2k at Figure 2's size, by order.
        crossings: where the bounds bite, by k and the bound's name.
        intervals: certified delta_2k by (k, M), for the figure and the explorer.
        baselines: one step beside least squares, by M.
        switches: one step with other switches.
        contraction: the largest factors of an iteration, by M and algorithm.
    """

    toys: tuple[lemmas.Study, ...]
    full: Mapping[int, lemmas.Study]
    gaps: Mapping[int, Gap]
    crossings: Mapping[tuple[int, str], bite.Crossing]
    intervals: Mapping[tuple[int, int], tuple[float, float]]
    baselines: Mapping[int, steps.Baselines]
    switches: steps.Switches
    contraction: Mapping[int, Mapping[str, float]]


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    full = {
        M: lemmas.full(p, M, SPARSITY, p.codes, p.climbers, p.rounds) for M in lemmas.FULL_CHANNELS
    }
    baselines, switches = steps.of_both_sizes(p, p.codes)
    return Data(
        toys=tuple(lemmas.toy(p, M, i) for M in lemmas.TOY_CHANNELS for i in range(p.toys)),
        full=full,
        gaps={order: gap(p, order) for order in (1, 2)},
        crossings=bite.crossings(p),
        intervals={
            (k, M): bite.ends(p, M, k) for k in bite.SPARSITIES for M in EXPLORER_CHANNELS
        },
        baselines=baselines,
        switches=switches,
        contraction={M: _contraction(p, full[M]) for M in lemmas.FULL_CHANNELS[1:]},
    )


def gap(p: Parameters, order: int) -> Gap:
    """delta_k (order 1) or delta_2k (order 2) at Figure 2's size."""
    at, generator = bite.layer(p, CHANNELS), p.generator(GAP + order)
    arguments = at.bank, at.model(SPARSITY), at.size, p.supports
    ratios = sample_ratios(*arguments, order=order, generator=generator).synthesis
    extremes = sample_extremes(*arguments, order=order, generator=generator)
    return Gap(
        (ratios.square() - 1).abs().cpu(), (extremes - 1).abs().amax(1).cpu(),
        bite.isometry(p, CHANNELS, SPARSITY, order),
    )  # fmt: skip


def _contraction(p: Parameters, study: lemmas.Study) -> dict[str, float]:
    at = bite.layer(p, study.channels)
    random = at.sample(study.k, p.codes, p.generator(GAP))
    found = [steps.contractions(p, study.channels, z) for z in (random, study.worst.codes)]
    return {name: max(each[name] for each in found) for name in found[0]}


def draw(data: Data) -> Figure:
    """Bounds against the worst errors found, over delta_2k."""
    attained = {delta: sharp.attained(delta) for delta in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}
    return draw_studies([*data.toys, *data.full.values()], attained)


def explorer(parameters: Parameters | None = None) -> Explorer:
    """One-step errors of random codes at (k, M), with the certified bounds."""
    p = Parameters() if parameters is None else parameters

    @functools.cache
    def errors_at(k: int, M: int) -> Tensor:
        at = bite.layer(p, M)
        return one_step(at, at.sample(k, p.codes, p.generator(EXPLORED + 100 * M + k))).signal

    def show(M: int, k: int) -> View:
        lower, upper = bite.ends(p, M, k)
        errors = errors_at(k, M).cpu()
        guaranteed = bite.guarantees(bite.rows(p, M, k, 1), upper)
        values = {"delta_2k in": interval(lower, upper)}
        values |= {
            name: bite.verdict(
                guaranteed[name], functools.partial(bite.proved_vacuous, p, M, k, bound)
            )
            for name, bound in bite.BOUNDS.items()
        }
        values["largest error seen"] = f"{errors.max():.3f}"
        return View(draw_histogram(errors, guaranteed), values)

    return Explorer(
        "one-step",
        [
            Slider("M", EXPLORER_CHANNELS, "channels M", default=512),
            Slider("k", bite.SPARSITIES, "sparsity k", default=2),
        ],
        show,
        alt="Histogram of one-step errors of random codes at k = {k} with M = {M} channels, and "
        "the certified bounds of Theorem 3.3 that are below 1 as vertical lines",
        caption=f"Relative errors of one step on {p.codes} random codes, unit rows, K = 96, l = 5, "
        "D = 32. Vertical lines: the three bounds at the upper end of the certified interval, "
        "where they are below 1. Vacuous: the bound is 1 or more even at the lower end. Not "
        "certified: the interval does not decide.",
    )
