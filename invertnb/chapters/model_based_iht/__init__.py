"""Chapter 3: model-based compressive sensing, Algorithm 1, and the experiment of Figure 2.

Section 2.3 of the paper defines the sparsity model M_k and the structured approximation M(z, k);
section 4.2 tests both on synthetic signals. `compute` runs that experiment with every reading of
its decoder. What the notebook checks at toy size, it defines beside the equations.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse
from invertnb.chapters.model_based_iht import decoders
from invertnb.chapters.model_based_iht.decoders import DECODERS, ITERATIONS, error, norm
from invertnb.notebook import Choice, Explorer, Parameters as Base, Slider, View, parameter
from invertnb.notebook.figures import MUTED, PALETTE, Axes, Figure, figure

PAPER = {"matrices": 100, "signals": 1000}

RATIOS = {
    "a": "(a) ||W^T z||/||z||",
    "b": "(b) ||W W^T z||/||z||, as captioned",
    "b support": "(b) the same on the true support",
}


@dataclass(frozen=True)
class Parameters(Base):
    """Sizes of the experiment; by default those of section 4.2, which leaves the draws open."""

    matrices: int = parameter(20, minimum=2, help="random filter banks")
    signals: int = parameter(100, minimum=1, help="signals per filter bank")
    k: int = parameter(10, minimum=1, help="nonzeros of a code")
    K: int = parameter(96, minimum=1, help="filters")
    M: int = parameter(32, minimum=1, help="channels")
    l: int = parameter(5, minimum=1, help="filter length")
    D: int = parameter(32, minimum=1, help="signal length")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l > self.D:
            raise ValueError(f"l={self.l}: expected at most the signal length D={self.D}")
        if self.K * self.n < self.M * self.D:
            rows, columns = self.K * self.n, self.M * self.D
            raise ValueError(f"K={self.K}: expected Kn >= MD (section 2.2), but {rows} < {columns}")
        if self.k > self.K:
            raise ValueError(f"k={self.k}: expected at most the {self.K} blocks")

    @property
    def n(self) -> int:
        """Shifts of a filter, the length of a block (stride 1)."""
        return self.D - self.l + 1

    @property
    def model(self) -> ModelSparse:
        """M_k, with one block per filter."""
        return ModelSparse(self.n, self.k)

    def bank(self, generator: torch.Generator) -> FilterBank:
        """One filter bank of the experiment: N(0, 1) / sqrt(l M)."""
        return FilterBank.gaussian(self.K, self.M, self.l, generator=generator, device=self.device)


@dataclass(frozen=True)
class Data:
    """What the experiment of section 4.2 gave; every tensor is (matrices, signals), on the CPU.

    Attributes:
        ratios: the quotients of panels (a) and (b), by the keys of RATIOS.
        errors: ||x - x_hat|| / ||x|| (squared where the key says so), by the keys of DECODERS.
        residuals: (iterations + 1, matrices, signals), Algorithm 1's, row 0 is z_0 = 0.
        found: share of the true support that M_known finds.
        budget: where ||z_hat - z||^2 / ||z||^2 of M_known comes from: "missed" entries, "misplaced"
            ones, and "values" of the entries found.
        oracle: ||z_hat - z||^2 / ||z||^2 when the true support is given.
        cosine: <x, x_hat> / (||x|| ||x_hat||) for M_fixed.
        length: ||x_hat|| / ||x|| for M_fixed.
    """

    ratios: Mapping[str, Tensor]
    errors: Mapping[str, Tensor]
    residuals: Tensor
    found: Tensor
    budget: Mapping[str, Tensor]
    oracle: Tensor
    cosine: Tensor
    length: Tensor


def compute(p: Parameters) -> Data:
    """Run the experiment of section 4.2 for every reading of Figure 2."""
    filters, codes = p.generator(1), p.generator(2)
    runs = []
    for _ in range(p.matrices):
        bank = p.bank(filters)
        z = p.model.sample(p.signals, p.K, p.n, generator=codes, device=p.device)
        runs.append(_one_matrix(z, bank, p))
    return Data(**{field: _stacked([run[field] for run in runs]) for field in runs[0]})


def _stacked(results: list) -> Tensor | dict[str, Tensor]:
    if isinstance(results[0], Tensor):
        return torch.stack(results, dim=-2).cpu()
    return {key: _stacked([result[key] for result in results]) for key in results[0]}


def _one_matrix(z: Tensor, bank: FilterBank, p: Parameters) -> dict:
    x = bank.synthesis(z, p.D)
    h = bank.analysis(x)
    support, energy = z != 0, norm(z).square()
    codes = decoders.one_step_codes(z, x, h, bank, p.model)
    x_hats = {name: bank.synthesis(code, p.D) for name, code in codes.items()}
    x_hats["all of h"] = decoders.invert(h, bank, p.D)
    errors = {name: error(x, x_hat) for name, x_hat in x_hats.items()}
    errors["known squared"] = errors["known"].square()
    errors["fixed places"] = decoders.error_at_fixed_places(z, bank, p.model, p.D)
    errors |= decoders.errors_of_unit_rows(z, bank, p.model, p.D)
    rows = decoders.residuals(x, bank, p.model, max(ITERATIONS))
    errors |= {f"iht {i}": rows[i] for i in ITERATIONS}

    known, fixed = codes["known"], x_hats["fixed"]
    hit = (known != 0) & support
    parts = {"missed": z * ~hit, "misplaced": known * ~hit, "values": (known - z) * hit}
    return {
        "ratios": {
            "a": norm(x) / norm(z),
            "b": norm(h) / norm(z),
            "b support": norm(h * support) / norm(z),
        },
        "errors": errors,
        "residuals": rows,
        "found": hit.flatten(1).sum(1) / p.k,
        "budget": {name: norm(part).square() / energy for name, part in parts.items()},
        "oracle": norm(h * support - z).square() / energy,
        "cosine": (x * fixed).flatten(1).sum(1) / (norm(x) * norm(fixed)),
        "length": norm(fixed) / norm(x),
    }


def summary(values: Tensor) -> dict[str, float]:
    """Mean, sd of the matrices' means, range and quantiles of a (matrices, signals) tensor."""
    p5, p95 = torch.quantile(values.flatten(), torch.tensor([0.05, 0.95], dtype=values.dtype))
    numbers = {"mean": values.mean(), "sd": values.mean(1).std(), "min": values.min()}
    numbers |= {"5 %": p5, "95 %": p95, "max": values.max()}
    return {name: float(number) for name, number in numbers.items()}


