"""Chapter 4: Algorithm 1 as a network (end of section 2.3, footnotes 3 and 7).

One iteration of model-based IHT is a convolution layer with pooling and unpooling, several are a
recurrent CNN, and several layers are single iterations one after the other. The network's pieces
are here; when the iterations recover the code is in `recovery`, and what becomes of several layers
in `multilayer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from invertnb import FilterBank, IHTResult, ModelSparse, notebook
from invertnb.chapters.iht_as_layer import multilayer, recovery
from invertnb.chapters.iht_as_layer.multilayer import explorer as depth_explorer  # noqa: F401
from invertnb.chapters.iht_as_layer.recovery import (  # noqa: F401
    HARD, SPARSITY, D, K, N, explorer, iterates, problem, relative, solve,
)  # fmt: skip
from invertnb.notebook import PALETTE, figure, parameter
from invertnb.notebook.figures import MUTED, Figure, draw_matrix

SPECTRA_AT = (10, 20, 30, 40, 80)

# Streams of draws.
VARIANTS_STREAM, SCALINGS, RATES, STUCK, TRAJECTORIES, DEPTH, QUALITY, SPECTRA = range(1, 9)


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """What may be changed from the command line."""

    matrices: int = parameter(20, minimum=2, help="filter banks at k = 10")
    signals: int = parameter(10, minimum=2, help="signals per filter bank at k = 10")
    rate_matrices: int = parameter(4, minimum=2, help="filter banks per k of the recovery table")
    rate_signals: int = parameter(12, minimum=2, help="signals per bank of the recovery table")
    networks: int = parameter(4, minimum=2, help="random networks of three layers")


PAPER = {"signals": 100, "rate_matrices": 20, "rate_signals": 100, "networks": 20}


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows; one field per section."""

    parameters: Parameters
    variants: dict[str, Tensor]
    quality: dict[int, Quality]
    recovery: dict[str, Tensor]
    rates: recovery.Rates
    spectra: dict[int, recovery.Spectra]
    trajectories: dict[str, IHTResult]
    stuck: recovery.Stuck
    depth: dict[str, multilayer.Depth]


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    banks, signals = p.rate_matrices, p.rate_signals
    hard = hard_problem(p)
    return Data(
        parameters=p,
        variants=variants(p),
        quality={k: quality(p, k) for k in (SPARSITY, HARD)},
        recovery={name: code_errors(p, unit_rows) for name, unit_rows in SCALING.items()},
        rates=recovery.rates(banks, signals, p.generator(RATES), p.device),
        spectra=recovery.spectra(SPECTRA_AT, banks, 4, p.generator(SPECTRA), device=p.device),
        trajectories={
            name: solve(hard, **options, iterations=300)
            for name, options in recovery.STEPS.items()
        },
        stuck=recovery.stuck(3, 6, p.generator(STUCK), p.device),
        depth=multilayer.depth(p.networks, p.generator(DEPTH), device=p.device),
    )


def hard_problem(p: Parameters) -> recovery.Problem:
    """At most 20 signals at k = 40, whose residuals are drawn."""
    signals = min(p.rate_signals, 20)
    return problem(HARD, signals, p.generator(TRAJECTORIES), device=p.device)


# --- One iteration as a layer -------------------------------------------------------------------


def convolution(bank: FilterBank) -> nn.Module:
    """The layer of torch.nn that computes W x, on the bank's own weight."""
    layer = nn.Conv1d if bank.dims == 1 else nn.Conv2d
    conv = layer(bank.M, bank.K, bank.l, bank.stride, bank.padding, bias=False)
    conv.weight = nn.Parameter(bank.weight, requires_grad=False)
    return conv


