"""Isometry ratios of random codes and random supports, without W, x or z.

Each ratio is a quadratic form on the few atoms of a support, and all products of atoms stand in a
small table. A sample sees typical supports only: show its constant beside a certified interval.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms

CHUNK = 2**21  # entries of the matrices W_S W_S^T that are built at a time


class Ratios(NamedTuple):
    """For each code z: ``||W^T z|| / ||z||``, and ``||W_S W^T z|| / ||z||`` on its support S."""

    synthesis: Tensor
    support: Tensor


def sample_ratios(
    bank: FilterBank, model: ModelSparse, size: Size, samples: int, *, order: int = 1,
    values: str = "uniform", generator: torch.Generator,
) -> Ratios:
    """Figures 2(a) and 2(b, on the support) for random codes in sums of `order` members of M_k.

    Args:
        bank: filters without padding.
        model: M_k, with k given.
        size: signal size D or (H, W).
        samples: number of codes; supports as in `Atoms.draw`.
        order: 1 for M_k, 2 for M_2k, 3 for sums of three members.
        values: nonzeros uniform on [-1, 1] or "gaussian".
        generator: a CPU generator; the draws are the same on every device.

    Returns:
        Two float64 tensors (samples,), not squared.

    Raises:
        ValueError: arguments out of range or that do not fit together.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("samples", samples, 1)
    check.choice("values", values, ("uniform", "gaussian"))
    check.generator("generator", generator)
    index = atoms.draw(samples, generator)
    draw = torch.rand if values == "uniform" else torch.randn
    code = draw(samples, atoms.entries, generator=generator, dtype=torch.float64)
    code = (2 * code - 1 if values == "uniform" else code).to(index.device)
    parts = []
    for some, z in zip(*_chunks(atoms, index, code), strict=True):
        image = (atoms.gram(some) @ z.unsqueeze(2)).squeeze(2)  # W_S W_S^T z
        square = (z * image).sum(1).clamp(min=0)  # ||W^T z||^2
        length = z.norm(dim=1)
        parts.append((square.sqrt() / length, image.norm(dim=1) / length))
    return Ratios(*(torch.cat(part) for part in zip(*parts, strict=True)))


def sample_extremes(
    bank: FilterBank, model: ModelSparse, size: Size, samples: int, *, order: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """The least and the largest ``||W^T z||^2 / ||z||^2`` on random supports, (samples, 2).

    The extreme eigenvalues of W_S W_S^T, so the worst code of each support and not a random one.
    Arguments and errors as in `sample_ratios`.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("samples", samples, 1)
    check.generator("generator", generator)
    parts = [
        atoms.eigenvalues(some)[:, [0, -1]] for some in _chunks(atoms, atoms.draw(samples, generator))[0]
    ]
    return torch.cat(parts)


def _chunks(atoms: Atoms, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    rows = max(1, CHUNK // atoms.entries**2)
    return [tensor.split(rows) for tensor in tensors]
