"""The lemmas of appendices A and B as inequalities that can be evaluated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.atoms import Atoms
from invertnb.theory import one_step


class Inequality(NamedTuple):
    """left <= right, one entry for each instance tried."""

    left: Tensor
    right: Tensor

    @property
    def tightness(self) -> float:
        """The largest left / right: 1 where the inequality is attained, above 1 where it fails.

        Where right is not positive: 1 if they are equal, else 0 if it holds and infinite if not.
        """
        bare = torch.where(self.left < self.right, 0.0, torch.inf)
        ratio = torch.where(self.right > 0, self.left / self.right, bare)
        return float(torch.where(self.left == self.right, 1.0, ratio).max())

    def holds(self, slack: float = 1e-12) -> bool:
        """Whether left <= right + slack throughout; NaN fails."""
        return bool((self.left <= self.right + slack).all())


class OneStep(NamedTuple):
    """What one step does to codes z, each (batch,).

    missed: ``||z|_(Om^c)|| / ||z||``, the part outside the support Om of z_hat. code:
    ``||z_hat - z|| / ||z||``. signal: ``||x - x_hat|| / ||x||``.
    """

    missed: Tensor
    code: Tensor
    signal: Tensor


def one_iteration(
    z: Tensor, bank: FilterBank, model: ModelSparse, size: Size, switches: str = "known"
) -> OneStep:
    """x = W^T z, z_hat = M(W x, k), x_hat = W^T z_hat, and the three errors.

    Args:
        z: nonzero codes (batch, K, n) or (batch, K, n1, n2), in M_k.
        bank, model, size: the layer.
        switches: as in `ModelSparse.project`.

    Raises:
        ValueError: shapes that do not fit, a code outside M_k or zero.
    """
    x = bank.synthesis(z, size)
    if not model.contains(z).all():
        check.fail("z", z, "codes in the model M_k (Theorem 3.3)")
    scale = z.flatten(1).norm(dim=1)
    if not (scale > 0).all():
        check.fail("z", z, "codes other than zero")
    code = model.project(bank.analysis(x), switches=switches).code
    x_hat = bank.synthesis(code, size)
    return OneStep(
        torch.where(code != 0, 0.0, z).flatten(1).norm(dim=1) / scale,
        (code - z).flatten(1).norm(dim=1) / scale,
        (x - x_hat).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1),
    )


def expected_gram(K: int, M: int, l: int, D: int, stride: int = 1) -> Tensor:
    """E W W^T of Lemma A.1, exactly: (Kn, Kn), for independent weights of variance 1 / (Ml).

    Every entry of W is one of the K M l weights or zero; the expectation of a product of two is
    1 / (Ml) if they are the same weight and 0 otherwise. So count coincidences.
    """
    labels = torch.arange(1, K * M * l + 1, dtype=torch.float64).view(K, M, l)
    rows = FilterBank(labels, stride).matrix(D).long()  # which weight stands where; 0 is none
    same = torch.zeros(len(rows), len(rows), dtype=torch.int64)
    for column in rows.unbind(1):
        same += (column.unsqueeze(1) == column) & (column != 0)
    return same.double() / (M * l)


def lemma_a1(z: Tensor, expected: Tensor) -> Inequality:
    """``| E ||W^T z||^2 - ||z||^2 | <= 0``, for codes (batch, K, n) and E W W^T."""
    flat = z.flatten(1)
    return Inequality(
        ((flat @ expected * flat).sum(1) - flat.square().sum(1)).abs(), torch.zeros(len(z)).double()
    )


def lemma_b1(atoms: Atoms, supports: Tensor, delta_k: float) -> dict[str, Inequality]:
    """Lemma B.1 on supports of M_k, (batch, s): equations (5), (6) and (7), each at its worst x or z.

    (5) the largest singular value of W_Om, (6) and (7) those of W_Om W_Om^T.
    """
    eigenvalues = atoms.eigenvalues(supports)
    least, largest = eigenvalues[:, 0], eigenvalues[:, -1]
    one = torch.ones_like(least)
    return {
        "(5)": Inequality(largest.clamp(min=0).sqrt(), one * (1 + delta_k) ** 0.5),
        "(6)": Inequality(largest, one * (1 + delta_k)),
        "(7)": Inequality(one * (1 - delta_k), least),
    }


def lemma_b2(atoms: Atoms, supports: Tensor, others: Tensor, delta_2k: float) -> Inequality:
    """``||W_Om W^T z|_(Om^c)|| <= delta_2k ||z|_(Om^c)||`` at its worst z with support in `others`.

    The largest singular value of the rows Om and the columns of the other support outside Om.
    """
    both = torch.cat([supports, others], dim=1)
    size = supports.shape[1]
    block = atoms.gram(both)[:, :size, size:]
    inside = (others.unsqueeze(2) == supports.unsqueeze(1)).any(2)
    block = torch.where(inside.unsqueeze(1), 0.0, block)
    left = torch.linalg.matrix_norm(block, ord=2)
    return Inequality(left, torch.full_like(left, delta_2k))


def lemma_b3(step: OneStep, delta_k: float, delta_2k: float, tight: bool = False) -> Inequality:
    """Identification, as stated or ours (`tight`)."""
    bound = one_step.identification_tight if tight else one_step.identification
    return Inequality(step.missed, torch.full_like(step.missed, bound(delta_k, delta_2k)))


def lemma_b4(step: OneStep, delta_k: float, delta_2k: float, tight: bool = False) -> Inequality:
    """Estimation, as stated or ours (`tight`)."""
    bound = one_step.estimation_golden if tight else one_step.estimation
    return Inequality(step.code, torch.full_like(step.code, bound(delta_k, delta_2k)))


def theorem_3_3(step: OneStep, delta_k: float, delta_2k: float, tight: bool = False) -> Inequality:
    """The reconstruction error, as stated or ours (`tight`)."""
    bound = one_step.golden if tight else one_step.as_stated
    return Inequality(step.signal, torch.full_like(step.signal, bound(delta_k, delta_2k)))
