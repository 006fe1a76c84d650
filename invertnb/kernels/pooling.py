"""Blocks of codes: their geometry, their layout in memory, and the bits that compare their entries.

Codes are (batch, K, n) with an int block, or (batch, K, n1, n2) with a block (p, q), contiguous or
channels_last. Pooled values and switches are (batch, K, blocks...), in the layout of the code; a
switch is the position inside its block, row-major in two dimensions, uint8 where that holds it.
Rows and columns beyond the last whole block belong to none, as in `torch.nn.functional.max_pool2d`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.launch import DTYPES, jit, tl

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


def crop(z: Tensor, block: Block) -> Tensor:
    """The whole blocks of a code."""
    if isinstance(block, int):
        return z[..., : z.shape[-1] // block * block]
    (p, q), (height, width) = block, z.shape[-2:]
    return z[..., : height // p * p, : width // q * q]


class Geometry(NamedTuple):
    """A code as an array (planes, height, width, inner) of windows p x q, (rows, columns) a plane.

    A kernel is compiled for the extents of a plane, so once for each size of image.

    A contiguous code has a plane for each filter of each sample and inner = 1; a channels_last one
    has a plane for each sample and inner = K. A block of a signal is a window of one row.
    """

    planes: int
    height: int
    width: int
    inner: int
    rows: int
    columns: int
    p: int
    q: int

    @property
    def windows(self) -> int:
        """Windows in all."""
        return self.planes * self.rows * self.columns * self.inner

    @property
    def place_count(self) -> int:
        """Entries of a window."""
        return self.p * self.q

    @property
    def paired(self) -> bool:
        """Whether two neighboring columns make a window and nothing is cut off: one wide load."""
        whole = self.height == self.rows * self.p and self.width == 2 * self.columns
        return self.inner == 1 and self.q == 2 and whole


def is_last(z: Tensor) -> bool:
    """Whether a code is to be treated as channels_last: it is, and not contiguous as well."""
    if z.dim() != 4 or z.is_contiguous():
        return False
    return z.is_contiguous(memory_format=torch.channels_last)


def dense(z: Tensor) -> Tensor:
    """The code itself if it is contiguous or channels_last, else a contiguous copy."""
    return z if is_last(z) else z.contiguous()


def geometry(shape: tuple[int, ...], last: bool, block: Block) -> Geometry:
    """The geometry of a code of this shape, channels_last or contiguous."""
    batch, K, *size = shape
    height, width = (1, *size) if len(size) == 1 else size
    p, q = (1, block) if isinstance(block, int) else block
    planes, inner = (batch, K) if last else (batch * K, 1)
    return Geometry(planes, height, width, inner, height // p, width // q, p, q)


def pooled_shape(shape: tuple[int, ...], block: Block) -> tuple[int, ...]:
    """Shape of the pooled values of a code of this shape."""
    lengths = (block,) if isinstance(block, int) else block
    return (*shape[:2], *(side // b for side, b in zip(shape[2:], lengths, strict=True)))


def empty(shape: tuple[int, ...], last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialized tensor in the layout of a code."""
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)


def switch_dtype(block: Block) -> torch.dtype:
    """uint8 if the block has at most 256 entries, else int32."""
    count = block if isinstance(block, int) else block[0] * block[1]
    return torch.uint8 if count <= 256 else torch.int32


def windows_of(z: Tensor, g: Geometry) -> int:
    """Windows of a program of 4 warps, so that a thread moves 16 bytes at a time.

    A row of a paired window is two entries. More windows would make the compiler pass values and
    switches between threads, through shared memory; and of large windows whose entries come one by
    one a thread holds one, or it runs out of registers.
    """
    if g.inner == 1 and not g.paired and g.place_count > 8:
        return 128
    return (1024 if g.paired else 2048) // z.element_size()


# Windows of at most so many entries are worked on entry by entry.
UNROLLED = 16
# Offsets inside a sample are 32 bits wide, those of lanes beyond its end included.
SAMPLE = 2**31 - 2**20


def check_code(name: str, z: Tensor, block: Block) -> None:
    """A floating code whose dimensions fit the block, with room for one block at least.

    Raises:
        ValueError: what does not fit, by name and value. Values are not looked at: NaN passes.
    """
    if isinstance(block, tuple):
        check.extent("block", block, 2)
    else:
        check.integer("block", block, 1)
    axes = ("n",) if isinstance(block, int) else ("n1", "n2")
    if not isinstance(z, Tensor) or z.dim() != 2 + len(axes):
        check.fail(name, z, f"a tensor (batch, K, {', '.join(axes)})")
    if z.dtype not in DTYPES:
        check.fail(name, z, "float16, bfloat16, float32 or float64")
    if min(pooled_shape(z.shape, block)[2:]) < 1:
        check.fail("block", block, f"no side longer than the code's {tuple(z.shape[2:])}")


@jit
def float_key(z, SIGNED: tl.constexpr):
    """An integer that sorts like |z|, or like z if SIGNED: NaN is the largest, both zeros are one.

    Bits and no arithmetic: exact in every dtype, and right where an interpreter has no bfloat16.
    """
    if z.dtype.primitive_bitwidth == 16:
        bits = z.to(tl.int16, bitcast=True).to(tl.int32)
        most = 0x7FFF
    elif z.dtype.primitive_bitwidth == 32:
        bits = z.to(tl.int32, bitcast=True)
        most = 0x7FFFFFFF
    else:
        bits = z.to(tl.int64, bitcast=True)
        most = 0x7FFFFFFFFFFFFFFF
    size = bits & most
    if SIGNED:
        if z.dtype == tl.float16:
            infinity = 0x7C00
        elif z.dtype == tl.bfloat16:
            infinity = 0x7F80
        elif z.dtype == tl.float32:
            infinity = 0x7F800000
        else:
            infinity = 0x7FF0000000000000
        key = tl.where(bits < 0, -size, size)
        return tl.where(size > infinity, most, key)
    return size


@jit
def window_place(
    first, BLOCK: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """Where the first entries of BLOCK windows lie, from the window `first` (int64) on.

    An int64 for all of them plus an int32 each: codes may pass 2^31 entries, and only few divisions
    are wide.
    """
    row = first // (COLUMNS * INNER)
    plane = row // ROWS
    local = (first - row * (COLUMNS * INNER)).to(tl.int32) + tl.arange(0, BLOCK)
    inner = local % INNER
    column = (local // INNER) % COLUMNS
    down = (row - plane * ROWS).to(tl.int32) + local // (COLUMNS * INNER)
    base = plane * (HEIGHT * WIDTH * INNER)
    line = (down // ROWS) * HEIGHT + (down % ROWS) * P
    return base, (line * WIDTH + column * Q) * INNER + inner


@jit
def pair_place(first, BLOCK: tl.constexpr, WIDTH: tl.constexpr, P: tl.constexpr):
    """The same for `Geometry.paired` codes, entry by entry of a row of windows: 2 BLOCK offsets.

    Window w of pooled row r starts at 2 w + r (P - 1) WIDTH: one division, and runs of entries.
    """
    row = first // (WIDTH // 2)
    local = 2 * (first - row * (WIDTH // 2)).to(tl.int32) + tl.arange(0, 2 * BLOCK)
    return row * (P * WIDTH), local + (local // WIDTH) * ((P - 1) * WIDTH)
