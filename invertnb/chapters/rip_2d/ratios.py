"""Ratios ``||W^T z|| / ||z||`` of random codes with 2 x 2 windows, and what to expect of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import FilterBank
from invertnb.model import ModelSparse

WINDOW = (2, 2)
#: Side of a code, as in conv(5,2) of VGG-16 for images of 224 pixels.
SIDE = 14
#: Nonzeros in percent of all entries: those of conv(5,2) in Table 2, as Figure 3's caption says.
PERCENT = 20.6
#: Codes that are drawn at a time.
BATCH = 16
CONVENTIONS = ("full", "cropped", "cropped, D = 15")


class Ratios(NamedTuple):
    """``||W^T z|| / ||z||`` by convention, each (samples,).

    Attributes:
        full: rows intact, so that W^T z has l - 1 more rows and columns than z.
        cropped: padding (l - 1) / 2, W^T z has the size of z.
        odd: the same with a row and a column more, at the end, that belong to no window and are
            zero in z.
    """

    full: Tensor
    cropped: Tensor
    odd: Tensor

    def of(self, convention: str) -> Tensor:
        """The ratios of one of CONVENTIONS."""
        return self[CONVENTIONS.index(convention)]


def nonzeros(percent: float, K: int, side: int) -> int:
    """k for so many percent of the K side^2 entries, as far as the windows allow."""
    k = round(percent / 100 * K * side**2)
    return max(1, min(k, K * (side // WINDOW[0]) ** 2))


def measure(z: Tensor, bank: FilterBank) -> Ratios:
    """The ratios of codes (batch, K, n1, n2): one transposed convolution serves all conventions."""
    whole = F.conv_transpose2d(z, bank.weight)
    edge, length = (bank.l - 1) // 2, z.flatten(1).norm(dim=1)
    # The empty last row keeps what sticks out at the end, so D = 15 loses at two sides of four.
    parts = (
        whole,
        whole[..., edge : edge + z.shape[2], edge : edge + z.shape[3]],
        whole[..., edge : edge + z.shape[2] + 1, edge : edge + z.shape[3] + 1],
    )
    return Ratios(*(part.flatten(1).norm(dim=1) / length for part in parts))


def sample(
    bank: FilterBank, k: int, samples: int, generator: torch.Generator, *, side: int = SIDE,
    signs: bool = True,
) -> Ratios:
    """Ratios of random codes in M_k, nonzeros uniform on [-1, 1], or on [0, 1] without signs."""
    parts = []
    for first in range(0, samples, BATCH):
        z = codes(bank, k, min(BATCH, samples - first), generator, side=side, signs=signs)
        parts.append(measure(z, bank))
    return Ratios(*(torch.cat(part) for part in zip(*parts, strict=True)))


def codes(
    bank: FilterBank, k: int, batch: int, generator: torch.Generator, *, side: int = SIDE,
    signs: bool = True,
) -> Tensor:
    """Random members of M_k in the bank's dtype, (batch, K, side, side)."""
    model = ModelSparse(WINDOW, k)
    z = model.sample(
        batch, bank.K, (side, side), generator=generator, dtype=bank.weight.dtype,
        device=bank.weight.device,
    )
    return z if signs else z.abs()


# What to expect


def row_energy(bank: FilterBank, side: int) -> float:
    """Mean squared norm of the rows of W when they are cropped to the code's own size.

    Where the signs of a random code are independent, products of distinct rows average out, and
    this is the mean of the squared ratio; with full boundary it is 1 for unit filters, any filters.
    """
    taps = bank.weight.double().square().sum(1, keepdim=True)
    inside = taps.new_ones(1, 1, side, side)
    return float(F.conv2d(inside, taps, padding=(bank.l - 1) // 2).mean())


def border(side: int, l: int = 3) -> float:
    """1 - (l^2 - 1) / (4 l D): the cropped ratio for filters whose taps are equally strong.

    Along an axis the rows at distance u < (l - 1) / 2 from an end lose (l - 1) / 2 - u taps of l.
    """
    reach = (l - 1) // 2
    return 1 - reach * (reach + 1) / (l * side)


def coherent(bank: FilterBank, k: int, side: int) -> float:
    """Mean of the squared ratio, full boundary, of codes without signs: uniform on [0, 1].

    Two entries of different windows have E z_i z_j = m^2 p with m = 1/2 and p the probability that
    both are nonzero; two entries of one window are never nonzero together. So products of rows no
    longer average out: what is left is ``||W^T 1||^2`` without the pairs within windows.
    """
    weight = bank.weight.double()
    windows = bank.K * (side // 2) ** 2
    both = k * (k - 1) / (windows * (windows - 1)) / 16
    ones = weight.new_ones(1, bank.K, side, side)
    total = F.conv_transpose2d(ones, weight).square().sum()
    box = weight.new_ones(1, 1, *WINDOW)
    own = F.conv2d(weight.flatten(0, 1).unsqueeze(1), box, padding=1).square().sum()
    pairs = float(total - (side // 2) ** 2 * own)
    return 1 + both * pairs / 4 / (k / 3)


def width(bank: FilterBank, side: int) -> float:
    """Standard deviation of the ratio over random codes with signs, full boundary.

    var(ratio^2) = 2 sum G_ij^2 / N^2 over pairs of rows in different windows, N = K side^2 rows; of
    the ratio itself, near 1, a quarter.
    """
    products = bank.gram().double().square()
    reach = bank.l - 1
    shifts = torch.arange(-reach, reach + 1, device=products.device).abs()
    pairs = ((side - shifts).view(-1, 1) * (side - shifts)).double()
    inside = (2 - shifts).clamp(min=0)
    own = (side // 2) ** 2 * (inside.view(-1, 1) * inside).double()
    same = products.diagonal()  # (2l - 1, 2l - 1, K): a filter and its own shifts
    total = (products.sum((0, 1)) * pairs).sum() - (same.sum(2) * own).sum()
    return math.sqrt(2 * float(total)) / (bank.K * side**2) / 2


def significant(value: float | Tensor, digits: int) -> float:
    """A number to so many significant digits."""
    return float(f"{float(value):.{digits}g}")


def deviation(ratios: Tensor) -> Tensor:
    """``|ratio^2 - 1|``, what an isometry constant bounds."""
    return (ratios.square() - 1).abs()


def ends(ratios: Tensor) -> tuple[float, float]:
    """The least and the largest."""
    low, high = ratios.aminmax()
    return float(low), float(high)
