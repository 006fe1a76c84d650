"""Every step of the proofs of this chapter, left side over right side, on given codes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb.chapters.theorem_3_3 import steps
from invertnb.chapters.theorem_3_3.layers import Codes, Layer, difference, one_step
from invertnb.theory import one_step as theory

ROUNDING = 1e-9  # right sides below it are compared by difference


class Parts(NamedTuple):
    """What the proofs speak of, for codes z on Pi, a disturbance Ev and Omega, each (batch,).

    e1, e2, e3: ``||(Ev)_S||`` on S = Omega without Pi, Pi without Omega, and both. missed:
    ``||z_(Omega^c)||``. code: ``||h_Omega - z||``. gain, loss: ``||h||`` on Omega without Pi and on
    Pi without Omega. d_T: ``||E_TT||``, T the union. per_block: atoms of T by block, (batch, K).
    """

    e1: Tensor
    e2: Tensor
    e3: Tensor
    missed: Tensor
    code: Tensor
    gain: Tensor
    loss: Tensor
    d_T: Tensor
    per_block: Tensor


def parts(layer: Layer, z: Codes, v: Codes | None = None) -> Parts:
    """The parts for h = z + Ev and Omega the support of M(h, k); v = z unless given."""
    k, dense = z.index.shape[1], layer.dense(z)
    Ev = layer.image(z) - dense if v is None else layer.image(v) - layer.dense(v)
    h = dense + Ev
    omega = layer.project(h, k).index
    in_omega = torch.zeros_like(h).scatter(1, omega, 1.0) > 0
    in_pi = dense != 0

    def norm(values: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, values, 0.0).norm(dim=1)

    T = torch.cat([omega, z.index], 1)
    first = torch.cat([torch.ones_like(omega, dtype=torch.bool), ~in_omega.gather(1, z.index)], 1)
    E_TT = layer.gram[T.unsqueeze(2), T.unsqueeze(1)] - torch.eye(2 * k).to(layer.gram)
    E_TT = torch.where(first.unsqueeze(2) & first.unsqueeze(1), E_TT, 0.0)  # each atom once
    return Parts(
        norm(Ev, in_omega & ~in_pi), norm(Ev, in_pi & ~in_omega), norm(Ev, in_omega & in_pi),
        norm(dense, ~in_omega), (torch.where(in_omega, h, 0.0) - dense).norm(dim=1),
        norm(h, in_omega & ~in_pi), norm(h, in_pi & ~in_omega),
        torch.linalg.eigvalsh(E_TT)[:, [0, -1]].abs().amax(1),
        (in_omega | in_pi).view(len(h), -1, layer.n).sum(2),
    )


def largest_ratio(left: Tensor, right: Tensor) -> float:
    """The largest left / right; infinite if a left side exceeds a right side that is nearly 0."""
    tiny = right <= ROUNDING
    if (left[tiny] > right[tiny] + ROUNDING).any():
        return math.inf
    return float((left / right)[~tiny].max())


def of_one_step(layer: Layer, z: Codes) -> dict[str, float]:
    """`largest_ratio` of each step from the disturbance to the error of the signal.

    Raises:
        AssertionError: T is no support of M_2k, or the parts do not add up to the error.
    """
    p, size, step, k = parts(layer, z), z.norm(), one_step(layer, z), z.index.shape[1]
    assert (p.per_block <= 2).all() and (p.per_block.sum(1) <= 2 * k).all()
    square, all_e = p.missed**2 + p.e1**2 + p.e3**2, p.e1**2 + p.e2**2 + p.e3**2
    assert torch.allclose(square, p.code**2) and torch.allclose(p.code, step.code * size)
    d = p.d_T * size
    sides = {
        "e1^2 + e2^2 + e3^2 <= d_T^2 ||z||^2": (all_e, d**2),
        "||h_(Pi\\Om)|| <= ||h_(Om\\Pi)||": (p.loss, p.gain),
        "||z_(Om^c)|| <= e1 + e2": (p.missed, p.e1 + p.e2),
        "e1 + e2 <= sqrt(2) d_T ||z||": (p.e1 + p.e2, math.sqrt(2) * d),
        "||z_hat - z||^2 <= phi^2 (e1^2 + e2^2 + e3^2)": (square, theory.PHI**2 * all_e),
        "||z_hat - z|| <= phi d_T ||z||": (p.code, theory.PHI * d),
        "||x - x_hat|| <= sqrt(1 + d_T) ||z_hat - z||": (
            step.signal * layer.length(z), (1 + p.d_T).sqrt() * p.code,
        ),
    }  # fmt: skip
    return {name: largest_ratio(*both) for name, both in sides.items()}


def of_iterations(layer: Layer, z: Codes, delta_2k: float, count: int = 4) -> dict[str, float]:
    """`largest_ratio` of each step for iterations of Algorithm 1, and for a step of HTP from each."""
    k, truth = z.index.shape[1], layer.dense(z)
    v = Codes(z.index, -z.values)  # z_0 - z
    found: dict[str, float] = {}
    for _ in range(count):
        back = Codes(v.index, -v.values)
        p, size = parts(layer, z, back), layer.dense(v).norm(dim=1)
        hat = layer.project(truth + layer.image(back) - layer.dense(back), k)
        pursued = layer.dense(steps.on_support(layer, z, hat.index)) - truth
        sides = {
            "rows of Pi": ((p.e2**2 + p.e3**2).sqrt(), delta_2k * size),
            "rows of Om_(i+1)\\Pi": (p.e1, math.sqrt(2) * delta_2k * size),
            "IHT": (p.code, theory.iht_rate(delta_2k) * size),
            "HTP": (pursued.norm(dim=1), theory.htp_rate(delta_2k) * size),
        }
        for name, both in sides.items():
            found[name] = max(found.get(name, 0.0), largest_ratio(*both))
        v = difference(z, hat)
    return found
