"""The sparsity model M_k (section 2.3): one nonzero per block, k in all, and its projections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.keep import keep
from invertnb.kernels.pool_switch import pool_switch
from invertnb.kernels.pooling import cells, uncells
from invertnb.kernels.threshold import at_least, threshold
from invertnb.kernels.unpool import unpool

Size = int | tuple[int, int]
SWITCHES = ("known", "fixed", "averaged")


class Projection(NamedTuple):
    """A structured approximation: the code, and the switches it was unpooled with.

    code has the shape of z; switches is int64 (batch, K, blocks...), the position inside each
    block (row-major in two dimensions), or -1 everywhere for averaged upsampling.
    """

    code: Tensor
    switches: Tensor


@dataclass(frozen=True)
class ModelSparse:
    """M_k: codes with at most one nonzero in each block and at most k nonzeros in all.

    Args:
        block: length of a block of (batch, K, n) codes, a divisor of n (the paper's M_k has
            block = n), or the window (p, q) of (batch, K, n1, n2) codes.
        k: nonzeros per sample, at most the number of blocks; None sets no limit beyond the blocks.

    Raises:
        ValueError: a block or a k that is no positive integer.
    """

    block: Size
    k: int | None

    def __post_init__(self) -> None:
        if isinstance(self.block, tuple | list):
            object.__setattr__(self, "block", check.extent("block", self.block, 2))
        else:
            check.integer("block", self.block, 1)
        if self.k is not None:
            check.integer("k", self.k, 1)

    @property
    def dims(self) -> int:
        """1 for blocks of signals' codes, 2 for windows of images' codes."""
        return 1 if isinstance(self.block, int) else 2

    def _blocks(self, K: int, size: tuple[int, ...]) -> tuple[int, ...]:
        """Blocks per filter and axis; checks that they divide and that k fits."""
        lengths = (self.block,) if self.dims == 1 else self.block
        if any(side % length for side, length in zip(size, lengths, strict=True)):
            check.fail("block", self.block, f"a divisor of the code size {size}")
        blocks = tuple(side // length for side, length in zip(size, lengths, strict=True))
        if self.k is not None and self.k > K * math.prod(blocks):
            check.fail("k", self.k, f"at most the {K * math.prod(blocks)} blocks of the code")
        return blocks

    def _check(self, z: Tensor) -> tuple[int, ...]:
        axes = ("n",) if self.dims == 1 else ("n1", "n2")
        check.array("z", z, ("batch", "K", *axes))
        return self._blocks(z.shape[1], tuple(z.shape[2:]))

    def sample(
        self, batch: int, K: int, size: Size, *, generator: torch.Generator,
        values: str = "uniform", dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Random members of M_k, (batch, K, n) or (batch, K, n1, n2) for size n or (n1, n2).

        The k blocks are drawn uniformly without replacement, the position uniformly in the block,
        the value uniformly on [-1, 1] or as N(0, 1) (values="gaussian"): the z of section 4.2. The
        draw is made in float64 on the CPU, so it is the same for every dtype and device.
        """
        check.integer("batch", batch, 1)
        check.integer("K", K, 1)
        size = check.extent("size", size, self.dims)
        check.generator("generator", generator)
        check.choice("values", values, ("uniform", "gaussian"))
        check.dtype("dtype", dtype)
        blocks = self._blocks(K, (size,) if self.dims == 1 else size)
        count = K * math.prod(blocks)
        k = count if self.k is None else self.k
        lottery = torch.rand(batch, count, generator=generator, dtype=torch.float64)
        chosen = lottery.argsort(dim=1)[:, :k]
        length = self.block if self.dims == 1 else math.prod(self.block)
        position = torch.randint(length, (batch, k), generator=generator)
        draw = torch.rand if values == "uniform" else torch.randn
        value = draw(batch, k, generator=generator, dtype=torch.float64)
        if values == "uniform":
            value = 2 * value - 1
        entries = torch.zeros(batch, count * length, dtype=torch.float64)
        entries.scatter_(1, chosen * length + position, value)
        z = uncells(entries.view(batch, K, *blocks, length), self.block)
        return z.to(device=device, dtype=dtype)

    def project(
        self, z: Tensor, switches: str | Tensor = "known", by: str = "abs"
    ) -> Projection:
        """M(z, k) = block-sparsify(upsample(max-pool(z), switches), k) of section 2.3.

        With the default switches and by, the nearest point of M_k to z. Ties go to the lowest
        index, in the blocks and among them. Differentiable in z.

        Args:
            z: codes (batch, K, n) or (batch, K, n1, n2).
            switches: where a pooled value is put back. "known": where it came from (M_known);
                "fixed": the center of its block, offset size // 2 along each axis (M_fixed);
                an int64 tensor (batch, K, blocks...): the given positions; "averaged": the value
                over the block's size at every position (naive upsampling; not in M_k).
            by: "abs" pools the entry of largest magnitude, sign kept (as in the theory);
                "signed" the largest entry (as a max pooling layer does).

        Raises:
            ValueError: z that is no such code, blocks that do not divide, k above the number of
                blocks, unknown switches or by, positions outside the block.
        """
        blocks = self._check(z)
        check.choice("by", by, ("abs", "signed"))
        if isinstance(switches, Tensor):
            self._check_positions(switches, (*z.shape[:2], *blocks), z.device)
        else:
            check.choice("switches", switches, SWITCHES)
        code, places = self._project(z, switches, by)
        return Projection(code, places.long())

    def _check_positions(
        self, switches: Tensor, shape: tuple[int, ...], device: torch.device
    ) -> None:
        length = self.block if self.dims == 1 else math.prod(self.block)
        expected = f"int64 positions of shape {shape} on {device}"
        fits = switches.dtype == torch.int64 and tuple(switches.shape) == shape
        if not fits or switches.device != device:
            check.fail("switches", switches, expected)
        if switches.min() < 0 or switches.max() >= length:
            bad = int(switches[(switches < 0) | (switches >= length)][0])
            check.fail("switches", bad, f"positions from 0 to {length - 1}")

    def _project(self, z: Tensor, switches: str | Tensor = "known", by: str = "abs") -> Projection:
        """`project` without its checks; the switches in the kernels' narrow type."""
        values, places = pool_switch(z, self.block, by)
        rule = None if self.k is None else threshold(values, self.k)
        if isinstance(switches, str) and switches == "averaged":
            kept = values if rule is None else torch.where(at_least(values, rule), values, 0.0)
            length = self.block if self.dims == 1 else math.prod(self.block)
            spread = (kept / length).unsqueeze(-1).expand(*values.shape, length)
            none = torch.full(places.shape, -1, dtype=torch.int64, device=z.device)
            return Projection(uncells(spread, self.block), none)
        if isinstance(switches, Tensor):
            places = switches
        elif switches == "fixed":
            places = torch.full_like(places, self._center())
        code = unpool(values, places, self.block, threshold=rule, trusted=True)
        return Projection(code, places)

    def _nearest(self, z: Tensor) -> Tensor:
        """M(z, k) with known switches, the code alone, without checks: for loops of an algorithm."""
        if self.k is None:
            return keep(z, self.block)
        values, places = pool_switch(z, self.block)
        return unpool(values, places, self.block, threshold=threshold(values, self.k), trusted=True)

    def _center(self) -> int:
        if self.dims == 1:
            return self.block // 2
        p, q = self.block
        return p // 2 * q + q // 2

    def contains(self, z: Tensor) -> Tensor:
        """Whether each sample lies in M_k, as bool (batch,)."""
        self._check(z)
        per_block = (cells(z, self.block) != 0).sum(-1).flatten(1)
        inside = (per_block <= 1).all(1)
        return inside if self.k is None else inside & (per_block.sum(1) <= self.k)
