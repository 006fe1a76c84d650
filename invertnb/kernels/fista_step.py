"""One step of FISTA between its two convolutions: soft threshold and momentum in one pass.

    z' = soft(y + step g, threshold),   y' = z' + momentum (z' - z)     (Beck and Teboulle 2009)

Written out in PyTorch this reads and writes 10 to 12 times the size of a code; the least is 5
(y, g and z read, z' and y' written), so 20 bytes an entry in float32. No gradient is recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.launch import DTYPES, jit, on_device, tl, use_triton
from invertnb.kernels.pooling import dense, empty, is_last

BLOCK = 1024  # entries of a program of 4 warps: two loads of 128 bits a thread in float32


def fista_step(
    y: Tensor, gradient: Tensor, z: Tensor, step: Tensor, threshold: Tensor, momentum: Tensor,
    support: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The next iterate z' and the point y' where the next gradient is taken.

    Args:
        y, gradient, z: codes of one shape (batch, ...) and dtype.
        step, threshold, momentum: one number a sample, (batch,), float64 for float64 codes and
            float32 for others, on the codes' device: no number has to come back to the host.
        support: bool mask in the shape of the codes; z' vanishes outside.

    Returns:
        z' and y', in the memory layout of y.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit. Values are not looked at: NaN passes.
    """
    _check(y, {"gradient": gradient, "z": z}, (step, threshold, momentum), support)
    run = torch.ops.invertnb.fista_step if use_triton(y) else fista_step_torch
    with torch.no_grad():
        return run(y, gradient, z, step, threshold, momentum, support)


def _check(y: Tensor, codes: dict, numbers: tuple, support: Tensor | None) -> None:
    if not isinstance(y, Tensor) or y.dtype not in DTYPES or y.dim() < 2:
        check.fail("y", y, "a floating tensor (batch, ...)")
    for name, code in codes.items():
        same = isinstance(code, Tensor) and (code.shape, code.dtype) == (y.shape, y.dtype)
        if not same or code.device != y.device:
            check.fail(name, code, f"{y.dtype} of shape {tuple(y.shape)} on {y.device} like y")
    kind = _computed_in(y.dtype)
    for name, number in zip(("step", "threshold", "momentum"), numbers, strict=True):
        fits = isinstance(number, Tensor) and (number.shape, number.dtype) == (y.shape[:1], kind)
        if not fits or number.device != y.device:
            check.fail(name, number, f"{kind} of shape ({len(y)},) on {y.device}")
    if support is not None:
        check.mask("support", support, y.shape, y.device)


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def fista_step_naive(
    y: Tensor, gradient: Tensor, z: Tensor, step: Tensor, threshold: Tensor, momentum: Tensor,
    support: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, sample by sample."""
    rows = []
    for i in range(len(y)):
        kind = step.dtype
        v = y[i].to(kind) + step[i] * gradient[i].to(kind)
        new = v.sign() * torch.clamp(v.abs() - threshold[i], min=0)
        if support is not None:
            new = torch.where(support[i], new, 0.0)
        rows.append((new, new + momentum[i] * (new - z[i].to(kind))))
    new, point = (torch.stack(part).to(y.dtype) for part in zip(*rows, strict=True))
    return new, point


def fista_step_torch(
    y: Tensor, gradient: Tensor, z: Tensor, step: Tensor, threshold: Tensor, momentum: Tensor,
    support: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Five operations on whole codes; `torch.compile` makes one of them."""
    dtype, ones = y.dtype, (-1, *(1,) * (y.dim() - 1))
    y, gradient, z = (code.to(step.dtype) for code in (y, gradient, z))
    threshold = threshold.view(ones)
    moved = torch.addcmul(y, step.view(ones), gradient)
    new = moved - torch.clamp(moved, -threshold, threshold)
    if support is not None:
        new = torch.where(support, new, 0.0)
    # lerp(z, z', 1 + m) = z' + m (z' - z)
    return new.to(dtype), torch.lerp(z, new, 1 + momentum.view(ones)).to(dtype)


@torch.library.custom_op("invertnb::fista_step", mutates_args=())
def _fista_step(
    y: Tensor, gradient: Tensor, z: Tensor, step: Tensor, threshold: Tensor, momentum: Tensor,
    support: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    # Both layouts keep a sample's entries together; all codes must have the same.
    last = is_last(y)
    layout = torch.channels_last if last else torch.contiguous_format
    y = dense(y)
    gradient, z = (code.contiguous(memory_format=layout) for code in (gradient, z))
    if support is not None:
        support = support.contiguous(memory_format=layout)
    new, point = (empty(y.shape, last, y.dtype, y.device) for _ in range(2))
    if y.numel():
        per_sample = y[0].numel()
        blocks = -(-per_sample // BLOCK)
        with on_device(y):
            _kernel[(len(y) * blocks,)](
                y, gradient, z, step.contiguous(), threshold.contiguous(), momentum.contiguous(),
                y if support is None else support, new, point, per_sample, blocks,
                HAS_SUPPORT=support is not None, BLOCK=BLOCK,
            )
    return new, point


@_fista_step.register_fake
def _(y, gradient, z, step, threshold, momentum, support=None):
    return tuple(empty(y.shape, is_last(y), y.dtype, y.device) for _ in range(2))


@jit
def _kernel(
    y, gradient, z, step, threshold, momentum, support, new, point, per_sample, blocks,
    HAS_SUPPORT: tl.constexpr, BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    sample, block = program // blocks, program % blocks
    within = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = within < per_sample
    at = sample.to(tl.int64) * per_sample + within
    kind: tl.constexpr = step.dtype.element_ty
    length, level, weight = tl.load(step + sample), tl.load(threshold + sample), tl.load(momentum + sample)
    moved = tl.load(y + at, inside, other=0).to(kind)
    moved += length * tl.load(gradient + at, inside, other=0).to(kind)
    # Written so that NaN fails the comparison and stays.
    after = tl.where(tl.abs(moved) <= level, 0, moved - tl.where(moved < 0, -level, level))
    if HAS_SUPPORT:
        after = tl.where(tl.load(support + at, inside, other=0) != 0, after, 0)
    before = tl.load(z + at, inside, other=0).to(kind)
    tl.store(new + at, after.to(new.dtype.element_ty), inside)
    tl.store(point + at, (after + weight * (after - before)).to(point.dtype.element_ty), inside)
