"""The atoms of a filter bank at one size, and the supports of the model over them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from math import comb

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.draw_atoms import draw_atoms, draw_key
from invertnb.kernels.gram import gram_on
from invertnb.kernels.pooling import cells
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size


@functools.cache
def count_supports(blocks: int, length: int, entries: int, per_block: int) -> int:
    """Sets of so many entries, at most `per_block` of them in one block of this length."""
    if per_block == 0:
        return int(entries == 0)
    # Choose the blocks that give `per_block` entries, and these; the others give fewer.
    return sum(
        comb(blocks, full) * comb(length, per_block) ** full
        * count_supports(blocks - full, length, entries - full * per_block, per_block - 1)
        for full in range(min(blocks, entries // per_block) + 1)
    )


@dataclass(frozen=True, eq=False)
class Atoms:
    """The Kn rows of W, float64, with the supports of sums of `order` members of M_k.

    Such a sum has at most `order` nonzeros in a block and order * k in all, and every vector of
    this kind is such a sum: order 1 is M_k, order 2 the M_2k of section 2.3. An atom is known by
    its index in a flattened code (K, n) or (K, n1, n2).

    Raises:
        ValueError: arguments that do not fit together; a bank with padding, whose cropped rows
            the table of correlations does not hold; an order that is no integer from 1 to 3.
    """

    bank: FilterBank
    model: ModelSparse
    size: Size
    order: int = 1

    def __post_init__(self) -> None:
        check.instance("bank", self.bank, FilterBank)
        check.instance("model", self.model, ModelSparse)
        check.integer("order", self.order, 1, 3)
        if self.model.dims != self.bank.dims:
            check.fail("model", self.model, f"a ModelSparse over {self.bank.dims}-D codes")
        if self.model.k is None:
            check.fail("k", None, "a number of nonzeros: isometry constants belong to one k")
        if self.bank.padding:
            check.fail("padding", self.bank.padding, "0: padding crops rows of W")
        self.model._blocks(self.bank.K, self.n)

    @functools.cached_property
    def n(self) -> tuple[int, ...]:
        """Shifts of a filter, by axis."""
        n = self.bank.code_size(self.size)
        return (n,) if self.bank.dims == 1 else n

    @property
    def count(self) -> int:
        """Rows of W, Kn."""
        return self.bank.K * math.prod(self.n)

    @functools.cached_property
    def blocks(self) -> Tensor:
        """The atoms of each block, int64 (blocks, atoms of a block)."""
        index = torch.arange(self.count, device=self.bank.weight.device)
        return cells(index.view(1, self.bank.K, *self.n), self.model.block).flatten(0, -2)

    @property
    def per_block(self) -> int:
        """The most atoms that a support takes from one block."""
        return min(self.order, self.blocks.shape[1])

    @property
    def entries(self) -> int:
        """Atoms of a maximal support."""
        return min(self.order * self.model.k, self.per_block * len(self.blocks))

    @functools.cached_property
    def table(self) -> Tensor:
        """All inner products of rows of W, see `FilterBank.gram`."""
        return self.bank._exact_gram()

    def gram(self, index: Tensor) -> Tensor:
        """W_S W_S^T of supports S, int64 (batch, s), as (batch, s, s)."""
        places, rest = [], index % math.prod(self.n)
        for side in reversed(self.n):
            places.insert(0, rest % side)
            rest = rest // side
        return gram_on(self.table, index // math.prod(self.n), places)

    def eigenvalues(self, index: Tensor) -> Tensor:
        """Eigenvalues of W_S W_S^T in ascending order, (batch, s)."""
        return torch.linalg.eigvalsh(self.gram(index))

    def keep(self, values: Tensor) -> Tensor:
        """The best support for each vector of (batch, Kn): the projection onto the model."""
        length = self.blocks.shape[1]
        ordered = length == math.prod(self.n)  # then a block's atoms are neighbors
        each = values.abs() if ordered else values.abs()[:, self.blocks.flatten()]
        each = each.view(len(values), -1, length)
        # A maximum or two are much faster than a selection from so short a row.
        values, places = [], []
        for _ in range(self.per_block):
            best = each.max(-1, keepdim=True)
            values.append(best.values)
            places.append(best.indices)
            if len(places) < self.per_block:
                each = each.scatter(-1, best.indices, -1.0)
        index = self.blocks.expand_as(each).gather(-1, torch.cat(places, -1)).flatten(1)
        return index.gather(1, torch.cat(values, -1).flatten(1).topk(self.entries).indices)

    def draw(self, samples: int, generator: torch.Generator) -> Tensor:
        """Random maximal supports, int64 (samples, entries), the same on every device.

        Of the `per_block` slots of every block, a subset uniform among all; then for the slots
        of one block distinct places, uniform among all. One use of the generator, see `draw_atoms`:
        the first supports of a long run are those of a short one.
        """
        return self.draw_codes(draw_key(generator), 0, samples)[0]

    def draw_codes(
        self, key: Tensor, first: int, samples: int, values: str = "uniform",
        dtype: torch.dtype = torch.float64,
    ) -> tuple[Tensor, Tensor]:
        """Supports number `first` and following under a key, with codes on them: see `draw_atoms`."""
        return draw_atoms(
            self.blocks, samples, entries=self.entries, per_block=self.per_block, key=key,
            first=first, values=values, dtype=dtype,
        )

    def supports(self) -> int:
        """The number of maximal supports: n^k C(K, k) for M_k itself."""
        blocks, length = self.blocks.shape
        return count_supports(blocks, length, self.entries, self.per_block)

    def every_support(self) -> Iterator[Tensor]:
        """All maximal supports, in parts of int64 (some, entries)."""
        for chosen in combinations_with_replacement(range(len(self.blocks)), self.entries):
            taken = {block: chosen.count(block) for block in chosen}
            if max(taken.values()) > self.per_block:
                continue
            parts = [
                torch.tensor(list(combinations(self.blocks[block].tolist(), some)))
                for block, some in taken.items()
            ]
            pick = torch.cartesian_prod(*(torch.arange(len(part)) for part in parts))
            columns = pick.view(-1, len(parts)).unbind(1)
            yield torch.cat([part[c] for part, c in zip(parts, columns, strict=True)], dim=1)
