"""When hard thresholding recovers a code from x = W^T z, and why the step 1 of Algorithm 1 fails.

Everything here lives in the setting of the paper's Figure 2. The chapter `iht_as_layer` says how
many filter banks and signals are drawn.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invertnb import FilterBank, IHTResult, ModelSparse, iht
from invertnb.iht import DIVERGED
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure
from invertnb.notebook.figures import MUTED, Figure

# Figure 2 of the paper.
M, K, LENGTH, D, N, SPARSITY = 32, 96, 5, 32, 28, 10
#: Sparsities of the recovery table; one at which step 1 wins and loses, and the last.
SPARSITIES = (10, 20, 30, 40, 50, 60, 80)
HARD, HARDEST = 40, 80
#: A code counts as recovered when its relative error is below this; fixed before any run.
RECOVERED = 1e-4

#: Algorithms of the recovery table: whether they use the model, and their arguments of `iht`.
ALGORITHMS: dict[str, tuple[bool, dict[str, Any]]] = {
    "IHT, step 1": (False, {}),
    "model-IHT, step 1": (True, {}),
    "model-IHT, step 1/2": (True, {"step": 0.5}),
    "NIHT": (False, {"step": "normalized"}),
    "model-NIHT": (True, {"step": "normalized"}),
    "HTP": (False, {"pursuit": True}),
    "model-HTP": (True, {"pursuit": True}),
}
#: Rules for the step, all on the model; None stands for 1 / ||W||^2.
STEPS: dict[str, dict[str, Any]] = {
    "step 1": {},
    "step 1/2": {"step": 0.5},
    "step 1/||W||²": {"step": None},
    "NIHT": {"step": "normalized"},
    "HTP": {"pursuit": True},
}


class Problem(NamedTuple):
    """x = W^T z with z in M_k, in the setting of Figure 2."""

    bank: FilterBank
    model: ModelSparse
    z: Tensor
    x: Tensor


def problem(
    k: int, signals: int, generator: torch.Generator, unit_rows: bool = True, device: str = "cpu"
) -> Problem:
    """A Gaussian bank, with unit rows or as Theorem 3.1 scales it, and signals of k atoms."""
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

    step=None stands for 1 / ||W||^2. The warning about diverged samples is silenced here: the
    result counts them, and whoever calls reports them.
    """
    if options.get("step", 1.0) is None:
        options["step"] = 1 / squared_norm(task.bank)
    sparsity = task.model if model else ModelSparse(1, task.model.k)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="iht: .* diverged", category=RuntimeWarning)
        return iht(task.x, task.bank, sparsity, **options)


@functools.cache
def squared_norm(bank: FilterBank) -> float:
    """||W||^2, computed once per bank."""
    return bank.norm(D) ** 2


