"""Chapter 1: a CNN layer as a matrix (section 2.2 and Figure 1 of the paper).

What the notebook leaves to this module: the random banks of Figure 2's size with the spectrum of
their W, the figures, and the two explorers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb import notebook
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure, parameter
from invertnb.notebook.figures import Figure, draw_matrix

PAPER = {"matrices": 20}
GREY = "#59636e"


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """The size of the random layers; by default that of the paper's Figure 2.

    Raises:
        ValueError: a number of shifts that is no integer, or too few rows to span the inputs.
    """

    K: int = parameter(96, minimum=1, help="filters")
    M: int = parameter(32, minimum=1, help="channels")
    l: int = parameter(5, minimum=1, help="length of a filter")  # noqa: E741
    D: int = parameter(32, minimum=1, help="length of a signal")
    stride: int = parameter(1, minimum=1, help="stride t; (D - l) / t must be an integer")
    matrices: int = parameter(5, minimum=2, help="independent random matrices")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.D < self.l or (self.D - self.l) % self.stride:
            expected = f"l={self.l} plus a multiple of stride={self.stride}"
            raise ValueError(f"D={self.D}: expected {expected} (section 2.2)")
        n = (self.D - self.l) // self.stride + 1
        if self.K * n < self.M * self.D:
            expected = f"K n >= M D (section 2.2), but {self.K * n} < {self.M * self.D}"
            raise ValueError(f"K={self.K}: expected {expected}")


@dataclass(frozen=True)
class Data:
    """Random layers with the spectra of W^T W; eigenvalues ascend.

    Attributes:
        bank: the first of the banks, with the scaling 1/sqrt(M l) of Theorem 3.1.
        size: length D of a signal.
        row_norms: (matrices, K), norms of the filters, which are the norms of W's rows.
        eigenvalues: (matrices, M D), of W^T W for each bank.
        unit_eigenvalues: (M D,), the same for the first bank with its filters normalized.
        weak: how many eigenvalues of the first bank lie below the bulk (at least 1 is counted).
        weak_energy: (D,), how the eigenvectors of those spread over the positions d; sums to 1.
        coverage: (D,), how many of the n shifts reach position d.
    """

    bank: FilterBank
    size: int
    row_norms: Tensor
    eigenvalues: Tensor
    unit_eigenvalues: Tensor
    weak: int
    weak_energy: Tensor
    coverage: Tensor


def compute(parameters: Parameters) -> Data:
    """Draw the banks of `parameters` and take the spectrum of each W."""
    p = parameters
    generator = p.generator()
    shape = {"K": p.K, "M": p.M, "l": p.l, "stride": p.stride, "device": p.device}
    banks = [FilterBank.gaussian(**shape, generator=generator) for _ in range(p.matrices)]
    first = banks[0]
    values, vectors = torch.linalg.eigh(normal(first, p.D))
    others = [torch.linalg.eigvalsh(normal(bank, p.D)) for bank in banks[1:]]
    weak = max(1, int((values < edges(p.K, p.M * p.stride)[0]).sum()))
    energy = vectors[:, :weak].square().view(p.M, p.D, weak).sum(0).mean(1)
    ones = FilterBank(torch.ones(1, 1, p.l, dtype=torch.float64), p.stride)
    return Data(
        bank=first,
        size=p.D,
        row_norms=torch.stack([bank.weight.flatten(1).norm(dim=1) for bank in banks]).cpu(),
        eigenvalues=torch.stack([values, *others]).cpu(),
        unit_eigenvalues=torch.linalg.eigvalsh(normal(first.normalized(), p.D)).cpu(),
        weak=weak,
        weak_energy=energy.cpu(),
        coverage=ones.matrix(p.D).sum(0),
    )


def normal(bank: FilterBank, size: int) -> Tensor:
    """W^T W, (M D) x (M D): its eigenvalues are the squared singular values of W."""
    impulses = torch.eye(bank.M * size, dtype=torch.float64, device=bank.weight.device)
    return bank.synthesis(bank.analysis(impulses.view(-1, bank.M, size)), size).flatten(1)


def edges(K: int, M: int) -> tuple[float, float]:
    """Where the spectrum of W^T W ends for many Gaussian filters, boundaries left aside.

    From Marchenko and Pastur's law for the K x M transfer matrix at each frequency, whose entries
    have variance 1/M (our derivation). At stride t there are M t channels in place of M.
    """
    ratio = math.sqrt(K / M)
    return max(ratio - 1, 0.0) ** 2, (ratio + 1) ** 2


def bulk_density(values: np.ndarray, K: int, M: int) -> np.ndarray:
    """Marchenko and Pastur's density between those ends, for K >= M; integrates to 1."""
    low, high = edges(K, M)
    inside = np.clip((high - values) * (values - low), 0, None)
    return np.sqrt(inside) / (2 * np.pi * np.maximum(values, 1e-12))


