"""What every part of the chapter starts from: activations, switches, filters, by pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import FilterBank, check
from invertnb.chapters.inverting_vgg.activation import (
    WINDOW, following, layers, random_bank,
)  # fmt: skip
from invertnb.kernels.pool_switch import pool_switch
from invertnb.networks import VGG16, Decoder, Images, Network, load_decoder

#: Streams of the chapter's random draws, `parameters.generator(stream)`: of banks, draw by draw;
#: of random activations; of the parts.
BANKS, ACTIVATIONS, OTHERS, WHAT_WHERE, COHERENT, RESIDUAL, EXPLORED = range(0, 700, 100)


@dataclass(frozen=True)
class Inputs:
    """A network, photographs, and what stands between them.

    Attributes:
        network: whose activations are encoded once more and reconstructed.
        pictures: the photographs.
        pixels: (images, 3, H, W) in [0, 1].
        f: outputs of the poolings, (images, M, H, W).
        switches: their positions, uint8 in their windows, in the shape of f.
        learned: the filters of the convolution behind each pooling, of unit norm.
        random: Gaussian filters of the same shape, of unit norm, one bank a draw.
    """

    network: Network
    pictures: Images
    pixels: Tensor
    f: Mapping[str, Tensor]
    switches: Mapping[str, Tensor]
    learned: Mapping[str, FilterBank]
    random: Mapping[str, Sequence[FilterBank]]

    @property
    def pools(self) -> tuple[str, ...]:
        """The layers of Table 3, pool(1) to at most pool(4)."""
        return tuple(self.f)

    def decoder(self, switches: str = "known") -> Decoder:
        """The decoder of the embedded network.

        Raises:
            ValueError: any other network: a decoder undoes one network's layers.
        """
        if not self.decodable:
            label = self.network.source.label
            check.fail("weights", label, "embedded: no other network has decoders")
        return load_decoder(switches).to(self.pixels.device)

    @property
    def decodable(self) -> bool:
        """Whether there are decoders of this network."""
        return self.network.source.tier == "embedded"


def gather(
    network: Network, pictures: Images, banks: int, generator: Callable[[int], torch.Generator]
) -> Inputs:
    """Run the network and draw the random filters.

    Args:
        banks: draws of random filters for each layer.
        generator: generator(stream) as of the chapter's parameters.

    Raises:
        ValueError: a network that ends before conv(2,1).
    """
    pools = layers(network)
    if not pools:
        check.fail("weights", network.source.label, "a network of at least pool(1) and conv(2,1)")
    pixels = pictures.all().to(network.filters("conv(1,1)")[0].device)
    f, switches = pooled(network, pixels, pools)
    learned = {pool: network.bank(following(pool)) for pool in pools}
    random = {
        pool: tuple(
            random_bank(learned[pool], generator(BANKS + 10 * draw + int(pool[5])))
            for draw in range(banks)
        )
        for pool in pools
    }
    return Inputs(network, pictures, pixels, f, switches, learned, random)


def shrunk(given: Inputs, side: int, photographs: int | None = None) -> Inputs:
    """The same network and filters on the first photographs, made smaller, to save time.

    Args:
        side: of the small photographs in pixels; those that are not larger stay as they are, but
            for a side that all poolings halve without a rest.
        photographs: how many, at most; all by default.
    """
    many = len(given.pixels) if photographs is None else min(photographs, len(given.pixels))
    whole = 2 ** len(given.pools)
    side = max(whole, min(side, given.pixels.shape[-1]) // whole * whole)
    pixels = F.interpolate(given.pixels[:many], (side, side), mode="area")
    f, switches = pooled(given.network, pixels, given.pools)
    pictures = given.pictures.first(many)
    return Inputs(given.network, pictures, pixels, f, switches, given.learned, given.random)


def pooled(
    network: Network, pixels: Tensor, pools: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and switches of each pooling, by one pass of images (batch, 3, H, W) in [0, 1]."""
    last = {pool: f"conv({pool[5]},{len(VGG16.blocks[int(pool[5]) - 1])})" for pool in pools}
    with torch.no_grad():
        before = network.activations(pixels, tuple(last.values()))
        found = {pool: pool_switch(before[last[pool]], WINDOW, "signed") for pool in pools}
    return tuple({pool: each[i] for pool, each in found.items()} for i in (0, 1))


def middle(f: Tensor, side: int, multiple: int = 1) -> Tensor:
    """The middle of maps (batch, M, H, W).

    Args:
        side: entries of it along each axis; where a map has fewer, all of them.
        multiple: what divides its sides, by leaving a rest out.

    Raises:
        ValueError: a map or a side below `multiple`.
    """
    check.integer("side", side, multiple)
    sides = [min(side, each) // multiple * multiple for each in f.shape[2:]]
    if not all(sides):
        check.fail("f", f, f"maps of at least {multiple} x {multiple} entries")
    for axis, length in zip((2, 3), sides, strict=True):
        f = f.narrow(axis, (f.shape[axis] - length) // 2, length)
    return f.contiguous()
