"""Layers on which one step errs as much as the sharp lemmas allow: their constants are the best."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.theorem_3_3.layers import Codes, Layer, Step, one_step
from invertnb.theory.one_step import PHI

TIE = 1e-9  # by so much the wrong atom wins


def pieces(delta: float, e1: float, e2: float) -> tuple[Tensor, Tensor]:
    """The code z and its disturbance w = (W W^T - I) z with ``||w|| = delta ||z||``.

    Three atoms: one that is found, one that is missed, one that takes its place; e1 is the
    disturbance of the last, -e2 that of the missed one, whose entry of z is e1 + e2.
    """
    missed = (e1 + e2) * (1 - TIE)
    w = torch.tensor([0.0, -e2, e1], dtype=torch.float64)
    found = math.sqrt(max((e1**2 + e2**2) / delta**2 - missed**2, 0.0))
    return torch.tensor([found, missed, 0.0], dtype=torch.float64), w


def limit(e1: float = PHI, e2: float = 1.0) -> float:
    """The largest delta at which the found entry still wins; 1/phi for (phi, 1)."""
    return math.sqrt((e1**2 + e2**2) / ((e1 + e2) ** 2 + e1**2))


def layer(delta: float, e1: float = PHI, e2: float = 1.0) -> Layer:
    """Three filters with one tap and W W^T = I + delta R, R the reflection that takes z to w."""
    z, w = pieces(delta, e1, e2)
    axis = z / z.norm() - w / w.norm()
    axis = axis / axis.norm()
    one = torch.eye(3, dtype=torch.float64)
    rows = torch.linalg.cholesky(one + delta * (one - 2 * torch.outer(axis, axis)))
    return Layer(FilterBank(rows.unsqueeze(2)), size=1)


def attained(delta: float, e1: float = PHI, e2: float = 1.0) -> Step:
    """One step on this code, k = 2.

    With (e1, e2) proportional to (phi, 1) its code error is phi delta_2k up to the tie; with equal
    ones the missed part is sqrt(2) delta_2k.
    """
    z, _ = pieces(delta, e1, e2)
    return one_step(layer(delta, e1, e2), Codes(torch.tensor([[0, 1]]), z[:2].unsqueeze(0)))


def unit_rows(delta: float) -> tuple[Layer, Codes]:
    """The same with rows of unit norm: six atoms, k = 4, and the code that attains phi delta.

    W W^T = I + delta R (x) [[0, 1], [1, 0]], R the reflection of `layer`, and the code z (x) (1, 1).
    """
    z, _ = pieces(delta, PHI, 1.0)
    E = layer(delta).gram - torch.eye(3, dtype=torch.float64)
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    rows = torch.linalg.cholesky(torch.eye(6, dtype=torch.float64) + torch.kron(E, swap))
    index, values = torch.tensor([[0, 1, 2, 3]]), z[:2].repeat_interleave(2).unsqueeze(0)
    return Layer(FilterBank(rows.unsqueeze(2)), size=1), Codes(index, values)
