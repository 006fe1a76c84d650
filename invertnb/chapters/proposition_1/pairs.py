"""A layer of paired filters without pooling: bases, partners exact and turned away, their errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invertnb import FilterBank


def orthonormal_bank(
    M: int, l: int, *, generator: torch.Generator, device: str = "cpu"
) -> FilterBank:
    """K = M l filters at stride l whose W is an orthonormal basis of R^{MD}, D a multiple of l.

    Filters shifted by l do not overlap, so W is orthonormal if and only if the filters are: the
    orthogonal factor of a Gaussian matrix.
    """
    gaussian = torch.randn(M * l, M * l, generator=generator, dtype=torch.float64)
    return FilterBank(torch.linalg.qr(gaussian).Q.view(M * l, M, l).to(device), stride=l)


def with_negatives(bank: FilterBank) -> FilterBank:
    """Psi^T as a bank: its first K filters are those of W, its last K their negatives."""
    return FilterBank(torch.cat([bank.weight, -bank.weight]), bank.stride, bank.padding)


def relative_error(x: Tensor, estimate: Tensor) -> Tensor:
    """||x - estimate|| / ||x|| per sample, (batch,)."""
    return (x - estimate).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)


def rectified(bank: FilterBank, x: Tensor, bias: float = 0.0) -> Tensor:
    """Phi ReLU(Phi^T x + bias), with Phi^T the bank's matrix."""
    return bank.synthesis((bank.analysis(x) + bias).relu(), x.shape[-1])


def bias_error(bias: float) -> float:
    """Root mean square of ``min(|h|, |bias|)`` for h of N(0, 1): what a bias costs a pair network."""
    b = abs(bias)
    inside = math.erf(b / math.sqrt(2))  # P(|h| < b)
    density = math.exp(-b * b / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(inside - 2 * b * density + b * b * (1 - inside))


def nearly_paired(bank: FilterBank, theta: float, *, generator: torch.Generator) -> FilterBank:
    """Psi^T as a bank: the partner of w is -cos(theta) w + sin(theta) u, u random, normal to w.

    theta is in radians; the bank's filters have unit norm, and so have the partners.
    """
    w = bank.weight.flatten(1)
    u = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w)
    u = u - (u * w).sum(1, keepdim=True) * w
    u = u / u.norm(dim=1, keepdim=True)
    partners = (-math.cos(theta) * w + math.sin(theta) * u).view_as(bank.weight)
    return FilterBank(torch.cat([bank.weight, partners]), bank.stride, bank.padding)


def pair_error(theta: float) -> float:
    """Root mean square relative error of pairs that are theta (radians) off, in high dimension.

    For isotropic x and random directions u, with c = cos(theta) and s = sin(theta):
    1 - (c / pi) (s + (pi - theta) c) - s^4 / 4, which is theta^2 - theta^3 / (3 pi) + O(theta^4).
    """
    c, s = math.cos(theta), math.sin(theta)
    return math.sqrt(max(0.0, 1 - c / math.pi * (s + (math.pi - theta) * c) - s**4 / 4))


def pair_bound(psi: FilterBank) -> float:
    """(2 + ||V + W||) ||V + W||: above the relative error of every x, if W is an orthonormal basis.

    psi is W over V, filters of W first; at stride l the norm is that of the filters alone.
    """
    first, second = psi.weight.flatten(1).chunk(2)
    gap = first + second
    gap = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gap @ gap.T)[-1])))
    return (2 + gap) * gap
