"""The law of the coherence of random filters, and whether a row of a table follows it.

The random rows of Tables 4 and 6 are one draw per layer. Judging them needs the law that such a
draw follows, and here that law is known in closed form, to a good approximation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invertnb import check

GRID = 40_001  # points of [0, 1] that a law is tabulated on
TRIALS = 50_000  # Monte Carlo rows behind a p-value


@dataclass(frozen=True)
class CoherenceLaw:
    """The law of the zero-shift coherence of K independent isotropic filters of d entries.

    The inner product c of two unit filters has the density (1 - c^2)^((d-3)/2), up to a constant,
    and different pairs are independent two by two. The number of the N = K (K - 1) / 2 products
    above t is then nearly a Poisson variable, so P(coherence <= t) = exp(-N P(c > t)), with
    ``P(|c| > t)`` in the absolute reading (Cai, Fan and Jiang 2013 prove the limit).

    Raises:
        ValueError: fewer than two filters or than three entries.
    """

    K: int
    d: int
    signed: bool

    def __post_init__(self) -> None:
        check.integer("K", self.K, 2)
        check.integer("d", self.d, 3)
        check.flag("signed", self.signed)

    @property
    def pairs(self) -> int:
        """N, the number of inner products."""
        return self.K * (self.K - 1) // 2

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Grid t, cumulative distribution and logarithm of the density on it."""
        t = np.linspace(0.0, 1.0, GRID)
        # A tiny number in place of 0 at t = 1 keeps the logarithm finite there.
        log_density = (self.d - 3) / 2 * np.log(np.maximum(1 - t * t, 1e-300))
        density = np.exp(log_density)
        steps = (density[1:] + density[:-1]) / 2
        above = np.append(steps[::-1].cumsum()[::-1], 0.0)  # integral from t to 1, over the step
        mass = above[0] if not self.signed else 2 * above[0]
        expected = self.pairs * above / mass  # N P(c > t)
        scale = math.log(self.pairs * (GRID - 1) / mass)
        return t, np.exp(-expected), log_density + scale - expected

    def probability(self, value: float | np.ndarray) -> np.ndarray:
        """P(coherence <= value)."""
        return np.interp(value, *self._table[:2])

    def log_density(self, value: float) -> float:
        """Logarithm of the density at value."""
        t, _, log_density = self._table
        return float(np.interp(value, t, log_density))

    def quantile(self, q: float | np.ndarray) -> np.ndarray:
        """The coherence that is not exceeded with probability q."""
        t, cdf, _ = self._table
        return np.interp(q, cdf, t)

    @functools.cached_property
    def mean(self) -> float:
        """Expected coherence."""
        return _integral(1 - self._table[1])

    @functools.cached_property
    def sd(self) -> float:
        """Standard deviation of the coherence."""
        t, cdf, _ = self._table
        return math.sqrt(_integral(2 * t * (1 - cdf)) - self.mean**2)


def _integral(values: np.ndarray) -> float:
    """Integral over [0, 1] of a function given on the grid (trapezoidal rule)."""
    return float((values[1:] + values[:-1]).sum() / 2 / (GRID - 1))


def leading_order(K: int, d: int) -> float:
    """sqrt(2 log N / d): the largest of N = K (K - 1) / 2 normal variables of variance 1 / d."""
    return math.sqrt(2 * math.log(K * (K - 1) / 2) / d)


# --- Does a published row follow the laws? ------------------------------------------------------
# Each test returns the probability of a row at least as odd, if every entry is an independent draw.


def score_test(row: Sequence[float], laws: Sequence[CoherenceLaw]) -> float:
    """Sum of squared normal scores: a chi-square with one degree of freedom per entry."""
    levels = [float(law.probability(x)) for x, law in zip(row, laws, strict=True)]
    scores = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64))
    half = torch.tensor(len(row) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, scores.square().sum() / 2))


def deviation_test(
    row: Sequence[float], laws: Sequence[CoherenceLaw], generator: torch.Generator
) -> float:
    """Sum of squared deviations over the laws' means and standard deviations, by Monte Carlo."""
    levels = torch.rand(TRIALS, len(row), generator=generator, dtype=torch.float64).numpy()
    statistic, null = 0.0, np.zeros(TRIALS)
    for entry, law, level in zip(row, laws, levels.T, strict=True):
        statistic += ((entry - law.mean) / law.sd) ** 2
        null += ((law.quantile(level) - law.mean) / law.sd) ** 2
    return float((null >= statistic).mean())


def resampling_test(
    row: Sequence[float], samples: Sequence[Tensor], generator: torch.Generator
) -> float:
    """The same without a law: deviations over the mean and standard deviation of drawn values.

    The null rows take one drawn value per entry, standardized by the other draws of that entry, as
    the published value is by draws that it is not among.
    """
    statistic, null = 0.0, torch.zeros(TRIALS, dtype=torch.float64)
    for entry, sample in zip(row, samples, strict=True):
        statistic += float((entry - sample.mean()) / sample.std()) ** 2
        n = len(sample)
        others = sample.expand(n, n)[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
        scores = (sample - others.mean(1)) / others.std(1)
        null += scores[torch.randint(n, (TRIALS,), generator=generator)] ** 2
    return float((null >= statistic).double().mean())


def log10_likelihood_ratio(
    row: Sequence[float], first: Sequence[CoherenceLaw], second: Sequence[CoherenceLaw]
) -> float:
    """How many powers of ten likelier the row is under the first laws than under the second."""
    triples = zip(row, first, second, strict=True)
    return sum(a.log_density(x) - b.log_density(x) for x, a, b in triples) / math.log(10)


def distance(levels: np.ndarray) -> float:
    """Kolmogorov's distance between the sample's distribution and the uniform law on [0, 1]."""
    ordered, n = np.sort(levels), len(levels)
    ranks = np.arange(n + 1) / n
    return float(max((ranks[1:] - ordered).max(), (ordered - ranks[:-1]).max()))
