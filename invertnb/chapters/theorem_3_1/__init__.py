"""Chapter 5: Theorem 3.1, random filters have the model-RIP, and Corollary 3.2.

The proof of appendix A step by step, ours beside it, and what samples, certificates and exact
constants say of the same layers. The experiments are in `tails` (one code, many layers), `rate`
(M l against M l^2 / D), `constants` (many codes, one layer) and `dictionaries`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from invertnb.chapters.theorem_3_1 import constants, rate, tails
from invertnb.chapters.theorem_3_1.constants import Phases, Row
from invertnb.chapters.theorem_3_1.rate import Point
from invertnb.chapters.theorem_3_1.tails import Tails
from invertnb.notebook import Choice, Explorer, Parameters as Base, Slider, View, parameter
from invertnb.notebook.figures import Figure
from invertnb.theory import model_rip, one_step

PAPER = {"draws": 40_000, "layers": 10, "samples": 100_000}

#: Grid of the phase diagram.
SPARSITIES = (1, 2, 5, 10, 20)
CHANNELS = tuple(2**i for i in range(3, 13))
DELTA, EPS = 0.5, 0.01


@dataclass(frozen=True)
class Parameters(Base):
    """Sizes of the experiments; those of the layer are Figure 2's by default."""

    draws: int = parameter(4000, minimum=100, help="layers drawn for the law of one code")
    layers: int = parameter(2, minimum=2, help="layers at each size of the sweeps, and certified")
    samples: int = parameter(10_000, minimum=100, help="random codes for one layer")
    k: int = parameter(10, minimum=2, help="nonzeros of a code")
    K: int = parameter(96, minimum=20, help="filters")
    M: int = parameter(32, minimum=1, help="channels")
    l: int = parameter(5, minimum=2, help="filter length")
    D: int = parameter(32, minimum=2, help="signal length")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l + 1 > self.D:
            raise ValueError(f"l={self.l}: expected less than the signal length D={self.D}")
        if self.k > self.K:
            raise ValueError(f"k={self.k}: expected at most the {self.K} blocks")

    @property
    def n(self) -> int:
        """Shifts of a filter, the length of a block (stride 1)."""
        return self.D - self.l + 1

    @property
    def layer(self) -> model_rip.Layer:
        """The sizes that enter the bounds."""
        return model_rip.Layer(self.M * self.l, self.K, self.n)


@dataclass(frozen=True)
class Data:
    """What the chapter's experiments gave; see the modules of the same names."""

    tails: Tails
    sweeps: dict[str, list[Point]]
    toy: list[Row]
    figure_2: list[Row]
    phases: Phases


