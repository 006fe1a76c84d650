"""What is recorded: random filters at the paper's size, and a network's layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from invertnb import FilterBank, notebook
from invertnb.chapters import rip_2d as chapter
from invertnb.chapters.rip_2d import activations, coherent, constants
from invertnb.chapters.rip_2d.activations import Recovered
from invertnb.chapters.rip_2d.ratios import CONVENTIONS, PERCENT, Ratios, sample, significant
from invertnb.networks import Network
from invertnb.notebook.real_networks import inputs, slug, words

DRAWS = 3
#: Filled windows of the recorded constants, and the effort of their searches.
FILLED, SEARCH = (0.001, 0.01, 0.1, 0.824), {"starts": 1, "steps": 20}
#: Maps of networks that end early are large: the middle of each is taken.
MIDDLE = 28
#: Significant digits of random draws and of densities, and of what an iteration found: the latter
#: stops at a tolerance, and further digits are those of a machine.
DRAWN, ITERATED = 5, 2


def make(p: chapter.Parameters) -> notebook.Recording:
    """The recording that the parameters name."""
    return random(p) if p.study == "random" else network(p)


def random(p: chapter.Parameters) -> notebook.Recording:
    """Figure 3(a) for several draws of random filters, all conventions, and their constants."""
    drawn = {
        f"{percent:g}": [statistics(chapter.full_size(p, percent, draw)) for draw in range(DRAWS)]
        for percent in chapter.SPARSITY.values()
    }
    made = {"filters": f"{DRAWS} draws of 512 Gaussian filters 512 x 3 x 3, unit norm"}
    found = constants_of(chapter.random_bank(p), p.generator(chapter.CONSTANTS))
    results = {"samples": p.samples, "ratios": drawn, "constants": {"random": found}}
    return notebook.Recording("random-512", made, results)


def network(p: chapter.Parameters) -> notebook.Recording:
    """Algorithm 2, random codes, constants and coherence of a network's layers."""
    net, pictures = chapter.load(p), p.pictures(p.photographs)
    pixels = pictures.all().to(p.device)
    last = chapter.studied(net)
    whole = last == activations.FILTERS
    studied = [last] if whole else list(net.convolutions[1:])
    side = chapter.SIDE if whole else MIDDLE
    layers = {name: _layer(p, net, pixels, name, side) for name in studied}
    points = coherent.layers(net, chapter.OF_BANK, p.generator(chapter.COHERENT))
    results = {
        **about(net, len(pixels)),
        "side": side,
        "samples": p.samples,
        "threads": torch.get_num_threads(),
        "layers": layers,
        "coherence": points_of(points),
        "constants": {
            name: constants_of(bank, p.generator(chapter.CONSTANTS))
            for name, bank in activations.pair(net, last, p.generator(chapter.PAIR)).items()
        },
    }
    return notebook.Recording(f"{slug(net)}-{len(pixels)}", inputs(net, pictures), results)


def live(data: chapter.Data) -> dict[str, Any]:
    """What the page computed for the layer studied, in the form of a recording."""
    own, twin = data.layers[data.layer], data.twin
    layer = _results({"learned": own, "random": twin}, data.recovered)
    return {
        **about(data.network, len(data.pictures)),
        "layers": {data.layer: layer},
        "coherence": points_of(data.families["layers"]),
    }


def about(net: Network, images: int) -> dict[str, Any]:
    """Which network: in a few words, and whether its weights are those of the paper's."""
    return {"network": words(net), "real": net.source.real, "images": images}


def _layer(
    p: chapter.Parameters, net: Network, pixels: Tensor, name: str, side: int
) -> dict[str, Any]:
    found = activations.study(net, pixels, name, generator=p.generator(chapter.PAIR), side=side)
    banks, drawn = activations.pair(net, name, p.generator(chapter.PAIR)), {}
    for filters, bank in banks.items():
        k, g = chapter.nonzeros(PERCENT, bank.K, side), p.generator(chapter.LAYERS)
        kinds = (sample(bank, k, p.samples, g, side=side, signs=signs) for signs in (True, False))
        drawn[filters] = _Drawn(*kinds)
    density = activations.density(net.activations(pixels, [name])[name])
    levels = (1.0, constants.VACUOUS)
    return {
        "density": significant(density, ITERATED + 1),
        "others": {
            filters: [constants.allowed(rows, level) for level in levels]
            for filters, rows in ((f, constants.locally(bank)) for f, bank in banks.items())
        },
        **_results(drawn, found),
    }


class _Drawn(NamedTuple):
    signed: Ratios
    unsigned: Ratios


def _results(
    drawn: Mapping[str, Any], found: Mapping[tuple[str, str, float], Recovered]
) -> dict[str, Any]:
    """Random codes by filters, and Algorithm 2 by filters, side of ReLU and share."""
    return {
        "random codes": {
            filters: {kind: statistics(getattr(each, kind)) for kind in ("signed", "unsigned")}
            for filters, each in drawn.items()
        },
        "recovered": {
            f"{filters}, {side}, {share:g}": outcome(each)
            for (filters, side, share), each in found.items()
        },
    }


def outcome(each: Recovered) -> dict[str, Any]:
    """Algorithm 2 on a batch, in numbers."""
    return {
        "ratio": statistics(each.ratios, ITERATED + 1),
        "residual": spread(each.residual, ITERATED),
        "first": spread(each.first, ITERATED),
        "windows": significant(each.windows.mean(), ITERATED),
        "nonzeros": significant(each.nonzeros.mean(), ITERATED),
        "stripe": int(each.stripe.max()),
        "stripe coherence": significant(each.coherence.max(), ITERATED),
        "seconds": significant(each.seconds, ITERATED),
    }


def constants_of(bank: FilterBank, generator: Generator) -> dict[str, list[float]]:
    """[k, sampled, attained, certified] by the share of filled windows."""
    found = constants.by_filling(
        bank, chapter.OF_BANK, generator, side=chapter.SIDE, filled=FILLED, **SEARCH
    )
    return {
        f"{share:g}": [
            each.k, *(significant(x, ITERATED) for x in (each.sampled, each.attained)),
            significant(each.certified, ITERATED + 1),
        ]
        for share, each in found.items()
    }  # fmt: skip


def points_of(points: Mapping[str, coherent.Point]) -> dict[str, list[float]]:
    """[coherence, sd of the squared ratio, error of one step] by layer."""
    return {name: [significant(x, DRAWN) for x in each] for name, each in points.items()}


def statistics(ratios: Ratios, digits: int = DRAWN) -> dict[str, dict[str, float]]:
    """Mean, deviation, least and largest by convention."""
    return {convention: spread(ratios.of(convention), digits) for convention in CONVENTIONS}


def spread(values: Tensor, digits: int = DRAWN) -> dict[str, float]:
    """Mean, standard deviation, least, median and largest of what is finite."""
    values = values.double()
    values = values[values.isfinite()]
    found = {
        "mean": values.mean(), "sd": values.std(correction=0), "low": values.min(),
        "median": values.median(), "high": values.max(),
    }  # fmt: skip
    return {name: significant(value, digits) for name, value in found.items()}
