"""M_known in one pass: each block's largest entry stays where it is, the others become zero.

Bytes, for an entry of z in float32 and windows of 2 x 2: abs, max_pool2d, gather and max_unpool2d
move 33, one pass over z and one over the code 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels import bits
from invertnb.kernels.launch import blocks_of, jit, on_device, tl, transformed, use_triton
from invertnb.kernels.pool_switch import BY, first_largest, pool_switch, pool_switch_naive
from invertnb.kernels.pooling import (
    SAMPLE, UNROLLED, Block, Geometry, check_code, crop, dense, empty, geometry, is_last, windows_of,
)  # fmt: skip
from invertnb.kernels.threshold import Threshold, check_threshold
from invertnb.kernels.unpool import kept_of, unpool, unpool_naive


def keep_naive(z: Tensor, block: Block, by: str = "abs") -> Tensor:
    """The definition, which `keep` must equal: unpool what was pooled."""
    return unpool_naive(*pool_switch_naive(z, block, by), block, tuple(z.shape[2:]))


def keep(
    z: Tensor, block: Block, by: str = "abs", *, threshold: Threshold | None = None
) -> Tensor:
    """upsample(max-pool(z), switches) of section 2.3; with a threshold, block-sparsify as well.

    Args:
        z: codes (batch, K, n) or (batch, K, n1, n2), as for `pool_switch`.
        block: length of a block, or (p, q). Entries beyond the last whole block become zero.
        by: "abs" or "signed", as for `pool_switch`.
        threshold: of `kernels.threshold` for the pooled values of z.

    Returns:
        A code in the shape, dtype and layout of z. Differentiable in z.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    check_code("z", z, block)
    check.choice("by", by, BY)
    followed = transformed() or (torch.is_grad_enabled() and z.requires_grad)
    # Without a kernel the threshold is applied to the pooled quarter.
    apart = not use_triton(z) and (torch.compiler.is_compiling() or threshold is not None)
    if followed or apart:
        return _in_two(z, block, by, threshold)
    p, q = (0, block) if isinstance(block, int) else block
    level, last_equal = (None, None) if threshold is None else check_threshold(threshold, z)
    return torch.ops.invertnb.keep(z, p, q, by == "signed", level, last_equal)


def _in_two(z: Tensor, block: Block, by: str, threshold: Threshold | None) -> Tensor:
    values, switches = pool_switch(z, block, by)
    size = tuple(z.shape[2:])
    return unpool(values, switches, block, size=size, threshold=threshold, trusted=True)


@torch.library.custom_op("invertnb::keep", mutates_args=())
def _op(
    z: Tensor, p: int, q: int, signed: bool, level: Tensor | None, last_equal: Tensor | None
) -> Tensor:
    block, last, z = ((p, q) if p else q), is_last(z), dense(z)
    if not z.numel():
        return empty(z.shape, last, z.dtype, z.device)
    g = geometry(z.shape, last, block)
    kernel = use_triton(z) and g.place_count <= UNROLLED and z[0].numel() < SAMPLE
    if kernel:
        code = empty(z.shape, last, z.dtype, z.device)
        if g.rows * g.p < g.height or g.columns * g.q < g.width:
            code.zero_()
        _launch(z, code, g, signed, level, last_equal)
        return code
    if level is not None or not bits.few(g):
        rule = None if level is None else Threshold(level, last_equal)
        return _in_two(z, block, "signed" if signed else "abs", rule)
    whole = crop(z, block)
    cut = whole.shape != z.shape
    whole = whole.contiguous(memory_format=torch.channels_last) if last else whole.contiguous()
    code = empty(whole.shape, last, z.dtype, z.device)
    view = [t.permute(0, 2, 3, 1) if last else t for t in (whole, code)]
    tiles = [bits.tiles(t, g.planes * g.rows, g.p, g.columns, g.q) for t in view]
    bits.keep(*tiles, z.dtype if signed else None)
    if not cut:
        return code
    full = empty(z.shape, last, z.dtype, z.device).zero_()
    crop(full, block).copy_(code)
    return full


@_op.register_fake
def _(z, p, q, signed, level, last_equal) -> Tensor:
    return empty(z.shape, is_last(z), z.dtype, z.device)


def _launch(
    z: Tensor, code: Tensor, g: Geometry, signed: bool, level: Tensor | None,
    last_equal: Tensor | None,
) -> None:
    has, block = level is not None, windows_of(z, g)
    with on_device(z):
        _kernel[blocks_of(g.windows, block)](
            z, code, level if has else z, last_equal if has else z, g.windows,
            g.windows // len(z),
            HEIGHT=g.height, WIDTH=g.width, INNER=g.inner, ROWS=g.rows, COLUMNS=g.columns, P=g.p,
            Q=g.q, PAIRED=g.paired, SIGNED=signed, HAS_LEVEL=has, BLOCK=block,
        )  # fmt: skip


@jit
def _kernel(
    z, code, level, last_equal, windows, per_sample,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, PAIRED: tl.constexpr,
    SIGNED: tl.constexpr, HAS_LEVEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Specification: code[i] = z[i] where i is the first largest of its window (and kept), else 0."""
    first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    value, place, base, offset, whole = first_largest(
        z, first, windows, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q, PAIRED, SIGNED, BLOCK
    )
    live = first + lane < windows
    if HAS_LEVEL:
        kept = kept_of(value, first + lane, live, level, last_equal, per_sample, INNER, ROWS * COLUMNS)
        value = tl.where(kept, value, 0.0)
    for a in tl.static_range(P):
        if PAIRED:
            left = tl.where(place == 2 * a, value, 0.0)
            right = tl.where(place == 2 * a + 1, value, 0.0)
            row = tl.reshape(tl.join(left, right), (2 * BLOCK,))
            tl.store(code + base + (offset + a * WIDTH), row, mask=whole)
        else:
            for b in tl.static_range(Q):
                entry = tl.where(place == a * Q + b, value, 0.0)
                tl.store(code + base + (offset + (a * WIDTH + b) * INNER), entry, mask=live)