class Pooling(nn.Module):
    """M(h, k) of section 2.3 out of torch.nn layers: max pooling, the k largest, unpooling.

    unpool=False returns the pooled map, which is what the next layer of a CNN takes; k=None keeps
    every pooled value. Blocks as in `ModelSparse`.
    """

    def __init__(self, block: int | tuple[int, int], k: int | None, unpool: bool = True) -> None:
        super().__init__()
        flat = isinstance(block, int)
        self.pool = (nn.MaxPool1d if flat else nn.MaxPool2d)(block, return_indices=True)
        self.unpool = (nn.MaxUnpool1d if flat else nn.MaxUnpool2d)(block) if unpool else None
        self.k = k

    def forward(self, h: Tensor) -> Tensor:
        _, switches = self.pool(h.abs())
        # The pooled entry itself, with its sign.
        pooled = h.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)
        if self.k is not None:
            values = pooled.flatten(1)
            top = values.abs().topk(self.k).indices
            pooled = torch.zeros_like(values).scatter(1, top, values.gather(1, top))
            pooled = pooled.view(switches.shape)
        return pooled if self.unpool is None else self.unpool(pooled, switches)


def rounding_bound(bank: FilterBank, x: Tensor) -> Tensor:
    """How far two orders of summation can part in each entry of W x: 2 gamma_m abs(W) abs(x).

    gamma_m = m u / (1 - m u) for sums of m products, u half the machine epsilon.
    """
    roundings = bank.weight[0].numel() * torch.finfo(x.dtype).eps / 2
    magnitudes = FilterBank(bank.weight.abs(), bank.stride, bank.padding).analysis(x.abs())
    return 2 * roundings / (1 - roundings) * magnitudes


def paired(h: Tensor, k: int) -> Tensor:
    """ReLU and max pooling on the filters w and -w, the pairs folded back into one code."""
    both = ModelSparse(N, k).project(torch.cat([h, -h], 1).relu()).code
    return both[:, :K] - both[:, K:]


#: What a CNN does in place of a part of Algorithm 1's iteration, from h = W x and k to a code.
VARIANTS = {
    "Algorithm 1": lambda h, k: ModelSparse(N, k).project(h).code,
    "signed maximum": lambda h, k: ModelSparse(N, k).project(h, by="signed").code,
    "ReLU, then maximum": lambda h, k: ModelSparse(N, k).project(h.relu()).code,
    "ReLU, filters w and -w": paired,
    "windows of 2": lambda h, k: ModelSparse(2, k).project(h).code,
    "no top-k": lambda h, k: ModelSparse(N, None).project(h).code,
    "fixed switches": lambda h, k: ModelSparse(N, k).project(h, "fixed").code,
    "averaged": lambda h, k: ModelSparse(N, k).project(h, "averaged").code,
    "ReLU, no top-k": lambda h, k: ModelSparse(N, None).project(h.relu()).code,
    "ReLU, windows of 2, no top-k": lambda h, k: ModelSparse(2, None).project(h.relu()).code,
}
MEASURES = ("change", "kept", "nonzeros", "found", "error")


def variants(p: Parameters) -> dict[str, Tensor]:
    """Every variant at k = 10 with the paper's scaling: (matrices, MEASURES), means over signals.

    change: relative difference to Algorithm 1's code; kept: share of that code's support;
    nonzeros; found: share of the true support; error: ||x - W^T code|| / ||x||.
    """
    rows = {name: [] for name in VARIANTS}
    generator = p.generator(VARIANTS_STREAM)
    for _ in range(p.matrices):
        task = problem(SPARSITY, p.signals, generator, unit_rows=False, device=p.device)
        h = task.bank.analysis(task.x)
        reference = VARIANTS["Algorithm 1"](h, SPARSITY)
        for name, rule in VARIANTS.items():
            code = rule(h, SPARSITY)
            kept, nonzeros, found = (
                ((code != 0) & mask).flatten(1).sum(1).double()
                for mask in (reference != 0, code != 0, task.z != 0)
            )
            error = relative(task.bank.synthesis(code, D), task.x)
            row = (relative(code, reference), kept / SPARSITY, nonzeros, found / SPARSITY, error)
            rows[name].append(torch.stack([column.mean() for column in row]).cpu())
    return {name: torch.stack(table) for name, table in rows.items()}


