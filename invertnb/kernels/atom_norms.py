"""The three ratios of Figure 2 for codes on few atoms, from products of atoms alone.

All inner products of rows of W stand in a small table, for W W^T is block-Toeplitz (section 2.2).
With G = W_S W_S^T for the support S of z, and x = W^T z, the code that one step of Algorithm 1
finds on S is z_hat = W_S x = G z, and

    ||x||^2 = z' G z,    ||W_S x|| = |G z|,    ||x - W^T z_hat||^2 = (G z - z)' G (G z - z).

So no ratio needs W, x or the code's zeros: the k^2 entries of G do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.kernels.launch import INTERPRET, blocks_of, bound, jit, on_device, tl, use_triton

BLOCK = 4096 if INTERPRET else 128  # samples a program; the interpreter pays for programs
PART = 2**17  # entries of G the CPU holds at a time, in its cache


def atom_norms(
    table: Tensor, n: Sequence[int], index: Tensor, code: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``||W^T z|| / ||z||``, ``||W_S W^T z|| / ||z||`` and ``||x - W^T z_hat|| / ||x||``.

    Args:
        table: correlations (K, K, 2R+1) or (K, K, 2R+1, 2R+1), see `FilterBank.gram`; float32 or
            float64, which all is computed in.
        n: shifts by axis, one or two numbers.
        index: the atoms of each support, distinct, as indices of a flattened code (K, *n): int64
            (samples, k) of any strides, at least 0 samples and 1 atom.
        code: their values (samples, k), dtype and device of the table.

    Returns:
        Three tensors (samples,). NaN for z = 0, and the third where W^T z = 0.

    Raises:
        ValueError: arguments that do not fit together; an index out of range (on the CPU: a GPU
            would have to wait for the answer, and gives NaN for such a sample); a tensor that
            requires a gradient, for there is none here.
    """
    n = _checked(table, n, index, code)
    route = torch.ops.invertnb.atom_norms if use_triton(code) else atom_norms_plain
    return tuple(route(table, n, index, code).unbind(0))


def _checked(table: Tensor, n: Sequence[int], index: Tensor, code: Tensor) -> list[int]:
    n = list(n)
    check.dtype("table", table.dtype)
    if table.dim() != 2 + len(n) or not 1 <= len(n) <= 2 or min(n) < 1:
        check.fail("n", n, "one positive number of shifts for each axis of shifts in the table")
    if table.shape[0] != table.shape[1] or any(side % 2 == 0 for side in table.shape[2:]):
        check.fail("table", table, "correlations (K, K, 2R+1) or (K, K, 2R+1, 2R+1)")
    if index.dtype != torch.int64 or index.dim() != 2 or index.shape[1] < 1:
        check.fail("index", index, "int64 atoms (samples, k)")
    if code.shape != index.shape or code.dtype != table.dtype:
        check.fail("code", code, f"values {tuple(index.shape)} with the table's dtype")
    if not table.device == index.device == code.device:
        check.fail("code", code, f"the device of the table ({table.device}) and of the atoms")
    if table.requires_grad or code.requires_grad:
        check.fail("code", code, "tensors that require no gradient: there is none here")
    count = table.shape[0] * math.prod(n)
    rimmed = table.shape[0] ** 2 * math.prod([side + 2 for side in table.shape[2:]])
    if max(count, rimmed) >= 2**31:  # both routes count them in int32
        check.fail("table", table, "fewer than 2^31 atoms and entries, a rim of zeros included")
    if index.numel() and not index.is_cuda and not torch.compiler.is_compiling():
        least, most = (int(bound) for bound in index.T.aminmax())
        if least < 0 or most >= count:
            check.fail("index", least if least < 0 else most, f"atoms from 0 to {count - 1}")
    return n


