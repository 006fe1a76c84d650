"""Chapter 4: Algorithm 1 as a network (end of section 2.3, footnotes 3 and 7).

One iteration of model-based IHT is a convolution layer with pooling and unpooling, several are a
recurrent CNN, and several layers are iterations one after the other. Then what this buys: when the
iterations recover the code, why the step 1 of Algorithm 1 fails at larger k, and what layers lose.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from invertnb import FilterBank, IHTResult, ModelSparse, iht, notebook
from invertnb.iht import DIVERGED
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure, parameter
from invertnb.notebook.figures import draw_matrix

# Figure 2 of the paper.
M, K, LENGTH, D, N, SPARSITY = 32, 96, 5, 32, 28, 10
#: Sparsities at which recovery is counted, and those whose spectra are drawn.
SPARSITIES = (10, 20, 30, 40, 50, 60, 80)
HARD, HARDEST = 40, 80
#: A code counts as recovered when its relative error is below this; fixed before any run.
RECOVERED = 1e-4

#: Algorithms of the recovery table: whether the model is used, and the arguments of `iht`.
ALGORITHMS = {
    "IHT, step 1": (False, {}),
    "model-IHT, step 1": (True, {}),
    "model-IHT, step 1/2": (True, {"step": 0.5}),
    "NIHT": (False, {"step": "normalized"}),
    "model-NIHT": (True, {"step": "normalized"}),
    "HTP": (False, {"pursuit": True}),
    "model-HTP": (True, {"pursuit": True}),
}

# Layers: length of x, channels and filters of each. Channels double while pooling halves the length.
LAYERS_D, LAYERS = 68, ((16, 32), (32, 64), (64, 128))
WINDOW, SHARE = 2, 10  # pooling windows; k is one in SHARE of the windows

# Streams of draws.
ONE, QUALITY, RECOVERY, RATES, SPECTRA, STUCK, DEEP, EXPLORER = range(1, 9)


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """What may be changed from the command line."""

    matrices: int = parameter(20, minimum=2, help="random filter banks of Figure 2's size, at k = 10")
    signals: int = parameter(20, minimum=2, help="signals per filter bank, at k = 10")
    rate_matrices: int = parameter(5, minimum=2, help="filter banks per k of the recovery table")
    rate_signals: int = parameter(10, minimum=2, help="signals per filter bank of the recovery table")
    layer_seeds: int = parameter(5, minimum=2, help="random networks of three layers")


PAPER = {"signals": 100, "rate_matrices": 20, "rate_signals": 100, "layer_seeds": 20}


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows; one field per section."""

    parameters: Parameters
    variants: dict[str, Tensor]
    quality: dict[int, Quality]
    recovery: dict[str, Tensor]
    rates: Rates
    spectra: dict[int, Spectra]
    stuck: Stuck
    depth: Depth


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    quality = {k: iteration_quality(p, k) for k in (SPARSITY, HARD)}
    curves = {k: spectra(p, k) for k in (SPARSITY, 20, 30, HARD, 60, HARDEST)}
    return Data(p, variants(p), quality, recovery(p), rates(p), curves, stuck(p), depth(p))


class Problem(NamedTuple):
    """x = W^T z with z in M_k, in the setting of Figure 2."""

    bank: FilterBank
    model: ModelSparse
    z: Tensor
    x: Tensor


def problem(
    k: int, signals: int, generator: torch.Generator, unit_rows: bool = True, device: str = "cpu"
) -> Problem:
    """A Gaussian bank, with unit rows or with Theorem 3.1's scaling, and codes of k nonzeros."""
    bank = FilterBank.gaussian(K, M, LENGTH, generator=generator, device=device)
    bank = bank.normalized() if unit_rows else bank
    model = ModelSparse(N, k)
    z = model.sample(signals, K, N, generator=generator, device=device)
    return Problem(bank, model, z, bank.synthesis(z, D))