# --- Several iterations -------------------------------------------------------------------------

SCALING = {"unit rows": True, "Gaussian rows": False}


class Quality(NamedTuple):
    """Mean relative errors over Algorithm 1's iterations, (matrices, iterations)."""

    x: Tensor  # ||x - W^T z_i|| / ||x||
    z: Tensor  # ||z_i - z|| / ||z||
    improved: Tensor  # bool (signals,): both are smaller at the last iteration than at the first


def quality(p: Parameters, k: int, iterations: int = 10) -> Quality:
    """Algorithm 1 with the paper's scaling, iterate by iterate."""
    generator, rows = p.generator(QUALITY), []
    for _ in range(p.matrices):
        task = problem(k, p.signals, generator, unit_rows=False, device=p.device)
        run = iterates(task, iterations)
        errors = [(relative(task.x - d, task.x), relative(z, task.z)) for z, d in run]
        x, z = map(torch.stack, zip(*errors, strict=True))
        rows.append((x.mean(1), z.mean(1), (x[-1] < x[0]) & (z[-1] < z[0])))
    x, z, improved = zip(*rows, strict=True)
    return Quality(torch.stack(x).cpu(), torch.stack(z).cpu(), torch.cat(improved).cpu())


def code_errors(p: Parameters, unit_rows: bool) -> Tensor:
    """Algorithm 1 at k = 10, at most 100 iterations: errors of the code, (matrices, signals)."""
    generator, errors = p.generator(SCALINGS), []
    for _ in range(p.matrices):
        task = problem(SPARSITY, p.signals, generator, unit_rows, p.device)
        errors.append(relative(solve(task).code, task.z).cpu())
    return torch.stack(errors)


# --- Figures ------------------------------------------------------------------------------------


def draw(data: Data) -> Figure:
    """The recovery table as a figure."""
    return recovery.draw_rates(data.rates)


def draw_layer(h: Tensor, pooled: Tensor, code: Tensor, z: Tensor) -> Figure:
    """One signal through the layer: h = W x, the pooled values that are kept, their code, and z."""
    fig, axes = figure(7.5, 5.0, nrows=4, sharex=True, height_ratios=(28, 5, 28, 28))
    names = ("$h=Wx$", "pooled", r"$\mathbb{M}(h,k)$", "$z$")
    limit = float(h.abs().max())
    for ax, name, values in zip(axes, names, (h, pooled, code, z), strict=True):
        image = draw_matrix(ax, values.cpu().T, limit=limit)
        ax.set(aspect="auto", yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("filter $i$ (downwards: shift $j$)")
    fig.colorbar(image, ax=axes, shrink=0.6, pad=0.01)
    return fig


def draw_quality(data: Data) -> Figure:
    """Errors of x and z over the iterations, k = 10 and k = 40: mean, and the range over banks."""
    fig, axes = figure(7.5, 2.9, ncols=len(data.quality))
    for ax, (k, found) in zip(axes, data.quality.items(), strict=True):
        for label, errors, colour in (("$x$", found.x, "blue"), ("$z$", found.z, "vermillion")):
            steps = range(1, errors.shape[1] + 1)
            ink = PALETTE[colour]
            ax.fill_between(steps, errors.amin(0), errors.amax(0), alpha=0.2, lw=0, color=ink)
            ax.plot(steps, errors.mean(0), color=ink, marker="o", ms=4, label=label)
        ax.axhline(1, color=MUTED, lw=1, ls=":")
        ax.set(yscale="log", xlabel=f"iteration $i$, $k={k}$")
    axes[0].set_ylabel("mean relative error")
    axes[0].legend(frameon=False, title="error of", title_fontsize=9)
    return fig


