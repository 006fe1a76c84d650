"""Isometry constants by trying every support: for toy sizes, and to check the bounds."""

from __future__ import annotations

import torch

from invertnb import check
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms

ENTRIES = 2**20  # of the matrices W_S W_S^T that are built at a time


def exact_constant(
    bank: FilterBank, model: ModelSparse, size: Size, *, order: int = 1, limit: int = 2_000_000
) -> float:
    """The isometry constant: the largest ``| ||W^T z||^2 / ||z||^2 - 1 |`` over the whole model.

    On a support S the quotient runs between the extreme eigenvalues of W_S W_S^T (section 2.3);
    supports inside a larger one add nothing, so the maximal ones are tried, all of them.

    Args:
        bank, model, size, order: as in `sample_ratios`.
        limit: the most supports to try.

    Raises:
        ValueError: as `sample_ratios`; or more supports than the limit, with their number.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("limit", limit, 1)
    supports = atoms.supports()
    if supports > limit:
        check.fail("k", model.k, f"at most limit = {limit:,} supports to enumerate, not {supports:,}")
    worst, waiting, ready = 0.0, [], 0
    rows = max(1, ENTRIES // atoms.entries**2)
    for part in atoms.every_support():
        waiting.append(part)
        ready += len(part)
        if ready >= rows:
            worst, waiting, ready = max(worst, _deviation(atoms, waiting, rows)), [], 0
    return max(worst, _deviation(atoms, waiting, rows)) if waiting else worst


def _deviation(atoms: Atoms, parts: list[torch.Tensor], rows: int) -> float:
    index = torch.cat(parts).to(atoms.bank.weight.device)
    return max(
        float((atoms.eigenvalues(some)[:, [0, -1]] - 1).abs().max()) for some in index.split(rows)
    )