def relative(estimate: Tensor, truth: Tensor) -> Tensor:
    """||estimate - truth|| / ||truth|| of each sample, (batch,)."""
    return (estimate - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def solve(task: Problem, model: bool = True, **options) -> IHTResult:
    """`iht` on M_k, or on all k-sparse codes (model=False: blocks of one entry).

    The warning about diverged samples is silenced here: the result counts them, and so do pages.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        sparsity = task.model if model else ModelSparse(1, task.model.k)
        return iht(task.x, task.bank, sparsity, **options)


def iterates(task: Problem, iterations: int) -> Iterator[Tensor]:
    """z_1, z_2, ... of Algorithm 1, as it is listed: no stopping rule, no care about divergence."""
    z = torch.zeros_like(task.z)
    for _ in range(iterations):
        d = task.x - task.bank.synthesis(z, D)
        z = task.model.project(z + task.bank.analysis(d)).code
        yield z


# --- One iteration as a layer -------------------------------------------------------------------


def convolution(bank: FilterBank) -> nn.Module:
    """The layer of torch.nn that computes W x, on the bank's own weight."""
    layer = nn.Conv1d if bank.dims == 1 else nn.Conv2d
    conv = layer(bank.M, bank.K, bank.l, bank.stride, bank.padding, bias=False)
    conv.weight = nn.Parameter(bank.weight, requires_grad=False)
    return conv


class Pooling(nn.Module):
    """M(h, k) of section 2.3 out of torch.nn layers: max pooling, the k largest, unpooling.

    With unpool=False the pooled map, which the next layer of a CNN takes. k=None keeps all blocks.
    """

    def __init__(self, block: int | tuple[int, int], k: int | None, unpool: bool = True) -> None:
        super().__init__()
        flat = isinstance(block, int)
        self.pool = (nn.MaxPool1d if flat else nn.MaxPool2d)(block, return_indices=True)
        self.unpool = (nn.MaxUnpool1d if flat else nn.MaxUnpool2d)(block) if unpool else None
        self.k = k

    def forward(self, h: Tensor) -> Tensor:
        _, switches = self.pool(h.abs())
        pooled = h.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)  # with its sign
        if self.k is not None:
            top = pooled.flatten(1).abs().topk(self.k).indices
            kept = torch.zeros_like(pooled.flatten(1)).scatter(1, top, 1.0)
            pooled = pooled * kept.view(pooled.shape)
        return pooled if self.unpool is None else self.unpool(pooled, switches)


def pooled_map(code: Tensor, window: int) -> Tensor:
    """The pooled values of a code with at most one nonzero per window: the sum over each window."""
    return code.unflatten(-1, (-1, window)).sum(-1)


def rounding_bound(bank: FilterBank, x: Tensor) -> Tensor:
    """What two orders of summation may differ by in each entry of W x: 2 gamma_m (|W| |x|).

    gamma_m = m u / (1 - m u) for m products per entry, u half the machine epsilon.
    """
    roundings = bank.weight[0].numel() * torch.finfo(x.dtype).eps / 2
    return 2 * roundings / (1 - roundings) * FilterBank(
        bank.weight.abs(), bank.stride, bank.padding
    ).analysis(x.abs())  # fmt: skip


#: What a CNN does in place of a part of Algorithm 1: h = W x and k to a code.
VARIANTS = {
    "Algorithm 1": lambda h, k: ModelSparse(N, k).project(h),
    "signed maximum": lambda h, k: ModelSparse(N, k).project(h, by="signed"),
    "ReLU, then maximum": lambda h, k: ModelSparse(N, k).project(h.relu()),
    "ReLU, filters in pairs w, -w": lambda h, k: _paired(h, k),
    "no top-k": lambda h, k: ModelSparse(N, None).project(h),
    "windows of 2": lambda h, k: ModelSparse(2, k).project(h),
    "windows of 2, no top-k": lambda h, k: ModelSparse(2, None).project(h),
    "fixed switches": lambda h, k: ModelSparse(N, k).project(h, "fixed"),
    "averaged upsampling": lambda h, k: ModelSparse(N, k).project(h, "averaged"),
    "ReLU, windows of 2, no top-k": lambda h, k: ModelSparse(2, None).project(h.relu()),
}
#: What is measured of each, in the order of the last axis.
MEASURES = ("change", "kept", "nonzeros", "found", "error")


def _paired(h: Tensor, k: int) -> tuple[Tensor]:
    both = ModelSparse(N, k).project(torch.cat([h, -h], 1).relu()).code
    return (both[:, :K] - both[:, K:],)


def variants(p: Parameters) -> dict[str, Tensor]:
    """The variants at k = 10 with the paper's scaling, each (matrices, MEASURES), means over signals.

    change: relative difference to Algorithm 1's code; kept: share of its support that is kept;
    nonzeros; found: share of the true support; error: ||x - W^T code|| / ||x||.
    """
    table = {name: [] for name in VARIANTS}
    generator = p.generator(ONE)
    for _ in range(p.matrices):
        task = problem(SPARSITY, p.signals, generator, unit_rows=False, device=p.device)
        h = task.bank.analysis(task.x)
        codes = {name: rule(h, SPARSITY)[0] for name, rule in VARIANTS.items()}
        reference = codes["Algorithm 1"]
        for name, code in codes.items():
            count = [
                ((code != 0) & mask).flatten(1).sum(1).double()
                for mask in (reference != 0, code != 0, task.z != 0)
            ]
            error = relative(task.bank.synthesis(code, D), task.x)
            row = (relative(code, reference), count[0] / SPARSITY, count[1], count[2] / SPARSITY, error)
            table[name].append(torch.stack([column.mean() for column in row]).cpu())
    return {name: torch.stack(rows) for name, rows in table.items()}


# --- Several iterations -------------------------------------------------------------------------


class Quality(NamedTuple):
    """Mean relative errors of the iterates, (matrices, iterations), and who gained by the last."""

    x: Tensor
    z: Tensor
    improved: float  # share of signals whose last iterate beats the first, in x and in z