def chi_density(norms: np.ndarray, freedom: int) -> np.ndarray:
    """Density of the norm of `freedom` i.i.d. N(0, 1/freedom) entries, chi / sqrt(freedom)."""
    half = freedom / 2
    log = half * math.log(half) - math.lgamma(half) + math.log(2)
    return np.exp(log + (freedom - 1) * np.log(norms) - half * norms**2)


def draw_layer(bank: FilterBank, x: Tensor) -> Figure:
    """Figure 1 of the paper from real numbers: W, x (M, D) and h = W x, with its measures."""
    D = x.shape[1]
    n, K, M, l = bank.code_size(D), bank.K, bank.M, bank.l  # noqa: E741
    W, h = bank.matrix(D), bank.analysis(x[None])[0].reshape(-1, 1)
    rows, columns = W.shape
    fig, ax = figure(7.5, 7.5 * (rows + 8) / (columns + 27))
    # Everything stands in units of W's cells: W at the origin, then x and h, centered beside it.
    x_left, h_left = columns + 5, columns + 14
    x_top = (rows - columns) / 2
    for values, left, top, block in (
        (W, 0, 0, n),
        (x.reshape(-1, 1), x_left, x_top, D),
        (h, h_left, 0, n),
    ):
        width = values.shape[1] if left == 0 else 2
        image = draw_matrix(ax, values)
        image.set_extent((left, left + width, top + values.shape[0], top))
        _grid(ax, left, top, width, values.shape[0], block, D)
    label = {"ha": "center", "va": "center"}
    for i in range(K):
        ax.text(h_left + 2.6, (i + 0.5) * n, f"$h_{{{i + 1}}}$", ha="left", va="center")
        for m in range(M):
            name = f"$(w_{{{i + 1},{m + 1}}})^{{\\mathsf{{T}}}}$"
            ax.text(m * D + 0.25 * D, (i + 0.8) * n, name, fontsize=9, **label)
    for m in range(M):
        name = f"$x_{{{m + 1}}}$"
        ax.text(x_left - 0.6, x_top + (m + 0.5) * D, name, ha="right", va="center")
    for left, text in ((x_left - 3.6, r"$\times$"), (h_left - 3.5, "=")):
        ax.text(left, rows / 2, text, fontsize=14, **label)
    for y, length, text in ((-0.8, l, "$l$"), (-3, D, "$D$"), (-5.2, columns, "$MD$")):
        _measure(ax, (0, y), (length, y), text)
    _measure(ax, (-1, 0), (-1, n), "$n$")
    _measure(ax, (-4, 0), (-4, rows), "$Kn$")
    ax.set_xlim(-7, h_left + 6)
    ax.set_ylim(max(rows, x_top + columns) + 2.5, min(-7, x_top - 1))
    for left, name in ((columns / 2, "$W$"), (x_left + 1, "$x$"), (h_left + 1, "$h$")):
        ax.text(left, rows + 1.5, name, fontsize=12, **label)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return fig


def _grid(ax, left: float, top: float, width: int, height: int, down: int, across: int) -> None:
    """The outline of a matrix with a line at every block of `down` rows and `across` columns."""
    for y in range(0, height + 1, down):
        ax.plot([left, left + width], [top + y] * 2, color=GREY, lw=0.8)
    for step in {*range(0, width + 1, across), width}:
        ax.plot([left + step] * 2, [top, top + height], color=GREY, lw=0.8)


def _measure(ax, start, end, text: str) -> None:
    """A dimension line with its name in the middle."""
    style = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": GREY, "lw": 1, "shrinkA": 0}
    ax.annotate("", start, end, arrowprops={**style, "shrinkB": 0}, annotation_clip=False)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    shift = (0, -1.1) if start[1] == end[1] else (-1.4, 0)
    ax.text(x + shift[0], y + shift[1], text, ha="center", va="center")


def draw_gram(bank: FilterBank, size: int) -> Figure:
    """W W^T and W^T W of a small bank, with lines between filters and between channels."""
    W = bank.matrix(size)
    fig, axes = figure(7.5, 3.5, ncols=2)
    limit = float(bank.gram().abs().max())
    panels = ((W @ W.T, bank.code_size(size), "row $(i, j)$"), (W.T @ W, size, "column $(m, d)$"))
    for ax, (values, step, label) in zip(axes, panels, strict=True):
        image = draw_matrix(ax, values, limit)
        for cut in range(step, values.shape[0], step):
            ax.axhline(cut - 0.5, color=GREY, lw=0.6)
            ax.axvline(cut - 0.5, color=GREY, lw=0.6)
        ax.set_xlabel(label)
        ax.set_ylabel(label)
    fig.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
    return fig


