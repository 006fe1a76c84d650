"""Laws for the error over the number of random filters, and how well they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from invertnb import check

#: Exponents c that are tried, and resampled curves for intervals.
EXPONENTS = np.geomspace(0.01, 4, 600)
RESAMPLED = 200
THEORY = 0.5  # exponent of random features (Rahimi and Recht)


@dataclass(frozen=True)
class Curve:
    """Test errors of ridge classifiers on the first K filters.

    Attributes:
        filters: K, rising.
        errors: shares of test images that are read wrongly, (draws, numbers of filters).
        tested: number of test images.
    """

    filters: tuple[int, ...]
    errors: np.ndarray
    tested: int

    @property
    def mean(self) -> np.ndarray:
        """Over draws."""
        return self.errors.mean(0)

    @property
    def deviation(self) -> float:
        """Of a draw from the mean, pooled over numbers of filters."""
        return float(np.sqrt(self.errors.var(0, ddof=1).mean()))

    def first(self, count: int) -> Curve:
        """The smallest numbers of filters."""
        return Curve(self.filters[:count], self.errors[:, :count], self.tested)

    def beyond(self, least: int) -> Curve:
        """From so many filters on."""
        at = next(i for i, K in enumerate(self.filters) if least <= K)
        return Curve(self.filters[at:], self.errors[:, at:], self.tested)


@dataclass(frozen=True)
class Fit:
    """A law fitted to errors; `name` is a key of `LAWS`.

    Attributes:
        plateau: what is left for K to infinity; None for the logarithm, which has none.
        factor: a.
        exponent: c; for the logarithm None.
        offset: of the logarithm.
    """

    name: str
    factor: float
    plateau: float | None = None
    exponent: float | None = None
    offset: float = 0.0

    def __call__(self, filters: Sequence[int]) -> np.ndarray:
        """Errors that the law gives these numbers of filters."""
        K = np.asarray(filters, dtype=float)
        if self.exponent is None:
            return self.offset - self.factor * np.log2(K)
        return (self.plateau or 0.0) + self.factor * K**-self.exponent


#: What is written of each law.
LAWS = {
    "plateau": "e + a K^(-c)", "root": "e + a K^(-1/2)", "power": "a K^(-c)",
    "logarithm": "b - a log2 K",
}  # fmt: skip


def fit(name: str, filters: Sequence[int], errors: np.ndarray) -> Fit:
    """Least squares in the errors; plateau and factor are not negative.

    Args:
        name: a key of `LAWS`.
        filters: three different numbers at least.
        errors: one for each.

    Raises:
        ValueError: another name, or too few numbers of filters.
    """
    check.choice("name", name, tuple(LAWS))
    K, e = np.asarray(filters, dtype=float), np.asarray(errors, dtype=float)
    if len(np.unique(K)) < 3 or K.shape != e.shape:
        check.fail("filters", tuple(filters), "three numbers at least, an error for each")
    if name == "logarithm":
        slope, offset = np.polyfit(np.log2(K), e, 1)
        return Fit(name, -float(slope), offset=float(offset))
    c = np.array([THEORY]) if name == "root" else EXPONENTS
    x = K ** -c[:, None]
    mean = x.mean(1, keepdims=True)
    factor = ((x - mean) @ e) / ((x - mean) ** 2).sum(1)
    plateau = e.mean() - factor * mean[:, 0]
    free = (plateau >= 0) & (factor >= 0) & (name != "power")
    # On the border of what is allowed one of the two is 0.
    factor = np.where(free, factor, (x @ e) / (x * x).sum(1))
    plateau = np.where(free, plateau, 0.0)
    left = ((plateau[:, None] + factor[:, None] * x - e) ** 2).sum(1)
    best = int(left.argmin())
    return Fit(name, float(factor[best]), float(plateau[best]), float(c[best]))


@dataclass(frozen=True)
class Judged:
    """A law, and how well it predicts what it was not fitted to.

    Attributes:
        fit: to all numbers of filters.
        known: to all but the largest.
        residual: the largest distance of an error from it.
        predicted: errors at the largest numbers of filters, by `known`.
        missed: the largest distance of these from what was measured.
        interval: of the predictions, 5 % to 95 % of resampled curves, (2, held out).
        exponents, plateaus: the same of the fit's parameters; (nan, nan) if it has none.
    """

    fit: Fit
    known: Fit
    residual: float
    predicted: np.ndarray
    missed: float
    interval: np.ndarray
    exponents: tuple[float, float]
    plateaus: tuple[float, float]


def judge(curve: Curve, held: int, generator: Generator) -> dict[str, Judged]:
    """All laws; the `held` largest numbers of filters are predicted from the others.

    Curves are resampled by adding normal noise with the standard error of a mean over draws to each
    mean error. That is the uncertainty from the draws of filters: a wrong law is as certain.
    """
    check.integer("held", held, 1, len(curve.filters) - 3)
    noise = torch.randn(RESAMPLED, len(curve.filters), generator=generator, dtype=torch.float64)
    again = curve.mean + curve.deviation / len(curve.errors) ** 0.5 * noise.numpy()
    known, ahead = curve.filters[:-held], curve.filters[-held:]
    found = {}
    for name in LAWS:
        fitted = fit(name, curve.filters, curve.mean)
        before = fit(name, known, curve.mean[:-held])
        predicted = before(ahead)
        others = [fit(name, curve.filters, each) for each in again]
        spread = np.array([fit(name, known, each[:-held])(ahead) for each in again])
        found[name] = Judged(
            fitted, before, float(abs(fitted(curve.filters) - curve.mean).max()), predicted,
            float(abs(predicted - curve.mean[-held:]).max()), np.quantile(spread, (0.05, 0.95), 0),
            _interval([each.exponent for each in others]),
            _interval([each.plateau for each in others]),
        )  # fmt: skip
    return found


def _interval(values: Sequence[float | None]) -> tuple[float, float]:
    low, high = np.quantile([np.nan if each is None else each for each in values], (0.05, 0.95))
    return float(low), float(high)
