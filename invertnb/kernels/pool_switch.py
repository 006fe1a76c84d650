"""Max pooling with switches: the largest entry of each block of a code, and where it stood.

Bytes, for an entry of z in float32 and windows of 2 x 2: abs, max_pool2d with its int64 index and a
gather of the signed value move 22; one pass moves 5.25 = 4 read + 1 value + 0.25 switch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.kernels import bits
from invertnb.kernels.launch import blocks_of, jit, on_device, tl, transformed, use_triton
from invertnb.kernels.pooling import (
    SAMPLE, UNROLLED, Block, Geometry, cells, check_code, crop, dense, empty, float_key, geometry, is_last,
    pair_place, pooled_shape, switch_dtype, window_place, windows_of,
)  # fmt: skip

# Windows with more entries are not unrolled but take one tile of registers each, up to WIDEST.
WIDEST = 1024
BY = ("abs", "signed")


def pool_switch_naive(z: Tensor, block: Block, by: str = "abs") -> tuple[Tensor, Tensor]:
    """The definition, which `pool_switch` must equal: each block's largest entry and its place.

    by="abs" compares magnitudes and keeps the sign; by="signed" compares values. argmax returns
    the first of equal entries, so the lowest position wins a tie. Switches are int64 here.
    """
    entries = cells(crop(z, block), block)
    switches = (entries.abs() if by == "abs" else entries).argmax(-1)
    return entries.gather(-1, switches.unsqueeze(-1)).squeeze(-1), switches


def pool_switch(z: Tensor, block: Block, by: str = "abs") -> tuple[Tensor, Tensor]:
    """Values and switches of the pooled code (section 2.3: max-pool with its switches).

    Args:
        z: codes (batch, K, n) or (batch, K, n1, n2), float16, bfloat16, float32 or float64, any
            strides. The result has its layout: channels_last for channels_last, else contiguous
            (compiled on the CPU, the compiler's).
        block: length of a block, or (p, q). Entries beyond the last whole block belong to none.
        by: "abs" for the largest magnitude with its sign, "signed" for the largest value.

    Returns:
        Values in the dtype of z, and switches, uint8 (int32 for blocks of more than 256 entries).
        The lowest position wins a tie. A NaN counts as the largest; of several, which is open.
        Differentiable in z, any number of times.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    check_code("z", z, block)
    check.choice("by", by, BY)
    if transformed() or (torch.compiler.is_compiling() and not use_triton(z)):
        return _plain(z, block, by)
    p, q = (0, block) if isinstance(block, int) else block
    return torch.ops.invertnb.pool_switch(z, p, q, by == "signed")


def _plain(z: Tensor, block: Block, by: str) -> tuple[Tensor, Tensor]:
    """Plain PyTorch: traced and fused by `torch.compile`, differentiable in every mode."""
    if isinstance(block, int):
        values, switches = pool_switch_naive(z, block, by)
        return values, switches.to(switch_dtype(block))
    compared = z.detach().abs() if by == "abs" else z.detach()
    _, flat = F.max_pool2d(compared, block, return_indices=True)
    values = z.flatten(2).gather(2, flat.flatten(2)).view(flat.shape)
    # max_pool2d counts along the whole image: row * width + column.
    row, column = flat // z.shape[-1], flat % z.shape[-1]
    return values, (row % block[0] * block[1] + column % block[1]).to(switch_dtype(block))


@torch.library.custom_op("invertnb::pool_switch", mutates_args=())
def _op(z: Tensor, p: int, q: int, signed: bool) -> tuple[Tensor, Tensor]:
    """The whole block is (p, q), or q with p = 0 for signals' codes."""
    block, last, z = ((p, q) if p else q), is_last(z), dense(z)
    shape = pooled_shape(z.shape, block)
    values = empty(shape, last, z.dtype, z.device)
    switches = empty(shape, last, switch_dtype(block), z.device)
    if not values.numel():
        return values, switches
    g = geometry(z.shape, last, block)
    if use_triton(z) and g.place_count <= WIDEST and z[0].numel() < SAMPLE:
        _launch(z, values, switches, g, signed)
    elif not bits.few(g):
        some, place = _plain(z, block, "signed" if signed else "abs")
        values.copy_(some)
        switches.copy_(place)
    else:
        whole = crop(z, block)
        whole = whole.contiguous(memory_format=torch.channels_last) if last else whole.contiguous()
        view = [_inside(t, last) for t in (whole, values, switches)]
        pooled = (g.planes * g.rows, g.columns, g.inner)
        tiles = bits.tiles(view[0], pooled[0], g.p, g.columns, g.q)
        bits.pool(tiles, view[1].view(tiles.dtype).view(pooled), view[2].view(pooled),
                  z.dtype if signed else None)
    return values, switches


def _inside(z: Tensor, last: bool) -> Tensor:
    """The same memory in the order in which it lies."""
    return z.permute(0, 2, 3, 1) if last else z


@_op.register_fake
def _(z: Tensor, p: int, q: int, signed: bool) -> tuple[Tensor, Tensor]:
    block = (p, q) if p else q
    shape = pooled_shape(z.shape, block)
    last = is_last(z)
    return empty(shape, last, z.dtype, z.device), empty(shape, last, switch_dtype(block), z.device)


def _save(ctx, inputs, output) -> None:
    z, p, q, _ = inputs
    ctx.block, ctx.size = ((p, q) if p else q), tuple(z.shape[2:])
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, gradient: Tensor, _) -> tuple[Tensor, None, None, None]:
    from invertnb.kernels.unpool import unpool

    # The value is the entry at the switch: the adjoint of reading there is writing there.
    (switches,) = ctx.saved_tensors
    return unpool(gradient, switches, ctx.block, size=ctx.size, trusted=True), None, None, None