def draw(data: Data) -> Figure:
    """The spectrum of W^T W, and the positions that its weakest direction lives on."""
    K, M = data.bank.K, data.bank.M * data.bank.stride
    fig, (left, right) = figure(7.5, 3.2, ncols=2, width_ratios=[3, 2])
    _draw_spectrum(left, data.eigenvalues.flatten().numpy(), K, M)
    left.legend(frameon=False, fontsize=9)
    d = np.arange(data.size)
    coverage, energy = data.coverage.numpy(), data.weak_energy.numpy()
    right.plot(d, coverage / coverage.max(), color=PALETTE["black"], label="coverage")
    right.bar(d, energy, width=0.8, color=PALETTE["vermillion"], alpha=0.8,
              label="weak directions")  # fmt: skip
    right.set_ylim(0, 1.4)
    right.set_xlabel("position $d$")
    right.set_ylabel("share")
    right.legend(frameon=False, fontsize=9, loc="upper center")
    return fig


def _draw_spectrum(ax, values: np.ndarray, K: int, M: int, top: float | None = None) -> None:
    high = max(values.max(), edges(K, M)[1])
    bins = np.linspace(0, 1.05 * high, 50)
    ax.hist(values, bins, density=True, color=PALETTE["blue"], alpha=0.75, label="eigenvalues")
    if K >= M:
        grid = np.linspace(*edges(K, M), 300)
        density = np.where(grid > 0.01, bulk_density(grid, K, M), np.nan)
        ax.plot(grid, density, color=PALETTE["black"], label="bulk, without boundaries")
    ax.axvline(values.mean(), color=PALETTE["orange"], linestyle="--", label="mean")
    ax.set_ylim(0, top)
    ax.set_xlabel("eigenvalue of $W^{\\mathsf{T}} W$")
    ax.set_ylabel("density")


def draw_norms(data: Data) -> Figure:
    """Row norms of the random W against the chi density with M l degrees of freedom."""
    freedom = data.bank.M * data.bank.l
    norms = data.row_norms.flatten().numpy()
    reach = max(np.abs(norms - 1).max(), 3 / math.sqrt(2 * freedom)) * 1.1
    grid = np.linspace(max(1 - reach, 1e-6), 1 + reach, 300)
    fig, ax = figure(7.5, 2.8)
    ax.hist(norms, np.linspace(1 - reach, 1 + reach, 37), density=True,
            color=PALETTE["blue"], alpha=0.75, label="filters")  # fmt: skip
    ax.plot(grid, chi_density(grid, freedom), color=PALETTE["black"],
            label=f"$\\chi_{{{freedom}}} / \\sqrt{{{freedom}}}$")  # fmt: skip
    ax.axvline(1, color=PALETTE["orange"], linestyle="--", label="unit norm")
    ax.set_xlabel("norm of a row of $W$")
    ax.set_ylabel("density")
    ax.legend(frameon=False)
    return fig


def draw_blocks(h: Tensor) -> Figure:
    """A code h (K, n) as K blocks, the entry of largest magnitude in each marked."""
    K, n = h.shape
    fig, ax = figure(7.5, 2.4)
    colours = [PALETTE[name] for name in ("blue", "green", "purple", "sky")]
    for i, block in enumerate(h.numpy()):
        places = np.arange(i * n, (i + 1) * n)
        colour = colours[i % len(colours)]
        ax.vlines(places, 0, block, color=colour, lw=2)
        ax.plot(places, block, "o", color=colour, markersize=4)
        switch = int(np.abs(block).argmax())
        ax.plot(places[switch], block[switch], "o", markersize=11, markerfacecolor="none",
                markeredgecolor=PALETTE["vermillion"], markeredgewidth=1.8)  # fmt: skip
        ax.axvline(i * n - 0.5, color=GREY, lw=0.8, linestyle=":")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xticks([(i + 0.5) * n - 0.5 for i in range(K)], [f"$h_{{{i + 1}}}$" for i in range(K)])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-1, K * n)
    ax.set_ylabel("$h = W x$")
    return fig


EXPLORED_FILTERS, SHORTEST = 4, 12


