"""Isometry constants of random layers: sampled, certified, exact; and where each says yes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from invertnb import FilterBank, ModelSparse, rip
from invertnb.notebook.figures import MUTED, PALETTE, Figure, figure
from invertnb.rip import Isometry
from invertnb.theory import model_rip

#: A toy layer whose supports can all be tried: K, M, l, D.
TOY = (6, 8, 3, 6)


@dataclass(frozen=True)
class Row:
    """One layer, one sparsity, one order (1: M_k, 2: M_2k).

    Attributes:
        name: which layer.
        k, order: which constant.
        ratios: largest | r^2 - 1 | over random codes, r as in Figure 2(a).
        supports: largest deviation over random supports, each with its worst code.
        interval: the certified interval.
        exact: the constant itself, where all supports could be tried.
    """

    name: str
    k: int
    order: int
    ratios: float
    supports: float
    interval: Isometry
    exact: float | None = None


def measure(
    name: str, bank: FilterBank, D: int, k: int, order: int, samples: int,
    generator: torch.Generator, exact: bool = False,
) -> Row:
    """Sample, certify and, if asked, enumerate one constant."""
    model = ModelSparse(bank.code_size(D), k)
    given = {"order": order, "generator": generator}
    ratios = rip.sample_ratios(bank, model, D, samples, **given).synthesis
    extremes = rip.sample_extremes(bank, model, D, samples, **given)
    interval = rip.certify(bank, model, D, **given)
    constant = rip.exact_constant(bank, model, D, order=order) if exact else None
    return Row(
        name, k, order, float((ratios.square() - 1).abs().max()),
        float((extremes - 1).abs().max()), interval, constant,
    )


def toy(samples: int, generator: torch.Generator) -> list[Row]:
    """Exact constants beside samples and certificates, for a layer with unit rows."""
    K, M, l, D = TOY
    bank = FilterBank.gaussian(K, M, l, generator=generator).normalized()
    cases = [(k, order) for order in (1, 2) for k in (1, 2, 3) if (k, order) != (3, 2)]
    return [measure("toy", bank, D, k, order, samples, generator, True) for k, order in cases]


def figure_2(
    K: int, M: int, l: int, D: int, k: int, seeds: int, samples: int,
    generator: torch.Generator, device: str = "cpu",
) -> list[Row]:
    """delta_k and delta_2k of layers of Figure 2's size, in the paper's scaling; the last also
    with unit rows."""
    rows = []
    for seed in range(seeds):
        bank = FilterBank.gaussian(K, M, l, generator=generator, device=device)
        rows += [measure(f"layer {seed}", bank, D, k, r, samples, generator) for r in (1, 2)]
    name = f"layer {seed}, unit rows"
    return rows + [measure(name, bank.normalized(), D, k, r, samples, generator) for r in (1, 2)]


def table(rows: list[Row]) -> str:
    """A text table: what sampling sees, and the certified interval beside it."""
    lines = ["layer               k   constant   codes  supports   certified    exact"]
    for row in rows:
        kind = f"delta_{'' if row.order == 1 else '2'}k"
        exact = "" if row.exact is None else f"{row.exact:9.3f}"
        low, high = row.interval.lower, row.interval.upper
        lines.append(
            f"{row.name:18}{row.k:3}   {kind:9}{row.ratios:7.2f}{row.supports:9.2f}"
            f"   [{low:.2f}, {high:.2f}]{exact}".rstrip()
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Phases:
    """What four voices say of delta_k over a grid of sparsities and channels, (ks, Ms) each.

    Attributes:
        ks, Ms: the grid.
        sampled: the largest deviation over random supports.
        lower, upper: the certified interval.
        theorem: our version of Theorem 3.1, which random layers exceed with probability eps.
    """

    ks: tuple[int, ...]
    Ms: tuple[int, ...]
    sampled: Tensor
    lower: Tensor
    upper: Tensor
    theorem: Tensor


def phases(
    K: int, l: int, D: int, ks: tuple[int, ...], Ms: tuple[int, ...], eps: float, samples: int,
    delta: float, generator: torch.Generator, device: str = "cpu",
) -> Phases:
    """One Gaussian layer for each M. The semidefinite bound is computed where it may decide `delta`."""
    cells = torch.zeros(4, len(ks), len(Ms), dtype=torch.float64)
    for column, M in enumerate(Ms):
        bank = FilterBank.gaussian(K, M, l, generator=generator, device=device)
        for row, k in enumerate(ks):
            model = ModelSparse(D - l + 1, k)
            layer = model_rip.Layer(M * l, K, D - l + 1)
            extremes = rip.sample_extremes(bank, model, D, samples, generator=generator)
            known = rip.certify(bank, model, D, sdp=False, starts=16, generator=generator)
            upper = known.upper
            if known.lower <= delta < upper < 1.6 * delta:
                atoms = rip.Atoms(bank, model, D)
                tighter = rip.semidefinite_bound(rip.block_coherence(atoms), 1, k)
                upper = min(upper, tighter + rip.rounding(atoms))
            cells[:, row, column] = torch.tensor([
                float((extremes - 1).abs().max()), known.lower, upper,
                model_rip.isometry_bound(layer, k, eps),
            ])  # fmt: skip
    return Phases(ks, Ms, *cells)


VERDICTS = (
    ("certified: no", PALETTE["vermillion"]),
    ("not decided", "#e8e8e8"),
    ("certified: yes", PALETTE["sky"]),
)


def verdicts(phases: Phases, delta: float) -> Tensor:
    """Index into VERDICTS for every cell: is delta_k of that layer at most `delta`?"""
    cells = torch.ones(phases.lower.shape, dtype=torch.int64)
    cells[phases.upper <= delta] = 2
    cells[phases.lower > delta] = 0
    return cells


def draw_phases(phases: Phases, delta: float) -> Figure:
    """The phase diagram over (k, M): colours for what is certified, marks for who else says yes."""
    fig, ax = figure(7.5, 3.6)
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.08, right=0.98, bottom=0.15, top=0.81)
    found = verdicts(phases, delta)
    for index, (label, colour) in enumerate(VERDICTS):
        ax.scatter([], [], marker="s", s=60, color=colour, label=label)
        for row, column in (found == index).nonzero().tolist():
            edges = {"facecolor": colour, "edgecolor": MUTED, "lw": 0.4}
            ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **edges))
    marks = (("sample: yes", phases.sampled, "o", -0.18), ("theorem: yes", phases.theorem, "^", 0.18))
    for label, values, marker, shift in marks:
        rows, columns = (values <= delta).nonzero().unbind(1)
        ax.scatter(columns + shift, rows, marker=marker, s=26, color=PALETTE["black"], label=label)
    ax.set(xlim=(-0.5, len(phases.Ms) - 0.5), ylim=(-0.5, len(phases.ks) - 0.5))
    ax.set_xticks(range(len(phases.Ms)), phases.Ms)
    ax.set_yticks(range(len(phases.ks)), phases.ks)
    ax.set(xlabel="channels $M$", ylabel="sparsity $k$")
    ax.tick_params(length=0)
    ax.legend(frameon=False, fontsize=9, ncols=5, columnspacing=1.2, handletextpad=0.3,
              loc="lower center", bbox_to_anchor=(0.5, 1))  # fmt: skip
    return fig
