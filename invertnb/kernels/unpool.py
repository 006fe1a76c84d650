"""Unpooling with switches: each value back to its place in its block; and its adjoint, `pick`.

Bytes, for an entry of the code in float32 and windows of 2 x 2: max_unpool2d with int64 indices
moves 11 (fill, read, scatter), one pass 5.25. Block-sparsify rides along for nothing: with the k-th
magnitude of each sample known, an entry below it is written as zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.kernels import bits
from invertnb.kernels.launch import (
    DTYPES, blocks_of, jit, on_device, tl, transformed, use_triton,
)  # fmt: skip
from invertnb.kernels.pooling import (
    SAMPLE, UNROLLED, Block, Geometry, cells, check_code, crop, dense, empty, float_key, geometry, is_last,
    pair_place, pooled_shape, uncells, window_place, windows_of,
)  # fmt: skip
from invertnb.kernels.threshold import Threshold, at_least, check_threshold

MANY = 64
SWITCHES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def unpool_naive(
    values: Tensor, switches: Tensor, block: Block, size: tuple[int, ...] | None = None
) -> Tensor:
    """The definition, which `unpool` must equal: each value at its switch, zeros elsewhere."""
    count = block if isinstance(block, int) else block[0] * block[1]
    place = torch.arange(count, device=values.device)
    at = switches.unsqueeze(-1) == place
    code = uncells(torch.where(at, values.unsqueeze(-1), 0.0), block)
    if size is not None:
        rest = [side - whole for side, whole in zip(size, code.shape[2:], strict=True)]
        code = F.pad(code, [pad for beyond in reversed(rest) for pad in (0, beyond)])
    return code


def unpool(
    values: Tensor, switches: Tensor, block: Block, *, size: tuple[int, ...] | None = None,
    threshold: Threshold | None = None, trusted: bool = False,
) -> Tensor:
    """The code with each value at its switch and zeros elsewhere (section 2.3: upsample).

    Args:
        values: pooled values (batch, K, blocks...), float16, bfloat16, float32 or float64, any
            strides. The code has its layout: channels_last for channels_last, else contiguous.
        switches: positions inside the blocks, an integer tensor of the same shape.
        block: length of a block, or (p, q).
        size: (n,) or (n1, n2) of the code, if more than the blocks: the rest is zero.
        threshold: of `kernels.threshold`: values below it become zero (block-sparsify).
        trusted: leave out the check of the switches' values, which waits for the device. A switch
            outside its block then gives no entry.

    Returns:
        The code (batch, K, n) or (batch, K, n1, n2). Differentiable in the values.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, a switch outside its block. Inside
            `torch.compile` and `torch.func` values cannot be looked at; such a switch is as if
            trusted there.
    """
    unseen = transformed() or torch.compiler.is_compiling()
    size = _check(values, switches, block, size, trusted or unseen)
    if threshold is not None:
        threshold = check_threshold(threshold, values)
    p, q = (0, block) if isinstance(block, int) else block
    followed = transformed() or (torch.is_grad_enabled() and values.requires_grad)
    if followed or not use_triton(values):
        if threshold is not None:
            # The choice of the k largest is no function to differentiate: the kept ones pass.
            values = torch.where(at_least(values, threshold), values, 0.0)
            threshold = None
        if transformed() or (torch.compiler.is_compiling() and not use_triton(values)):
            return unpool_naive(values, switches, block, tuple(size))
    level, last_equal = (None, None) if threshold is None else threshold
    return torch.ops.invertnb.unpool(values, switches, p, q, size, level, last_equal)


def pick(g: Tensor, switches: Tensor, block: Block) -> Tensor:
    """The entries of a code g at given switches: the adjoint of `unpool`; 0 for one outside.

    Args:
        g: a code (batch, K, n) or (batch, K, n1, n2), in a dtype of `unpool`, any strides.
        switches: integers (batch, K, blocks...) on its device.
        block: length of a block, or (p, q).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_code("g", g, block)
    _check_switches(switches, pooled_shape(g.shape, block), g.device)
    if transformed():
        return _pick_plain(g, switches, block)
    p, q = (0, block) if isinstance(block, int) else block
    return torch.ops.invertnb.pick(g, switches, p, q)


