"""Floats compared as the integers that their bits spell: pooling on a CPU in plain PyTorch.

The bits of a float without its sign sort like its magnitude, NaN above infinity above the rest.
Differences of such integers, shifted down to their sign, are masks of ones or zeros that select by
`&` and `|`. These run at the speed of the cache; `where`, `gather` and `scatter` take five to ten
times as long an entry. No gradient passes here. With `signed`, the dtype of the floats, values are
compared and not magnitudes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from invertnb.kernels.pooling import Geometry

INTEGERS = {
    torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32,
    torch.float64: torch.int64,
}  # fmt: skip
WIDER = {torch.int16: torch.int32, torch.int32: torch.int64}
CHUNK = 2**18  # entries of a thread's share at a time: with their masks they stay in its cache


def few(g: Geometry) -> bool:
    """Whether a window has so few entries that their masks cost less than a library's search."""
    return g.place_count <= (4 if g.inner > 1 else 8)


def tiles(z: Tensor, rows: int, p: int, columns: int, q: int) -> Tensor:
    """A view of contiguous z as integers, (rows, p, columns, q, inner)."""
    return z.view(INTEGERS[z.dtype]).view(rows, p, columns, q, -1)


def keep(z: Tensor, out: Tensor, signed: torch.dtype | None) -> None:
    """Copy the largest entry of each block from tiles to tiles; the others become 0."""
    for part, target in _chunks(z, out):
        if _paired(part, signed):
            top, bottom = _pair_masks(part)[:2]
            torch.bitwise_and(part[:, 0, ..., 0], top, out=target[:, 0, ..., 0])
            torch.bitwise_and(part[:, 1, ..., 0], bottom, out=target[:, 1, ..., 0])
        else:
            for place, mask in enumerate(_masks(part, signed)):
                a, b = divmod(place, part.shape[3])
                torch.bitwise_and(part[:, a, :, b], mask, out=target[:, a, :, b])


def pool(z: Tensor, values: Tensor, switches: Tensor, signed: torch.dtype | None) -> None:
    """The largest entry of each block and its place, into (rows, columns, inner); ties: the first."""
    for part, value, switch in _chunks(z, values, switches):
        if _paired(part, signed):
            top, bottom, low, right = _pair_masks(part)
            width = 8 * part.element_size()
            # One entry of a block is left, so that `|` adds them up.
            left = (part[:, 0, ..., 0] & top).bitwise_or_(part[:, 1, ..., 0] & bottom)
            wide = left.flatten(1).view(right.dtype)
            value.copy_((wide | (wide >> width)).view_as(right)[..., None])
            # The place: 1 for the right column, 2 for the lower row.
            down = low.flatten(1).view(right.dtype).view_as(right)
            chosen = (down & ~right).bitwise_or_((down >> width).bitwise_and_(right))
            switch.copy_((chosen.bitwise_and_(2) - right)[..., None])
        else:
            masks, q = _masks(part, signed), part.shape[3]
            best, place = part[:, 0, :, 0] & masks[0], torch.zeros_like(masks[0])
            for i, mask in enumerate(masks[1:], 1):
                best |= part[:, i // q, :, i % q] & mask
                place |= mask & i
            value.copy_(best)
            switch.copy_(place)


def unpool(values: Tensor, switches: Tensor, out: Tensor) -> None:
    """Each value at its place in its tile, zeros elsewhere; a place outside gives no entry."""
    q, kind = out.shape[3], out.dtype
    for value, switch, target in _chunks(values, switches, out):
        switch = switch.to(kind)
        for place in range(out.shape[1] * q):
            # place = switch exactly where (place ^ switch) - 1 is negative.
            mask = ((switch ^ place) - 1).__irshift__(8 * out.element_size() - 1)
            torch.bitwise_and(value, mask, out=target[:, place // q, :, place % q])


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    largest = max(tensor[0].numel() for tensor in tensors)
    rows = max(1, CHUNK * torch.get_num_threads() // largest)
    return zip(*(t.split(rows) for t in tensors), strict=True)


def _keys(bits: Tensor, signed: torch.dtype | None) -> Tensor:
    """Integers that sort like the floats, or like their magnitudes."""
    most = torch.iinfo(bits.dtype).max
    size = bits & most
    if signed is None:
        return size
    # A negative float sorts backwards; both zeros are one, and NaN is above all.
    sign = bits >> (8 * bits.element_size() - 1)
    key = (size ^ sign) - sign
    infinity = torch.tensor(torch.inf, dtype=signed).view(bits.dtype)
    return torch.where(size > infinity.item(), most, key)


def _masks(z: Tensor, signed: torch.dtype | None) -> list[Tensor]:
    """All ones where an entry is the largest of its block, else zero; one mask for each place."""
    keys = [_keys(z[:, a, :, b], signed) for a in range(z.shape[1]) for b in range(z.shape[3])]
    masks = _tournament(keys, signed)[1]
    return masks if len(keys) > 1 else [torch.full_like(keys[0], -1)]


def _tournament(keys: list[Tensor], signed: torch.dtype | None) -> tuple[Tensor, list[Tensor | None]]:
    """The largest key, and for each entry a mask of ones where it is the first of this size."""
    if len(keys) == 1:
        return keys[0], [None]
    half = (len(keys) + 1) // 2
    left, first = _tournament(keys[:half], signed)
    right, second = _tournament(keys[half:], signed)
    if signed is not None:  # a difference might overflow
        later = -(right > left).to(left.dtype)
    else:
        later = (left - right).__irshift__(8 * left.element_size() - 1)
    earlier = ~later
    masks = [_both(mask, earlier) for mask in first] + [_both(mask, later) for mask in second]
    return torch.maximum(left, right), masks


def _both(mask: Tensor | None, other: Tensor) -> Tensor:
    return other if mask is None else mask.bitwise_and_(other)


def _paired(z: Tensor, signed: torch.dtype | None) -> bool:
    """Windows of 2 x 2 in rows: neighbors are then compared two columns in one wider integer."""
    return tuple(z.shape[1::2]) == (2, 2) and z.shape[4] == 1 and signed is None and z.dtype in WIDER


def _pair_masks(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masks of the winners in the upper and lower rows (rows, columns, 2), whether the lower entry
    of each column is the larger, and whether the right column wins (rows, columns), wider."""
    width, kind = 8 * z.element_size(), WIDER[z.dtype]
    most = torch.iinfo(z.dtype).max
    above, below = z[:, 0, ..., 0] & most, z[:, 1, ..., 0] & most
    low = (above - below).__irshift__(width - 1)
    best = torch.maximum(above, below, out=above).flatten(1).view(kind)
    pairs = low.flatten(1).view(kind)
    # Little-endian: the left column stands in the lower half. On a tie the lower place wins, which
    # is the right column's where it has the upper row (1) and the left one the lower row (2).
    tied = (pairs & ~(pairs >> width)).bitwise_and_(1)
    right = (best & ((1 << width) - 1)).sub_(best >> width).sub_(tied).__irshift__(2 * width - 1)
    column = (right ^ ((1 << width) - 1)).view(z.dtype).view_as(low)
    return column & ~low, column & low, low, right.view(z.shape[0], z.shape[2])
