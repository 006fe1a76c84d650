"""Theorem 3.3: what one step reconstructs, as a function of the isometry constants.

x = W^T z with z in M_k, z_hat = M(W x, k), x_hat = W^T z_hat. Every bound is on ``||x - x_hat|| / ||x||``
or, for the lemmas, on a norm over ``||z||``. Those of the paper need the constant of M_2k to be below 1,
and so does ours for the signal; our lemmas hold for any. A bound of 1 or more is vacuous: the zero
signal does as well.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq

from invertnb import check

#: The golden ratio: phi^2 is the largest eigenvalue of [[2, 1], [1, 1]].
PHI = (1 + math.sqrt(5)) / 2


def _check(delta_k: float, delta_2k: float, hypothesis: bool = True) -> None:
    check.real("delta_k", delta_k, 0.0)
    check.real("delta_2k", delta_2k, 0.0)
    if hypothesis and delta_2k >= 1:
        check.fail("delta_2k", delta_2k, "a constant below 1, the hypothesis of Theorem 3.3")
    if delta_k > delta_2k:
        check.fail("delta_k", delta_k, f"at most delta_2k = {delta_2k}: M_k lies in M_2k")


def identification(delta_k: float, delta_2k: float) -> float:
    """Lemma B.3 as stated: the share ``||z|_(Om^c)|| / ||z||`` that the support misses."""
    _check(delta_k, delta_2k)
    return 2 * delta_2k / (1 - delta_k)


def identification_tight(delta_k: float, delta_2k: float) -> float:
    """Ours: sqrt(2) delta_2k, for any constants."""
    _check(delta_k, delta_2k, hypothesis=False)
    return math.sqrt(2) * delta_2k


def estimation(delta_k: float, delta_2k: float) -> float:
    """Lemma B.4 as stated: ``||z_hat - z|| / ||z||``."""
    _check(delta_k, delta_2k)
    return 5 * delta_2k / (1 - delta_k)


def estimation_penultimate(delta_k: float, delta_2k: float) -> float:
    """The last line but one of the proof of B.4, before it is rounded up to 5."""
    _check(delta_k, delta_2k)
    return (1 + delta_2k) * 2 * delta_2k / (1 - delta_k) + delta_k


def estimation_golden(delta_k: float, delta_2k: float) -> float:
    """Ours: phi delta_2k, for any constants (hard-thresholding inequality: Shen and Li 2018)."""
    _check(delta_k, delta_2k, hypothesis=False)
    return PHI * delta_2k


def as_stated(delta_k: float, delta_2k: float) -> float:
    """Theorem 3.3 as stated."""
    return estimation(delta_k, delta_2k) * math.sqrt((1 + delta_2k) / (1 - delta_2k))


def penultimate(delta_k: float, delta_2k: float) -> float:
    """Theorem 3.3 from the last line but one of B.4."""
    return estimation_penultimate(delta_k, delta_2k) * math.sqrt((1 + delta_2k) / (1 - delta_2k))


def golden(delta_k: float, delta_2k: float) -> float:
    """Ours: phi delta_2k sqrt((1 + delta_2k) / (1 - delta_k)); z lies in M_k, so delta_k serves below."""
    _check(delta_k, delta_2k)
    return estimation_golden(delta_k, delta_2k) * math.sqrt((1 + delta_2k) / (1 - delta_k))


BOUNDS = {"as stated": as_stated, "last line but one": penultimate, "golden ratio (ours)": golden}


def threshold(bound) -> float:
    """The delta at which a bound with delta_k = delta_2k = delta reaches 1; beyond it is vacuous."""
    return brentq(lambda delta: bound(delta, delta) - 1, 1e-9, 1 - 1e-9, xtol=1e-12)


def iht_rate(delta_2k: float) -> float:
    """Factor by which an iteration of Algorithm 1 shrinks ``||z_i - z||``: phi sqrt(3) delta_2k.

    Below 1 for delta_2k < 0.3568, the condition of Xie (2023) for unstructured sparsity.
    """
    _check(0.0, delta_2k)
    return PHI * math.sqrt(3) * delta_2k


def htp_rate(delta_2k: float) -> float:
    """The same for hard thresholding pursuit: sqrt(6) delta_2k / sqrt(1 - delta_2k^2).

    Below 1 for delta_2k < 1 / sqrt(7) = 0.3780, as in Xie (2023).
    """
    _check(0.0, delta_2k)
    return math.sqrt(6) * delta_2k / math.sqrt(1 - delta_2k**2)
