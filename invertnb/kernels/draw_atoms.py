"""Random supports of the model M_k and codes on them, by a counter: the same draws on every device.

Sample s of a key is a function of the two alone, whatever the device, the number of samples and
the size of the parts they come in. The random bits are those of Philox4x64-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"): four 64-bit words for each key and counter. Atoms
2p and 2p + 1 of sample s share the counter s * ceil(entries / 2) + p, two words each:

- the low half of the first word draws the slot (Floyd's algorithm, Bentley and Floyd 1987),
- its high half draws the place inside the slot's block,
- the second word draws the value.

A half h in [0, 2^32) draws one of `bound` numbers as floor(h * bound / 2^32). That takes no number
with a probability further than 2^-32 from 1 / bound: the relative bias is below bound / 2^32.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.launch import INTERPRET, blocks_of, bound, jit, on_device, tl, use_triton

VALUES = ("uniform", "gaussian")
MOST_A_BLOCK = 3  # slots of one block: the kernel keeps the places taken so far in two registers
BOUND = 2**31  # slots and places are counted below it, so that products with a half fit in int64

BLOCK = 4096 if INTERPRET else 128  # samples a program; the interpreter pays for programs
PART = 2**17  # words the CPU draws at a time, so that all that is done to them stays in the cache
SHORT = 2**10  # samples that are worth a thread


def draw_key(generator: torch.Generator) -> Tensor:
    """A key of Philox, int64 (2,): the only use that `draw_atoms` makes of a torch generator."""
    return torch.empty(2, dtype=torch.int64).random_(-(2**63), None, generator=generator)


def draw_atoms(
    blocks: Tensor, samples: int, *, entries: int, per_block: int = 1, key: Tensor, first: int = 0,
    values: str = "uniform", dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Supports and the nonzeros on them, (samples, entries) each.

    Every block has `per_block` slots. A support takes a subset of all slots, uniform among those
    of size `entries`, and for the slots of one block distinct atoms of it, uniform among all.

    Args:
        blocks: the atoms of each block, int64 (blocks, atoms of a block); the draws go to its device.
        samples: how many, 0 allowed.
        entries: atoms of a support, at most per_block * blocks.
        per_block: the most atoms of one block, from 1 to 3 and at most those it has.
        key: int64 (2,) on the CPU, see `draw_key`.
        first: number of the first sample; samples s of all calls with one key are the same.
        values: "uniform" on [-1, 1), or "gaussian" by the method of Box and Muller (1958), which
            reaches 6.6 standard deviations.
        dtype: of the values, float32 or float64.

    Returns:
        Indices int64 in the order drawn, and values. Both lie in memory as (entries, samples), for
        neighboring samples are computed side by side. Indices and uniform values are equal on all
        devices, Gaussian ones up to rounding.

    Raises:
        ValueError: arguments out of range or that do not fit together.
    """
    if not isinstance(blocks, Tensor) or blocks.dtype != torch.int64 or blocks.dim() != 2:
        check.fail("blocks", blocks, "an int64 tensor (blocks, atoms of a block)")
    count, length = blocks.shape
    check.integer("samples", samples, 0)
    check.integer("first", first, 0)
    check.integer("per_block", per_block, 1, min(MOST_A_BLOCK, length))
    if max(per_block * count, length) >= BOUND:
        check.fail("blocks", blocks, f"fewer than 2^31 atoms of a block and slots ({per_block} a block)")
    check.integer("entries", entries, 1, per_block * count)
    if (first + samples) * _counters(entries) >= 2**63:
        check.fail("first", first, "fewer than 2^63 counters up to the last sample")
    check.choice("values", values, VALUES)
    check.dtype("dtype", dtype)
    if not isinstance(key, Tensor) or key.dtype != torch.int64 or key.shape != (2,) or key.is_cuda:
        check.fail("key", key, "an int64 tensor of shape (2,) on the CPU")
    return torch.ops.invertnb.draw_atoms(
        key, blocks, samples, entries, per_block, first, values == "gaussian", dtype
    )