_op.register_autograd(_backward, setup_context=_save)


def _launch(z: Tensor, values: Tensor, switches: Tensor, g: Geometry, signed: bool) -> None:
    extents = {"HEIGHT": g.height, "WIDTH": g.width, "INNER": g.inner, "ROWS": g.rows,
               "COLUMNS": g.columns, "P": g.p, "Q": g.q}  # fmt: skip
    with on_device(z):
        if g.place_count <= UNROLLED:
            block = windows_of(z, g)
            _kernel[blocks_of(g.windows, block)](
                z, values, switches, g.windows, **extents, PAIRED=g.paired, SIGNED=signed, BLOCK=block
            )
        else:
            width = 1 << (g.place_count - 1).bit_length()
            block = max(1, 4096 // width)
            _wide_kernel[blocks_of(g.windows, block)](
                z, values, switches, g.windows, **extents, SIGNED=signed, SPAN=width, BLOCK=block
            )


@jit
def first_largest(
    z, first, windows,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, PAIRED: tl.constexpr,
    SIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Value and place of the first largest entry of each of BLOCK windows, and where these lie."""
    if PAIRED:
        base, offset = pair_place(first, BLOCK, WIDTH, P)
        live = first * 2 + tl.arange(0, 2 * BLOCK) < tl.cast(windows, tl.int64) * 2
    else:
        base, offset = window_place(first, BLOCK, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q)
        live = first + tl.arange(0, BLOCK) < windows
    for a in tl.static_range(P):
        if PAIRED:
            row = tl.load(z + base + (offset + a * WIDTH), mask=live, other=0.0)
            left, right = tl.split(tl.reshape(row, (BLOCK, 2)))
        for b in tl.static_range(Q):
            if PAIRED:
                entry = left if b == 0 else right
            else:
                entry = tl.load(z + base + (offset + (a * WIDTH + b) * INNER), mask=live, other=0.0)
            key = float_key(entry, SIGNED)
            if a + b == 0:
                best, value, place = key, entry, tl.zeros((BLOCK,), tl.int32)
            else:
                larger = key > best  # strictly: the first of equals stays
                best = tl.where(larger, key, best)
                value = tl.where(larger, entry, value)
                place = tl.where(larger, a * Q + b, place)
    return value, place, base, offset, live


@jit
def _kernel(
    z, values, switches, windows,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, PAIRED: tl.constexpr,
    SIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Specification: values[w], switches[w] = max, argmax over the p q entries of window w."""
    first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    value, place, _, _, _ = first_largest(
        z, first, windows, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q, PAIRED, SIGNED, BLOCK
    )
    live = first + lane < windows
    tl.store(values + first + lane, value, mask=live)
    tl.store(switches + first + lane, place.to(switches.dtype.element_ty), mask=live)


@jit
def _wide_kernel(
    z, values, switches, windows,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr,
    SIGNED: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same for large windows, as a reduction over tiles (BLOCK, SPAN >= p q)."""
    first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    base, offset = window_place(first, BLOCK, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q)
    place = tl.arange(0, SPAN)
    within = ((place // Q) * WIDTH + place % Q) * INNER
    live = (first + lane)[:, None] < windows
    tile = z + base + (offset[:, None] + within[None, :])
    key = float_key(tl.load(tile, mask=live & (place < P * Q)[None, :], other=0.0), SIGNED)
    # Places beyond the window must lose against every key.
    least = -0x7FFFFFFFFFFFFFFF if key.dtype == tl.int64 else -0x7FFFFFFF
    key = tl.where((place < P * Q)[None, :], key, least)
    best = tl.max(key, axis=1)
    chosen = tl.min(tl.where(key == best[:, None], place[None, :], SPAN), axis=1)
    live = first + lane < windows
    value = tl.load(z + base + (offset + ((chosen // Q) * WIDTH + chosen % Q) * INNER), mask=live)
    tl.store(values + first + lane, value, mask=live)
    tl.store(switches + first + lane, chosen.to(switches.dtype.element_ty), mask=live)
