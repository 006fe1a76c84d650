"""Choices that are the same on every machine: the k largest entries, and random subsets."""

from __future__ import annotations

import torch
from torch import Tensor


def largest(values: Tensor, k: int) -> Tensor:
    """Mask of the k entries of largest magnitude in each row of (batch, N), as bool (batch, N).

    torch.topk leaves the order of equal entries open. Here all entries above the k-th magnitude
    are kept, and those equal to it from the lowest index on, until k are found.
    """
    size = values.detach().abs()
    threshold = size.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above, equal = size > threshold, size == threshold
    missing = k - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= missing))


def subsets(count: int, size: int, samples: int, generator: torch.Generator) -> Tensor:
    """Uniform subsets of `size` of the numbers 0..count-1, int64 (samples, size), unordered.

    Floyd's algorithm (Bentley and Floyd 1987): `size` draws a sample, whatever the count.
    """
    chosen = torch.empty(samples, size, dtype=torch.int64)
    for i, last in enumerate(range(count - size, count)):
        draw = torch.randint(last + 1, (samples,), generator=generator)
        taken = (chosen[:, :i] == draw.unsqueeze(1)).any(1)
        chosen[:, i] = torch.where(taken, last, draw)
    return chosen
