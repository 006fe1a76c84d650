"""Learned filters: their coherence in every reading, and the +/- partners of each filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.proposition_1.random_filters import shifted_extremes

#: Readings of "coherence", the paper's own first.
READINGS = ("absolute", "signed", "absolute, all shifts", "signed, all shifts")


@dataclass(frozen=True)
class Bank:
    """The filters of one convolution.

    Attributes:
        K, M, l: filters, channels of the input (of a group) and side of a filter.
        place: smallest and largest inner product of two unit filters in place.
        shifts: the same over all shifts of distinct rows; None where it was not computed.
        negative: most negative cosine of each filter with another one, ascending.
        positive: largest cosine of each filter with another one, ascending.
        random: median over filters of the most negative cosine, for each draw of Gaussian filters
            of the same size.
        mixed: the same for each draw of Gaussian mixtures of these filters, which have the same
            second moments between weights and no pairs.
    """

    K: int
    M: int
    l: int  # noqa: E741
    place: tuple[float, float]
    shifts: tuple[float, float] | None
    negative: tuple[float, ...]
    positive: tuple[float, ...]
    random: tuple[float, ...]
    mixed: tuple[float, ...]

    def coherence(self, reading: str) -> float | None:
        """In one of READINGS; None where it was not computed."""
        ends = self.shifts if reading.endswith("all shifts") else self.place
        if ends is None:
            return None
        return max(ends) if reading.startswith("signed") else max(ends[1], -ends[0])

    @property
    def median(self) -> float:
        """Median over filters of the most negative cosine."""
        return float(torch.tensor(self.negative).median())


def cosines(weight: Tensor, groups: int = 1) -> Tensor:
    """Inner products of unit filters in place, (K, K), NaN on the diagonal.

    Filters of different groups see different channels, and their product is 0.
    """
    w = FilterBank(weight).normalized().weight.flatten(1)
    own = torch.arange(len(w), device=w.device) // (len(w) // groups)
    products = (w @ w.T) * (own.unsqueeze(1) == own)
    return products.fill_diagonal_(torch.nan)


def partners(products: Tensor) -> tuple[Tensor, Tensor]:
    """Most negative and largest cosine of each filter with another, two tensors (K,)."""
    off = products.isnan()
    negative = products.masked_fill(off, torch.inf).amin(1)
    return negative, products.masked_fill(off, -torch.inf).amax(1)


def examine(weight: Tensor, generator: torch.Generator, *, draws: int, all_shifts: bool) -> Bank:
    """One convolution's filters, and as many random banks of its size to compare the partners with.

    Raises:
        ValueError: a bad weight, or a zero filter.
    """
    products = cosines(weight.double())
    negative, positive = partners(products)
    place = float(negative.min()), float(positive.max())
    shifts = None
    if all_shifts:
        low, high = shifted_extremes(FilterBank(weight))
        shifts = min(low, place[0]), max(high, place[1])
    K, M, l = weight.shape[:3]  # noqa: E741
    flat = FilterBank(weight).normalized().weight.flatten(1).float().cpu()
    random, mixed = [], []
    for _ in range(draws):
        random.append(_median_partner(torch.randn(*flat.shape, generator=generator)))
        mixed.append(_median_partner(torch.randn(K, K, generator=generator) @ flat))
    return Bank(
        K, M, l, place, shifts, tuple(negative.sort().values.tolist()),
        tuple(positive.sort().values.tolist()), tuple(random), tuple(mixed),
    )  # fmt: skip


def _median_partner(filters: Tensor) -> float:
    return float(partners(cosines(filters.unsqueeze(2)))[0].median())


def in_pairs(banks: Mapping[str, Bank], against: str = "random") -> bool:
    """Whether filters come in near +/- pairs, by a criterion fixed beforehand.

    In every measured layer the median over filters of the most negative cosine lies below that of
    every random draw of the same size (`against` = "random"), or of every Gaussian mixture of the
    layer's own filters ("mixed"), which tells pairs from filters that merely crowd in few
    directions.
    """
    if not banks:
        raise ValueError("banks: expected one layer at least, got none")
    return all(bank.median < min(getattr(bank, against)) for bank in banks.values())


def near_pairs(banks: Mapping[str, Bank], cosine: float = -0.5) -> bool:
    """Whether in every layer more than half of the filters have a partner below `cosine`."""
    return all(bank.median < cosine for bank in banks.values())