def table(labels: Mapping[str, str], values: Mapping[str, Tensor]) -> str:
    """A text table of `summary`, one line for each key of `labels`."""
    rows = {label: summary(values[key]) for key, label in labels.items()}
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>8}" for name in next(iter(rows.values())))]
    for label, numbers in rows.items():
        lines.append(f"{label:{width}}" + "".join(f"{number:8.3f}" for number in numbers.values()))
    return "\n".join(lines)


def draw(data: Data) -> Figure:
    """Figure 2, redrawn: panel (b) in both readings, panel (c) in three."""
    fig, (a, b, c) = figure(8.4, 2.9, ncols=3, sharey=True)
    _histogram(a, data.ratios["a"], PALETTE["blue"], None)
    _histogram(b, data.ratios["b support"], PALETTE["blue"], "on the support")
    _histogram(b, data.ratios["b"], PALETTE["vermillion"], "as captioned")
    _histogram(c, data.errors["support"], PALETTE["blue"], "true support")
    _histogram(c, data.errors["known"], PALETTE["orange"], r"$\mathbb{M}_\mathrm{known}$")
    captioned = _mathematical(DECODERS["fixed"])
    _histogram(c, data.errors["fixed"], PALETTE["vermillion"], captioned)
    _paper_range(c)
    for ax, label in ((a, r"$\|W^T z\|/\|z\|$"), (b, r"$\|W W^T z\|/\|z\|$")):
        ax.axvline(1, color=PALETTE["black"], lw=1, ls=":")
        ax.set(xlim=(0, 2.5), xlabel=label)
    a.set_ylabel("share of signals")
    c.set(xlim=(0, 2.0), xlabel=r"$\|x-\hat x\|/\|x\|$")
    for ax in (b, c):
        ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    return fig


def _histogram(ax, values: Tensor, colour: str, label: str | None) -> None:
    flat = values.flatten()
    edges = torch.arange(0, 2.525, 0.025).tolist()
    weights = torch.full_like(flat, 1 / flat.numel())
    kwargs = {"color": colour, "alpha": 0.8, "label": label, "histtype": "stepfilled"}
    ax.hist(flat, bins=edges, weights=weights, **kwargs)


def _paper_range(ax) -> None:
    ax.axvspan(0.1, 0.2, color=MUTED, alpha=0.2, lw=0)


