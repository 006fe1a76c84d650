"""Which quantity governs delta: M l^2 / D, as Theorem 3.1 has it, or M l? Sweeps that tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse, rip
from invertnb.notebook.figures import MUTED, PALETTE, Figure, figure

#: (l, M, D). In the first sweep M l stays and M l^2 / D falls; in the second the reverse.
SWEEPS = {
    "M l fixed": ((5, 32, 8), (5, 32, 16), (5, 32, 32), (5, 32, 64), (5, 32, 128), (5, 32, 256)),
    "M l^2 / D fixed": ((5, 8, 8), (5, 16, 16), (5, 32, 32), (5, 64, 64), (10, 64, 256), (10, 128, 512)),
}
LABELS = {"M l fixed": r"$M\ell$ fixed", "M l^2 / D fixed": r"$M\ell^2/D$ fixed"}
# Searching for bad codes at larger D costs more and must find what smaller D already has.
SEARCHED = 32


@dataclass(frozen=True)
class Point:
    """One size: the typical deviation of random codes, and a certified interval of delta_k.

    Attributes:
        l, M, D: the size.
        typical: (seeds,), the 99 % quantile of | ||W^T z||^2 / ||z||^2 - 1 | over random codes.
        lower, upper: (seeds,), a certified interval for delta_k of the same layers.
    """

    l: int
    M: int
    D: int
    typical: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def weights(self) -> int:
        """M l."""
        return self.M * self.l

    @property
    def papers(self) -> float:
        """M l^2 / D."""
        return self.M * self.l**2 / self.D


def compute(
    K: int, k: int, seeds: int, samples: int, generator: torch.Generator, device: str = "cpu"
) -> dict[str, list[Point]]:
    """Both sweeps, for several layers at each size."""
    return {
        name: [_point(*size, K, k, seeds, samples, generator, device) for size in sizes]
        for name, sizes in SWEEPS.items()
    }


def _point(
    l: int, M: int, D: int, K: int, k: int, seeds: int, samples: int,
    generator: torch.Generator, device: str,
) -> Point:
    columns = []
    for _ in range(seeds):
        bank = FilterBank.gaussian(K, M, l, generator=generator, device=device)
        n = D - l + 1
        ratios = rip.sample_ratios(bank, ModelSparse(n, k), D, samples, generator=generator)
        typical = float((ratios.synthesis.square() - 1).abs().quantile(0.99))
        # A code for the first entries of the signal is a code for all: delta grows with D.
        near = min(D, SEARCHED)
        found = rip.lower_bound(
            bank, ModelSparse(near - l + 1, k), near, starts=16, generator=generator
        )
        upper = rip.gershgorin(rip.Atoms(bank, ModelSparse(n, k), D))
        columns.append((typical, found.delta, upper))
    return Point(l, M, D, *torch.tensor(columns, dtype=torch.float64).unbind(1))


def exponents(sweeps: dict[str, list[Point]], quantity: str) -> Tensor:
    """(a, b) of the fit quantity ~ (M l)^a (l / D)^b for every seed, (seeds, 2).

    Theorem 3.1 says a = b = -1/2 (M l^2 / D = (M l)(l / D)); our version says a = -1/2, b = 0.
    """
    points = [point for points in sweeps.values() for point in points]
    columns = [[1.0, p.weights, p.l / p.D] for p in points]
    design = torch.tensor(columns, dtype=torch.float64)
    design[:, 1:] = design[:, 1:].log()
    values = torch.stack([getattr(p, quantity) for p in points]).log()
    return torch.linalg.lstsq(design, values).solution[1:].T


def draw(sweeps: dict[str, list[Point]]) -> Figure:
    """Both sweeps against both quantities, with what each theory predicts."""
    fig, (left, right) = figure(8.4, 3.4, ncols=2, sharey=True)
    for ax, key in ((left, "papers"), (right, "weights")):
        every = [getattr(point, key) for points in sweeps.values() for point in points]
        for (name, points), colour in zip(sweeps.items(), ("blue", "vermillion"), strict=True):
            at = [getattr(point, key) for point in points]
            for p, x in zip(points, at, strict=True):
                ends = [float(p.lower.mean()), float(p.upper.mean())]
                ax.plot([x, x], ends, "_-", lw=1.5, ms=9, color=PALETTE[colour])
            typical = [float(p.typical.mean()) for p in points]
            ax.plot(at, typical, "o", ms=5, mfc="white", color=PALETTE[colour], label=LABELS[name])
        base = sweeps["M l fixed"][2]  # the size of Figure 2
        middle = float((base.lower * base.upper).sqrt().mean()) * getattr(base, key) ** 0.5
        ends = torch.tensor([min(every), max(every)])
        ax.plot(ends, middle / ends.sqrt(), ":", color=MUTED, label="slope $-1/2$")
        ax.set(xscale="log", yscale="log")
    left.set(xlabel=r"$M\ell^2/D$", ylabel="deviation")
    right.set_xlabel(r"$M\ell$")
    right.legend(frameon=False)
    return fig
