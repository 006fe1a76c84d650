"""The l1 problem on a few rows of W, by conjugate gradients that respect signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb.kernels.active_rows import ActiveRows
from invertnb.kernels.fista import energy

# Proximal steps of this length, and no step longer than that, relative to the inverse curvature.
SHORT, LONG = 0.1, 1e4


class Solved(NamedTuple):
    """Values u of the rows, the residual r, c = W r on the rows, and by sample: iterations run, and
    whether the last one was not the end."""

    u: Tensor
    r: Tensor
    c: Tensor
    ran: Tensor
    going: Tensor


def conjugate_gradients(
    rows: ActiveRows, u: Tensor, r: Tensor, lam: Tensor, enough: Tensor, curvature: float, most: int,
    record: Callable[[Tensor, Tensor], None] | None = None,
) -> Solved:
    """Minimize 1/2 ``||r||^2`` + lam ``||u||_1`` over the values u of some rows, r = x - W^T u.

    The proximal step of length t goes from u to soft(u + t c, t lam), c = W r. It moves by t d for
    d = c - clamp(c + u / t, -lam, lam), the negative gradient on the entries that keep their sign.
    From d come directions of nonlinear conjugate gradients (Polak and Ribiere), followed to the
    minimum for these signs; entries that would change their sign become zero. Should that raise the
    objective, the step ends where the first entry becomes zero.

    Args:
        rows: the rows.
        u, r: values and the padded residual at the start.
        lam: by sample, (batch,).
        enough: a sample is done when no entry violates optimality by enough * lam, (batch,).
        curvature: the mean squared norm of a row.
        most: the most iterations.
        record: called with ``||r||^2`` and ``||u||_1`` after each iteration.
    """
    layout = rows.layout
    bound, level = rows.spread(lam), enough * lam
    opposite, inverse, longest = -bound, curvature / SHORT, LONG / curvature
    tiny, rounding = torch.finfo(lam.dtype).tiny, 1 + 10 * torch.finfo(lam.dtype).eps
    r = r.clone()
    inside = layout.inside(r)
    c, value = rows.analysis(r), energy(inside) / 2 + lam * rows.dot(u, u.sign())
    ran = torch.zeros(len(lam), dtype=torch.int64, device=lam.device)
    active, direction = ran == 0, None
    for _ in range(most):
        ahead = torch.add(c, u, alpha=inverse)
        descent = c - torch.clamp(ahead, opposite, bound)
        active = rows.largest(descent) > level
        if not active.any():
            break
        square = rows.dot(descent, descent)
        if direction is None:
            direction = descent
        else:
            ratio = torch.clamp((square - rows.dot(descent, last)) / before.clamp(min=tiny), min=0.0)
            direction = torch.addcmul(descent, rows.spread(ratio) * (descent != 0), direction)
        last, before = descent, square
        image = rows.synthesis(direction)
        # A direction with hardly an image (dependent rows) is not followed to infinity.
        length = torch.clamp(rows.dot(direction, descent) / energy(image), max=longest)
        if layout.batch > 1:  # a sample that is done does not wait for others: it stands still
            length = torch.where(active, length, 0.0)
        new = torch.addcmul(u, rows.spread(length), direction)
        # The sign to keep is that of u, unless the proximal step goes far beyond zero.
        stay = new * torch.add(u, descent, alpha=0.5 / inverse) >= 0
        if layout.batch > 1:
            stay = stay | ~rows.spread(active)
        if stay.all():
            after = inside - length.view(-1, 1, 1, 1) * image
        else:
            new = new * stay
            after = inside - rows.synthesis(new - u)
        now = energy(after) / 2 + lam * rows.dot(new, new.sign())
        rose = active & ~(now <= value * rounding)
        if rose.any():
            short = torch.where(rose, length, 0.0)
            other, short = _to_first_zero(rows, u, direction, descent, short)
            new = torch.where(rows.spread(rose), other, new)
            after = torch.where(rose.view(-1, 1, 1, 1), inside - short.view(-1, 1, 1, 1) * image, after)
            now = energy(after) / 2 + lam * rows.dot(new, new.sign())
            direction = torch.where(rows.spread(rose), 0.0, direction)
        inside.copy_(after)
        u, c, value = new, rows.analysis(r), now
        ran += active
        if record:
            record(energy(after), rows.dot(u, u.sign()))
    return Solved(u, r, c, ran, active)


def _to_first_zero(
    rows: ActiveRows, u: Tensor, direction: Tensor, descent: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """The step cut at the first change of a sign, where the objective is a parabola, and its length.

    Entries at zero have the sign of their descent; one that the direction takes the other way cuts
    the step to nothing, and the next direction is the descent itself.
    """
    falls = torch.where(u != 0, u, descent) * direction < 0
    pace = torch.where(falls, direction / u, 0.0).abs()
    length = torch.minimum(length, 1 / rows.largest(pace))
    new = torch.addcmul(u, rows.spread(length), direction)
    there = pace * rows.spread(length) >= 1 - 8 * torch.finfo(u.dtype).eps
    return torch.where(there, 0.0, new), length
