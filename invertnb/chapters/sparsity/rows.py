"""Random rows at full size: Gaussian banks of AlexNet's sizes in every reading of Table 6.

No weights are needed. AlexNet is two networks: that of 2012 (Caffe's reference model) has 96
filters in its first layer and three layers in two groups; torchvision's, of 2014, has 64 and no
groups. In groups a filter sees the channels of its group only, and filters of different groups have
no weight in common.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.proposition_1.coherence_law import (
    CoherenceLaw, deviation_test, resampling_test,
)  # fmt: skip
from invertnb.chapters.proposition_1.random_filters import inner_products, shifted_extremes
from invertnb.notebook import claims


class Size(NamedTuple):
    """K filters (M, l, l), M the channels of one group."""

    K: int
    M: int
    l: int  # noqa: E741
    groups: int = 1

    @property
    def whole(self) -> Size:
        """The same filters as if they were one group: all are compared with all."""
        return self._replace(groups=1)


# Krizhevsky et al. (2012), as in Caffe's reference model; and torchvision's AlexNet.
NETWORKS = {
    "2012": {
        "conv1": Size(96, 3, 11), "conv2": Size(256, 48, 5, 2), "conv3": Size(384, 256, 3),
        "conv4": Size(384, 192, 3, 2), "conv5": Size(256, 192, 3, 2),
    },
    "torchvision": {
        "conv1": Size(64, 3, 11), "conv2": Size(192, 64, 5), "conv3": Size(384, 192, 3),
        "conv4": Size(256, 384, 3), "conv5": Size(256, 256, 3),
    },
}  # fmt: skip
SIGNS, SHIFTS = ("absolute", "signed"), ("zero", "all")


@dataclass(frozen=True)
class GroupedLaw(CoherenceLaw):
    """`CoherenceLaw` of groups of K filters each, between which nothing is compared."""

    groups: int = 1

    @property
    def pairs(self) -> int:
        """The inner products within all groups."""
        return self.groups * super().pairs


def law(size: Size, sign: str) -> GroupedLaw:
    """What theory says of the zero-shift coherence of a size."""
    return GroupedLaw(size.K // size.groups, size.M * size.l**2, sign == "signed", size.groups)


def extremes(size: Size, generator: torch.Generator, all_shifts: bool) -> Tensor:
    """Smallest and largest inner product of one draw: (1, 2) in place, (2, 2) with all shifts."""
    weight = FilterBank.gaussian(size.K, size.M, size.l, dims=2, generator=generator).weight
    found = []
    for part in weight.chunk(size.groups):
        bank = FilterBank(part)
        ends = [tuple(map(float, inner_products(bank).aminmax()))]
        if all_shifts:
            low, high = shifted_extremes(bank)
            ends.append((min(ends[0][0], low), max(ends[0][1], high)))
        found.append(ends)
    ends = torch.tensor(found, dtype=torch.float64)
    return torch.stack([ends[..., 0].amin(0), ends[..., 1].amax(0)], 1)


@dataclass(frozen=True)
class Row:
    """A row of Table 6 in one reading: the sizes, and the coherence of each draw (draws,)."""

    sizes: Mapping[str, Size]
    sign: str
    shifts: str
    samples: Mapping[str, Tensor]

    @functools.cached_property
    def laws(self) -> dict[str, GroupedLaw]:
        """By layer, of the zero-shift coherence."""
        return {layer: law(size, self.sign) for layer, size in self.sizes.items()}

    def odds(self, generator: torch.Generator) -> float:
        """Probability of a row as odd as the paper's: by the law in place, else by the draws."""
        row = list(published("random").values())
        if self.shifts == "zero":
            return deviation_test(row, list(self.laws.values()), generator)
        return resampling_test(row, list(self.samples.values()), generator)


def published(which: str) -> dict[str, float]:
    """Table 6's row, "learned" or "random", by layer."""
    book = claims.load()
    return {layer: book[f"table6.{which}.{layer}"].paper for layer in NETWORKS["2012"]}


def reading(network: str, groups: str, sign: str, shifts: str) -> str:
    """A reading's name, as in the ledger."""
    which = {"2012": "AlexNet of 2012", "torchvision": "torchvision's AlexNet"}[network]
    grouping = {"groups": ", in groups", "whole": ", all with all", "": ""}[groups]
    return f"{sign}, {which}{grouping}, {'in place' if shifts == 'zero' else 'all shifts'}"


def variants() -> dict[tuple[str, str], dict[str, Size]]:
    """The sizes by network and treatment of groups; torchvision's has none."""
    alexnet = NETWORKS["2012"]
    return {
        ("2012", "groups"): alexnet,
        ("2012", "whole"): {layer: size.whole for layer, size in alexnet.items()},
        ("torchvision", ""): NETWORKS["torchvision"],
    }


def draw_rows(
    generator: torch.Generator, draws: int, *, all_shifts: bool = False
) -> dict[str, Row]:
    """Table 6's random row by reading, "absolute, AlexNet of 2012, in groups, in place" first."""
    found = {}
    for (network, groups), sizes in variants().items():
        ends = {
            layer: torch.stack([extremes(size, generator, all_shifts) for _ in range(draws)])
            for layer, size in sizes.items()
        }
        for place, shifts in enumerate(SHIFTS[: 1 + all_shifts]):
            for sign in SIGNS:
                samples = {
                    layer: _coherence(each[:, place], sign) for layer, each in ends.items()
                }
                found[reading(network, groups, sign, shifts)] = Row(sizes, sign, shifts, samples)
    return found


def _coherence(ends: Tensor, sign: str) -> Tensor:
    low, high = ends.unbind(1)
    return high if sign == "signed" else torch.maximum(high, -low)


def mean_sd(samples: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over draws."""
    return float(samples.mean()), float(samples.std())


def results(rows: Mapping[str, Row], odds: Callable[[], torch.Generator]) -> dict:
    """What is recorded: mean and sd over draws by reading and layer, and the odds of the row.

    Args:
        rows: by reading.
        odds: gives the generator for the odds of one row; the same draws serve every reading.
    """
    return {
        name: {
            "odds": float(f"{row.odds(odds()):.4g}"),
            "layers": {
                layer: [float(f"{x:.5g}") for x in mean_sd(each)]
                for layer, each in row.samples.items()
            },
        }
        for name, row in rows.items()
    }