def iteration_quality(p: Parameters, k: int, iterations: int = 10) -> Quality:
    """Errors of x and z over Algorithm 1's iterations, with the paper's scaling."""
    generator, of_x, of_z, better = p.generator(QUALITY + 100 * k), [], [], []
    for _ in range(p.matrices if k == SPARSITY else p.rate_matrices):
        task = problem(k, p.signals, generator, unit_rows=False, device=p.device)
        codes = list(iterates(task, iterations))
        x = torch.stack([relative(task.bank.synthesis(code, D), task.x) for code in codes]).cpu()
        z = torch.stack([relative(code, task.z) for code in codes]).cpu()
        of_x.append(x.mean(1))
        of_z.append(z.mean(1))
        better.append((x[-1] < x[0]) & (z[-1] < z[0]))
    improved = float(torch.cat(better).double().mean())
    return Quality(torch.stack(of_x), torch.stack(of_z), improved)


def recovery(p: Parameters) -> dict[str, Tensor]:
    """Algorithm 1 at k = 10: relative errors of the code, (matrices, signals), for both scalings."""
    found = {}
    for scaling, unit_rows in (("unit rows", True), ("Gaussian rows", False)):
        generator, errors = p.generator(RECOVERY), []
        for _ in range(p.matrices):
            task = problem(SPARSITY, p.signals, generator, unit_rows, p.device)
            errors.append(relative(solve(task).code, task.z).cpu())
        found[scaling] = torch.stack(errors)
    return found


class Rates(NamedTuple):
    """The recovery table: per algorithm, all (sparsities, matrices, signals)."""

    recovered: dict[str, Tensor]
    diverged: dict[str, Tensor]
    iterations: dict[str, Tensor]


def rates(p: Parameters) -> Rates:
    """Which signals each algorithm recovers, every one on the same banks and codes, unit rows."""
    shape = (len(SPARSITIES), p.rate_matrices, p.rate_signals)
    out = Rates(*({name: torch.zeros(shape) for name in ALGORITHMS} for _ in Rates._fields))
    for i, k in enumerate(SPARSITIES):
        generator = p.generator(RATES + 100 * k)
        for j in range(p.rate_matrices):
            task = problem(k, p.rate_signals, generator, device=p.device)
            for name, (model, options) in ALGORITHMS.items():
                result = solve(task, model, **options)
                out.recovered[name][i, j] = (relative(result.code, task.z) < RECOVERED).cpu().float()
                out.diverged[name][i, j] = result.diverged.cpu().float()
                out.iterations[name][i, j] = result.iterations.cpu().float()
    return out


# --- Why step 1 fails ---------------------------------------------------------------------------


class Spectra(NamedTuple):
    """Largest eigenvalues of W_S W_S^T, one column a signal, and whether Algorithm 1 recovered it."""

    truth: Tensor  # (signals,): S the true support
    moving: Tensor  # (iterations, signals): S the true support and two neighbouring iterates'
    recovered: Tensor  # (signals,)


def spectra(p: Parameters, k: int, iterations: int = 8) -> Spectra:
    """The numbers that a step of 1 must keep below 2, on the supports that Algorithm 1 meets."""
    generator, parts = p.generator(SPECTRA + 100 * k), []
    for _ in range(p.rate_matrices):
        task = problem(k, max(2, p.rate_signals // 2), generator, device=p.device)
        W = task.bank.matrix(D)
        truth, last, moving = task.z != 0, torch.zeros_like(task.z), []
        for code in iterates(task, iterations):
            moving.append(_largest_eigenvalues(W, truth | (last != 0) | (code != 0)))
            last = code
        recovered = relative(solve(task).code, task.z) < RECOVERED
        parts.append((_largest_eigenvalues(W, truth), torch.stack(moving), recovered.cpu()))
    return Spectra(*(torch.cat(column, -1) for column in zip(*parts, strict=True)))


def _largest_eigenvalues(W: Tensor, supports: Tensor) -> Tensor:
    rows = [W[support] for support in supports.flatten(1)]
    return torch.stack([torch.linalg.eigvalsh(R @ R.T)[-1] for R in rows]).cpu()


class Stuck(NamedTuple):
    """The cautious step 1/||W||^2 at k = 80, all bool (signals,)."""

    recovered: Tensor
    diverged: Tensor
    fixed: Tensor  # the last iterate is a fixed point of the cautious iteration ...
    fixed_half: Tensor  # ... and of the one with step 1/2
    norms: Tensor  # (matrices,): ||W||^2


def stuck(p: Parameters) -> Stuck:
    """Where the cautious step ends, and whether a longer step would leave that place."""
    generator, rows, norms = p.generator(STUCK), [], []
    for _ in range(3):
        task = problem(HARDEST, 6, generator, device=p.device)
        norms.append(task.bank.norm(D) ** 2)
        result = solve(task, step=1 / norms[-1], iterations=1200)
        gradient = task.bank.analysis(task.x - task.bank.synthesis(result.code, D))
        stays = [
            relative(task.model.project(result.code + step * gradient).code, result.code) < 1e-9
            for step in (1 / norms[-1], 0.5)
        ]
        recovered = relative(result.code, task.z) < RECOVERED
        rows.append([flag.cpu() for flag in (recovered, result.diverged, *stays)])
    return Stuck(*(torch.cat(column) for column in zip(*rows, strict=True)), torch.tensor(norms))