def compute(p: Parameters) -> Data:
    """Run every experiment, each from a stream of draws of its own."""
    sizes = {"K": p.K, "M": p.M, "l": p.l, "D": p.D, "k": p.k}
    return Data(
        tails.compute(**sizes, draws=p.draws, generator=p.generator(1)),
        rate.compute(p.K, p.k, p.layers, p.samples // 10, p.generator(2), p.device),
        constants.toy(p.samples // 5, p.generator(3)),
        constants.figure_2(
            **sizes, seeds=p.layers, samples=p.samples, generator=p.generator(4), device=p.device
        ),
        constants.phases(
            p.K, p.l, p.D, SPARSITIES, CHANNELS, EPS, p.samples // 20, DELTA, p.generator(5), p.device
        ),
    )


def draw(data: Data) -> Figure:
    """The law of ||W^T z||^2 for one code, with its bounds."""
    return tails.draw(data.tails)


def explorer(data: Data) -> Explorer:
    """The phase diagram for any level delta."""
    phases = data.phases

    def show(delta: float) -> View:
        found = constants.verdicts(phases, delta)
        misled = (phases.sampled <= delta) & (found == 0)
        numbers = {
            "certified yes": f"{int((found == 2).sum())} of {found.numel()} layers",
            "certified no": int((found == 0).sum()),
            "sample says yes, a code says no": int(misled.sum()),
        }
        return View(constants.draw_phases(phases, delta), numbers)

    levels = (0.1, 0.147, 0.2, 0.3, 0.403, 0.5, 0.6, 0.8, 1.0)
    return Explorer(
        "phases",
        [Slider("delta", levels, "level δ", default=DELTA, live=[i / 50 for i in range(2, 76)])],
        show,
        alt="Phase diagram over sparsity and channels at the level delta = {delta}",
        caption="Is δ_k at most δ? One Gaussian layer a column; K = 96, l = 5, D = 32. "
        "Orange: a code proves that it is not. Blue: a certificate proves that it is. Gray: neither (the "
        "semidefinite certificate was asked near δ = 0.5 only). "
        "Dot: random supports saw no deviation above δ. Triangle: our version of Theorem 3.1 "
        "promises it with probability 0.99.",
    )


# The map of the sizes explorer: a column of pixels for each quarter octave of M, a row for each k.
MAP_WIDTH, MAP_HEIGHT = 64, 40
SHADES = {"nothing": (232, 232, 232), "rip": (142, 199, 232), "bites": (0, 90, 150), "here": (0, 0, 0)}


@functools.cache
def _needed(K: int, n: int, eps: float) -> np.ndarray:
    """Weights a filter needs for delta_k < 1 and for Theorem 3.3 to bite, (MAP_HEIGHT, 2)."""
    bite = one_step.threshold(one_step.golden)
    return np.array([
        [model_rip.weights_needed(model_rip.Layer(1, K, n), k, delta, eps, order)
         for delta, order in ((1.0, 1), (bite, 2))]
        for k in range(1, MAP_HEIGHT + 1)
    ])  # fmt: skip


def sizes_explorer() -> Explorer:
    """What the theorems promise for a layer of given size."""

    def show(l: int, M: int, K: int, D: int, k: int, eps: float) -> View:
        layer = model_rip.Layer(M * l, K, D - l + 1)
        picture = np.empty((MAP_HEIGHT, MAP_WIDTH, 3), np.uint8)
        picture[:] = SHADES["nothing"]
        weights = l * 2 ** (np.arange(MAP_WIDTH) / 4)
        needed = _needed(K, layer.n, eps)
        for column, name in enumerate(("rip", "bites")):
            picture[weights >= needed[:, column : column + 1]] = SHADES[name]
        at = min(MAP_WIDTH - 1, round(4 * math.log2(M)))
        picture[k - 1, max(0, at - 1) : at + 2] = picture[max(0, k - 2) : k + 1, at] = SHADES["here"]
        one, two = (model_rip.isometry_bound(layer, k, eps, order) for order in (1, 2))
        error = one_step.golden(min(one, two), two) if two < 1 else math.inf
        bite = one_step.threshold(one_step.golden)
        numbers = {
            "M l": M * l,
            "M l² / D, the paper's quantity": f"{M * l**2 / D:.3g}",
            "our bound on δ_k": _or_nothing(one),
            "our bound on δ_2k": _or_nothing(two),
            "one step then errs by at most": _or_nothing(error),
            "δ_k is above 1/2 with probability, at most: ours": _chance(
                model_rip.failure_bound(layer, k, DELTA)
            ),
            "Theorem 3.1 with C = 60": _chance(
                model_rip.paper_failure(
                    DELTA, l=l, M=M, D=D, K=K, n=layer.n, k=k, C=model_rip.EXPLICIT_C[1]
                )
            ),
            "M l from which it errs by less than 1": model_rip.weights_needed(layer, k, bite, eps, 2),
        }
        return View(picture[::-1].copy(), numbers)

    def live(most: int) -> list[int]:
        return [round(2 ** (i / 2)) for i in range(2, 2 * int(math.log2(most)) + 1)]

    return Explorer(
        "theorem-3-1",
        [
            Slider("M", (32, 128, 512, 2048, 8192), "channels M", default=512, live=live(2**15)),
            Slider("k", (1, 2, 5, 20), "sparsity k", default=2, live=range(1, MAP_HEIGHT + 1)),
            Slider("l", (5, 11), "filter length l", default=5, live=range(2, 16)),
            Choice("K", [96, 512], "filters K"),
            Choice("D", [32, 224], "signal length D"),
            Choice("eps", {"1 %": 0.01, "one in a million": 1e-6}, "failure probability ε"),
        ],
        show,
        alt="Map of what our version of the theorems promises over channels and sparsity, with a cross "
        "at M = {M}, k = {k}; filters of length {l}, K = {K}, D = {D}, failure probability {eps}",
        caption="Across: channels M from 1 to 55,000, four columns an octave. Up: sparsity k from 1 to "
        "40. Gray: the theorem promises nothing. Light blue: δ_k < 1. Dark blue: δ_2k so small that "
        "the bound of the next chapter on the error of one step is below 1. Cross: the layer chosen.",
    )


def _chance(probability: float) -> str:
    return "1: says nothing" if probability == 1 else f"{probability:.1e}"


def _or_nothing(bound: float) -> str:
    return f"{bound:.3f}" if bound < 1 else "1 or more: says nothing"