def atom_norms_naive(
    table: Tensor, n: Sequence[int], index: Tensor, code: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, which `atom_norms` must equal: G entry by entry, in float64."""
    K, reach = len(table), [side // 2 for side in table.shape[2:]]
    inside = [torch.arange(side) for side in n]
    atoms = torch.cartesian_prod(torch.arange(K), *inside).tolist()  # filter and shifts of each
    out = torch.empty(3, len(index), dtype=torch.float64)
    for s, (support, z) in enumerate(zip(index.tolist(), code.double().cpu(), strict=True)):
        G = torch.zeros(len(z), len(z), dtype=torch.float64)
        for a, (i, *p) in enumerate(atoms[atom] for atom in support):
            for b, (j, *q) in enumerate(atoms[atom] for atom in support):
                shift = [there - here for here, there in zip(p, q, strict=True)]
                if all(abs(t) <= r for t, r in zip(shift, reach, strict=True)):
                    G[a, b] = table[(i, j, *(t + r for t, r in zip(shift, reach, strict=True)))]
        image, square = G @ z, z @ G @ z
        gap = (image - z) @ G @ (image - z)
        out[:, s] = torch.stack([square / (z @ z), image @ image / (z @ z), gap / square])
    return tuple(out.clamp(min=0).sqrt().unbind(0))


def atom_norms_plain(table: Tensor, n: Sequence[int], index: Tensor, code: Tensor) -> Tensor:
    """The three ratios in plain PyTorch, as rows of (3, samples).

    Samples run along the last axis, so that every operation is one over long rows; and a rim of
    zeros around the table stands for all shifts beyond its reach, so that no entry is masked.
    """
    table = F.pad(table, (1, 1) * len(n))
    part = max(1, PART // index.shape[1] ** 2)
    if torch.compiler.is_compiling() or len(index) <= part:
        return _norms_of(table, n, index, code)
    pieces = zip(index.split(part), code.split(part), strict=True)
    return torch.cat([_norms_of(table, n, *piece) for piece in pieces], 1)


def _norms_of(table: Tensor, n: Sequence[int], index: Tensor, code: Tensor) -> Tensor:
    (K, _, *widths), k = table.shape, index.shape[1]
    z, rest = code.T.contiguous(), index.T.to(torch.int32, memory_format=torch.contiguous_format)
    filters, rest = _divided(rest, math.prod(n))
    size = math.prod(widths)
    # Entry (a, b) lies at (i K + j) size + the shifts' part: the sum of a row and of a column.
    entry = (filters * (K * size) + size // 2).unsqueeze(1) + (filters * size).unsqueeze(0)
    for axis, width in enumerate(widths):
        place, rest = _divided(rest, math.prod(n[axis + 1 :]))
        shift = (place.unsqueeze(0) - place.unsqueeze(1)).clamp_(-(width // 2), width // 2)
        step = math.prod(widths[axis + 1 :])
        entry += shift if step == 1 else shift * step
    G = table.flatten().index_select(0, entry.flatten()).view(k, k, -1)
    image = (G * z).sum(1)
    gap = image - z
    square, error = (z * image).sum(0), (gap * (G * gap).sum(1)).sum(0)
    length = z.square().sum(0)
    ratios = torch.stack([square / length, image.square().sum(0) / length, error / square])
    return ratios.clamp_(min=0).sqrt_()


def _divided(number: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and rest of numbers that are not negative."""
    if by == 1:
        return number, torch.zeros_like(number)
    quotient = torch.div(number, by, rounding_mode="trunc")
    return quotient, number - quotient * by


@torch.library.custom_op("invertnb::atom_norms", mutates_args=())
def _atom_norms(table: Tensor, n: list[int], index: Tensor, code: Tensor) -> Tensor:
    samples, k = code.shape
    out = torch.empty(3, samples, dtype=code.dtype, device=code.device)
    if samples == 0:
        return out
    gap = torch.empty(k, samples, dtype=code.dtype, device=code.device)
    table = table.contiguous()
    rows, columns = [1, *n][-2:]
    with on_device(code):
        _atom_norms_kernel[blocks_of(samples, BLOCK)](
            table, index, code, gap, out, samples, k, *index.stride(), *code.stride(), len(table),
            ROWS=rows, COLUMNS=columns, UP=table.shape[2] // 2 if len(n) == 2 else 0,
            ACROSS=table.shape[-1] // 2, BLOCK=BLOCK,
        )  # fmt: skip
    return out


@_atom_norms.register_fake
def _(table, n, index, code):  # noqa: ANN001, ANN202
    return code.new_empty(3, code.shape[0])


@jit
def _product(
    table, one, other, live, filters, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    UP: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """<row `one`, row `other`> of W: nothing is loaded for atoms that do not overlap."""
    i, j = one // (ROWS * COLUMNS), other // (ROWS * COLUMNS)
    p, q = one - i * (ROWS * COLUMNS), other - j * (ROWS * COLUMNS)
    entry = i * filters + j
    if ROWS > 1:
        up = q // COLUMNS - p // COLUMNS
        p, q = p % COLUMNS, q % COLUMNS
        live = live & (up >= -UP) & (up <= UP)
        entry = entry * (2 * UP + 1) + up + UP
    elif UP > 0:
        entry = entry * (2 * UP + 1) + UP
    across = q - p
    live = live & (across >= -ACROSS) & (across <= ACROSS)
    return tl.load(table + entry * (2 * ACROSS + 1) + across + ACROSS, mask=live, other=0.0)


@jit
def _atom_norms_kernel(
    table, index, code, gap, out, samples, k, index_sample, index_atom, code_sample, code_atom,
    filters, ROWS: tl.constexpr, COLUMNS: tl.constexpr, UP: tl.constexpr, ACROSS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One sample a lane, two loops over pairs of atoms; gap is scratch (k, samples).

    Loops run k times and are not unrolled: straight-line code for k = 16 takes minutes to compile.
    At k = 10 in float32 a sample moves 132 bytes at least (40 more for the scratch, which is read
    again from the cache) and issues about 5400 instructions, 30 for each of some 155 products:
    instructions are the limit, 0.16 ns on an H200. sm_90 code: 32 registers, no spills.
    """
    # Offsets pass 2^31. Not samples.to: Triton passes 1 as a plain number.
    samples = tl.cast(samples, tl.int64)
    index_atom, code_atom = tl.cast(index_atom, tl.int64), tl.cast(code_atom, tl.int64)
    s = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = s < samples
    index += s * index_sample
    code += s * code_sample
    gap += s
    # int32 is enough for an atom, and half the registers; out of range, nothing is loaded for it.
    sound = live
    for a in range(bound(k)):
        atom = tl.load(index + a * index_atom, mask=live, other=0)
        sound = sound & (atom >= 0) & (atom < filters * (ROWS * COLUMNS))
    zero = tl.load(code, mask=live, other=0.0) * 0
    square, image, length, error = zero, zero, zero, zero
    for a in range(bound(k)):
        one = tl.load(index + a * index_atom, mask=live, other=0).to(tl.int32)
        z = tl.load(code + a * code_atom, mask=live, other=0.0)
        Gz = zero
        for b in range(bound(k)):
            other = tl.load(index + b * index_atom, mask=live, other=0).to(tl.int32)
            g = _product(table, one, other, sound, filters, ROWS, COLUMNS, UP, ACROSS)
            Gz += g * tl.load(code + b * code_atom, mask=live, other=0.0)
        square += z * Gz
        image += Gz * Gz
        length += z * z
        tl.store(gap + a * samples, Gz - z, mask=live)
    tl.debug_barrier()  # what is stored above is loaded below
    for a in range(bound(k)):
        one = tl.load(index + a * index_atom, mask=live, other=0).to(tl.int32)
        d = tl.load(gap + a * samples, mask=live, other=0.0)
        # G is symmetric: the pairs before the diagonal count twice.
        half = _product(table, one, one, sound, filters, ROWS, COLUMNS, UP, ACROSS) * d * 0.5
        for b in range(bound(a)):
            other = tl.load(index + b * index_atom, mask=live, other=0).to(tl.int32)
            g = _product(table, one, other, sound, filters, ROWS, COLUMNS, UP, ACROSS)
            half += g * tl.load(gap + b * samples, mask=live, other=0.0)
        error += 2 * d * half
    nan = float("nan")
    for_z = tl.where(sound, length, nan)
    for_x = tl.where(sound, square, nan)
    # Rounding may leave a form below zero. Not tl.maximum: versions differ on NaN.
    tl.store(out + s, tl.sqrt(tl.where(square < 0, 0.0, square) / for_z), mask=live)
    tl.store(out + samples + s, tl.sqrt(image / for_z), mask=live)
    ratio = error / for_x
    tl.store(out + 2 * samples + s, tl.sqrt(tl.where(ratio < 0, 0.0, ratio)), mask=live)