def _check(
    values: Tensor, switches: Tensor, block: Block, size: tuple[int, ...] | None, trusted: bool
) -> list[int]:
    if isinstance(block, tuple):
        check.extent("block", block, 2)
    else:
        check.integer("block", block, 1)
    lengths = (block,) if isinstance(block, int) else block
    if not isinstance(values, Tensor) or values.dim() != 2 + len(lengths):
        check.fail("values", values, f"a tensor of {2 + len(lengths)} dimensions (batch, K, blocks...)")
    if values.dtype not in DTYPES:
        check.fail("values", values, "float16, bfloat16, float32 or float64")
    _check_switches(switches, values.shape, values.device)
    least = [side * length for side, length in zip(values.shape[2:], lengths, strict=True)]
    size = least if size is None else list(size)
    blocks = [side // length for side, length in zip(size, lengths, strict=False)]
    if len(size) != len(least) or blocks != list(values.shape[2:]):
        check.fail("size", tuple(size), f"room for {tuple(values.shape[2:])} blocks of {block}")
    count = block if isinstance(block, int) else block[0] * block[1]
    if not trusted and (bad := _outside(switches, count)) is not None:
        check.fail("switches", bad, f"positions from 0 to {count - 1}")
    return size


def _check_switches(switches: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    fits = isinstance(switches, Tensor) and switches.dtype in SWITCHES
    if not fits or switches.shape != shape or switches.device != device:
        check.fail("switches", switches, f"uint8 or int8 to int64 of shape {tuple(shape)} on {device}")


def _outside(switches: Tensor, count: int) -> int | None:
    """A switch that is no position in a block of so many, if there is one."""
    if not switches.numel():
        return None
    if switches.dtype == torch.uint8:  # a maximum of bytes is quick
        low, high = 0, int(switches.max())
    else:
        low, high = (int(v) for v in torch.aminmax(switches))
    return low if low < 0 else high if high >= count else None


@torch.library.custom_op("invertnb::unpool", mutates_args=())
def _op(
    values: Tensor, switches: Tensor, p: int, q: int, size: list[int], level: Tensor | None,
    last_equal: Tensor | None,
) -> Tensor:
    block, last, values = ((p, q) if p else q), is_last(values), dense(values)
    shape = (*values.shape[:2], *size)
    code = empty(shape, last, values.dtype, values.device)
    if not values.numel():
        return code.zero_()
    g = geometry(shape, last, block)
    if use_triton(values) and code[0].numel() < SAMPLE:
        switches = switches.contiguous(memory_format=_format(last))
        if g.rows * g.p < g.height or g.columns * g.q < g.width:
            code.zero_()
        _launch(values, switches, code, g, level, last_equal)
        return code
    if level is not None:
        values = torch.where(at_least(values, Threshold(level, last_equal)), values, 0.0)
    inside = None if switches.dtype == torch.uint8 else (switches >= 0) & (switches < g.place_count)
    if not p and q > UNROLLED:  # a pass for each place would cost more than a scatter
        inside = switches < q if inside is None else inside
        place = torch.where(inside, switches, 0).long().unsqueeze(-1)
        whole = values.new_zeros(*values.shape, q)
        whole.scatter_(-1, place, torch.where(inside, values, 0.0).unsqueeze(-1))
        crop(code, q).copy_(whole.flatten(-2))
    elif g.place_count > MANY:
        crop(code, block).copy_(unpool_naive(values, switches, block))
    else:
        if inside is not None:  # a place that no entry has, and that every type can hold
            switches = torch.where(inside, switches, g.place_count)
        switches = switches.contiguous(memory_format=_format(last))
        whole = crop(code, block)
        cut = whole.shape != code.shape
        target = empty(whole.shape, last, code.dtype, code.device) if cut else code
        view = [t.permute(0, 2, 3, 1) if last else t for t in (values, switches, target)]
        pooled = (g.planes * g.rows, g.columns, g.inner)
        tiles = bits.tiles(view[2], pooled[0], g.p, g.columns, g.q)
        bits.unpool(view[0].view(tiles.dtype).view(pooled), view[1].view(pooled), tiles)
        if cut:
            whole.copy_(target)
    code[..., g.columns * g.q :] = 0
    if p:
        code[..., g.rows * g.p :, :] = 0
    return code


def _format(last: bool) -> torch.memory_format:
    return torch.channels_last if last else torch.contiguous_format


@_op.register_fake
def _(values, switches, p, q, size, level, last_equal) -> Tensor:
    return empty((*values.shape[:2], *size), is_last(values), values.dtype, values.device)


def _save(ctx, inputs, output) -> None:
    _, switches, p, q, _, level, _ = inputs
    ctx.block = (p, q) if p else q
    ctx.plain = level is None
    ctx.save_for_backward(switches)


def _backward(ctx, gradient: Tensor):
    if not ctx.plain:
        raise RuntimeError("unpool: the op with a threshold has no gradient; call kernels.unpool")
    (switches,) = ctx.saved_tensors
    return pick(gradient, switches, ctx.block), None, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("invertnb::pick", mutates_args=())
def _pick_op(g: Tensor, switches: Tensor, p: int, q: int) -> Tensor:
    block, last = ((p, q) if p else q), is_last(switches)
    g = g.contiguous(memory_format=_format(last))
    values = empty(switches.shape, last, g.dtype, g.device)
    if not values.numel():
        return values
    if use_triton(g) and g[0].numel() < SAMPLE:
        switches = switches.contiguous(memory_format=_format(last))
        _launch_pick(g, switches, values, geometry(g.shape, last, block))
        return values
    return values.copy_(_pick_plain(g, switches, block))


def _pick_plain(g: Tensor, switches: Tensor, block: Block) -> Tensor:
    place = switches.long()
    inside = (place >= 0) & (place < (block if isinstance(block, int) else block[0] * block[1]))
    at = place.where(inside, 0).unsqueeze(-1)
    return torch.where(inside, cells(crop(g, block), block).gather(-1, at).squeeze(-1), 0.0)


@_pick_op.register_fake
def _(g, switches, p, q) -> Tensor:
    return empty(switches.shape, is_last(switches), g.dtype, g.device)


def _save_pick(ctx, inputs, output) -> None:
    g, switches, p, q = inputs
    ctx.block, ctx.size = ((p, q) if p else q), tuple(g.shape[2:])
    ctx.save_for_backward(switches)


def _backward_pick(ctx, gradient: Tensor):
    (switches,) = ctx.saved_tensors
    return unpool(gradient, switches, ctx.block, size=ctx.size, trusted=True), None, None, None


_pick_op.register_autograd(_backward_pick, setup_context=_save_pick)


def _extents(g: Geometry) -> dict[str, int]:
    return {"HEIGHT": g.height, "WIDTH": g.width, "INNER": g.inner, "ROWS": g.rows,
            "COLUMNS": g.columns, "P": g.p, "Q": g.q}  # fmt: skip


def _launch(
    values: Tensor, switches: Tensor, code: Tensor, g: Geometry, level: Tensor | None,
    last_equal: Tensor | None,
) -> None:
    has = level is not None
    with on_device(values):
        if g.place_count > UNROLLED:
            block = 1024
            _entry_kernel[blocks_of(g.windows * g.place_count, block)](
                values, switches, code, level if has else values, last_equal if has else switches,
                g.windows, values[0].numel(), **_extents(g), HAS_LEVEL=has, BLOCK=block
            )
            return
        block = windows_of(values, g)
        _kernel[blocks_of(g.windows, block)](
            values, switches, code, level if has else values, last_equal if has else switches,
            g.windows, values[0].numel(), **_extents(g), PAIRED=g.paired, HAS_LEVEL=has, BLOCK=block,
        )


def _launch_pick(g: Tensor, switches: Tensor, values: Tensor, shape: Geometry) -> None:
    with on_device(g):
        _pick_kernel[blocks_of(shape.windows, 512)](
            g, switches, values, shape.windows, **_extents(shape), BLOCK=512
        )


@jit
def kept_of(
    value, window, live, level, last_equal, per_sample, INNER: tl.constexpr, PLANE: tl.constexpr
):
    """Whether a value is among the k largest of its sample: above the level, or equal to it and not
    later than the last of the equals that is wanted. PLANE = pooled entries of a filter."""
    sample = window // per_sample
    inside = window - sample * per_sample
    if INNER > 1:  # channels_last: count as the contiguous code would
        inside = (inside % INNER) * PLANE + inside // INNER
    size = float_key(value, False)
    least = float_key(tl.load(level + sample, mask=live, other=0.0), False)
    return (size > least) | ((size == least) & (inside <= tl.load(last_equal + sample, mask=live, other=0)))


@jit
def _kernel(
    values, switches, code, level, last_equal, windows, per_sample,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, PAIRED: tl.constexpr,
    HAS_LEVEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Specification: entry i of window w = values[w] if switches[w] = i (and it is kept), else 0."""
    first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    if PAIRED:
        base, offset = pair_place(first, BLOCK, WIDTH, P)
    else:
        base, offset = window_place(first, BLOCK, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q)
    live = first + lane < windows
    value = tl.load(values + first + lane, mask=live, other=0.0)
    place = tl.load(switches + first + lane, mask=live, other=0)
    if HAS_LEVEL:
        kept = kept_of(value, first + lane, live, level, last_equal, per_sample, INNER, ROWS * COLUMNS)
        value = tl.where(kept, value, 0.0)
    for a in tl.static_range(P):
        if PAIRED:
            left = tl.where(place == 2 * a, value, 0.0)
            right = tl.where(place == 2 * a + 1, value, 0.0)
            row = tl.reshape(tl.join(left, right), (2 * BLOCK,))
            whole = first * 2 + tl.arange(0, 2 * BLOCK) < tl.cast(windows, tl.int64) * 2
            tl.store(code + base + (offset + a * WIDTH), row, mask=whole)
        else:
            for b in tl.static_range(Q):
                entry = tl.where(place == a * Q + b, value, 0.0)
                tl.store(code + base + (offset + (a * WIDTH + b) * INNER), entry, mask=live)


@jit
def _entry_kernel(
    values, switches, code, level, last_equal, windows, per_sample,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, HAS_LEVEL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The same for large windows, entry by entry of the whole blocks."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = entry // (P * Q) < windows
    inner = entry % INNER
    x = (entry // INNER) % (COLUMNS * Q)
    line = entry // (INNER * (COLUMNS * Q))
    plane, y = line // (ROWS * P), line % (ROWS * P)
    window = ((plane * ROWS + y // P) * COLUMNS + x // Q) * INNER + inner
    value = tl.load(values + window, mask=live, other=0.0)
    place = tl.load(switches + window, mask=live, other=0)
    if HAS_LEVEL:
        kept = kept_of(value, window, live, level, last_equal, per_sample, INNER, ROWS * COLUMNS)
        value = tl.where(kept, value, 0.0)
    value = tl.where(place == (y % P) * Q + x % Q, value, 0.0)
    tl.store(code + ((plane * HEIGHT + y) * WIDTH + x) * INNER + inner, value, mask=live)


@jit
def _pick_kernel(
    g, switches, values, windows,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Specification: values[w] = entry switches[w] of window w, or 0 outside."""
    first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    base, offset = window_place(first, BLOCK, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q)
    live = first + lane < windows
    place = tl.load(switches + first + lane, mask=live, other=0)
    inside = live & (place >= 0) & (place < P * Q)  # before it is made narrow
    place = place.to(tl.int32)
    at = g + base + (offset + ((place // Q) * WIDTH + place % Q) * INNER)
    tl.store(values + first + lane, tl.load(at, mask=inside, other=0.0), mask=live)
