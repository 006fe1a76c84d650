"""What the switches alone carry: known and random values at known and random switches.

A decoder with known switches is told where every maximum stood, in all poolings up to the one it
starts from. Figure 4(e) shows that random activations at the known switches already give a glimpse
of the image; the other combinations say how much of an image is where, and how much is what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invertnb import random_activations, relative_error
from invertnb.chapters.inverting_vgg.inputs import WHAT_WHERE, Inputs, shrunk
from invertnb.networks import Decoder
from invertnb.networks.decoder import CENTER
from invertnb.notebook.figures import Photographs, photographs
from invertnb.notebook.real_networks import words

KNOWN, SHUFFLED, MEAN, GAUSSIAN, POSITIVE = VALUES = (
    "known", "shuffled", "mean", "Gaussian", "|Gaussian|"
)  # fmt: skip
#: Of switches; a decoder that was trained without them is named by what it has in their stead.
PLACES = ("known", "random", "fixed")
TRAINED = ("fixed", "averaged")
#: To save time: at most so many photographs, of at most this side, which four poolings need to be a
#: multiple of 2^4.
PHOTOGRAPHS, SIDE = 10, 96
#: The criteria: the share of the photographs that must agree, and what switches must take off the
#: mean error to be "considerable".
SHARE, CONSIDERABLE = 0.9, 0.1

Key = tuple[str, str]


class Score(NamedTuple):
    """Decoded images beside their photographs: one number a photograph, float64, but for hits.

    Attributes:
        error: relative, the training mean subtracted: 1 for an image that is that mean.
        added: relative, the mean added back.
        fitted: as `error`, after the best contrast (not negative) and the best mean colour.
        own: correlation with its photograph, each channel less its mean.
        hits: bool, whether no other photograph correlates as well.
    """

    error: Tensor
    added: Tensor
    fitted: Tensor
    own: Tensor
    hits: Tensor

    @property
    def identified(self) -> int:
        """How many decoded images tell their photograph from the others."""
        return int(self.hits.sum())


class Swapped(NamedTuple):
    """Images decoded from one photograph's values at another's switches.

    Attributes:
        what, where: their correlation with the photograph of the values, and of the switches.
    """

    what: Tensor
    where: Tensor


class Bits(NamedTuple):
    """What a code holds, for each pixel of the image.

    Attributes:
        values: entries of pool(i).
        switches: of pool(1) to pool(i), at two bits a window.
        entropy: the same, at the entropy of the four places, channel by channel; less than two bits
            where a place is preferred, as the first one is by windows of zeros. What depends on
            other switches is still counted.
    """

    values: float
    switches: float
    entropy: float


@dataclass(frozen=True)
class Layer:
    """One pooling.

    Attributes:
        scores: by values and places, a decoder that was trained with known switches.
        trained: true values, by decoders that were trained without switches.
        swapped: who wins where values and switches disagree.
        images: by values and places, in [0, 1] up to overshoots.
    """

    scores: Mapping[Key, Score]
    trained: Mapping[str, Score]
    swapped: Swapped
    images: Mapping[Key, Tensor]


@dataclass(frozen=True)
class WhatWhere:
    """Everything of this part; no layers where the network has no decoders.

    Attributes:
        pixels: the photographs, (images, 3, side, side), reduced.
        colour: the error of a picture of the photograph's own mean colour.
        layers, bits: by pooling.
        words: on the network's weights.
        label: the network and its images.
    """

    pixels: Tensor
    colour: Tensor
    layers: Mapping[str, Layer]
    bits: Mapping[str, Bits]
    words: str
    label: str


def compute(inputs: Inputs, generator: Callable[[int], torch.Generator]) -> WhatWhere:
    """Decode every combination, layer by layer, from reduced photographs.

    Args:
        inputs: network and photographs.
        generator: generator(stream), a fresh one for each stream.
    """
    small = shrunk(inputs, SIDE, PHOTOGRAPHS)
    pixels, f, switches = small.pixels, small.f, small.switches
    layers: dict[str, Layer] = {}
    mean = pixels.new_tensor(inputs.network.preprocessing.mean).view(3, 1, 1)
    if inputs.decodable:
        decoders = {kind: inputs.decoder(kind) for kind in ("known", *TRAINED)}
        for pool in inputs.pools:
            draws = generator(WHAT_WHERE + int(pool[5]))
            layers[pool] = layer(decoders, pixels, pool, f[pool], switches, draws)
    label = f"{inputs.network.source.label}; {inputs.pictures.label}"
    return WhatWhere(
        pixels, colour_error(pixels - mean), layers, bits(f, switches), words(inputs.network), label
    )


def values(f: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Activations that keep of f everything, or less.

    Shuffled values are those of the same image and channel in another order, so that nothing but
    their places is lost: not how many are zero, nor how large they are. The mean by channel loses
    their sizes, too. Gaussian values, as in Figure 4(e), have nothing of f but its norm; their
    magnitudes have the sign, too, that nothing after a ReLU lacks.
    """
    if kind == KNOWN:
        return f
    if kind == MEAN:
        return f.mean((2, 3), keepdim=True).expand_as(f).contiguous()
    if kind in (GAUSSIAN, POSITIVE):
        drawn = random_activations(f, generator)
        return drawn if kind == GAUSSIAN else drawn.abs()
    flat = f.flatten(2)
    order = torch.rand(flat.shape, generator=generator).argsort(2).to(f.device)
    return flat.gather(2, order).view_as(f)


