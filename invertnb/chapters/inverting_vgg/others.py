"""What the paper leaves out beside its one step: more iterations, and other ways back from a layer.

Everything here runs on the middle of a map, SIDE x SIDE entries, which is all of pool(4) for
photographs of 224 pixels: the same number of places for all layers, and a thirtieth of the time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import (
    FilterBank, ModelSparse, check, iht, random_activations, reconstruct, relative_error,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.activation import KEEP, LEARNED, RANDOM, WINDOW, windows_kept
from invertnb.chapters.inverting_vgg.inputs import OTHERS, Inputs, middle
from invertnb.notebook import PALETTE, figure
from invertnb.notebook.figures import Figure

SIDE, MOST = 14, 10
#: Photographs for the curves, the first so many; the other ways take the first of all.
CURVES = 5
#: The k of Table 2: so many percent of the windows as the next convolution has nonzero entries.
SPARSER = KEEP[2]
#: lambda of Algorithm 2 as a share of the largest, ``max |W f|``, and its relative duality gap. A
#: gap of 0.01 would change none of the errors of the embedded network by as much as 0.01, and take
#: twice as long.
LEVELS, GAP = (0.3, 0.03), 0.1
#: Where the conjugate gradients of least squares stop.
TOLERANCES = (1e-2, 1e-3)
#: Steps of a power iteration.
POWER = 20
ONE, SEVERAL = "one step", f"{MOST} iterations"
TRANSPOSE = "W^T W f, no pooling"
COLOURS = {LEARNED: "blue", RANDOM: "vermillion"}


@dataclass(frozen=True)
class Iterated:
    """Algorithm 1 on a layer with a bank; errors are ``||f - W^T z|| / ||f||``, norm not matched.

    Attributes:
        photographs: after 1 to MOST iterations, (MOST, photographs), every window with an entry.
        sparser: the same for one photograph at the k of Table 2, (MOST, 1).
        whole: after one iteration on the whole map, not its middle, (photographs,).
        vector: for random Gaussian vectors in place of f, (MOST, 1).
        member: for W^T z with z in the model, (MOST, 1), which an error of zero is possible for.
        unit: with the step 1 of the paper, from z = 0 on, (iterations + 1, 1).
        curvature: a lower bound of the largest eigenvalue of W_S W_S^T on the support S that the
            first step finds: above 2, steps of length 1 on S move away from where they should go.
    """

    photographs: Tensor
    sparser: Tensor
    whole: Tensor
    vector: Tensor
    member: Tensor
    unit: Tensor
    curvature: float


@dataclass(frozen=True)
class Others:
    """By pooling and filters ("learned", "random").

    Attributes:
        iterated: Algorithm 1 with the normalized step.
        ways: f_hat of the first photograph by each way back, (1, M, SIDE, SIDE), unscaled.
        signals: that photograph's f, by pooling.
    """

    iterated: Mapping[str, Mapping[str, Iterated]]
    ways: Mapping[str, Mapping[str, Mapping[str, Tensor]]]
    signals: Mapping[str, Tensor]


def compute(inputs: Inputs, generator: Callable[[int], torch.Generator]) -> Others:
    """All of it, for the first bank of random filters."""
    iterated, found, signals = {}, {}, {}
    for i, pool in enumerate(inputs.pools):
        banks = {LEARNED: inputs.learned[pool], RANDOM: inputs.random[pool][0]}
        whole = inputs.f[pool][:CURVES]
        signals[pool] = middle(whole[:1], SIDE, WINDOW[0])
        iterated[pool], found[pool] = {}, {}
        for name, bank in banks.items():
            iterated[pool][name], last = iterate(whole, bank, pool, generator(OTHERS + i))
            found[pool][name] = ways(signals[pool], bank) | {SEVERAL: last[:1]}
    return Others(iterated, found, signals)


# --- More iterations ------------------------------------------------------------------------------


def iterate(
    whole: Tensor, bank: FilterBank, pool: str, generator: torch.Generator
) -> tuple[Iterated, Tensor]:
    """Algorithm 1 on maps (photographs, M, H, W), and W^T z after MOST iterations for each."""
    f, every = middle(whole, SIDE, WINDOW[0]), ModelSparse(WINDOW, None)
    k = windows_kept(SPARSER, pool, bank.K * math.prod(side // 2 for side in f.shape[2:]))
    curve, last = iterations(f, bank, every)
    z = every.sample(1, bank.K, f.shape[2:], generator=generator).to(f)
    one = reconstruct(whole, bank, match=False).signal
    found = Iterated(
        photographs=curve,
        sparser=iterations(f[:1], bank, ModelSparse(WINDOW, k))[0],
        whole=best_length(whole, one).cpu(),
        vector=iterations(random_activations(f[:1], generator), bank, every)[0],
        member=iterations(bank.synthesis(z, tuple(f.shape[2:])), bank, every)[0],
        unit=unit_steps(f[:1], bank, every),
        curvature=curvature(f[:1], bank, every, generator),
    )
    return found, last


def iterations(
    f: Tensor, bank: FilterBank, model: ModelSparse, most: int = MOST
) -> tuple[Tensor, Tensor]:
    """Residuals of Algorithm 1 with the normalized step after 1 to `most` iterations, and W^T z.

    Returns:
        (most, images) float64, and the last W^T z in the shape of f.
    """
    with torch.no_grad(), warnings.catch_warnings():  # a residual that grew is shown as it is
        warnings.simplefilter("ignore", RuntimeWarning)
        found = iht(f, bank, model, step="normalized", iterations=most, tol=0.0)
    rows = found.residuals[1:]
    rows = torch.cat([rows, rows[-1:].expand(most - len(rows), -1)])
    return rows.double().cpu(), bank.synthesis(found.code, tuple(f.shape[2:]))


def unit_steps(f: Tensor, bank: FilterBank, model: ModelSparse, most: int = MOST) -> Tensor:
    """``||f - W^T z_i|| / ||f||`` of Algorithm 1 as the paper has it, with step 1, while below 10.

    `iht` gives a sample that diverged back at its best; here the growth is what is looked at.
    """
    rows, z, scale = [], None, f.flatten(1).norm(dim=1)
    with torch.no_grad():
        d = f
        for _ in range(most + 1):
            rows.append((d.flatten(1).norm(dim=1) / scale).double())
            if rows[-1].max() > 10:
                break
            gradient = bank.analysis(d)
            z = model.project(gradient if z is None else z + gradient).code
            d = f - bank.synthesis(z, tuple(f.shape[2:]))
    return torch.stack(rows).cpu()


def curvature(
    f: Tensor, bank: FilterBank, model: ModelSparse, generator: torch.Generator
) -> float:
    """A Rayleigh quotient of W_S W_S^T after POWER power iterations, S the support of M(W f)."""
    size = tuple(f.shape[2:])
    with torch.no_grad():
        support = model.project(bank.analysis(f)).code != 0
        v = torch.randn(support.shape, generator=generator).to(f) * support
        for _ in range(POWER):
            v = v / v.norm()
            v = bank.analysis(bank.synthesis(v, size)) * support
        v = v / v.norm()
        return float(bank.synthesis(v, size).square().sum())


def within_reach(redundancy: float, entries: int, failure: float = 1e-6) -> float:
    """What a code of the model leaves of almost every vector, whatever the filters are.

    With one entry in each window of four the codes fill 4^d subspaces of dimension
    d = redundancy m / 4, in m dimensions. A direction drawn uniformly is nearer than sqrt(t) to a
    given one of them with probability at most ``exp(-m/2 KL(1 - d/m || t))`` (Dasgupta and Gupta
    2003, Lemma 2.2), so by the union bound it is that near to any with probability at most
    `failure` where
    ``KL(1 - d/m || t) = 2 (d log 4 + log(1/failure)) / m``. That t is found by bisection.

    Args:
        redundancy: K / M, for codes as wide as f; above 0 and below 4, where d = m.
        entries: m = M H W.
        failure: the probability.

    Returns:
        sqrt(t), or 0 where the bound says nothing.
    """
    check.real("redundancy", redundancy, 0.0, strict=True)
    share = redundancy / 4
    if share >= 1:
        return 0.0
    wanted = 2 * (share * math.log(4) + math.log(1 / failure) / entries)
    low, high = 0.0, 1 - share
    for _ in range(200):
        t = (low + high) / 2
        if t == 0:
            break
        divergence = (1 - share) * math.log((1 - share) / t) + share * math.log(share / (1 - t))
        low, high = (t, high) if divergence > wanted else (low, t)
    return math.sqrt(low)


# --- Other ways back ------------------------------------------------------------------------------


def ways(f: Tensor, bank: FilterBank) -> dict[str, Tensor]:
    """f_hat by way, in the shape of f and not scaled to its norm.

    "W^T W f" is the transposed step without pooling, "least squares" what h = W f determines, to
    each of TOLERANCES; Algorithm 2 for each of LEVELS.
    """
    found = {
        ONE: reconstruct(f, bank, match=False),
        TRANSPOSE: reconstruct(f, bank, method="transpose", match=False),
    }
    largest = bank.analysis(f).flatten(1).abs().amax(1)
    for level in LEVELS:
        found[algorithm_2(level)] = reconstruct(
            f, bank, method="recover", lam=level * largest, tol=GAP, match=False
        )
    for tol in TOLERANCES:
        found[least_squares(tol)] = reconstruct(
            f, bank, method="least squares", tol=tol, match=False
        )
    return {name: each.signal for name, each in found.items()}


def algorithm_2(level: float) -> str:
    """The name of Algorithm 2 at a level."""
    return f"Algorithm 2, lambda {level:g} of max |Wf|"


def least_squares(tol: float) -> str:
    """The name of least squares from unpooled h, to a tolerance."""
    return f"least squares, tolerance {tol:g}"


def cosine(f: Tensor, f_hat: Tensor) -> Tensor:
    """The cosine of the angle between f and f_hat, image by image, float64; 0 where one is zero."""
    f, f_hat = f.flatten(1).double(), f_hat.flatten(1).double()
    return torch.nn.functional.cosine_similarity(f, f_hat, dim=1, eps=1e-30)


def best_length(f: Tensor, f_hat: Tensor) -> Tensor:
    """The least of ``||f - c f_hat|| / ||f||`` over c: the sine of the angle between them."""
    return (1 - cosine(f, f_hat).square()).clamp(min=0).sqrt()


def matched(f: Tensor, f_hat: Tensor) -> Tensor:
    """The error at the norm of f: twice the sine of half the angle."""
    return (2 - 2 * cosine(f, f_hat)).clamp(min=0).sqrt()


def unscaled(f: Tensor, f_hat: Tensor) -> Tensor:
    """``||f - f_hat|| / ||f||``, float64."""
    return relative_error(f, f_hat).double()


# --- Figure ---------------------------------------------------------------------------------------


def draw_iterations(others: Others) -> Figure:
    """Errors over iterations, pooling by pooling: mean and range over the photographs."""
    pools = list(others.iterated)
    fig, axes = figure(ncols=len(pools), height=3.1, sharey=True, squeeze=False)
    steps = range(1, MOST + 1)
    for ax, pool in zip(axes[0], pools, strict=True):
        for name, each in others.iterated[pool].items():
            colour, curve = PALETTE[COLOURS[name]], each.photographs
            ax.fill_between(steps, curve.amin(1), curve.amax(1), color=colour, alpha=0.2, lw=0)
            ax.plot(steps, curve.mean(1), color=colour, label=name)
            ax.plot(steps, each.vector.mean(1), ":", color=colour, lw=1.5)
            ax.plot(steps, each.member.mean(1), "--", color=colour, lw=1.2)
        ax.set(xlabel=f"iterations, {pool}", xticks=(1, 5, 10), ylim=(0, 1.02))
    axes[0][0].set_ylabel(r"$\|f - W^Tz\|\,/\,\|f\|$")
    axes[0][0].legend(frameon=False, loc="lower left")
    return fig
