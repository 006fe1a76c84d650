"""Where no kernel was written: by how much one could win, counted before it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from invertnb.chapters.kernels.counts import Layer, total, ways
from invertnb.chapters.kernels.roofline import Ceilings
from invertnb.chapters.kernels.text import columns, seconds, two


class Stake(NamedTuple):
    """A layer with pooling, for an image: seconds by tensor cores, and of what stands around them.

    Attributes:
        product: seconds of the convolution's arithmetic.
        separate: seconds of convolution and pooling one after the other; the convolution writes its
            responses while it computes.
        share: of the library's rate of arithmetic, what a kernel that pools as it goes must reach to
            be as fast as the two.
    """

    layer: Layer
    dtype: str
    product: float
    separate: float
    share: float


def stake(layer: Layer, dtype: str, ceilings: Ceilings) -> Stake:
    """By the ceilings; dtype is "bfloat16" or "TF32"."""
    itemsize = 2 if dtype == "bfloat16" else 4
    product = layer.operations / ceilings.rates[dtype]
    writing = layer.bytes(itemsize) / ceilings.copy
    pooling = layer.K * layer.side**2 * total(ways(itemsize)["pool_switch"]["ours"]) / ceilings.copy
    separate = max(product, writing) + pooling
    return Stake(layer, dtype, product, separate, product / separate)


def stakes_table(layers: Sequence[tuple[Layer, str]], ceilings: Ceilings) -> str:
    """One line a layer."""
    rows = [("an image", "in", "GFLOP", "products", "and pooling", "needed share")]
    for layer, dtype in layers:
        s = stake(layer, dtype, ceilings)
        rows.append((layer.name, dtype, two(layer.operations / 1e9), seconds(s.product), seconds(s.separate),
                     f"{100 * s.share:.0f} %"))  # fmt: skip
    return columns(rows)


def taps_by_window(l: int, window: int = 2) -> list[int]:
    """Taps of a filter of l x l that fall into one pooling window each, at a corner of a window."""
    counts = Counter((a // window, b // window) for a in range(l) for b in range(l))
    return sorted(counts.values(), reverse=True)


def sparse_speedup(l: int) -> float:
    """The most that tensor cores gain on W^T z from one nonzero a window, by their 2-of-4 sparsity.

    Four taps of one window hold one nonzero at most, two windows of two taps hold two: both are
    groups of four with at most two nonzeros, which take half the time. A window of one tap has to
    be multiplied in full.
    """
    taps = taps_by_window(l)
    legal = sum(count for count in taps if count > 1)
    return 1 / (1 - legal / sum(taps) / 2)
