"""Iterative hard thresholding on the model M_k: Algorithm 1, its normalized form, and HTP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import check
from invertnb.least_squares import _least_squares
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank

DIVERGED = 10.0  # a relative residual above this: worse than the zero code by an order of magnitude
# Blumensath and Davies 2010: a step is accepted up to (1 - SLACK) / (curvature along it), and
# shrunk by SHRINK (1 - SLACK) otherwise.
SLACK, SHRINK = 0.01, 2.0


@dataclass(frozen=True, eq=False)
class IHTResult:
    """What `iht` found.

    Attributes:
        code: (batch, K, n) or (batch, K, n1, n2), in M_k.
        support: bool mask of the code's nonzeros, in the code's shape.
        residuals: (iterations run + 1, batch), ``||x - W^T z_i|| / ||x||``; row 0 is z_0 = 0. A
            sample that has stopped keeps its value, and the last row is always that of `code`.
        iterations: int64 (batch,), iterations each sample ran.
        converged: bool (batch,), the residual came down to tol.
        diverged: bool (batch,), the residual passed 10 or was not finite, and the code is the best
            iterate seen; or the iterations, if more than one, ran out on a residual above 1.
    """

    code: Tensor
    support: Tensor
    residuals: Tensor
    iterations: Tensor
    converged: Tensor
    diverged: Tensor


def iht(
    x: Tensor, bank: FilterBank, model: ModelSparse, step: float | str = 1.0,
    pursuit: bool = False, iterations: int = 100, tol: float = 1e-6,
) -> IHTResult:
    """Look for z in M_k with W^T z = x: min ``||x - W^T z||^2`` over M_k, by projected gradients.

    Algorithm 1 of the paper is the default: z_i = M(z_{i-1} + W (x - W^T z_{i-1}), k) from z_0 = 0,
    so that the first iterate is M(W x, k), a CNN layer. A sample stops when its residual reaches
    tol, when its iterate (with pursuit: its support) no longer changes, or when it diverges.

    Args:
        x: signals (batch, M, D) or (batch, M, H, W).
        bank: the filters W.
        model: M_k; its projection is the exact one (known switches, largest magnitude).
        step: a positive number, or "normalized": the exact line search on the current support,
            shortened until the objective must fall (NIHT: Blumensath and Davies 2010). With
            pursuit the gradient vanishes on that support, and the support of M(gradient, k) is
            taken in its place, without shortening.
        pursuit: True replaces each iterate by the least-squares code on its support (HTP:
            Foucart 2011).
        iterations: the most iterations to run, at least 1.
        tol: the relative residual ``||x - W^T z|| / ||x||`` at which a sample is done.

    Raises:
        ValueError: arguments that do not fit together or are out of range, NaN or infinite x.

    Warns:
        RuntimeWarning: some samples diverged, with their number.
    """
    first = check.instance("bank", bank, FilterBank).analysis(x)
    if check.instance("model", model, ModelSparse).dims != bank.dims:
        check.fail("model", model, f"a ModelSparse over {bank.dims}-D codes")
    model._blocks(bank.K, tuple(first.shape[2:]))
    if step != "normalized":
        if isinstance(step, str):
            check.fail("step", step, "a positive number or 'normalized'")
        step = check.real("step", step, 0.0, strict=True)
    check.flag("pursuit", pursuit)
    check.integer("iterations", iterations, 1)
    check.real("tol", tol, 0.0)

    result = _iterate(x, first, bank, model, step, pursuit, iterations, tol)
    lost = int(result.diverged.sum())
    if lost:
        warnings.warn(
            f"iht: {lost} of {len(x)} samples diverged (step = {step}); see the result's residuals",
            RuntimeWarning, stacklevel=2,
        )
    return result


def _iterate(
    x: Tensor, first: Tensor, bank: FilterBank, model: ModelSparse, step: float | str,
    pursuit: bool, iterations: int, tol: float,
) -> IHTResult:
    gram = bank.gram() if pursuit and not bank.padding else None
    code, scale = torch.zeros_like(first), _norm(x)
    residual = (scale > 0).to(x.dtype)
    rows = [residual.clone()]
    ran = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    diverged = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    # The working set: samples that still move, and for each the best iterate so far.
    alive = (residual > tol).nonzero().squeeze(1)
    x, scale, Wx = x[alive], scale[alive], first[alive]
    z, d, best, least = code[alive], x, code[alive], residual[alive]
    for i in range(1, iterations + 1):
        if not len(alive):
            break
        gradient = bank._analysis(d) if i > 1 else Wx  # W d, and d = x at z_0 = 0
        if pursuit:
            length = _length(torch.zeros_like(z), gradient, bank, model, step)[0]
            kept = model._nearest(z + length * gradient) != 0
            new = _least_squares(x, bank, kept, Wx, gram)
            still = ((new != 0) == (z != 0)).flatten(1).all(1)
        else:
            new = _gradient_step(z, gradient, bank, model, step)
            still = _norm(new - z) <= torch.finfo(x.dtype).eps * _norm(new)
        z, d = new, x - bank._synthesis(new)
        now = (_norm(d) / scale).detach()
        bad = ~(now <= DIVERGED)
        better = now < least
        best = torch.where(_wide(better, z), z, best)
        least = torch.where(better, now, least)

        stop = bad | still | (now <= tol)
        ran[alive] = i
        diverged[alive] = bad
        residual = residual.index_copy(0, alive, torch.where(bad, least, now))
        rows.append(residual.clone())
        if stop.any() or i == iterations:
            final = torch.where(_wide(bad, z), best, z)
            code = code.index_copy(0, alive, final)
            go = ~stop
            alive, x, scale, Wx = alive[go], x[go], scale[go], Wx[go]
            z, d, best, least = z[go], d[go], best[go], least[go]
    # Left worse than the zero code: one step may do that, a longer run is on its way out.
    diverged = diverged | ((residual > 1) & (ran == iterations) & (iterations > 1))
    return IHTResult(code, code != 0, torch.stack(rows), ran, residual <= tol, diverged)


def _gradient_step(
    z: Tensor, gradient: Tensor, bank: FilterBank, model: ModelSparse, step: float | str
) -> Tensor:
    length, support = _length(z, gradient, bank, model, step)
    new = model._nearest(z + length * gradient)
    if step != "normalized":
        return new
    # On an unchanged support the line search is exact. A new support is accepted only if the
    # step is at most (1 - c) ||u||^2 / ||W^T u||^2 for the move u: then the residual must fall.
    wary = ((new != 0) != support).flatten(1).any(1).nonzero().squeeze(1)
    while len(wary):
        move = new[wary] - z[wary]
        curvature = _square(bank._synthesis(move))
        wary = wary[length[wary].flatten() * curvature > (1 - SLACK) * _square(move)]
        if not len(wary):
            break
        length = length.index_copy(0, wary, length[wary] / (SHRINK * (1 - SLACK)))
        shorter = model._nearest(z[wary] + length[wary] * gradient[wary])
        new = new.index_copy(0, wary, shorter)
        wary = wary[((shorter != 0) != support[wary]).flatten(1).any(1)]
    return new


def _length(
    z: Tensor, gradient: Tensor, bank: FilterBank, model: ModelSparse, step: float | str
) -> tuple[Tensor | float, Tensor | None]:
    """The step length, one per sample, and the support it was searched on."""
    if step != "normalized":
        return step, None
    inside = torch.where(z != 0, gradient, 0.0)
    empty = _square(inside) == 0
    if empty.any():  # z = 0, or a stationary z: search along the best new support
        inside = torch.where(_wide(empty, z), model._nearest(gradient), inside)
    support = torch.where(_wide(empty, z), inside != 0, z != 0)
    below = _square(bank._synthesis(inside))
    length = torch.where(below > 0, _square(inside) / torch.where(below > 0, below, 1.0), 0.0)
    return _wide(length, z), support


def _square(z: Tensor) -> Tensor:
    return z.flatten(1).square().sum(1)


def _norm(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1)


def _wide(per_sample: Tensor, z: Tensor) -> Tensor:
    return per_sample.view(-1, *(1,) * (z.dim() - 1))
