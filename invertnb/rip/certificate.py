"""Certified upper bounds on isometry constants: model Gershgorin, and a semidefinite certificate.

Both see the layer through its block coherence only: how large the products of two filters' rows can
be over all shifts. That forgets signs and places, which is what makes the bounds easy, and loose.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms
from invertnb.rip.search import lower_bound, rounding

ACCURACY, MOST_STEPS = 3e-4, 5000  # of the solver; the certificate itself holds for any outcome


class BlockCoherence(NamedTuple):
    """What bounds the products of the rows of two filters: two float64 matrices (K, K).

    first: off the diagonal the largest ``|<row of i, row of j>|`` over all pairs of shifts, on the
    diagonal ``| ||w_i||^2 - 1 |``. second: off the diagonal the second largest over different
    relative shifts, on the diagonal the largest product of two shifts of one filter.
    """

    first: Tensor
    second: Tensor


@dataclass(frozen=True, eq=False)
class Isometry:
    """A certified interval for an isometry constant.

    Attributes:
        lower: attained by `code`.
        upper: no code of the model exceeds it: the smaller of the two bounds, and where a support
            has at most two atoms the constant itself, from all pairs.
        code: a unit-norm member of the model with ``| ||W^T code||^2 - 1 |`` at least `lower`.
        gershgorin: the bound by row sums.
        sdp: the semidefinite bound; None if it was not asked for, or is not needed.
    """

    lower: float
    upper: float
    code: Tensor
    gershgorin: float
    sdp: float | None

    def __str__(self) -> str:
        return f"in [{self.lower:.3f}, {self.upper:.3f}]"


def certify(
    bank: FilterBank, model: ModelSparse, size: Size, *, order: int = 1, sdp: bool = True,
    starts: int = 128, generator: torch.Generator,
) -> Isometry:
    """A certified interval for the isometry constant of sums of `order` members of M_k.

    Args:
        bank: filters without padding, in any scaling; `bank.normalized()` has unit rows.
        model: M_k with one block a filter.
        size: signal size D or (H, W).
        order: 1 for delta_k, 2 for delta_2k, 3 for sums of three members.
        sdp: whether to solve for the semidefinite bound, too.
        starts, generator: of the search for the lower bound, see `lower_bound`.

    Raises:
        ValueError: arguments out of range or that do not fit together; blocks smaller than n.

    Warns:
        RuntimeWarning: the solver stopped early; the bound is certified all the same.
    """
    atoms = Atoms(bank, model, size, order)
    check.flag("sdp", sdp)
    coherence = block_coherence(atoms)  # refuses small blocks before the search, which takes longer
    rows = gershgorin(atoms)
    found = lower_bound(bank, model, size, order=order, starts=starts, generator=generator)
    if atoms.entries <= 2:  # one pair of atoms: its eigenvalues, and no program
        return Isometry(found.delta, pairs(atoms), found.code, rows, None)
    semidefinite = None
    if sdp:
        semidefinite = semidefinite_bound(coherence, atoms.per_block, atoms.entries)
        semidefinite += rounding(atoms)
    upper = rows if semidefinite is None else min(rows, semidefinite)
    return Isometry(found.delta, upper, found.code, rows, semidefinite)


def pairs(atoms: Atoms) -> float:
    """The isometry constant of supports of one or two atoms: eigenvalues of every 2 x 2 matrix."""
    first, second = block_coherence(atoms)
    K = len(first)
    same, center = torch.arange(K), atoms.table[0, 0].numel() // 2
    diagonal = atoms.table.flatten(2)[same, same, center] - 1
    single = float(diagonal.abs().max())
    if atoms.entries == 1:
        return single + rounding(atoms)
    product = first.clone()
    product[same, same] = second[same, same] if atoms.per_block > 1 else 0.0
    mean = (diagonal.unsqueeze(1) + diagonal) / 2
    half = (diagonal.unsqueeze(1) - diagonal) / 2
    # The eigenvalues of [[a, c], [c, b]] are (a + b)/2 +- sqrt(((a - b)/2)^2 + c^2).
    return max(single, float((mean.abs() + (half.square() + product.square()).sqrt()).max())) + rounding(atoms)


def block_coherence(atoms: Atoms) -> BlockCoherence:
    """See `BlockCoherence`; only shifts that occur at this size count."""
    size = _shifted_products(check.instance("atoms", atoms, Atoms))
    K = len(size)
    same = torch.arange(K)
    center = size.shape[2] // 2
    own = size[same, same].clone()
    own[:, center] = 0
    top = size.topk(min(2, size.shape[2]), dim=2).values
    first, second = top[..., 0].clone(), top[..., -1].clone()
    if size.shape[2] == 1:
        second = torch.zeros_like(first)
    first[same, same] = (atoms.table.flatten(2)[same, same, atoms.table[0, 0].numel() // 2] - 1).abs()
    second[same, same] = own.amax(1)
    # The products of i with j are those of j with i; rounding may tell them apart.
    return BlockCoherence(torch.maximum(first, first.T), torch.maximum(second, second.T))


def gershgorin(atoms: Atoms) -> float:
    """``max_S ||W_S W_S^T - I||`` by row sums: Gershgorin's circles over the supports of the model.

    In the row of one atom, the others of its support add their products: at most `per_block` from
    each other filter, at different shifts, one less from its own, and `entries` - 1 in all.
    """
    size = _shifted_products(check.instance("atoms", atoms, Atoms))
    K, shifts = len(size), size.shape[2]
    same = torch.arange(K)
    size[same, same, shifts // 2] = 0
    best = size.topk(min(atoms.per_block, shifts), dim=2).values
    if atoms.per_block <= shifts:
        best[same, same, -1] = 0  # of its own filter an atom has one partner less
    others = best.flatten(1).topk(min(atoms.entries - 1, best[0].numel()), dim=1).values.sum(1)
    center = atoms.table[0, 0].numel() // 2
    diagonal = (atoms.table.flatten(2)[same, same, center] - 1).abs()
    return float((diagonal + others).max()) + rounding(atoms)


def _shifted_products(atoms: Atoms) -> Tensor:
    """``|<row of i, row of j>|`` at all relative shifts that occur, (K, K, shifts)."""
    if atoms.blocks.shape[1] != math.prod(atoms.n):
        check.fail("block", atoms.model.block, f"all {atoms.n} shifts of a filter, as in the paper's M_k")
    size, reach = atoms.table.abs(), atoms.table.shape[-1] // 2
    for axis, side in enumerate(atoms.n, start=2):
        far = min(reach, side - 1)
        size = size.narrow(axis, reach - far, 2 * far + 1)
    return size.flatten(2).clone()


def semidefinite_bound(coherence: BlockCoherence, order: int, entries: int) -> float:
    """An upper bound on the isometry constant from a convex program, certified by its dual.

    Let u hold the magnitudes of a unit code in the model, in `order` slots a block by decreasing
    size, empty slots being zero. Of the products of two blocks' atoms only one relative shift
    attains the largest value, and the pairs of atoms at that shift form a partial matching; so by
    the rearrangement inequality slot a meets slot a by `first` and the other slots by `second` at
    most, and the deviation is at most u^T B u with B = first (x) I + second (x) (J - I).
    As ``||u||_1^2 <= entries``, relaxing u u^T to X gives the program

        max <B, X>,  tr X = 1,  sum X <= entries,  X >= 0,  X positive semidefinite,

    after d'Aspremont, El Ghaoui, Jordan and Lanckriet (2007), who bound sparse eigenvalues so.
    Slots are interchangeable, which splits X into two K x K blocks. Whatever the solver returns,
    any symmetric U >= -t proves u^T B u <= lambda_max(B + U) + t * entries: that number, computed
    here by eigenvalues in float64, is the bound.

    Args:
        coherence: see `block_coherence`.
        order: slots a block, the `per_block` of an `Atoms`; from 1 to 3.
        entries: nonzeros in all.

    Raises:
        ValueError: an order or a number of entries out of range.

    Warns:
        RuntimeWarning: the solver stopped early, and the bound is weaker than it could be.
    """
    check.instance("coherence", coherence, BlockCoherence)
    check.integer("order", order, 1, 3)
    check.integer("entries", entries, 1)
    # Scaled so that u^T B u <= 1: the solver's accuracy then means the same for every layer.
    scale = entries * max(float(coherence.first.max()), float(coherence.second.max()))
    if scale == 0:
        return 0.0
    first, second = coherence.first / scale, coherence.second / scale
    U, V, finished = _solve(first, second, order, entries)
    if not finished:
        warnings.warn(
            "semidefinite_bound: the solver stopped early; the bound holds but may be loose",
            RuntimeWarning, stacklevel=2,
        )
    bound = _certificate(first, second, U, V, order, entries)
    trivial = _certificate(first, second, 0 * first, 0 * first, order, entries)
    return scale * min(bound, trivial) * (1 + 4 * torch.finfo(torch.float64).eps)


def _certificate(
    first: Tensor, second: Tensor, U: Tensor, V: Tensor, order: int, entries: int
) -> float:
    """lambda_max(B + U) + t * entries, with U between equal slots and V between others."""
    U, V = (U + U.T) / 2, (V + V.T) / 2
    # Vectors equal in all slots, and vectors that sum to zero over the slots.
    parts = [first + U + (order - 1) * (second + V)] + [first + U - second - V] * (order > 1)
    top = max(float(torch.linalg.eigvalsh(part)[-1]) for part in parts)
    slack = 8 * len(first) * torch.finfo(torch.float64).eps
    slack *= max(float(part.norm()) for part in parts)
    least = min(float(U.min()), float(V.min()) if order > 1 else 0.0)
    return top + slack + max(-least, 0.0) * entries * (1 + 1e-14)


def _solve(
    first: Tensor, second: Tensor, order: int, entries: int
) -> tuple[Tensor, Tensor, bool]:
    """The dual's U and V, and whether the solver reached its accuracy; zeros if it gave none."""
    import cvxpy  # takes a second to import, and only this function needs it

    K, r = len(first), order
    P = cvxpy.Variable((K, K), symmetric=True)
    program = [P >= 0]
    if r == 1:
        value, trace, total = cvxpy.sum(cvxpy.multiply(first.cpu().numpy(), P)), cvxpy.trace(P), cvxpy.sum(P)
        program.append(P >> 0)
    else:
        Q = cvxpy.Variable((K, K), symmetric=True)
        program += [Q >= 0, P + (r - 1) * Q >> 0, P - Q >> 0]
        value = r * cvxpy.sum(cvxpy.multiply(first.cpu().numpy(), P))
        value += r * (r - 1) * cvxpy.sum(cvxpy.multiply(second.cpu().numpy(), Q))
        trace, total = r * cvxpy.trace(P), r * cvxpy.sum(P) + r * (r - 1) * cvxpy.sum(Q)
    budget = total <= entries
    problem = cvxpy.Problem(cvxpy.Maximize(value), [*program, trace == 1, budget])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": the status below says so
            problem.solve(solver=cvxpy.SCS, eps_abs=ACCURACY, eps_rel=ACCURACY, max_iters=MOST_STEPS)
    except cvxpy.SolverError:
        return 0 * first, 0 * first, False
    if budget.dual_value is None:
        return 0 * first, 0 * first, False
    t = float(budget.dual_value)
    U = first.new_tensor(program[0].dual_value) / r - t
    V = first.new_tensor(program[1].dual_value) / (r * (r - 1)) - t if r > 1 else 0 * first
    if not (U.isfinite().all() and V.isfinite().all()):
        return 0 * first, 0 * first, False
    return U, V, problem.status == cvxpy.OPTIMAL
