"""The Lanczos process for the largest eigenvalue of a symmetric positive semidefinite operator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def steps_needed(dimension: int, gap: float, failure: float) -> int:
    """Steps after which the largest Ritz value is within `gap` (relative) of the eigenvalue.

    Kuczynski and Wozniakowski (SIAM J. Matrix Anal. Appl. 13, 1992): from a start uniform on the
    sphere, k steps miss with probability at most 1.648 sqrt(dimension) exp(-sqrt(gap) (2k - 1)).
    """
    exponent = math.log(1.648 * math.sqrt(dimension) / failure) / math.sqrt(gap)
    return math.ceil((exponent + 1) / 2)


def largest_ritz_value(
    apply: Callable[[Tensor], Tensor], start: Tensor, steps: int, enough: float = math.inf
) -> float:
    """The largest Ritz value after `steps` steps, sooner once it is at least `enough`.

    A Ritz value never exceeds the largest eigenvalue. Three vectors are kept, not all of them:
    losing orthogonality repeats Ritz values but moves none past the spectrum.
    """
    previous, current = torch.zeros_like(start), start / start.norm()
    diagonal, off = [], []
    ritz = 0.0
    for step in range(1, steps + 1):
        image = apply(current)
        diagonal.append(float(torch.sum(image * current)))
        image = image - diagonal[-1] * current - (off[-1] if off else 0.0) * previous
        beta = float(image.norm())
        done = step == steps or beta <= 1e-14 * max(diagonal)
        if done or step % 5 == 0:
            side = torch.tensor(off, dtype=torch.float64)
            matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
            matrix += torch.diag(side, 1) + torch.diag(side, -1)
            ritz = float(torch.linalg.eigvalsh(matrix)[-1])
            if done or ritz >= enough:
                break
        off.append(beta)
        previous, current = current, image / beta
    return ritz
