"""A choice that is the same on every machine: the k largest entries."""

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
