"""What the switches alone carry: known and random values at known and random switches.

A decoder with known switches is told where every maximum stood, in all poolings up to the one it
starts from. Figure 4(e) shows that random activations at the known switches already give a glimpse
of the image; the other three combinations say how much of an image is where, and how much is what.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invertnb import relative_error
from invertnb.networks import Decoder

VALUES = ("known values", "random values", "mean values")
PLACES = ("known switches", "random switches", "fixed switches")
CENTER = 3  # of a window of 2 x 2, as a decoder of fixed switches has it


def values(f: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Activations that keep of f everything; its values by channel, their places shuffled; or their mean.

    Random values are those of the same image and channel in another order, so that nothing but
    their places is lost: not how many are zero, nor how large they are. The mean by channel loses
    their sizes, too.
    """
    if kind == VALUES[0]:
        return f
    if kind == VALUES[2]:
        return f.mean((2, 3), keepdim=True).expand_as(f).contiguous()
    flat = f.flatten(2)
    order = torch.rand(flat.shape, generator=generator).argsort(2).to(f.device)
    return flat.gather(2, order).view_as(f)


def places(
    switches: Mapping[str, Tensor], kind: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """The switches themselves; independent uniform ones; or the last place of every window."""
    if kind == PLACES[0]:
        return dict(switches)
    if kind == PLACES[2]:
        return {name: torch.full_like(each, CENTER) for name, each in switches.items()}
    return {
        name: torch.randint(4, each.shape, generator=generator).to(each.device)
        for name, each in switches.items()
    }


def combinations(
    decoder: Decoder, photographs: Tensor, pool: str, f: Tensor, switches: Mapping[str, Tensor],
    generator: torch.Generator,
) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Decoded images, (images, 3, H, W) in [0, 1] up to overshoots, and relative errors (mean
    subtracted), for all values and places, with a decoder trained on known switches."""
    wanted = decoder.layers[: decoder.layers.index(pool) + 1]
    target, found = decoder.target(photographs), {}
    for what in VALUES:
        h = values(f, what, generator)
        for where in PLACES:
            at = places({name: switches[name] for name in wanted}, where, generator)
            out = decoder(h, pool, at)
            found[what, where] = out + decoder.mean, relative_error(target, out).double()
    return found
