"""The patches under the filters of a layer, window by window: convolution becomes one product."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pooled_size(
    size: tuple[int, int], l: int, window: int, padding: int, stride: int
) -> tuple[int, int]:
    """Whole windows along the rows and the columns of the responses to l x l filters."""
    return tuple(((side + 2 * padding - l) // stride + 1) // window for side in size)


def window_patches(
    x: Tensor, l: int, window: int = 1, padding: int = 0, stride: int = 1, depth: int | None = None
) -> Tensor:
    """Patch [p, w] lies under place p of pooling window w, (window^2, batch * windows, depth).

    Places and windows count row-major. The M l^2 entries of a patch are ordered (l, l, M), as in
    `filter_rows`, and zeros fill it up to `depth`. Patches beyond the last whole window are left out.

    Args:
        x: images (batch, M, H, W), in any layout.
    """
    batch, M, *size = x.shape
    rows, columns = pooled_size(tuple(size), l, window, padding, stride)
    # With the channels innermost, a row of a patch is one run of l M entries.
    images = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4))
    under = images.unfold(1, l, stride).unfold(2, l, stride)[:, : rows * window, : columns * window]
    under = under.unflatten(1, (rows, window)).unflatten(3, (columns, window))
    # (batch, rows, p, columns, q, M, l, l) to (p, q, batch, rows, columns, l, l, M)
    under = under.permute(2, 4, 0, 1, 3, 6, 7, 5)
    shape, entries = (window**2, batch * rows * columns), M * l**2
    if depth is None or depth == entries:
        return under.reshape(*shape, entries)
    patches = x.new_empty(*shape, depth)
    patches[..., entries:] = 0
    patches[..., :entries].view(under.shape).copy_(under)
    return patches


def filter_rows(weight: Tensor) -> Tensor:
    """Filters (K, M, l, l) as rows (K, l l M), in the order of the patches."""
    return weight.permute(0, 2, 3, 1).flatten(1)