def draw_decoders(data: Data) -> Figure:
    """One row for each reading of the decoder: range, 5 to 95 %, and mean of its errors."""
    fig, ax = figure(7.5, 5.0)
    butt = {"solid_capstyle": "butt"}  # a bar that ends where its interval does
    for row, key in enumerate(DECODERS):
        s = summary(data.errors[key])
        colour = PALETTE["vermillion" if key == "fixed" else "blue"]
        ax.plot([s["min"], s["max"]], [row, row], color=colour, lw=1)
        ax.plot([s["5 %"], s["95 %"]], [row, row], color=colour, lw=6, alpha=0.45, **butt)
        ax.plot(s["mean"], row, "o", color=colour, ms=5)
    _paper_range(ax)
    ax.axvline(0.5, color=PALETTE["black"], lw=1, ls="--")
    ax.set_yticks(range(len(DECODERS)), [_mathematical(label) for label in DECODERS.values()])
    ax.set(ylim=(len(DECODERS) - 0.5, -0.5), xlim=(-0.02, None))
    ax.set_xlabel(r"relative error $\|x-\hat x\|/\|x\|$")
    return fig


def _mathematical(label: str) -> str:
    return re.sub(r"M_(\w+)", r"$\\mathbb{M}_\\mathrm{\1}$", label)


def draw_residuals(data: Data) -> Figure:
    """Algorithm 1's residual over its iterations: median, and 5 to 95 % of the signals."""
    rows = data.residuals.flatten(1)
    levels = torch.quantile(rows, torch.tensor([0.05, 0.5, 0.95], dtype=rows.dtype), dim=1)
    fig, ax = figure(6.0, 3.0)
    steps = range(len(rows))
    ax.fill_between(steps, levels[0], levels[2], color=PALETTE["blue"], alpha=0.25, lw=0)
    ax.plot(steps, levels[1], color=PALETTE["blue"], marker="o", ms=4)
    ax.set(yscale="log", xlabel="iteration i", ylabel=r"$\|x-W^T z_i\|/\|x\|$")
    return fig


def draw_approximation(z: Tensor, k: int) -> Figure:
    """M(z, k) step by step for one code (K, n): z, its pooled values, and three upsamplings."""
    K, n = z.shape
    model = ModelSparse(n, k)
    maxima = ModelSparse(n, None).project(z[None]).code[0]
    panels = {"z": z, "max pooling": maxima}
    for switches in ("known", "fixed", "averaged"):
        panels[switches] = model.project(z[None], switches=switches).code[0]
    names = {name: _mathematical(f"M_{name}") for name in ("known", "fixed")} | {"z": "$z$"}
    kept = (panels["known"] != 0).any(1, keepdim=True).expand(K, n).flatten()
    fig, axes = figure(7.5, 5.4, nrows=len(panels), sharex=True, sharey=True)
    for ax, (name, code) in zip(axes, panels.items(), strict=True):
        flat = code.flatten()
        for mask, colour in ((~kept, MUTED), (kept, PALETTE["vermillion"])):
            at = (mask & (flat != 0)).nonzero().flatten()
            ax.vlines(at, 0, flat[at], color=colour, lw=2)
            ax.plot(at, flat[at], "o", color=colour, ms=4.5)
        ax.axhline(0, color=MUTED, lw=0.8)
        for edge in range(0, K * n + 1, n):
            ax.axvline(edge - 0.5, color=MUTED, lw=0.8, ls=":")
        ax.set_ylabel(names.get(name, name), rotation=0, ha="right", va="center")
    axes[-1].set_xticks([n * i + (n - 1) / 2 for i in range(K)], [f"block {i}" for i in range(K)])
    axes[-1].tick_params(axis="x", length=0)
    return fig


def _frame() -> tuple[Figure, Axes]:
    """An explorer's canvas: its axes stand still from frame to frame, whatever the tick labels."""
    fig, ax = figure(7.0, 2.8)
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.09, right=0.98, bottom=0.19, top=0.97)
    return fig, ax


