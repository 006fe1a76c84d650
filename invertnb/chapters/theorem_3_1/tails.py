"""One code and many random layers: the law of ||W^T z||^2, sampled and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.stats import chi2
from torch import Tensor

from invertnb import ModelSparse
from invertnb.notebook.figures import MUTED, PALETTE, Figure, figure
from invertnb.theory import model_rip

CHUNK = 2**22  # weights drawn at a time
#: A constant that makes Theorem A.2 true for Gaussian variables, in the paper's Equation (4):
#: exponents t^2 / (16 ||a||_2^2) and t / (4 ||a||_inf) follow from Laurent and Massart.
SQUARE, LINEAR = 1 / 16, 1 / 4


def codes(K: int, n: int, k: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Unit codes (K, n) by name: three in M_k, then two in M_2k with a filter at two shifts."""
    at, one = (n - 1) // 2, torch.zeros(K, n, dtype=torch.float64)
    one[0, at] = 1
    scattered = ModelSparse(n, k).sample(1, K, n, generator=generator)[0]
    stacked = torch.zeros(K, n, dtype=torch.float64)
    stacked[:k, at] = 1
    pair = torch.zeros(K, n, dtype=torch.float64)
    pair[0, at : at + 2] = 1
    pairs = torch.zeros(K, n, dtype=torch.float64)
    pairs[:k, at : at + 2] = 1
    found = {
        "one nonzero": one,
        f"{k} nonzeros, scattered": scattered,
        f"{k} nonzeros at one place": stacked,
        "one filter at two shifts": pair,
        f"{k} filters at two shifts each": pairs,
    }
    return {name: z / z.norm() for name, z in found.items()}


def channel_covariance(z: Tensor, l: int) -> Tensor:
    """C(z), (D, D): every channel of y = W^T z has covariance C(z) / (M l), stride 1.

    Entry (d, d') is the sum over filters i and taps u of z[i, d - u] z[i, d' - u].
    """
    K, n = z.shape
    columns = z.new_zeros(K, l, n + l - 1)
    for u in range(l):
        columns[:, u, u : u + n] = z
    flat = columns.flatten(0, 1)
    return flat.T @ flat


def variance(z: Tensor, M: int, l: int) -> float:
    """Var ||W^T z||^2 in closed form, 2 M ||C(z)||_F^2 / (M l)^2, for Gaussian filters."""
    return float(2 * M * channel_covariance(z, l).square().sum() / (M * l) ** 2)


def sample_squares(
    z: Tensor, M: int, l: int, draws: int, generator: torch.Generator, signs: bool = False
) -> Tensor:
    """||W^T z||^2 for independent layers W, (draws,): N(0, 1) weights or random signs, / sqrt(M l)."""
    used = z.any(1).nonzero().flatten().tolist()
    D, parts, left = z.shape[1] + l - 1, [], draws
    while left:
        some = min(left, max(1, CHUNK // (len(used) * M * l)))
        w = torch.randn(some, len(used), M, l, generator=generator, dtype=torch.float64)
        w = w.sign() if signs else w
        y = torch.zeros(some, M, D, dtype=torch.float64)
        for row, i in enumerate(used):
            for j in z[i].nonzero().flatten().tolist():
                y[:, :, j : j + l] += z[i, j] * w[:, row]
        parts.append(y.square().sum((1, 2)) / (M * l))
        left -= some
    return torch.cat(parts)


@dataclass(frozen=True)
class Tails:
    """||W^T z||^2 of many layers by code, of layers of random signs, and what is known of it.

    Attributes:
        codes: the codes, (K, n) each.
        squares, signs: (draws,) each, for Gaussian weights and for random signs.
        variances: in closed form, for Gaussian weights.
        largest: the largest eigenvalue of C(z).
        M, l, D: the size.
    """

    codes: Mapping[str, Tensor]
    squares: Mapping[str, Tensor]
    signs: Mapping[str, Tensor]
    variances: Mapping[str, float]
    largest: Mapping[str, float]
    M: int
    l: int
    D: int

    @property
    def m(self) -> int:
        """Weights of a filter."""
        return self.M * self.l


def compute(K: int, M: int, l: int, D: int, k: int, draws: int, generator: torch.Generator) -> Tails:
    """Sample every code of `codes`, with both kinds of weights."""
    chosen = codes(K, D - l + 1, k, generator)
    return Tails(
        chosen,
        {name: sample_squares(z, M, l, draws, generator) for name, z in chosen.items()},
        {name: sample_squares(z, M, l, draws, generator, True) for name, z in chosen.items()},
        {name: variance(z, M, l) for name, z in chosen.items()},
        {name: float(torch.linalg.eigvalsh(channel_covariance(z, l))[-1]) for name, z in chosen.items()},
        M, l, D,
    )


def share_beyond(squares: Tensor, x: Tensor) -> Tensor:
    """Share of draws with | ||W^T z||^2 - 1 | >= x, for every x."""
    gaps = (squares - 1).abs().sort().values
    return 1 - torch.searchsorted(gaps, x) / len(gaps)


def chi_square_tail(x: Tensor, m: int) -> Tensor:
    """P(| chi^2_m / m - 1 | >= x), exactly: one nonzero."""
    up, down = m * (1 + x), m * (1 - x).clamp(min=0)
    return torch.as_tensor(chi2.sf(up.numpy(), m) + chi2.cdf(down.numpy(), m))


def chernoff_tail(x: Tensor, m: int, order: int = 1) -> Tensor:
    """Ours: 2 exp(-(m / 2 order)(x - log(1 + x)))."""
    return torch.tensor([2.0]) * torch.exp(
        -torch.tensor([model_rip.exponent(float(value), m, order) for value in x]).double()
    )


def paper_tail(x: Tensor, M: int, l: int, D: int) -> Tensor:
    """Equation (4) of the paper with explicit constants for Gaussian weights."""
    return 2 * torch.exp(-torch.minimum(SQUARE * x.square() * M * l**2 / D, LINEAR * x * M * l))


def draw(tails: Tails) -> Figure:
    """Survival of the deviation: samples in M_k (left) and M_2k (right), and the bounds."""
    x = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    names = list(tails.squares)
    fig, (left, right) = figure(8.4, 4.2, ncols=2, sharey=True)
    colours = ("blue", "green", "sky", "orange", "purple")
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        ax = left if i < 3 else right
        ax.plot(x, share_beyond(tails.squares[name], x), color=PALETTE[colour], label=name)
    spread = names[2]
    left.plot(
        x, share_beyond(tails.signs[spread], x), ":", color=PALETTE["sky"], label="the same, random signs"
    )
    left.plot(x, chi_square_tail(x, tails.m), "--", color=MUTED, lw=1.2, label=r"$\chi^2$ law, exact")
    for ax, order in ((left, 1), (right, 2)):
        ours = chernoff_tail(x, tails.m, order)
        ax.plot(x, ours, color=PALETTE["black"], label="our bound")
        paper = paper_tail(x, tails.M, tails.l, tails.D)
        ax.plot(x, paper, color=PALETTE["vermillion"], label="Equation (4), explicit")
        ax.set(yscale="log", ylim=(1e-4, 2.5), xlim=(0, 1), xlabel="deviation $x$")
        ax.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    left.set_ylabel(r"$P(|\,\|W^Tz\|^2-1\,|\geq x)$")
    return fig
