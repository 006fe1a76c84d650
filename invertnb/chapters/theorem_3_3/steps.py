"""Beside the theorem: other switches, least squares, and more iterations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb.chapters.theorem_3_3 import bite
from invertnb.chapters.theorem_3_3.layers import (
    CHANNELS, SPARSITY, Codes, Layer, difference, errors, one_step,
)  # fmt: skip
from invertnb.notebook import Parameters

#: M at which all three bounds are certified below 1 for k = 10.
CERTIFIED = 16384
CODES, SOLVED = 40, 50  # streams of draws
FLOOR = 1e-9  # relative errors below it are rounding


class Switches(NamedTuple):
    """Errors ||x - x_hat|| / ||x|| of random codes, (codes,); `places` is (places, codes)."""

    codes: Codes
    known: Tensor
    best_support: Tensor
    places: Tensor

    @property
    def fixed(self) -> Tensor:
        """M_fixed: all switches in the middle of the block."""
        return self.places[len(self.places) // 2]


def switches(layer: Layer, k: int, codes: int, generator: torch.Generator) -> Switches:
    """One step with the pooling's switches, with the best support, and with every fixed place."""
    z = layer.sample(k, codes, generator)
    h = layer.image(z)
    index = layer.atoms(k).keep(h)  # the support of M_k that holds most of ||h||, by the core
    best = errors(layer, z, Codes(index, h.gather(1, index)))[2]
    places = [one_step(layer, z, place).signal for place in range(layer.n)]
    return Switches(z, one_step(layer, z).signal, best, torch.stack(places))


def on_support(layer: Layer, z: Codes, index: Tensor) -> Codes:
    """The least-squares code for x = W^T z on given supports."""
    square = layer.gram[index.unsqueeze(2), index.unsqueeze(1)]
    return Codes(index, torch.linalg.solve(square, layer.image(z).gather(1, index)))


def iterate(layer: Layer, z: Codes, steps: int, pursuit: bool) -> Tensor:
    """Algorithm 1, or HTP, from zero: ``||z_i - z|| / ||z||`` for i = 0..steps, (steps + 1, batch).

    z_(i+1) = M(z_i + W (x - W^T z_i), k) = M(z - E v, k) with v = z_i - z and E = W W^T - I.
    """
    truth, k = layer.dense(z), z.index.shape[1]
    move = Codes(z.index, -z.values)
    rows = [torch.ones(len(z.index), dtype=torch.float64, device=z.values.device)]
    for _ in range(steps):
        b = truth - (layer.image(move) - layer.dense(move))
        hat = layer.project(b, k)
        if pursuit:
            hat = on_support(layer, z, hat.index)
        move = difference(z, hat)
        rows.append(layer.dense(move).norm(dim=1) / z.norm())
    return torch.stack(rows)


def contraction(path: Tensor) -> Tensor:
    """``||z_(i+1) - z|| / ||z_i - z||``, the largest over i where there is an error left."""
    before, after = path[:-1], path[1:]
    return torch.where(before > FLOOR, after / before.clamp(min=FLOOR), 0.0).amax(0)


class Baselines(NamedTuple):
    """Relative errors of the signal, (codes,): one step, least squares, and all of h."""

    one_step: Tensor
    least_squares: Tensor
    all_of_h: Tensor


def baselines(layer: Layer, k: int, codes: int, generator: torch.Generator) -> Baselines:
    """One step, least squares on its support, and the least-squares inverse of all of h.

    The last takes no model: x lies in the span of the rows of W, where h = W x determines it.
    """
    z = layer.sample(k, codes, generator)
    step = one_step(layer, z)
    pursued = errors(layer, z, on_support(layer, z, step.hat.index))[2]
    return Baselines(step.signal, pursued, _error_from_all_of_h(layer, z))


def _error_from_all_of_h(layer: Layer, z: Codes) -> Tensor:
    truth, h = layer.dense(z), layer.image(z)
    rows, columns = len(layer.gram), layer.bank.M * layer.size
    if rows < columns:  # independent rows: z itself is (W W^T)^-1 h
        move = torch.cholesky_solve(h.T, torch.linalg.cholesky(layer.gram)).T - truth
        return ((move @ layer.gram) * move).sum(1).clamp(min=0).sqrt() / layer.length(z)
    W = layer.bank.matrix(layer.size)  # rows that span: x is (W^T W)^-1 W^T h
    x = truth @ W
    back = torch.cholesky_solve((h @ W).T, torch.linalg.cholesky(W.T @ W)).T
    return (x - back).norm(dim=1) / x.norm(dim=1)


def contractions(p: Parameters, M: int, z: Codes, steps: int = 6) -> dict[str, float]:
    """The largest contraction factors of Algorithm 1 and HTP over the codes z."""
    at = bite.layer(p, M)
    return {
        name: float(contraction(iterate(at, z, steps, pursuit)).max())
        for name, pursuit in (("IHT", False), ("HTP", True))
    }


def of_both_sizes(p: Parameters, codes: int) -> tuple[dict[int, Baselines], Switches]:
    """`baselines` at Figure 2's size and at the certified one, `switches` at the latter."""
    found = {}
    for M in (CHANNELS, CERTIFIED):
        found[M] = baselines(bite.layer(p, M), SPARSITY, min(codes, 50), p.generator(SOLVED + M))
    at = bite.layer(p, CERTIFIED)
    return found, switches(at, SPARSITY, codes, p.generator(CODES))
