"""Max pooling with switches over non-overlapping blocks, and its way back.

Codes are (batch, K, n) with an int block, or (batch, K, n1, n2) with a block (p, q). Pooled values
and switches are (batch, K, blocks...); a switch is the position inside its block, int64, row-major
in two dimensions. Nothing is checked here: the public classes check before they call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Block = int | tuple[int, int]


def cells(z: Tensor, block: Block) -> Tensor:
    """The code with the entries of each block on the last axis: (batch, K, blocks..., |block|)."""
    if isinstance(block, int):
        return z.unflatten(-1, (-1, block))
    p, q = block
    return z.unflatten(-1, (-1, q)).unflatten(-3, (-1, p)).transpose(-3, -2).flatten(-2)


def uncells(entries: Tensor, block: Block) -> Tensor:
    """The inverse of `cells`."""
    if isinstance(block, int):
        return entries.flatten(-2)
    return entries.unflatten(-1, block).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def pool_switch_naive(z: Tensor, block: Block, by: str = "abs") -> tuple[Tensor, Tensor]:
    """The definition, which `pool_switch` must equal: each block's largest entry and its place.

    by="abs" compares magnitudes and keeps the sign; by="signed" compares values. argmax returns
    the first of equal entries, so the lowest position wins a tie.
    """
    entries = cells(z, block)
    switches = (entries.abs() if by == "abs" else entries).argmax(-1)
    return entries.gather(-1, switches.unsqueeze(-1)).squeeze(-1), switches


def unpool_naive(values: Tensor, switches: Tensor, block: Block) -> Tensor:
    """The definition, which `unpool` must equal: each value at its switch, zeros elsewhere."""
    size = block if isinstance(block, int) else block[0] * block[1]
    place = torch.arange(size, device=values.device)
    return uncells((switches.unsqueeze(-1) == place) * values.unsqueeze(-1), block)


def pool_switch(z: Tensor, block: Block, by: str = "abs") -> tuple[Tensor, Tensor]:
    """Values and switches of the pooled code, see `pool_switch_naive`; in the layout of z."""
    if isinstance(block, int):
        return pool_switch_naive(z, block, by)
    layout = _layout(z)
    if not z.is_cuda:
        # On the CPU max_pool2d runs along the channels then, and is many times faster.
        z = z.contiguous(memory_format=torch.channels_last)
    last = not z.is_cuda or layout == torch.channels_last
    compared = z.detach().abs() if by == "abs" else z.detach()
    _, flat = F.max_pool2d(compared, block, return_indices=True)
    values = _pixels(z, last).gather(1 if last else 2, _pixels(flat, last))
    values = _images(values, flat.shape[-2:], last).contiguous(memory_format=layout)
    # max_pool2d counts along the whole image: row * width + column.
    offset = flat.contiguous(memory_format=layout) - _corners(z.shape[-2:], block, z.device)
    return values, offset - offset // z.shape[-1] * (z.shape[-1] - block[1])


def unpool(values: Tensor, switches: Tensor, block: Block) -> Tensor:
    """The code with each value at its switch, see `unpool_naive`; in the layout of the values."""
    if isinstance(block, int):
        entries = values.new_zeros(*values.shape, block)
        return entries.scatter(-1, switches.unsqueeze(-1), values.unsqueeze(-1)).flatten(-2)
    (p, q), (batch, K, rows, columns) = block, values.shape
    size, last = (rows * p, columns * q), _layout(values) == torch.channels_last
    flat = switches + switches // q * (size[1] - q) + _corners(size, block, values.device)
    shape = (batch, size[0] * size[1], K) if last else (batch, K, size[0] * size[1])
    code = values.new_zeros(shape).scatter(
        1 if last else 2, _pixels(flat, last), _pixels(values, last)
    )
    return _images(code, size, last)


def _corners(size: tuple[int, int], block: tuple[int, int], device: torch.device) -> Tensor:
    """The index row * width + column of each block's first entry."""
    rows = torch.arange(0, size[0], block[0], device=device).unsqueeze(1)
    return rows * size[1] + torch.arange(0, size[1], block[1], device=device)


def _layout(z: Tensor) -> torch.memory_format:
    last = z.is_contiguous(memory_format=torch.channels_last) and not z.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _pixels(z: Tensor, channels_last: bool) -> Tensor:
    """Images as (batch, pixels, K) or (batch, K, pixels): no copy in the matching layout."""
    return z.permute(0, 2, 3, 1).flatten(1, 2) if channels_last else z.flatten(2)


def _images(pixels: Tensor, size: tuple[int, int], channels_last: bool) -> Tensor:
    """The inverse of `_pixels`."""
    if channels_last:
        return pixels.unflatten(1, size).permute(0, 3, 1, 2)
    return pixels.unflatten(2, size)
