"""Theorem 3.1 and Corollary 3.2: from the size of a random layer to its isometry constant.

A filter has m = M l weights (M l^2 for images). The paper's condition has an unknown constant C;
the bounds of this book have none. They are derived, step by step, in the chapter on Theorem 3.1:

1. one code z of unit norm: ``P(| ||W^T z||^2 - 1 | >= x) <= 2 exp(-(m/2r) (x - log(1 + x)))`` for z in
   sums of r members of M_k, `exponent`;
2. one support: if its worst code deviates by delta, all codes within the angle theta of that code
   deviate by delta cos(2 theta) at least, and they are a share `log_cap` of the sphere;
3. all supports: the union bound, with their number from `log_supports`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.optimize import brentq, minimize_scalar
from scipy.special import betainc, gammaln

from invertnb import check
from invertnb.rip.atoms import count_supports

WIDEST = math.pi / 4 - 1e-6


class Layer(NamedTuple):
    """The sizes that isometry constants depend on: m weights a filter, K filters, n shifts."""

    m: int
    K: int
    n: int


def _check(layer: Layer, k: int, order: int, eps: float | None = None, delta: float | None = None) -> None:
    for name, value in zip(("m", "K", "n"), layer, strict=True):
        check.integer(name, value, 1)
    check.integer("k", k, 1, layer.K)
    check.integer("order", order, 1, 3)
    if eps is not None and not 0 < check.real("eps", eps, 0.0) < 1:
        check.fail("eps", eps, "a failure probability, above 0 and below 1")
    if delta is not None:
        check.real("delta", delta, 0.0, strict=True)


def _check_code(m: int, order: int) -> None:
    check.integer("m", m, 1)
    check.integer("order", order, 1, 3)


def log_supports(layer: Layer, k: int, order: int = 1) -> float:
    """The logarithm of the number of supports to unite: n^k C(K, k) for order 1."""
    _check(layer, k, order)
    per_block = min(order, layer.n)
    entries = min(order * k, per_block * layer.K)
    return math.log(count_supports(layer.K, layer.n, entries, per_block))


def exponent(x: float, m: int, order: int = 1) -> float:
    """s(x) with ``P(| ||W^T z||^2 - 1 | >= x) <= 2 exp(-s(x))`` for a unit code z, Gaussian filters.

    Chernoff's bound for the extreme case, a chi-square of m / order degrees of freedom. ValueError
    for a negative x, an m below 1 or an order that is no integer from 1 to 3, here and below.
    """
    check.real("x", x, 0.0)
    _check_code(m, order)
    # For small x the difference cancels; the first two terms of its series are a little less.
    gap = x - math.log1p(x) if x > 1e-5 else x**2 * (1 / 2 - x / 3)
    return m / (2 * order) * gap


def deviation(s: float, m: int, order: int = 1) -> float:
    """The x with exponent(x) = s: a unit code deviates by more with probability 2 exp(-s) at most."""
    check.real("s", s, 0.0, strict=True)
    _check_code(m, order)
    high = 2 * math.sqrt(order * s / m) + 2 * order * s / m  # Laurent and Massart: never too small
    return brentq(
        lambda x: exponent(x, m, order) - s, 0.0, high * (1 + 1e-9), xtol=1e-14 * high
    )


def laurent_massart(s: float, m: int, order: int = 1) -> float:
    """The same by Lemma 1 of Laurent and Massart (2000): 2 sqrt(s r / m) + 2 s r / m."""
    check.real("s", s, 0.0, strict=True)
    _check_code(m, order)
    return 2 * math.sqrt(order * s / m) + 2 * order * s / m


def log_cap(theta: float, dimension: int) -> float:
    """Logarithm of the share of the unit sphere within the angle theta of a line through 0.

    Raises:
        ValueError: an angle not above 0 or above 90 degrees, a dimension below 1.
    """
    check.integer("dimension", dimension, 1)
    if not 0 < check.real("theta", theta, 0.0) <= math.pi / 2:
        check.fail("theta", theta, "an angle above 0, at most pi / 2")
    if dimension == 1:
        return 0.0
    # The squared sine of the angle to a fixed line is Beta((d - 1)/2, 1/2) distributed.
    a, sine = (dimension - 1) / 2, math.sin(theta)
    share = betainc(a, 0.5, sine**2)
    if share > 1e-290:
        return math.log(share)
    # Leading factor of the incomplete beta function; the rest is at least 1, so the share is larger.
    return 2 * a * math.log(sine) + math.log(math.cos(theta)) - math.log(a) + (
        gammaln(a + 0.5) - gammaln(a) - gammaln(0.5)
    )


def _least(layer: Layer, k: int, order: int, value: Callable[[float, float], float]) -> float:
    """The least value(price, loss) over the angle theta of step 2; every angle gives a valid one.

    price = log N_r - log of the cap's share, what all codes of all supports cost in the exponent,
    and loss = cos(2 theta), by which their deviations fall short.
    """
    dimension = min(order * k, min(order, layer.n) * layer.K)
    count = log_supports(layer, k, order)
    if dimension == 1:
        return value(count, 1.0)

    def at(theta: float) -> float:
        return value(count - log_cap(theta, dimension), math.cos(2 * theta))

    found = minimize_scalar(at, bounds=(1e-4, WIDEST), method="bounded", options={"xatol": 1e-4})
    return float(found.fun)


def isometry_bound(layer: Layer, k: int, eps: float, order: int = 1) -> float:
    """delta such that the constant of sums of `order` members of M_k exceeds it with probability
    eps at most, over Gaussian filters N(0, 1) / sqrt(m).

    Our version of Theorem 3.1 (order 1) and Corollary 3.2 (order 2). Values of 1 and more are
    valid and say nothing.

    Raises:
        ValueError: sizes that are no positive integers, k above K, eps outside (0, 1).
    """
    _check(layer, k, order, eps=eps)
    return _least(
        layer, k, order,
        lambda price, loss: deviation(math.log(2 / eps) + price, layer.m, order) / loss,
    )


def weights_needed(layer: Layer, k: int, delta: float, eps: float, order: int = 1) -> int:
    """The m for which `isometry_bound` is delta, rounded up; the m of `layer` plays no part."""
    _check(layer, k, order, eps=eps, delta=delta)

    def needed(price: float, loss: float) -> float:
        each = exponent(delta * loss, 1, order)
        if each == 0:
            check.fail("delta", delta, "a level whose square float64 can hold")
        return (math.log(2 / eps) + price) / each

    return math.ceil(_least(layer, k, order, needed))


def failure_bound(layer: Layer, k: int, delta: float, order: int = 1) -> float:
    """A bound on the probability that the isometry constant exceeds delta, at most 1."""
    _check(layer, k, order, delta=delta)
    log_eps = _least(
        layer, k, order,
        lambda price, loss: math.log(2) + price - exponent(delta * loss, layer.m, order),
    )
    return math.exp(min(0.0, log_eps))


#: Constants for which Theorem 3.1 and Corollary 3.2 hold as stated, for Kn >= 4 and delta <= 1, with
#: M l for M l^2 / D: from caps of 30 degrees, see the chapter.
EXPLICIT_C = {1: 60.0, 2: 216.0}


def explicit_weights(layer: Layer, k: int, delta: float, eps: float, order: int = 1) -> float:
    """M l = (C / delta^2) (k (log K + log n) - log eps) with the constant of `EXPLICIT_C`.

    Raises:
        ValueError: outside its hypotheses, order 1 or 2, Kn at least 4 and delta at most 1.
    """
    _check(layer, k, order, eps=eps, delta=delta)
    if order not in EXPLICIT_C:
        check.fail("order", order, "1 or 2")
    if delta > 1 or layer.K * layer.n < 4:
        name, value = ("delta", delta) if delta > 1 else ("K n", layer.K * layer.n)
        check.fail(name, value, "delta at most 1, and K n at least 4")
    size = k * (math.log(layer.K) + math.log(layer.n)) - math.log(eps)
    return EXPLICIT_C[order] / delta**2 * size


def paper_failure(
    delta: float, *, l: int, M: int, D: int, K: int, n: int, k: int, C: float
) -> float:
    """The eps of Theorem 3.1 as stated: M l^2 / D = (C / delta^2) (k (log K + log n) - log eps).

    The paper does not give C; values above 1 mean that the theorem says nothing, and are cut there.
    """
    for name, value in (("l", l), ("M", M), ("D", D)):
        check.integer(name, value, 1)
    if l > D:
        check.fail("l", l, f"at most the signal length D = {D}")
    _check(Layer(M * l, K, n), k, 1, delta=delta)
    check.real("C", C, 0.0, strict=True)
    if delta >= 1:
        check.fail("delta", delta, "a distortion below 1 (Theorem 3.1)")
    return math.exp(min(0.0, k * (math.log(K) + math.log(n)) - M * l**2 / D * delta**2 / C))
