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
from invertnb.networks import Decoder

#: What decoded images are compared with.
SPACES = ("photograph, mean subtracted", "photograph, mean added back", "decoded from f")
#: What is decoded: f_hat, or its positive part.
FORMS = AS_IS, RECTIFIED = ("as it is", "rectified")
TRUE = "f"
#: The photographs of what takes long: f_hat as it is, and further draws. Their images are kept.
FEW = 3
#: Of the photographs in pixels, to save time.
SIDE = 160


@dataclass(frozen=True)
class Decoded:
    """Decoded images of one layer.

    Attributes:
        images: of the first `FEW` photographs, in [0, 1] up to overshoots, by (method, form);
            (TRUE, AS_IS) are decoded from f itself.
        errors: by (method, form) and space, (photographs,); of f_hat as it is for the first `FEW`.
        own: by method, rectified: whether the decoded image correlates more with its own photograph
            than with any other, (photographs,).
        draws: mean errors on the first `FEW` photographs for each draw, by method; rectified,
            against the photograph with its mean subtracted.
    """

    images: Mapping[tuple[str, str], Tensor]
    errors: Mapping[tuple[str, str], Mapping[str, Tensor]]
    own: Mapping[str, Tensor]
    draws: Mapping[str, tuple[float, ...]]


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
    """Whether each image correlates with its own target more than with any other, (images,).

    Args:
        decoded, targets: (images, 3, H, W), in any scaling.
    """
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (decoded, targets))
    a, b = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-30) for x in (a, b))
    return (a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)


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
        wanted, reference = target[: len(out)], true[: len(out)]
        images[method, form] = (out[:FEW] + mean).cpu()
        errors[method, form] = {
            SPACES[0]: relative_error(wanted, out).double(),
            SPACES[1]: relative_error(wanted + mean, out + mean).double(),
            SPACES[2]: relative_error(reference, out).double(),
        }
        if form == RECTIFIED or method == TRUE:
            own[method] = identifies(out, target)

    note(TRUE, AS_IS, true)
    for method, f_hat in signals(inputs, pool, generator).items():
        note(method, AS_IS, decoder(f_hat[:FEW], pool, few))
        note(method, RECTIFIED, decoder(rectify(f_hat), pool, switches))
    draws = {
        method: [float(errors[method, RECTIFIED][SPACES[0]][:FEW].mean())]
        for method in (RANDOM, ACTIVATIONS)
    }
    start = shrunk(inputs, SIDE, FEW)
    for draw in range(1, len(inputs.random[pool])):
        for method, f_hat in signals(start, pool, generator, draw).items():
            if method in draws:
                out = decoder(rectify(f_hat), pool, few)
                draws[method].append(float(relative_error(target[:FEW], out).mean()))
    return Decoded(images, errors, own, {name: tuple(each) for name, each in draws.items()})


def means(
    found: Mapping[str, Decoded], form: str, space: str, few: bool = False
) -> dict[str, dict[str, float]]:
    """Mean errors by pooling and method; few takes the first `FEW` photographs."""
    wanted = slice(FEW if few else None)
    return {
        pool: {method: float(each.errors[method, form][space][wanted].mean()) for method in METHODS}
        for pool, each in found.items()
    }


def ranked(found: Mapping[str, Decoded]) -> list[tuple[float, str, str]]:
    """Forms and spaces with the root mean square of their differences from Table 3, best first;
    over the same few photographs."""
    rows = []
    for form in FORMS:
        for space in SPACES:
            gaps = [
                value - published("image", method, pool)
                for pool, by_method in means(found, form, space, few=True).items()
                for method, value in by_method.items()
            ]
            rows.append((math.sqrt(sum(gap**2 for gap in gaps) / len(gaps)), form, space))
    return sorted(rows)