def explorer(signals: int = 200) -> Explorer:
    """The errors of one decoder over random signals at sparsity k, from one filter bank."""
    shown = ("fixed", "known", "support", "pursuit", "iht 5")
    edges = torch.arange(0, 1.825, 0.025).tolist()

    @functools.cache
    def errors_at(k: int) -> dict[str, Tensor]:
        p = Parameters(k=k)
        bank = p.bank(p.generator(3))
        z = p.model.sample(signals, p.K, p.n, generator=p.generator(4))
        x = bank.synthesis(z, p.D)
        codes = decoders.one_step_codes(z, x, bank.analysis(x), bank, p.model)
        errors = {name: error(x, bank.synthesis(codes[name], p.D)) for name in shown[:-1]}
        return errors | {shown[-1]: decoders.residuals(x, bank, p.model, 5)[-1]}

    def show(k: int, decoder: str) -> View:
        errors = errors_at(k)[decoder]
        numbers = summary(errors.view(1, -1).expand(2, -1))
        fig, ax = _frame()
        _paper_range(ax)
        ax.hist(errors.clamp(max=1.79), edges, color=PALETTE["blue"], histtype="stepfilled")
        ax.axvline(numbers["mean"], color=PALETTE["vermillion"])
        ax.set(xlim=(0, 1.8), ylabel="signals", xlabel=r"relative error $\|x-\hat x\|/\|x\|$")
        asked = {"mean": "mean", "5 %": "5 %", "95 %": "95 %", "largest": "max"}
        return View(fig, {name: f"{numbers[key]:.3f}" for name, key in asked.items()})

    return Explorer(
        "decoders",
        [
            Slider("k", (1, 2, 5, 10, 20, 30), "sparsity k", default=10, live=range(1, 41)),
            Choice("decoder", {DECODERS[key]: key for key in shown}, label="decoder"),
        ],
        show,
        alt="Histogram of relative reconstruction errors at sparsity k = {k}, decoder: {decoder}",
        caption=f"Errors of one decoder over {signals} random signals from one filter bank of "
        "Figure 2's size. Gray: the paper's 0.1 to 0.2. Dark orange line: the mean. What lies "
        "beyond 1.8 is counted in the last bar.",
    )


def steps_explorer(last: int = 8) -> Explorer:
    """Algorithm 1 on one signal, iteration by iteration: the true code against the iterate."""
    edge = 1.5

    @functools.cache
    def run(k: int) -> tuple[Tensor, list[Tensor], Tensor]:
        p = Parameters(k=k)
        bank = p.bank(p.generator(3))
        z = p.model.sample(1, p.K, p.n, generator=p.generator(5))
        x = bank.synthesis(z, p.D)
        zs = decoders.iterates(x, bank, p.model, last)
        gaps = torch.cat([error(x, bank.synthesis(guess, p.D)) for guess in zs])
        return z[0], [guess[0] for guess in zs], gaps

    def show(i: int, k: int) -> View:
        truth, zs, gaps = run(k)
        guess, (K, n) = zs[i], truth.shape
        right, wrong = (guess != 0) & (truth != 0), (guess != 0) & (truth == 0)
        ring = {"mfc": "none", "mec": PALETTE["black"], "mew": 1.2, "ms": 8}
        fig, ax = _frame()
        ax.axhline(0, color=MUTED, lw=0.8)
        for mask, code, marker, label, style in (
            (truth != 0, truth, "o", "true code", ring),
            (right, guess, "o", "right place", {"color": PALETTE["green"], "ms": 4.5}),
            (wrong, guess, "X", "wrong place", {"color": PALETTE["vermillion"], "ms": 5}),
        ):
            at = mask.flatten().nonzero().flatten()
            values = code.flatten()[at].clamp(-edge, edge)
            ax.plot(at / n, values, marker, ls="none", label=label, **style)
        ax.set(xlim=(-1, K + 1), ylim=(-1.65, 2.1), xlabel="block", ylabel="$z$")
        ax.legend(frameon=False, fontsize=8.5, ncols=3, loc="upper right")
        numbers = {
            "relative residual": f"{float(gaps[i]):.4f}",
            "right places": f"{int(right.sum())} of {k}",
            "wrong places": int(wrong.sum()),
        }
        return View(fig, numbers)

    return Explorer(
        "algorithm-1",
        [
            Slider("i", range(last + 1), "iteration i", default=1, format="{:d}"),
            Choice("k", {"k = 10": 10, "k = 40": 40}, label="sparsity"),
        ],
        show,
        alt="Iterate number {i} of Algorithm 1 against the true code, {k}",
        caption="The iterate of Algorithm 1 against the code that made the signal. A ring is a "
        "nonzero of the true code; a dot inside it, an entry found. Entries beyond "
        f"{edge} are drawn at that height.",
    )
