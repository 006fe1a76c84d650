"""What is recorded: random filters at the paper's size, and a network's layers."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from invertnb import FilterBank, networks, notebook
from invertnb.chapters import rip_2d as chapter
from invertnb.chapters.rip_2d import activations, coherent, constants
from invertnb.chapters.rip_2d.ratios import CONVENTIONS, Ratios, sample

DRAWS = 3
#: Filled windows of the recorded constants, and the effort of their searches.
FILLED, SEARCH = (0.001, 0.01, 0.1, 0.824), {"starts": 1, "steps": 20}
SHARES = (0.3, 0.1)
#: Maps of networks that end early are large: the middle of each is taken.
MIDDLE = 28


def make(p: chapter.Parameters) -> notebook.Recording:
    """The recording that the parameters name."""
    return random(p) if p.study == "random" else network(p)


def random(p: chapter.Parameters) -> notebook.Recording:
    """Figure 3(a) for several draws of random filters, all conventions, and their constants."""
    results: dict[str, Any] = {
        f"{percent:g}": [statistics(chapter.full_size(p, percent, draw)) for draw in range(DRAWS)]
        for percent in chapter.SPARSITY.values()
    }
    inputs = {"filters": f"{DRAWS} draws of 512 Gaussian filters 512 x 3 x 3, unit norm"}
    found = constants_of(chapter.random_bank(p), p.generator(chapter.CONSTANTS))
    results = {"samples": p.samples, "ratios": results, "constants": {"random": found}}
    return notebook.Recording("random-512", inputs, results)


def network(p: chapter.Parameters) -> notebook.Recording:
    """Algorithm 2, random codes, constants and coherence of a network's layers."""
    net, images = chapter.load(p), networks.open_images(p.images)
    pixels = chapter.photographs(p)
    last = chapter.studied(net)
    whole = last == chapter.FILTERS
    studied = [last] if whole else list(net.convolutions[1:])
    side = chapter.SIDE if whole else MIDDLE
    layers = {
        name: _layer(p, net, pixels, name, side, p.generator(chapter.PAIR)) for name in studied
    }
    points = coherent.layers(net, chapter.OF_BANK, p.generator(chapter.COHERENT))
    results = {
        "images": len(pixels),
        "side": side,
        "layers": layers,
        "coherence": {name: list(map(rounded, each)) for name, each in points.items()},
        "constants": {
            name: constants_of(bank, p.generator(chapter.CONSTANTS))
            for name, bank in activations.pair(net, last, p.generator(chapter.PAIR)).items()
        },
    }
    inputs = {
        "weights": f"{net.source.label}, SHA-256 {net.source.sha256[:16]}",
        "images": f"{images.label}, the first {len(pixels)} "
        f"(SHA-256 {images.first(len(pixels)).sha256[:16]})",
    }
    return notebook.Recording(label(net), inputs, results)


def label(net: networks.Network) -> str:
    """A slug: which network, up to where."""
    if net.source.tier == "embedded":
        return "embedded-ten"
    blocks = net.layers[-1].partition("(")[2][0]
    return "vgg16" if net.layers == net.architecture.layers else f"vgg16-blocks1{blocks}"


def _layer(
    p: chapter.Parameters, net: networks.Network, pixels: Tensor, name: str, side: int,
    generator: Generator,
) -> dict[str, Any]:
    percent = activations.density(net.activations(pixels, [name])[name])
    k = chapter.nonzeros(percent, net.bank(name).K, side)
    found = activations.study(net, pixels, name, generator=generator, side=side, shares=SHARES)
    banks = activations.pair(net, name, p.generator(chapter.PAIR))
    drawn = {
        filters: {
            kind: statistics(
                sample(
                    bank, k, chapter.OF_LAYER, p.generator(chapter.LAYERS), side=side, signs=signs
                )
            )
            for kind, signs in (("signed", True), ("unsigned", False))
        }
        for filters, bank in banks.items()
    }
    return {
        "percent": rounded(percent),
        "k": k,
        "random codes": drawn,
        "recovered": {
            f"{filters}, {side_}, {share:g}": {
                "ratio": statistics(each.ratios),
                "residual": spread(each.residual),
                "first": spread(each.first),
                "nonzeros": spread(each.nonzeros),
                "stripe": int(each.stripe.max()),
            }
            for (filters, side_, share), each in found.items()
        },
    }


def constants_of(bank: FilterBank, generator: Generator) -> dict[str, list[float]]:
    """[k, sampled, attained, certified] by the share of filled windows."""
    found = constants.by_filling(
        bank, chapter.OF_BANK, generator, side=chapter.SIDE, filled=FILLED, **SEARCH
    )
    return {
        f"{share:g}": [each.k, *map(rounded, (each.sampled, each.attained, each.certified))]
        for share, each in found.items()
    }


def statistics(ratios: Ratios) -> dict[str, dict[str, float]]:
    """Mean, deviation, least and largest by convention."""
    return {convention: spread(ratios.of(convention)) for convention in CONVENTIONS}


def spread(values: Tensor) -> dict[str, float]:
    """Mean, standard deviation, least, median and largest of what is finite."""
    values = values.double()
    values = values[values.isfinite()]
    return {
        "mean": rounded(values.mean()), "sd": rounded(values.std(correction=0)),
        "low": rounded(values.min()), "median": rounded(values.median()),
        "high": rounded(values.max()),
    }  # fmt: skip


def rounded(value: Any) -> float:
    """Five digits: more than the page shows."""
    return float(f"{float(value):.5g}")
