"""The patches under the filters of a layer, window by window: convolution becomes one product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = 2**22  # of patches in float64 at once, 32 MB


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
    images = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4))
    # A row of a patch is one run of l M entries. Runs first, then patches of them: half the time.
    runs = images.unfold(2, l, stride)[:, :, : columns * window].transpose(3, 4).flatten(3)
    under = runs.unfold(1, l, stride)[:, : rows * window]
    under = under.unflatten(1, (rows, window)).unflatten(3, (columns, window))
    # (batch, rows, p, columns, q, l M, l) to (p, q, batch, rows, columns, l, l M)
    under = under.permute(2, 4, 0, 1, 3, 6, 5)
    shape, entries = (window**2, batch * rows * columns), M * l**2
    if depth is None or depth == entries:
        return under.reshape(*shape, entries)
    patches = torch.empty(*shape, depth, dtype=x.dtype, device=x.device)
    patches[..., entries:] = 0
    patches[..., :entries].view(under.shape).copy_(under)
    return patches


def filter_rows(weight: Tensor) -> Tensor:
    """Filters (K, M, l, l) as rows (K, l l M), in the order of the patches."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def patch_moments(x: Tensor, l: int, padding: int, stride: int) -> tuple[Tensor, Tensor]:
    """Mean (l l M,) and covariance (l l M, l l M) over all patches of the images, in float64.

    One pass over the images, part by part: means and scatter matrices are merged as in Chan, Golub
    and LeVeque (1983), which cancels nothing.
    """
    each = max(1, ENTRIES // (x[0].numel() * l**2))
    count, mean, scatter = 0, 0.0, 0.0
    for part in x.split(each):
        (patches,) = window_patches(part.double(), l, 1, padding, stride)
        step = patches.mean(0) - mean
        centered = patches - (mean + step)
        more, total = len(patches), count + len(patches)
        scatter = scatter + centered.T @ centered + torch.outer(step, step) * (count * more / total)
        mean, count = mean + step * (more / total), total
    return mean, scatter / count
