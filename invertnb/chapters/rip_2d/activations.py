"""Codes that Algorithm 2 finds for activations of a network, and their ratios (Figure 3 b, c)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import FilterBank, recover
from invertnb.chapters.rip_2d.ratios import PERCENT, WINDOW, Ratios, measure, nonzeros
from invertnb.model import ModelSparse
from invertnb.networks import Network
from invertnb.rip import stripe_coherence

#: Whose activations, and whose filters: x is what conv(5,2) takes.
OF, FILTERS = "conv(5,1)", "conv(5,2)"
#: lam as a share of ``max |W x|``, from which on the code is zero; the paper's lambda is twice lam.
SHARES = (0.3, 0.1)
TOLERANCE = 0.01
SIDES = {True: "after ReLU", False: "before ReLU"}


@dataclass(frozen=True)
class Recovered:
    """Algorithm 2 on a batch of activations.

    Attributes:
        ratios: ``||W^T z|| / ||z||``.
        residual: ``||x - W^T z|| / ||x||``, with W^T z cropped to the size of x.
        first: the same for the code of step 1, which knows no model.
        windows: how many step 1 leaves with a nonzero, as a share of all; step 2 cuts only where
            these are more than k.
        nonzeros: of z, as a share of the windows.
        stripe: the most others in the stripe of a nonzero of z.
        coherence: the stripe coherence of z, which bounds what its support can deviate.
        seconds: of the call of `invertnb.recover`.
    """

    ratios: Ratios
    residual: Tensor
    first: Tensor
    windows: Tensor
    nonzeros: Tensor
    stripe: Tensor
    coherence: Tensor
    seconds: float

    @property
    def kept(self) -> Tensor:
        """Samples whose code is not zero."""
        return self.nonzeros > 0


def recovered(x: Tensor, bank: FilterBank, percent: float, share: float) -> Recovered:
    """Algorithm 2 with lam = share * ``max |W x|`` of each sample and k in percent of all entries.

    Args:
        x: activations (batch, M, side, side), side even.
        bank: unit filters with the padding that keeps the size.
    """
    model = ModelSparse(WINDOW, nonzeros(percent, bank.K, x.shape[2]))
    largest = bank.analysis(x).flatten(1).abs().amax(1)
    start = time.perf_counter()
    found = recover(x, bank, model, share * largest, tol=TOLERANCE)
    seconds = time.perf_counter() - start
    z, size = found.code, tuple(x.shape[2:])
    filled = F.max_pool2d(found.initial.code.abs(), WINDOW).flatten(1) > 0
    return Recovered(
        measure(z, bank),
        found.residual,
        (x - bank.synthesis(found.initial.code, size)).flatten(1).norm(dim=1)
        / x.flatten(1).norm(dim=1),
        filled.double().mean(1),
        (z != 0).flatten(1).sum(1) / filled.shape[1],
        others(z, bank.l).amax(1),
        stripe_coherence(z, FilterBank(bank.weight)),
        seconds,
    )


def others(z: Tensor, l: int) -> Tensor:
    """Nonzeros in the stripe of each nonzero besides itself: all filters, l - 1 shifts each way.

    Returns:
        int64 (batch, K n1 n2), 0 where z is 0.
    """
    counts = (z != 0).sum(1, keepdim=True).to(torch.float64)
    box = counts.new_ones(1, 1, 2 * l - 1, 2 * l - 1)
    stripes = F.conv2d(counts, box, padding=l - 1)
    return torch.where(z != 0, stripes - 1, 0.0).round().long().flatten(1)


def density(activations: Tensor) -> float:
    """Nonzeros in percent of all entries, as in Table 2."""
    return 100 * float((activations != 0).double().mean())


def crop(x: Tensor, side: int) -> Tensor:
    """The middle of a map, side entries or all that there are (an even number)."""
    side = min(side, x.shape[2] // 2 * 2)
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    return x[:, :, top : top + side, left : left + side]


def study(
    network: Network, images: Tensor, layer: str = FILTERS, *, generator: torch.Generator,
    percent: float = PERCENT, side: int = 14, shares: tuple[float, ...] = SHARES,
) -> dict[tuple[str, str, float], Recovered]:
    """Algorithm 2 by (filters, side of ReLU, share), for the filters of a layer and random ones.

    x is the layer's input, before and after the ReLU of the convolution before it (where a pooling
    stands between, after only); k is so many percent of the entries of the code.
    """
    banks = pair(network, layer, generator)
    before = network.layers[network.layers.index(layer) - 1]
    found = {}
    for rectified, name in SIDES.items():
        if not rectified and before.startswith("pool"):
            continue
        x = crop(network.before(images, layer, rectified=rectified), side)
        for filters, bank in banks.items():
            for share in shares:
                found[filters, name, share] = recovered(x, bank, percent, share)
    return found


def pair(network: Network, layer: str, generator: torch.Generator) -> dict[str, FilterBank]:
    """The unit filters of a layer, and random ones of the same size."""
    bank = network.bank(layer)
    random = FilterBank.gaussian(
        bank.K, bank.M, bank.l, dims=2, padding=bank.padding, generator=generator,
        dtype=bank.weight.dtype, device=bank.weight.device,
    )
    return {"learned": bank, "random": random.normalized()}
