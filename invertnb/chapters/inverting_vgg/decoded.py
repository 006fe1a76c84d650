"""Table 3 in image space: what the decoders make of reconstructed activations.

The error of an image depends on choices that the paper leaves open: whether the mean that the
network subtracts is added back before the norms are taken, whether the decoded image is compared
with the photograph or with what the decoder makes of the true activations, and whether negative
entries of f_hat, which no pooling after a ReLU can give, are set to zero before decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import relative_error
from invertnb.networks import Decoder

#: What decoded images are compared with.
SPACES = ("photograph, mean subtracted", "photograph, mean added back", "decoded from f")


@dataclass(frozen=True)
class Decoded:
    """Images from activations, in [0, 1] up to overshoots, and their relative errors by space."""

    images: Tensor
    errors: Mapping[str, Tensor]


def rectify(f_hat: Tensor) -> Tensor:
    """Its positive part, at the norm that it had."""
    positive = f_hat.clamp(min=0)
    old, new = (each.flatten(1).norm(dim=1) for each in (f_hat, positive))
    scale = torch.where(new > 0, old / new.clamp(min=1e-30), 1.0)
    return positive * scale.view(-1, 1, 1, 1)


def decode(
    decoder: Decoder, photographs: Tensor, pool: str, switches: Mapping[str, Tensor],
    activations: Mapping[str, Tensor],
) -> dict[str, Decoded]:
    """Every set of activations of one layer decoded and compared.

    Args:
        photographs: (images, 3, H, W) in [0, 1], which the activations come from.
        switches: of all poolings up to this one; of no use to a decoder that has its own.
        activations: by name; "f" are the true ones.
    """
    own = {name: each for name, each in switches.items() if name in decoder.layers}
    given = {
        name: own[name] for name in decoder.layers[: decoder.layers.index(pool) + 1]
    } if decoder.switches == "known" else None  # fmt: skip
    target, mean = decoder.target(photographs), decoder.mean
    reference = decoder(activations["f"], pool, given)
    found = {}
    for name, f in activations.items():
        out = reference if name == "f" else decoder(f, pool, given)
        errors = {
            SPACES[0]: relative_error(target, out),
            SPACES[1]: relative_error(target + mean, out + mean),
            SPACES[2]: relative_error(reference, out),
        }
        found[name] = Decoded(out + mean, {space: each.double() for space, each in errors.items()})
    return found
