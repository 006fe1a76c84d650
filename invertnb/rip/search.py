"""Certified lower bounds on isometry constants: codes of the model that are hard to find by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.kernels.gram import gram_matrix
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms

# Up to this many atoms W W^T is held as a matrix (float32) for the search.
DENSE_ATOMS = 4096
# The weight of the current code in a power step, one for each round: less of it finds more, but
# stalls less often with more of it. Steps a round, and how the best supports are shaken after it.
WEIGHTS = (1 / 8, 1 / 4, 1 / 2)
STEPS, LEADERS, REPLACED, NOISE = 10, 32, 0.3, 0.1


class Witness(NamedTuple):
    """A code that proves a lower bound.

    delta is ``| ||W^T code||^2 - 1 |``, less what rounding may add; code is float64 (1, K, n) or
    (1, K, n1, n2), of unit norm, in the model.
    """

    delta: float
    code: Tensor


def lower_bound(
    bank: FilterBank, model: ModelSparse, size: Size, *, order: int = 1, starts: int = 128,
    generator: torch.Generator,
) -> Witness:
    """A lower bound on the isometry constant, with the code that attains it.

    Truncated power iteration (Yuan and Zhang 2013) with the model's projection, on W W^T - I and
    on its negative, from every filter's atom in the middle and from random codes; then again from
    the best supports with some of their atoms replaced. The search is in float32 and may miss the
    maximum; what it finds is evaluated in float64.

    Args:
        bank, model, size, order: as in `sample_ratios`.
        starts: random codes to start from.
        generator: a CPU generator.

    Raises:
        ValueError: arguments out of range or that do not fit together.
    """
    atoms = Atoms(bank, model, size, order)
    check.integer("starts", starts, 1)
    check.generator("generator", generator)
    operator = _deviation_operator(atoms)
    best = None
    for sign in (1, -1):
        start = _first_starts(atoms, operator, sign, starts, generator)
        for weight in WEIGHTS:
            index = torch.cat([start[0], _iterate(atoms, operator, sign, weight, start)])
            edge = sign * (atoms.eigenvalues(index)[:, -1 if sign > 0 else 0] - 1)
            leaders = index[edge.topk(min(LEADERS, len(edge))).indices]
            found = _witness(atoms, leaders[0], sign)
            best = found if best is None or found.delta > best.delta else best
            start = _shaken(atoms, leaders, generator)
    return best


def _deviation_operator(atoms: Atoms) -> Callable[[Tensor, Tensor], Tensor]:
    """(W W^T - I) z for z given by atoms and values, (batch, s) each, as float32 (batch, Kn).

    Filters far longer than 1 are brought to size first: float32 could not hold their squares.
    """
    scale = max(1.0, float(atoms.table.abs().max()))
    if atoms.count <= DENSE_ATOMS:
        square = gram_matrix((atoms.table / scale).float(), atoms.n)
        square.diagonal().sub_(1 / scale)
        return lambda index, values: F.embedding_bag(
            index, square, mode="sum", per_sample_weights=values
        )
    # Entry (i, p) of W W^T z is the sum over j and s of table[i, j, R + s] z[j, p + s].
    table, reach = (atoms.table / scale).float(), atoms.table.shape[-1] // 2
    convolve = F.conv1d if atoms.bank.dims == 1 else F.conv2d

    def apply(index: Tensor, values: Tensor) -> Tensor:
        z = _dense(atoms, index, values)
        image = convolve(z.view(-1, atoms.bank.K, *atoms.n), table, padding=reach)
        return image.flatten(1) - z / scale

    return apply


def _dense(atoms: Atoms, index: Tensor, values: Tensor) -> Tensor:
    return values.new_zeros(len(index), atoms.count).scatter(1, index, values)


def _first_starts(
    atoms: Atoms, operator: Callable, sign: int, starts: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random codes, and for each filter its atom in the middle with those that go with it."""
    device, shifts = atoms.table.device, atoms.count // atoms.bank.K
    middle = torch.arange(atoms.bank.K, device=device).unsqueeze(1) * shifts + shifts // 2
    one = torch.ones_like(middle, dtype=torch.float32)
    neighbors = sign * operator(middle, one) + _dense(atoms, middle, one)
    noise = torch.randn(starts, atoms.count, generator=generator, dtype=torch.float32).to(device)
    return _restricted(atoms, torch.cat([neighbors, noise]))


def _shaken(
    atoms: Atoms, leaders: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random codes on the leading supports, of which some atoms have given way to others."""
    device, shape = leaders.device, (len(leaders), atoms.count)
    stay = torch.rand(leaders.shape, generator=generator, dtype=torch.float32) >= REPLACED
    signs = torch.randn(leaders.shape, generator=generator, dtype=torch.float32).sign()
    noise = torch.randn(shape, generator=generator, dtype=torch.float32).to(device)
    return _restricted(atoms, _dense(atoms, leaders, (signs * stay).to(device)) + NOISE * noise)


def _restricted(atoms: Atoms, codes: Tensor) -> tuple[Tensor, Tensor]:
    index = atoms.keep(codes)
    values = codes.gather(1, index)
    return index, values / values.norm(dim=1, keepdim=True).clamp(min=1e-30)


def _iterate(
    atoms: Atoms, operator: Callable, sign: int, weight: float, start: tuple[Tensor, Tensor]
) -> Tensor:
    index, values = start
    for _ in range(STEPS):
        image = sign * operator(index, values)
        # Adding a multiple of the code makes the form to maximize nearly semidefinite.
        length = image.gather(1, index).norm(dim=1, keepdim=True)
        index, values = _restricted(atoms, image.scatter_add(1, index, weight * length * values))
    return index


def _witness(atoms: Atoms, support: Tensor, sign: int) -> Witness:
    vectors = torch.linalg.eigh(atoms.gram(support.unsqueeze(0))[0]).eigenvectors
    z = vectors[:, -1 if sign > 0 else 0]
    code = _dense(atoms, support.unsqueeze(0), (z / z.norm()).unsqueeze(0))
    square = float(z @ atoms.gram(support.unsqueeze(0))[0] @ z / (z @ z))
    return Witness(max(abs(square - 1) - rounding(atoms), 0.0), code.view(1, atoms.bank.K, *atoms.n))


def rounding(atoms: Atoms) -> float:
    """More than float64 can add to a quadratic form on a support, or to an eigenvalue of one.

    Each product of rows is a sum of m terms, off by at most 2 m u times the rows' norms, and a
    support has at most `entries` of them in a row; eigenvalues are stable.
    """
    terms = atoms.bank.weight[0].numel() + 8 * atoms.bank.K
    longest = float(atoms.table.abs().max())
    return 2 * terms * torch.finfo(torch.float64).eps * atoms.entries * max(longest, 1.0)
