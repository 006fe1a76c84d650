"""Coherence of a filter bank (section 4.4, Tables 4 and 6), in each reading of its definition."""

from __future__ import annotations

import torch
from torch import Tensor

from invertnb import check
from invertnb.operators import FilterBank


def coherence(
    weight: Tensor, signed: bool = False, shifts: str = "zero", groups: int = 1
) -> Tensor:
    """``max |<W_i, W_j>|`` over distinct rows, the rows scaled to unit norm; a 0-dim tensor.

    Args:
        weight: filters (K, M, l) or (K, M, l, l); with groups, M counts the channels of one group.
        signed: True takes the largest inner product itself, not its magnitude.
        shifts: "zero" compares filters in place; "all" compares all rows of W at stride 1, so
            every shift of every filter, and a filter with its own nonzero shifts.
        groups: as in torch's convolutions, K // groups filters to a group of channels; filters of
            different groups do not overlap, and their inner product is 0.

    Raises:
        ValueError: a bad weight, a zero filter, groups that do not divide K, or a single row.
    """
    bank = FilterBank(weight).normalized()
    check.flag("signed", signed)
    check.choice("shifts", shifts, ("zero", "all"))
    check.integer("groups", groups, 1)
    if bank.K % groups:
        check.fail("groups", groups, f"a divisor of the {bank.K} filters")
    if bank.K == 1 and (shifts == "zero" or bank.l == 1):
        check.fail("weight", weight, "two filters at least, for a pair to compare")
    worst = [_largest_product(part, signed, shifts) for part in bank.weight.chunk(groups)]
    if groups > 1:
        worst.append(bank.weight.new_zeros(()))  # pairs from different groups
    return torch.stack(worst).max()


def _largest_product(filters: Tensor, signed: bool, shifts: str) -> Tensor:
    K = filters.shape[0]
    if shifts == "zero":
        products = filters.flatten(1) @ filters.flatten(1).T
        same = torch.eye(K, dtype=torch.bool, device=filters.device)
    else:
        products = FilterBank(filters).gram()
        center = (filters.shape[-1] - 1,) * (filters.dim() - 2)  # the zero shift
        same = torch.zeros(products.shape, dtype=torch.bool, device=filters.device)
        same[(range(K), range(K), *center)] = True
    size = products if signed else products.abs()
    return size.masked_fill(same, -torch.inf).max()
