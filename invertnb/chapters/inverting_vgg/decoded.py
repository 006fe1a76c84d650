"""Table 3 in image space: what the decoder makes of reconstructed activations.

The error of an image depends on choices that the paper leaves open: whether the mean that the
network subtracts is added back before the norms are taken, whether the decoded image is compared
with the photograph or with what the decoder makes of the true activations, and whether negative
entries of f_hat, which no pooling after a ReLU can give, are set to zero before decoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import random_activations, relative_error
from invertnb.chapters.inverting_vgg.activation import (
    ACTIVATIONS, FITTING, LEARNED, METHODS, RANDOM, published, step,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.inputs import ACTIVATIONS as DRAWN
from invertnb.chapters.inverting_vgg.inputs import Inputs, shrunk
from invertnb.chapters.inverting_vgg.what_where import correlations
from invertnb.networks import Decoder

#: What decoded images are compared with.
SPACES = ("photograph, mean subtracted", "photograph, mean added back", "decoded from f")
#: What is decoded: f_hat, or its positive part.
FORMS = AS_IS, RECTIFIED = ("as it is", "rectified")
TRUE = "f"
#: Of the photographs in pixels, to save time; the first few are decoded for further draws, too.
SIDE, FEW = 128, 3


@dataclass(frozen=True)
class Decoded:
    """Decoded images of one layer.

    Attributes:
        images: of the first photographs, in [0, 1] up to overshoots, by (method, form);
            (TRUE, AS_IS) are decoded from f itself.
        errors: by (method, form) and space, (photographs,).
        own: by (method, form): whether the decoded image correlates more with its own photograph
            than with any other, (photographs,).
        draws: mean errors on the first `FEW` photographs for each draw, by (method, form), against
            the photograph with its mean subtracted.
    """

    images: Mapping[tuple[str, str], Tensor]
    errors: Mapping[tuple[str, str], Mapping[str, Tensor]]
    own: Mapping[tuple[str, str], Tensor]
    draws: Mapping[tuple[str, str], tuple[float, ...]]


def compute(
    inputs: Inputs, generator: Callable[[int], torch.Generator]
) -> dict[str, Decoded] | None:
    """Every layer decoded from f and from f_hat of each method; None without a decoder."""
    if not inputs.decodable:
        return None
    decoder, inputs = inputs.decoder(), shrunk(inputs, SIDE)
    return {pool: _layer(inputs, decoder, pool, generator) for pool in inputs.pools}


def signals(
    inputs: Inputs, pool: str, generator: Callable[[int], torch.Generator], draw: int = 0
) -> dict[str, Tensor]:
    """f_hat by method, in the reading that fits, for one draw of what is random."""
    f, block = inputs.f[pool], int(pool[5])
    return {
        LEARNED: step(f, inputs.learned[pool], FITTING, pool).signal,
        RANDOM: step(f, inputs.random[pool][draw], FITTING, pool).signal,
        ACTIVATIONS: random_activations(f, generator(DRAWN + 10 * draw + block)),
    }


def rectify(f_hat: Tensor) -> Tensor:
    """Its positive part, at the norm that it had."""
    positive = f_hat.clamp(min=0)
    old, new = (each.flatten(1).norm(dim=1) for each in (f_hat, positive))
    scale = torch.where(new > 0, old / new.clamp(min=1e-30), 1.0)
    return positive * scale.view(-1, 1, 1, 1)


def identifies(decoded: Tensor, targets: Tensor) -> Tensor:
    """Whether each image (3, H, W) correlates with its own target more than with others, (images,)."""
    best = correlations(decoded, targets).argmax(1)
    return best == torch.arange(len(decoded), device=best.device)


def _layer(
    inputs: Inputs, decoder: Decoder, pool: str, generator: Callable[[int], torch.Generator]
) -> Decoded:
    below = decoder.layers[: decoder.layers.index(pool) + 1]
    switches = {name: inputs.switches[name] for name in below}
    few = {name: each[:FEW] for name, each in switches.items()}
    target, mean = decoder.target(inputs.pixels), decoder.mean
    true = decoder(inputs.f[pool], pool, switches)
    images, errors, own = {}, {}, {}

    def note(method: str, form: str, out: Tensor) -> None:
        images[method, form] = (out[:FEW] + mean).cpu()
        errors[method, form] = {
            SPACES[0]: relative_error(target, out).double(),
            SPACES[1]: relative_error(target + mean, out + mean).double(),
            SPACES[2]: relative_error(true, out).double(),
        }
        own[method, form] = identifies(out, target)

    note(TRUE, AS_IS, true)
    for method, f_hat in signals(inputs, pool, generator).items():
        for form in FORMS:
            note(method, form, decoder(formed(f_hat, form), pool, switches))
    draws = {
        (method, form): [float(errors[method, form][SPACES[0]][:FEW].mean())]
        for method in (RANDOM, ACTIVATIONS)
        for form in FORMS
    }
    start = shrunk(inputs, SIDE, FEW)
    for draw in range(1, len(inputs.random[pool])):
        again = signals(start, pool, generator, draw)
        for (method, form), found in draws.items():
            out = decoder(formed(again[method], form), pool, few)
            found.append(float(relative_error(target[:FEW], out).mean()))
    return Decoded(images, errors, own, {name: tuple(each) for name, each in draws.items()})


def formed(f_hat: Tensor, form: str) -> Tensor:
    """f_hat in one of `FORMS`."""
    return rectify(f_hat) if form == RECTIFIED else f_hat


def means(found: Mapping[str, Decoded], form: str, space: str) -> dict[str, dict[str, float]]:
    """Mean errors by pooling and method."""
    return {
        pool: {method: float(each.errors[method, form][space].mean()) for method in METHODS}
        for pool, each in found.items()
    }


def misfits(found: Mapping[str, Decoded], form: str, space: str) -> dict[str, float]:
    """Root mean square of what was measured less Table 3's three entries, by pooling."""
    return {
        pool: math.sqrt(
            sum((value - published("image", method, pool)) ** 2 for method, value in row.items())
            / len(row)
        )
        for pool, row in means(found, form, space).items()
    }


def ranked(found: Mapping[str, Decoded]) -> list[tuple[float, str, str]]:
    """Forms and spaces with the root mean square of their misfits over all layers, best first."""
    rows = []
    for form in FORMS:
        for space in SPACES:
            gaps = misfits(found, form, space).values()
            rows.append((math.sqrt(sum(gap**2 for gap in gaps) / len(gaps)), form, space))
    return sorted(rows)
