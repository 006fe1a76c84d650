"""The layers of the chapter, and one step on sparse codes without ever forming a signal.

Every norm in Theorem 3.3 is a quadratic form in W W^T, so the products of the rows are all that a
layer has to say about it: ``||x||^2 = z^T W W^T z``, ``h = W W^T z``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import FilterBank, ModelSparse
from invertnb.rip import Atoms

# The sizes of Figure 2 (section 4.2).
K, L, D, N = 96, 5, 32, 28
CHANNELS, SPARSITY = 32, 10


class Codes(NamedTuple):
    """Sparse codes: the atoms in use and their values, (batch, k) each, one atom a block."""

    index: Tensor
    values: Tensor

    def take(self, rows: Tensor | slice) -> Codes:
        """Some of the codes."""
        return Codes(self.index[rows], self.values[rows])

    def norm(self) -> Tensor:
        """``||z||`` of each code."""
        return self.values.norm(dim=1)


class Step(NamedTuple):
    """What one step makes of codes z, with Om the support of z_hat = M(W x, k).

    Attributes:
        missed: ``||z|_(Om^c)|| / ||z||``.
        code: ``||z_hat - z|| / ||z||``.
        signal: ``||x - x_hat|| / ||x||``.
        hat: z_hat itself.
    """

    missed: Tensor
    code: Tensor
    signal: Tensor
    hat: Codes


@dataclass(frozen=True, eq=False)
class Layer:
    """A filter bank at one signal size, by the products of its rows."""

    bank: FilterBank
    size: int = D

    @property
    def n(self) -> int:
        """Shifts of a filter."""
        return self.bank.code_size(self.size)

    def model(self, k: int) -> ModelSparse:
        """M_k, with one block per filter."""
        return ModelSparse(self.n, k)

    def atoms(self, k: int, order: int = 1) -> Atoms:
        """The atoms with the supports of M_k, or of sums of two of its members (order 2)."""
        return Atoms(self.bank, self.model(k), self.size, order)

    @functools.cached_property
    def gram(self) -> Tensor:
        """W W^T, (Kn, Kn)."""
        atoms = self.atoms(1)
        every = torch.arange(atoms.count, device=self.bank.weight.device)
        return atoms.gram(every.unsqueeze(0))[0]

    def image(self, codes: Codes) -> Tensor:
        """W W^T z, (batch, Kn)."""
        return F.embedding_bag(codes.index, self.gram, mode="sum", per_sample_weights=codes.values)

    def length(self, codes: Codes) -> Tensor:
        """``||W^T z||``; an atom that is given twice counts with the sum of its values."""
        index, values = codes
        square = self.gram[index.unsqueeze(2), index.unsqueeze(1)]
        form = (values.unsqueeze(1) @ square @ values.unsqueeze(2)).flatten()
        return form.clamp(min=0).sqrt()

    def dense(self, codes: Codes) -> Tensor:
        """z as a tensor (batch, Kn)."""
        zero = codes.values.new_zeros(len(codes.index), len(self.gram))
        return zero.scatter_add(1, codes.index, codes.values)

    def project(self, h: Tensor, k: int, place: int | None = None) -> Codes:
        """M(h, k) for h (batch, Kn), with known switches or with all at one fixed place."""
        places = h.view(len(h), -1, self.n).abs().max(2).indices
        block = torch.arange(places.shape[1], device=h.device) * self.n
        values = h.gather(1, places + block)
        chosen = values.abs().topk(k, dim=1).indices
        if place is not None:
            places = torch.full_like(places, place)
        return Codes((places + block).gather(1, chosen), values.gather(1, chosen))

    def sample(self, k: int, batch: int, generator: torch.Generator) -> Codes:
        """Random codes: supports as in section 4.2, values uniform on [-1, 1]."""
        index = self.atoms(k).draw(batch, generator)
        values = 2 * torch.rand(batch, k, generator=generator, dtype=torch.float64) - 1
        return Codes(index, values.to(index.device))

    def codes(self, z: Tensor, k: int) -> Codes:
        """The k largest entries of codes z (batch, K, n) that lie in M_k."""
        return self.project(z.flatten(1), k)


def one_step(layer: Layer, z: Codes, place: int | None = None) -> Step:
    """x = W^T z, z_hat = M(W x, k), x_hat = W^T z_hat, and the errors; `place` as in `project`."""
    hat = layer.project(layer.image(z), z.index.shape[1], place)
    return Step(*errors(layer, z, hat), hat)


def errors(layer: Layer, z: Codes, hat: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """missed, code and signal of `Step`, for any z_hat."""
    there = (z.index.unsqueeze(2) == hat.index.unsqueeze(1)).any(2)
    scale = z.norm()
    missed = torch.where(there, 0.0, z.values).norm(dim=1) / scale
    move = difference(z, hat)
    code = layer.dense(move).norm(dim=1) / scale
    return missed, code, layer.length(move) / layer.length(z)


def difference(z: Codes, hat: Codes) -> Codes:
    """z_hat - z; atoms of both stand twice."""
    return Codes(torch.cat([hat.index, z.index], 1), torch.cat([hat.values, -z.values], 1))


def folded(bank: FilterBank) -> FilterBank:
    """A bank with the same products of rows and at most K l channels.

    W W^T depends on the filters through the Kl x Kl products of their taps only. Any bank with the
    same ones, say their Cholesky factor, is the same bank up to a rotation of the channels.
    """
    taps = bank.weight.transpose(1, 2).flatten(0, 1)  # (Kl, M)
    if bank.M <= len(taps):
        return bank
    factor = torch.linalg.cholesky(taps @ taps.T)
    return FilterBank(factor.view(bank.K, bank.l, -1).transpose(1, 2).contiguous())


def down(number: float, digits: int = 2) -> str:
    """Rounded down, so that a lower bound stays one."""
    return f"{math.floor(number * 10**digits) / 10**digits:.{digits}f}"


def up(number: float, digits: int = 2) -> str:
    """Rounded up, so that an upper bound stays one; what is below 1e-9 is rounding."""
    number = 0.0 if number < 1e-9 else number
    return f"{math.ceil(number * 10**digits) / 10**digits:.{digits}f}"


def interval(lower: float, upper: float) -> str:
    """A certified interval, rounded outwards to two digits."""
    return f"[{down(lower)}, {up(upper)}]"
