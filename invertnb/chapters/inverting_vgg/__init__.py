"""Chapter 10: one step on the activations of VGG-16, and images from it (section 4.5).

`inputs` is what all parts start from. `activation` holds Table 3 in activation space, `decoded` in
image space, `bounds` the theorem beside them; `coherent` asks what coherence explains, `what_where`
what the switches carry, `others` and `downward` go other ways back, `residual` meets ResNet;
`recordings` are what takes too long for a page, `verdicts` fills the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from invertnb import notebook
from invertnb.chapters.inverting_vgg import (
    activation, bounds, coherent, decoded, downward, inputs, others, residual, what_where,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.activation import (
    FITTING, LEARNED, RANDOM, STATED, Reading, Step,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.bounds import Bound
from invertnb.chapters.inverting_vgg.decoded import Decoded
from invertnb.chapters.inverting_vgg.explorers import explorer  # noqa: F401
from invertnb.chapters.inverting_vgg.figures import (  # noqa: F401
    draw_figure4, draw_figure5, draw_ratios, draw_table3,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.inputs import ACTIVATIONS, Inputs
from invertnb.notebook import Recorded, Recording, load_recorded, parameter
from invertnb.notebook.figures import Figure

PAPER = {"photographs": 500}


@dataclass(frozen=True)
class Parameters(notebook.NetworkParameters):
    """The networks, the photographs and how much is drawn."""

    photographs: int = parameter(10, minimum=1, help="images, the first so many")
    banks: int = parameter(3, minimum=2, help="draws of random filters for each layer")
    resnet: str = parameter(
        "random", path=True,
        help="weights of ResNet-18: random, torchvision or the path of a safetensors file",
    )  # fmt: skip
    study: str = parameter(
        "network", choices=("network", "speed", "resnet", "downward"), help="what --record computes"
    )


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        inputs: network, photographs, activations, filters.
        steps: one step by pooling, filters and reading; of random filters the first draw.
        draws: the same by pooling and reading for every draw of random filters.
        chance: errors of random activations by pooling, draw and kind.
        bounds: Theorem 3.3 by pooling and filters.
        decoded: images and their errors by pooling; None for a network without a decoder.
        others, downward, what_where, coherent, residual: the parts of these names.
        recorded: what was recorded elsewhere, by label.
    """

    inputs: Inputs
    steps: Mapping[str, Mapping[str, Mapping[Reading, Step]]]
    draws: Mapping[str, Mapping[Reading, Sequence[Step]]]
    chance: Mapping[str, Sequence[Mapping[str, Tensor]]]
    bounds: Mapping[str, Mapping[str, Bound]]
    decoded: Mapping[str, Decoded] | None
    others: others.Others
    downward: downward.Downward
    what_where: what_where.WhatWhere
    coherent: coherent.Coherent
    residual: residual.Residual
    recorded: Mapping[str, Recorded]


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    given = gather(p)
    steps = {
        pool: {
            LEARNED: activation.steps(f, given.learned[pool], pool),
            RANDOM: activation.steps(f, given.random[pool][0], pool),
        }
        for pool, f in given.f.items()
    }
    return Data(
        given,
        steps,
        {pool: _draws(given, pool, steps[pool][RANDOM]) for pool in given.pools},
        {
            pool: [
                activation.chance(f, p.generator(ACTIVATIONS + 10 * draw + int(pool[5])))
                for draw in range(p.banks)
            ]
            for pool, f in given.f.items()
        },
        bounds.compute(given, steps, p.generator),
        decoded.compute(given, p.generator),
        others.compute(given, p.generator),
        downward.compute(given, p.generator),
        what_where.compute(given, p.generator),
        coherent.compute(given, p.generator),
        residual.compute(given, p.generator, p.resnet),
        load_recorded("inverting_vgg"),
    )


def gather(p: Parameters) -> Inputs:
    """The network that the parameters name on its images."""
    return inputs.gather(p.network(), p.pictures(p.photographs), p.banks, p.generator)


def draw(data: Data) -> Figure:
    """Table 3 in activation space."""
    return draw_table3(data)


def recording(parameters: Parameters) -> Recording:
    """What `study` names."""
    parts = {"resnet": residual, "downward": downward}
    if parameters.study in parts:
        return parts[parameters.study].recording(parameters)
    from invertnb.chapters.inverting_vgg import recordings

    return getattr(recordings, parameters.study)(parameters)


def _draws(given: Inputs, pool: str, first: Mapping[Reading, Step]) -> dict[Reading, list[Step]]:
    """The two readings that matter for every draw of random filters."""
    found = {reading: [first[reading]] for reading in (FITTING, STATED)}
    for bank in given.random[pool][1:]:
        for reading, each in activation.steps(given.f[pool], bank, pool, tuple(found)).items():
            found[reading].append(each)
    return found