def explorer() -> Explorer:
    """W over the length of the filters, the stride and the channels: its blocks, rank, spectrum."""
    return Explorer(
        "structure",
        [
            Slider("l", [1, 2, 5], "filter length l", default=2, live=range(1, 8)),
            Slider("t", [1, 2, 3], "stride t", live=range(1, 6)),
            Slider("M", [1, 2], "channels M", default=2, live=range(1, 6)),
        ],
        _structure,
        alt="The matrix W of four filters of length {l} at stride {t} on {M} channels",
        caption=f"The matrix W of {EXPLORED_FILTERS} random filters of unit norm. A band of rows is "
        "one filter, a panel of columns one channel. The signal's length D is the smallest from "
        f"{SHORTEST} on for which the number of shifts n is an integer.",
    )


def _structure(l: int, t: int, M: int) -> View:  # noqa: E741
    D = l + t * math.ceil((SHORTEST - l) / t)
    draws = torch.Generator().manual_seed(1000 * l + 10 * t + M)
    bank = FilterBank.gaussian(EXPLORED_FILTERS, M, l, stride=t, generator=draws).normalized()
    W, n = bank.matrix(D), bank.code_size(D)
    fig, ax = figure(6.0, 3.6)
    image = draw_matrix(ax, W)
    image.set_extent((0, W.shape[1], W.shape[0], 0))
    ax.set_aspect("auto")
    _grid(ax, 0, 0, W.shape[1], W.shape[0], n, D)
    ax.set_xlim(0, W.shape[1])
    ax.set_ylim(W.shape[0], 0)
    ax.set_xticks([(m + 0.5) * D for m in range(M)], [f"channel {m + 1}" for m in range(M)])
    filters = range(bank.K)
    ax.set_yticks([(i + 0.5) * n for i in filters], [f"filter {i + 1}" for i in filters])
    ax.tick_params(length=0)
    singular = torch.linalg.svdvals(W)
    rank = int((singular > 1e-9 * singular[0]).sum())
    spans = rank == W.shape[1]
    return View(fig, {
        "length D": D,
        "shifts n": n,
        "rows K n": W.shape[0],
        "columns M D": W.shape[1],
        "nonzeros in a row": int((W != 0).sum(1).max()),
        "share of zeros": float((W == 0).double().mean()),
        "rank": rank,
        "rows span the inputs": "yes" if spans else "no",
        "largest singular value": float(singular[0]),
        "smallest singular value": float(singular[-1]) if spans else 0.0,
    })  # fmt: skip


EXPLORED_CHANNELS, EXPLORED_SIZE = 8, 32


def spectrum_explorer() -> Explorer:
    """The spectrum of W^T W over the number of filters, for short and long filters."""
    return Explorer(
        "spectrum",
        [
            Slider("K", [8, 9, 12, 16, 32, 64], "filters K", default=16, live=range(4, 97)),
            Slider("l", [3, 9], "filter length l", live=range(1, 16)),
        ],
        _spectrum,
        alt="Histogram of the eigenvalues of W transposed times W for {K} filters of length {l}",
        caption=f"Eigenvalues of the matrix that analysis and synthesis make together, for random "
        f"filters on {EXPLORED_CHANNELS} channels of length {EXPLORED_SIZE}. The ends of the "
        "spectrum are the frame bounds A and B; the black curve leaves the boundaries out.",
    )


def _spectrum(K: int, l: int) -> View:  # noqa: E741
    draws = torch.Generator().manual_seed(100 * K + l)
    bank = FilterBank.gaussian(K, EXPLORED_CHANNELS, l, generator=draws)
    rows, columns = K * bank.code_size(EXPLORED_SIZE), EXPLORED_CHANNELS * EXPLORED_SIZE
    # Singular values of W itself: its square would lose half the digits of the smallest.
    values = torch.zeros(columns, dtype=torch.float64)
    found = torch.linalg.svdvals(bank.matrix(EXPLORED_SIZE)).square()
    values[: found.numel()] = found
    fig, ax = figure(6.0, 3.0)
    _draw_spectrum(ax, values.numpy(), K, EXPLORED_CHANNELS)
    ax.legend(frameon=False, fontsize=9)
    spans = bool(values[-1] > 1e-18 * values[0])
    return View(fig, {
        "rows K n": rows,
        "columns M D": columns,
        "redundancy K n / (M D)": rows / columns,
        "rows span the inputs": "yes" if spans else "no",
        "lower frame bound A": float(values[-1]) if spans else 0.0,
        "upper frame bound B": float(values[0]),
        "condition number of W": math.sqrt(float(values[0] / values[-1])) if spans else "infinite",
    })  # fmt: skip
