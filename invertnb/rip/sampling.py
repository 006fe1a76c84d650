"""Isometry ratios of random codes and random supports, without W, x or z.

Each ratio is a quadratic form on the few atoms of a support, and all products of atoms stand in a
small table. A sample sees typical supports only: show its constant beside a certified interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.atom_norms import atom_norms
from invertnb.kernels.draw_atoms import VALUES, draw_key
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms

CODES = 2**23  # entries of the codes that are drawn at a time
CHUNK = 2**21  # entries of the matrices W_S W_S^T that are built at a time


class Ratios(NamedTuple):
    """The ratios of Figure 2 for each code z with support S, none of them squared.

    Attributes:
        synthesis: ``||W^T z|| / ||z||``, Figure 2(a).
        support: ``||W_S W^T z|| / ||z||``, Figure 2(b) read on the support.
        reconstruction: ``||x - W^T z_hat|| / ||x||`` for x = W^T z and z_hat = W_S x, as in
            Figure 2(c): one step of Algorithm 1 that an oracle has told the support. M_known, which
            knows the switches and chooses k blocks itself, does worse.
    """

    synthesis: Tensor
    support: Tensor
    reconstruction: Tensor


def sample_ratios(
    bank: FilterBank, model: ModelSparse, size: Size, samples: int, *, order: int = 1,
    values: str = "uniform", dtype: torch.dtype = torch.float64, generator: torch.Generator,
) -> Ratios:
    """The ratios of Figure 2 for random codes in sums of `order` members of M_k.

    Args:
        bank: filters without padding.
        model: M_k, with k given.
        size: signal size D or (H, W).
        samples: number of codes; supports as in `Atoms.draw`.
        order: 1 for M_k, 2 for M_2k, 3 for sums of three members.
        values: nonzeros uniform on [-1, 1] or "gaussian".
        dtype: float32 or float64, of the products of atoms, the codes and the ratios.
        generator: a CPU generator; the draws are the same on every device, and its first codes are
            the same for any number of samples.

    Returns:
        Three tensors (samples,).

    Raises:
        ValueError: arguments out of range or that do not fit together.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("samples", samples, 1)
    check.choice("values", values, VALUES)
    check.dtype("dtype", dtype)
    check.generator("generator", generator)
    key, table = draw_key(generator), atoms.table.to(dtype)
    parts = [
        atom_norms(table, atoms.n, *atoms.draw_codes(key, first, some, values, dtype))
        for first, some in _parts(samples, CODES // atoms.entries)
    ]
    return Ratios(*(torch.cat(part) for part in zip(*parts, strict=True)))


def sample_extremes(
    bank: FilterBank, model: ModelSparse, size: Size, samples: int, *, order: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """The least and the largest ``||W^T z||^2 / ||z||^2`` on random supports, (samples, 2).

    The extreme eigenvalues of W_S W_S^T, so the worst code of each support and not a random one;
    the supports are those of `sample_ratios`. Arguments and errors as there.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("samples", samples, 1)
    check.generator("generator", generator)
    key = draw_key(generator)
    parts = [
        atoms.eigenvalues(atoms.draw_codes(key, first, some)[0])[:, [0, -1]]
        for first, some in _parts(samples, CHUNK // atoms.entries**2)
    ]
    return torch.cat(parts)


def _parts(samples: int, rows: int) -> Iterator[tuple[int, int]]:
    """First sample and number of samples of each part."""
    rows = max(1, rows)
    for first in range(0, samples, rows):
        yield first, min(rows, samples - first)