@torch.library.custom_op("invertnb::draw_atoms", mutates_args=())
def _draw_atoms(
    key: Tensor, blocks: Tensor, samples: int, entries: int, per_block: int, first: int,
    gaussian: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    # Opaque on the CPU, too: torch.compile cannot trace NumPy's generator.
    index = torch.empty(entries, samples, dtype=torch.int64, device=blocks.device)
    code = torch.empty(entries, samples, dtype=dtype, device=blocks.device)
    if samples and use_triton(code):
        blocks = blocks.contiguous()
        with on_device(code):
            _draw_atoms_kernel[blocks_of(samples, BLOCK)](
                key.to(blocks.device), blocks, index, code, samples, first, entries,
                per_block * len(blocks), blocks.shape[1],
                PER_BLOCK=per_block, GAUSSIAN=gaussian, BLOCK=BLOCK,
            )  # fmt: skip
    elif samples:
        drawn = index.cpu(), code.cpu()  # the tensors themselves, on the CPU
        _draw_plain(key, blocks.cpu(), per_block, first, gaussian, *drawn)
        index, code = (tensor.to(blocks.device) for tensor in drawn)
    return index.T, code.T


@_draw_atoms.register_fake
def _(key, blocks, samples, entries, per_block, first, gaussian, dtype):  # noqa: ANN001, ANN202
    return (blocks.new_empty(entries, samples).T, blocks.new_empty(entries, samples, dtype=dtype).T)


def _counters(entries: int) -> int:
    """Counters of one sample."""
    return -(-entries // 2)


# The definition, number by number.


def philox_naive(key: tuple[int, int], counter: int) -> tuple[int, int, int, int]:
    """The four words of Philox4x64-10 for one key and one counter below 2^64."""
    word, (k0, k1) = 2**64 - 1, key
    c0, c1, c2, c3 = counter, 0, 0, 0
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = right >> 64 ^ c1 ^ k0, right & word, left >> 64 ^ c3 ^ k1, left & word
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & word, k1 + 0xBB67AE8584CAA73B & word
    return c0, c1, c2, c3


def draw_atoms_naive(
    blocks: Tensor, samples: int, *, entries: int, per_block: int = 1, key: Tensor, first: int = 0,
    values: str = "uniform", dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """The definition, which `draw_atoms` must equal; Gaussian values up to rounding."""
    key = tuple(word % 2**64 for word in key.tolist())
    count, length = blocks.shape
    index = torch.zeros(samples, entries, dtype=torch.int64)
    code = torch.zeros(samples, entries, dtype=dtype)
    for s in range(samples):
        taken: dict[int, tuple[int, int]] = {}  # slot: (block, place)
        for i in range(entries):
            words = philox_naive(key, (first + s) * _counters(entries) + i // 2)
            word, value = words[i % 2 * 2 : i % 2 * 2 + 2]
            last = per_block * count - entries + i
            slot = (word % 2**32) * (last + 1) >> 32
            slot = last if slot in taken else slot
            block = slot // per_block
            # The draw counts the places still free.
            free = sorted(set(range(length)) - {place for b, place in taken.values() if b == block})
            place = free[(word >> 32) * len(free) >> 32]
            taken[slot] = block, place
            index[s, i] = blocks[block, place]
            code[s, i] = _value_naive(value, dtype) if values == "gaussian" else (
                ((value >> 11) - 2**52) / 2**52)  # fmt: skip
    return index, code


def _value_naive(word: int, dtype: torch.dtype) -> float:
    uniform = float(torch.tensor(((word >> 32) + 1) / 2**32, dtype=torch.float64).to(dtype))
    return math.sqrt(-2 * math.log(uniform)) * math.cos(2 * math.pi * (word % 2**32) / 2**32)


# The CPU. NumPy has the generator in C, and compares short rows of integers much faster than torch.


def _draw_plain(
    key: Tensor, blocks: Tensor, per_block: int, first: int, gaussian: bool, index: Tensor,
    code: Tensor,
) -> None:
    """Fill index and code, (entries, samples), on the CPU."""
    (entries, samples), pairs = index.shape, _counters(len(index))
    index, code, table = index.numpy(), code.numpy(), blocks.reshape(-1).numpy()
    ordered = table[0] == 0 and bool((np.diff(table) == 1).all())  # then a look-up changes nothing
    key, step = key.numpy().view(np.uint64), max(1, PART // (4 * pairs))
    threads = torch.get_num_threads()
    step = min(step, max(-(-samples // threads), SHORT))

    def part(start: int) -> None:
        some = slice(start, min(start + step, samples))
        # NumPy adds 1 to the counter before its first block.
        source = np.random.Philox(key=key, counter=((first + start) * pairs - 1) % 2**256)
        words = source.random_raw((some.stop - start) * pairs * 4)
        words = words.reshape(-1, 2 * pairs, 2)[:, :entries]
        atom = _positions(np.ascontiguousarray(words[..., 0].T), *blocks.shape, per_block)
        index[:, some] = atom if ordered else table[atom]
        code[:, some] = _values_plain(words[..., 1].T, gaussian, code.dtype)

    starts = range(0, samples, step)
    if threads == 1 or len(starts) == 1:
        for start in starts:
            part(start)
    else:  # NumPy's loops run without Python's lock
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, starts))


def _positions(words: np.ndarray, count: int, length: int, per_block: int) -> np.ndarray:
    """block * length + place by the first words, int64 (entries, samples)."""
    entries, slots = len(words), count * per_block
    bounds = np.arange(slots - entries + 1, slots + 1, dtype=np.uint64)[:, None]
    half = words & 0xFFFFFFFF
    half *= bounds
    half >>= 32
    slot = half.astype(np.int32)  # few bytes to compare
    for i in range(1, entries):
        slot[i][(slot[:i] == slot[i]).any(0)] = slots - entries + i
    half = np.right_shift(words, 32, out=words)
    if per_block == 1:
        half *= np.uint64(length)
        half >>= 32
        atom = half.view(np.int64)
        atom += slot.astype(np.int64) * length
        return atom
    block, place = slot // per_block, np.empty_like(slot)
    for i in range(entries):
        same = block[:i] == block[i]
        free = (length - same.sum(0)).astype(np.uint64)
        fresh = (half[i] * free >> 32).astype(np.int32)
        # The draw counts the places still free: step over those taken, from the lowest on.
        for _ in range(per_block - 1):
            lowest = np.where(same, place[:i], np.int32(length)).min(0, initial=length)
            fresh += fresh >= lowest
            same &= place[:i] != lowest
        place[i] = fresh
    return block * np.int64(length) + place


def _values_plain(words: np.ndarray, gaussian: bool, dtype: np.dtype) -> np.ndarray:
    words = np.ascontiguousarray(words)
    if not gaussian:
        # 2u - 1 for u of 53 bits; the integer is rounded once, and scaled exactly.
        number = np.right_shift(words, 11, out=words).view(np.int64)
        number -= 2**52
        values = number.astype(dtype)
        values *= dtype.type(2.0**-52)
        return values
    uniform = ((words >> 32) + 1).astype(dtype) * dtype.type(2.0**-32)
    turn = (words & 0xFFFFFFFF).astype(np.float64) * (2 * math.pi / 2**32)
    return np.sqrt(-2 * np.log(uniform)) * np.cos(turn).astype(dtype)


# The GPU.


@jit
def _value(word, dtype, GAUSSIAN: tl.constexpr):
    if GAUSSIAN:
        uniform = ((word >> 32).to(tl.int64) + 1).to(dtype) * 2.0**-32
        low = (word & 0xFFFFFFFF).to(tl.int64)
        # cos(2 pi t) = sin(2 pi (1/4 - min(t, 1 - t))), reduced in integers, so exactly. The Taylor
        # series ends below 1e-17 at pi / 2; a library's cosine would keep a table in local memory.
        quarter = 2**30 - tl.where(low > 2**31, 2**32 - low, low)
        angle = quarter.to(dtype) * (2 * 3.141592653589793 * 2.0**-32)
        series = angle * 0 + 1
        for i in tl.static_range(11, 0, -1):
            series = 1 - angle * angle * (1.0 / (2 * i * (2 * i + 1))) * series
        return tl.sqrt(-2 * tl.log(uniform)) * (angle * series)
    return ((word >> 11).to(tl.int64) - 2**52).to(dtype) * 2.0**-52


@jit
def _draw_one(
    word, i, index, s, live, samples, entries, slots, length, PER_BLOCK: tl.constexpr,
):
    """Slot and place of the sample's i-th atom, kept in the output as slot * 2^32 + place."""
    low, high = (word & 0xFFFFFFFF).to(tl.int64), (word >> 32).to(tl.int64)
    last = slots - entries + i
    slot = low * (last + 1) >> 32
    drawn = slot
    for j in range(bound(i)):
        other = tl.load(index + j * samples + s, mask=live, other=0) >> 32
        slot = tl.where(other == drawn, last, slot)
    if PER_BLOCK == 1:
        place = high * length >> 32
    else:
        # At most two atoms of the block came before; their places, in order.
        free, lower, upper = slot * 0 + length, slot * 0 + length, slot * 0 + length
        for j in range(bound(i)):
            other = tl.load(index + j * samples + s, mask=live, other=0)
            taken, same = other & 0xFFFFFFFF, (other >> 32) // PER_BLOCK == slot // PER_BLOCK
            free = tl.where(same, free - 1, free)
            upper = tl.where(same, tl.maximum(lower, taken), upper)
            lower = tl.where(same, tl.minimum(lower, taken), lower)
        place = high * free >> 32
        place = tl.where(place >= lower, place + 1, place)
        place = tl.where(place >= upper, place + 1, place)
    tl.store(index + i * samples + s, slot << 32 | place, mask=live & (i < entries))
    tl.debug_barrier()  # what is stored here is loaded above for the next atom


@jit
def _draw_atoms_kernel(
    key, blocks, index, code, samples, first, entries, slots, length,
    PER_BLOCK: tl.constexpr, GAUSSIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One sample a lane; index and code are (entries, samples).

    At k = 10 in float32 a sample writes 120 bytes at least (and its slots first, which are read
    again from the cache) and issues about 2700 instructions, 2000 of them for the random bits:
    instructions are the limit, 0.08 ns on an H200. sm_90 code: 56 registers, no spills.
    """
    # Offsets pass 2^31. Not samples.to: Triton passes 1 as a plain number.
    samples = tl.cast(samples, tl.int64)
    s = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = s < samples
    k0 = tl.load(key).to(tl.uint64, bitcast=True)
    k1 = tl.load(key + 1).to(tl.uint64, bitcast=True)
    pairs = (entries + 1) // 2
    zero = (s * 0).to(tl.uint64)
    for pair in range(bound(pairs)):
        counter = ((s + first) * pairs + pair).to(tl.uint64)
        word, value, next_word, next_value = tl.philox_impl(counter, zero, zero, zero, k0, k1)
        i = 2 * pair
        _draw_one(word, i, index, s, live, samples, entries, slots, length, PER_BLOCK)
        _draw_one(next_word, i + 1, index, s, live, samples, entries, slots, length, PER_BLOCK)
        dtype: tl.constexpr = code.dtype.element_ty
        tl.store(code + i * samples + s, _value(value, dtype, GAUSSIAN), mask=live)
        tl.store(code + (i + 1) * samples + s, _value(next_value, dtype, GAUSSIAN),
                 mask=live & (i + 1 < entries))  # fmt: skip
    for i in range(bound(entries)):
        drawn = tl.load(index + i * samples + s, mask=live, other=0)
        block, place = (drawn >> 32) // PER_BLOCK, drawn & 0xFFFFFFFF
        atom = tl.load(blocks + block * length + place, mask=live)
        tl.store(index + i * samples + s, atom, mask=live)
