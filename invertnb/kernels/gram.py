"""Entries of W W^T between chosen rows, read from its table of correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def gram_on(table: Tensor, filters: Tensor, places: Sequence[Tensor]) -> Tensor:
    """W W^T on several sets of rows at once, (batch, s, s).

    Row (i, p) and row (j, q) have the product table[i, j, R + q - p] within reach R and 0 beyond
    it: W W^T is block-Toeplitz (section 2.2).

    Args:
        table: correlations (K, K, 2R+1) or (K, K, 2R+1, 2R+1), see `FilterBank.gram`.
        filters: i of each row, int64 (batch, s).
        places: p of each row, one int64 (batch, s) for each axis.
    """
    reach = table.shape[-1] // 2
    entry = filters.unsqueeze(2) * table.shape[1] + filters.unsqueeze(1)
    near = None
    for place in places:
        shift = place.unsqueeze(1) - place.unsqueeze(2) + reach
        inside = (shift >= 0) & (shift <= 2 * reach)
        near = inside if near is None else near & inside
        entry = entry * table.shape[-1] + shift
    return torch.where(near, table.flatten()[torch.where(near, entry, 0)], 0.0)


def gram_matrix(table: Tensor, n: Sequence[int]) -> Tensor:
    """W W^T itself, (Kn, Kn), from the same table, for n shifts by axis.

    Entry ((i, p), (j, q)) is table[i, j, R + q - p]: with p reversed, windows of the table.
    """
    reach, axes = table.shape[-1] // 2, range(2, 2 + len(n))
    windows = table
    for axis, side in zip(axes, n, strict=True):
        # Cut or fill up with zeros, to the shifts from 1 - n to n - 1.
        far = min(reach, side - 1)
        windows = windows.narrow(axis, reach - far, 2 * far + 1)
        pads = [0, 0] * (windows.dim() - axis - 1) + [side - 1 - far] * 2
        windows = F.pad(windows, pads).unfold(axis, side, 1)
    count = table.shape[0] * math.prod(n)
    order = (0, *axes, 1, *range(2 + len(n), 2 + 2 * len(n)))
    return windows.flip(*axes).permute(order).reshape(count, count)