def iterates(task: Problem, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """z_i and d_i = x - W^T z_i of Algorithm 1 as it is listed: nothing stops it from diverging."""
    z, d = torch.zeros_like(task.z), task.x
    for _ in range(iterations):
        z = task.model.project(z + task.bank.analysis(d)).code
        d = task.x - task.bank.synthesis(z, D)
        yield z, d


# --- The recovery table -------------------------------------------------------------------------


class Rates(NamedTuple):
    """Per algorithm of the table: bool, bool and int64 tensors (sparsities, banks, signals).

    Step 1 is counted on all signals, the slower others on the first quarter of them.
    """

    recovered: dict[str, Tensor]
    diverged: dict[str, Tensor]
    iterations: dict[str, Tensor]


def rates(banks: int, signals: int, generator: torch.Generator, device: str = "cpu") -> Rates:
    """Which signals each algorithm recovers, on the same banks and codes, with unit rows."""
    parts = [{name: [] for name in ALGORITHMS} for _ in Rates._fields]
    quarter = max(1, signals // 4)
    for k in SPARSITIES:
        for _ in range(banks):
            task = problem(k, signals, generator, device=device)
            few = task._replace(z=task.z[:quarter], x=task.x[:quarter])
            for name, (model, options) in ALGORITHMS.items():
                given = few if options else task
                result = solve(given, model, **options, tol=RECOVERED / 10)
                recovered = relative(result.code, given.z) < RECOVERED
                found = (recovered, result.diverged, result.iterations)
                for part, value in zip(parts, found, strict=True):
                    part[name].append(value.cpu())
    shape = (len(SPARSITIES), banks, -1)
    return Rates(*({n: torch.stack(v).view(shape) for n, v in part.items()} for part in parts))


# --- Why step 1 fails ---------------------------------------------------------------------------


class Spectra(NamedTuple):
    """Largest eigenvalues of W_S W_S^T per signal, and whether Algorithm 1 recovers it."""

    truth: Tensor  # (signals,): S the true support
    first: Tensor  # (signals,): S the support of z_1
    moving: Tensor  # (iterations, signals): S the true support and those of z_{i-1} and z_i
    recovered: Tensor  # bool (signals,)


def spectra(
    sparsities: tuple[int, ...], banks: int, signals: int, generator: torch.Generator,
    iterations: int = 6, device: str = "cpu",
) -> dict[int, Spectra]:  # fmt: skip
    """What a step of 1 needs below 2, on the supports that Algorithm 1 meets on its way."""
    parts = {k: [] for k in sparsities}
    for _ in range(banks):
        bank = FilterBank.gaussian(K, M, LENGTH, generator=generator, device=device).normalized()
        W = bank.matrix(D)
        for k, found in parts.items():
            model = ModelSparse(N, k)
            z = model.sample(signals, K, N, generator=generator, device=device)
            task = Problem(bank, model, z, bank.synthesis(z, D))
            codes = [code for code, _ in iterates(task, iterations)]
            recovered = relative(solve(task).code, z) < RECOVERED
            moving = [
                _largest_eigenvalues(W, (z != 0) | (last != 0) | (code != 0))
                for last, code in pairwise([torch.zeros_like(z), *codes])
            ]
            truth, first = (_largest_eigenvalues(W, code != 0) for code in (z, codes[0]))
            found.append((truth, first, torch.stack(moving), recovered.cpu()))
    return {
        k: Spectra(*(torch.cat(column, -1) for column in zip(*found, strict=True)))
        for k, found in parts.items()
    }


def _largest_eigenvalues(W: Tensor, supports: Tensor) -> Tensor:
    rows = [W[support] for support in supports.flatten(1)]
    return torch.stack([torch.linalg.eigvalsh(R @ R.T)[-1] for R in rows]).cpu()


class Stuck(NamedTuple):
    """Where the step 1 / ||W||^2 ends at k = 80: bool tensors (signals,)."""

    recovered: Tensor
    diverged: Tensor
    fixed: Tensor  # the last iterate is a fixed point of that iteration
    fixed_half: Tensor  # ... and of the iteration with step 1/2


def stuck(banks: int, signals: int, generator: torch.Generator, device: str = "cpu") -> Stuck:
    """The cautious iteration run until it rests, and whether a longer step would move on."""
    parts = []
    for _ in range(banks):
        task = problem(HARDEST, signals, generator, device=device)
        result = solve(task, step=None, iterations=2000)
        code = result.code
        gradient = task.bank.analysis(task.x - task.bank.synthesis(code, D))
        rests = [
            relative(task.model.project(code + step * gradient).code, code) < 1e-9
            for step in (1 / squared_norm(task.bank), 0.5)
        ]
        parts.append((relative(code, task.z) < RECOVERED, result.diverged, *rests))
    return Stuck(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


# --- Figures ------------------------------------------------------------------------------------


def draw_rates(found: Rates) -> Figure:
    """Share of signals recovered against k: mean over the banks, and the range over them."""
    fig, ax = figure(7.5, 3.2)
    shares = {name: flags.double().mean(2) for name, flags in found.recovered.items()}
    cures = [shares.pop(name) for name in list(shares) if not name.endswith("step 1")]
    shares["the worst of the other five"] = torch.stack(cures).amin(0)
    colours, markers = ("orange", "blue", "green"), ("s", "o", "^")
    for i, (name, share) in enumerate(shares.items()):
        mean = share.mean(1)
        spread = torch.stack([mean - share.amin(1), share.amax(1) - mean])
        at = [k + 0.6 * (i - 1) for k in SPARSITIES]
        ax.errorbar(at, mean, spread, color=PALETTE[colours[i]], marker=markers[i], ms=5,
                    elinewidth=1.2, capsize=3, label=name)  # fmt: skip
    ax.set(xlabel="sparsity $k$", ylabel="share recovered", ylim=(-0.04, 1.08))
    ax.legend(frameon=False, loc="center right")
    return fig


def draw_spectra(curves: dict[int, Spectra]) -> Figure:
    """Left: the eigenvalue that matters, over the iterations. Right: its peak and the outcome."""
    fig, (left, right) = figure(7.5, 3.2, ncols=2, sharey=True)
    for k, found in curves.items():
        count = len(found.moving)
        (line,) = left.plot(range(1, count + 1), found.moving.mean(1), marker="o", ms=4)
        end = (count, float(found.moving[-1].mean()))
        left.annotate(f" {k}", end, color=line.get_color(), va="center", annotation_clip=False)
        peak = found.moving.amax(0)
        for kept, marker in ((found.recovered, "o"), (~found.recovered, "x")):
            at = k + torch.linspace(-2.5, 2.5, len(kept))[kept]
            right.plot(at, peak[kept], marker, ls="none", ms=4.5, mew=1.4, color=line.get_color(),
                       mfc="none")  # fmt: skip
    for ax in (left, right):
        ax.axhline(2, color=MUTED, lw=1.2, ls="--")
    left.set(xlabel="iteration $i$", ylabel=r"$\lambda_{\max}(W_S W_S^T)$")
    right.set(xlabel="sparsity $k$")
    return fig


def draw_trajectories(results: dict[str, IHTResult]) -> Figure:
    """Relative residuals over the iterations, one line a signal, one panel a rule for the step."""
    fig, axes = figure(7.5, 2.7, ncols=len(results), sharey=True, sharex=True)
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        _draw_residuals(ax, result)
        ax.set(xlabel="iteration $i$")
        ax.annotate(name, (0.96, 0.97), xycoords="axes fraction", fontsize=9, ha="right", va="top")
    axes[0].set(ylabel=r"$\|x-W^T z_i\|/\|x\|$")
    return fig


def _draw_residuals(ax, result: IHTResult) -> None:
    for j, count in enumerate(result.iterations.tolist()):
        # The row of a diverged sample goes back to its best iterate at the end: draw the way up.
        lost = bool(result.diverged[j])
        rows = result.residuals[1 : count + (not lost), j].tolist() + [DIVERGED] * lost
        colour = "vermillion" if lost else "blue" if result.converged[j] else "orange"
        ax.plot(range(1, count + 1), rows, color=PALETTE[colour], lw=1.2, alpha=0.7)
        if not result.converged[j]:
            ax.plot(count, rows[-1], "x", color=PALETTE[colour], ms=5)
    ax.set(xscale="log", yscale="log", xlim=(0.9, 450), ylim=(2e-7, 20))
    # Plain labels and no minor ticks: laying those out takes most of a frame's time.
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
    ax.set_yticks([1e-6, 1e-4, 1e-2, 1], ["1e-6", "1e-4", "1e-2", "1"])
    ax.minorticks_off()


def explorer(signals: int = 8, iterations: int = 200) -> Explorer:
    """Residuals of a few signals over the iterations, for a sparsity and a rule for the step."""

    @functools.cache
    def task_at(k: int) -> Problem:
        # The bank is drawn first, so it is the same at every k.
        return problem(k, signals, torch.Generator().manual_seed(7))

    @functools.cache
    def cautious() -> float:
        return 1 / squared_norm(task_at(SPARSITY).bank)

    def show(k: int, rule: str) -> View:
        task, options = task_at(k), dict(STEPS[rule])
        if options.get("step", 1.0) is None:
            options["step"] = cautious()
        result = solve(task, **options, iterations=iterations)
        recovered = relative(result.code, task.z) < RECOVERED
        fig, ax = figure(6.5, 2.9)
        _draw_residuals(ax, result)
        ax.set(xlabel="iteration $i$", ylabel=r"$\|x-W^T z_i\|/\|x\|$")
        counts = result.iterations[recovered]
        numbers = {
            "recovered": f"{int(recovered.sum())} of {signals}",
            "diverged": f"{int(result.diverged.sum())} of {signals}",
            "median iterations of the recovered": int(counts.median()) if len(counts) else "none",
        }
        return View(fig, numbers)

    return Explorer(
        "steps",
        [
            Slider("k", (10, 20, 40, 80), "sparsity k", default=40, live=range(5, 96, 5)),
            Choice("rule", list(STEPS), label="rule for the step"),
        ],
        show,
        alt=f"Relative residuals of {signals} signals over the iterations, k = {{k}}, {{rule}}",
        caption=f"Relative residuals of {signals} signals over at most {iterations} iterations; "
        "both axes are logarithmic. Blue: came down to 1e-6. Dark orange, ending in a cross: "
        "diverged. Light orange, ending in a cross: neither.",
    )