def places(
    switches: Mapping[str, Tensor], kind: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """The switches themselves; independent uniform ones; or the last place of every window."""
    if kind == "known":
        return dict(switches)
    if kind == "fixed":
        return {name: torch.full_like(each, CENTER) for name, each in switches.items()}
    return {
        name: torch.randint(4, each.shape, generator=generator, dtype=each.dtype).to(each.device)
        for name, each in switches.items()
    }


def layer(
    decoders: Mapping[str, Decoder], pixels: Tensor, pool: str, f: Tensor,
    switches: Mapping[str, Tensor], generator: torch.Generator,
) -> Layer:
    """All values at all places of one pooling.

    Args:
        decoders: by what they were trained with: known, fixed and averaged switches.
        pixels: (images, 3, H, W) in [0, 1].
        f: the output of `pool` for them.
        switches: of pool(1) to `pool` at least.
        generator: of values and places; each is drawn once, so that combinations differ in nothing
            but what they combine.
    """
    decoder = decoders["known"]
    target, mean = decoder.target(pixels), decoder.mean
    wanted = decoder.layers[: decoder.layers.index(pool) + 1]
    own = {name: switches[name] for name in wanted}
    what = {kind: values(f, kind, generator) for kind in VALUES}
    where = {kind: places(own, kind, generator) for kind in PLACES}
    scores, images = {}, {}
    for key in ((one, other) for one in VALUES for other in PLACES):
        out = decoder(what[key[0]], pool, where[key[1]])
        scores[key], images[key] = score(target, out, mean), out + mean
    trained = {kind: score(target, decoders[kind](f, pool), mean) for kind in TRAINED}
    others = {name: each.roll(-1, 0) for name, each in own.items()}
    seen = correlations(decoder(f, pool, others), target)
    swapped = Swapped(seen.diagonal(), seen.roll(-1, 1).diagonal())
    return Layer(scores, trained, swapped, images)


def score(target: Tensor, out: Tensor, mean: Tensor) -> Score:
    """Decoded images (images, 3, H, W) beside their photographs, both less the training mean."""
    table = correlations(out, target)
    own = table.diagonal()
    # What the best contrast leaves of the photograph less its own mean colour.
    fitted = colour_error(target) * (1 - own.clamp(min=0).square()).clamp(min=0).sqrt()
    return Score(
        relative_error(target, out).double(), relative_error(target + mean, out + mean).double(),
        fitted, own, table.argmax(1) == torch.arange(len(table), device=table.device),
    )  # fmt: skip


def correlations(out: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of each decoded image (rows) with each photograph, float64.

    Over pixels and channels, each channel less its mean, so that a colour cast earns nothing; 0 for
    an image without structure.
    """

    def directions(images: Tensor) -> Tensor:
        rows = (images - images.mean((2, 3), keepdim=True)).double().flatten(1)
        return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)

    return directions(out) @ directions(target).T


def colour_error(target: Tensor) -> Tensor:
    """The error of a picture of each photograph's own mean colour, float64."""
    return relative_error(target, target.mean((2, 3), keepdim=True).expand_as(target)).double()


def bits(f: Mapping[str, Tensor], switches: Mapping[str, Tensor]) -> dict[str, Bits]:
    """How much switches hold beside values, by pooling."""
    found, held, entropy = {}, 0.0, 0.0
    for pool, each in switches.items():
        density = each.shape[1] / 4 ** int(pool[5])
        share = torch.stack([(each == place).double().mean((0, 2, 3)) for place in range(4)])
        held += math.log2(4) * density
        entropy += density * float(torch.special.entr(share).sum(0).mean()) / math.log(2)
        found[pool] = Bits(f[pool].shape[1] / 4 ** int(pool[5]), held, entropy)
    return found


def most(count: int, photographs: int) -> bool:
    """Whether enough of the photographs agree."""
    return count >= SHARE * photographs


def glimpse(layer: Layer, kind: str = GAUSSIAN) -> bool:
    """The criterion of figure4.e: random values tell photographs apart at the known switches, and
    do not at random ones."""
    n = len(layer.swapped.what)
    known, random = (layer.scores[kind, place].identified for place in ("known", "random"))
    return most(known, n) and not most(random, n)


def considerable(layer: Layer) -> bool:
    """The criterion of conclusion.switches: shuffled values at the known switches tell photographs
    apart; and with the true values a decoder that is given the switches beats the better decoder
    without them, for most photographs, and by CONSIDERABLE on average."""
    n = len(layer.swapped.what)
    given = layer.scores[KNOWN, "known"].error
    without = min((each.error for each in layer.trained.values()), key=torch.mean)
    gain = without - given
    return (
        most(layer.scores[SHUFFLED, "known"].identified, n)
        and most(int((gain > 0).sum()), n)
        and float(gain.mean()) >= CONSIDERABLE
    )


def matters_more(layer: Layer) -> str:
    """"where" or "what": whose photograph most of the swapped images look like; else "both"."""
    n, where = len(layer.swapped.what), int((layer.swapped.where > layer.swapped.what).sum())
    return "where" if most(where, n) else "what" if most(n - where, n) else "both"


def verdicts(found: WhatWhere) -> dict[str, dict[str, Any]]:
    """Arguments of `record` by claim. No value: there are decoders of a stand-in only.

    One photograph cannot be told apart from others, and gives no readings.
    """
    judged = found.layers if len(found.pixels) > 1 else {}
    last = list(judged)[-1:]
    live = f"{found.words} ({len(found.pixels)} photographs)"
    deepest = (*last, *list(judged)[:-1])
    return {
        "figure4.e": {
            "value": None,
            "readings": {f"{live}, {pool}": glimpse(judged[pool]) for pool in deepest}
            | {
                f"{live}, {pool}, magnitudes of Gaussians": glimpse(judged[pool], POSITIVE)
                for pool in deepest
            },
            "note": "criterion: Gaussian activations at the known switches tell at least"
            f" {SHARE:.0%} of the photographs from the others, at random switches fewer;"
            " decoders of our own;"
            f" {found.label}",
        },
        "conclusion.switches": {
            "value": None,
            "readings": {f"{live}, {pool}": considerable(each) for pool, each in judged.items()},
            "note": "criterion: shuffled values at the known switches tell at least"
            f" {SHARE:.0%} of the photographs from the others, and the switches take at least"
            f" {CONSIDERABLE:g} off the error of decoders trained without them;"
            f" decoders of our own; {found.label}",
        },
    }


def draw(found: WhatWhere, photograph: int = 0) -> Photographs:
    """One photograph from the last layer: rows of values, columns of switches.

    Without decoders, the photograph alone.
    """

    def picture(image: Tensor):
        return image.permute(1, 2, 0).cpu().numpy()

    original = picture(found.pixels[photograph])
    if not found.layers:
        return photographs({"": [original]}, ["original"], width=2.0)
    images = list(found.layers.values())[-1].images
    rows = {
        f"{what} values": [
            original, *(picture(images[what, where][photograph]) for where in PLACES)
        ]
        for what in (KNOWN, SHUFFLED, GAUSSIAN)
    }
    return photographs(rows, ["original", *(f"{where} switches" for where in PLACES)], width=5.0)
