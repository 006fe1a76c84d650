"""Chapter 9: the model-RIP in two dimensions (section 4.4, Figure 3, Algorithm 2).

`ratios` draws codes and predicts their ratios, `activations` runs Algorithm 2 on a network,
`constants` sets samples beside attained and certified constants, `coherent` asks what the coherence
says, `recordings` holds what takes too long for a page, `figures` draws.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from invertnb import FilterBank, check, notebook
from invertnb.chapters.rip_2d import activations, coherent, constants, ratios
from invertnb.chapters.rip_2d.activations import FILTERS, Recovered
from invertnb.chapters.rip_2d.coherent import Point
from invertnb.chapters.rip_2d.constants import Constants
from invertnb.chapters.rip_2d.figures import (  # noqa: F401
    draw_coherence, draw_constants, draw_histogram, draw_layers, draw_random, draw_recovered,
)  # fmt: skip
from invertnb.chapters.rip_2d.ratios import PERCENT, SIDE, Ratios, nonzeros, sample
from invertnb.networks import Images, Network
from invertnb.notebook import Choice, Explorer, Recording, Slider, View, parameter
from invertnb.notebook.figures import Figure
from invertnb.rip import LocalRows

PAPER = {"samples": 1000, "photographs": 10}

#: K = M of conv(5,2) in VGG-16.
CHANNELS = 512
#: Nonzeros in percent of all entries, Table 2: conv(5,2), as Figure 3's caption says, and
#: conv(5,1), as its text says.
SPARSITY = {"caption": PERCENT, "text": 23.9}
RANDOM, LAYERS, PAIR, STUDY, CONSTANTS, COHERENT, EXPLORED = 10, 20, 40, 41, 50, 60, 100
#: Random codes of layers beside the one studied, and of banks whose coherence is looked at.
OF_LAYER, OF_BANK = 24, 8
#: A smaller layer, for the constants of the page; those of conv(5,2) are recorded.
SMALLER = "conv(3,2)"


@dataclass(frozen=True)
class Parameters(notebook.NetworkParameters):
    """How much is drawn, and the network."""

    samples: int = parameter(48, minimum=2, help="random codes at the paper's full size")
    photographs: int = parameter(2, minimum=1, help="images for Algorithm 2, the first so many")
    study: str = parameter(
        "network", choices=("network", "random"),
        help="what --record computes: the network, or random filters at the paper's size",
    )  # fmt: skip


@dataclass(frozen=True)
class LayerRatios:
    """Random codes of one bank, with what its filters predict.

    Attributes:
        signed: nonzeros uniform on [-1, 1].
        unsigned: uniform on [0, 1], as after ReLU.
        cropped: the predicted root mean square of the cropped ratio with signs.
        coherent: that of the full ratio without signs.
        width: the predicted standard deviation of the full ratio with signs.
    """

    signed: Ratios
    unsigned: Ratios
    cropped: float
    coherent: float
    width: float


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        network: whose filters and activations.
        pictures: the images.
        layer: the one whose filters stand for conv(5,2).
        density: nonzeros of its own output in percent, over the images.
        random: the paper's size, by percent of nonzeros.
        layers: ratios by layer of the network.
        twin: those of random filters of the size of `layer`.
        recovered: Algorithm 2 by (filters, side of ReLU, share of the largest lam).
        constants: of a smaller layer, by filters and the share of filled windows.
        rows: certificates of `layer` by others in a stripe, by filters.
        families: coherence beside ratios and errors: layers, blends, twins.
    """

    network: Network
    pictures: Images
    layer: str
    density: float
    random: Mapping[float, Ratios]
    layers: Mapping[str, LayerRatios]
    twin: LayerRatios
    recovered: Mapping[tuple[str, str, float], Recovered]
    constants: Mapping[str, Mapping[float, Constants]]
    rows: Mapping[str, LocalRows]
    families: Mapping[str, Mapping[str, Point]]


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p, network = parameters, load(parameters)
    layer = studied(network)
    pictures = p.pictures(p.photographs)
    pixels = pictures.all().to(p.device)
    banks = activations.pair(network, layer, p.generator(PAIR))
    K, M = banks["learned"].K, banks["learned"].M
    return Data(
        network,
        pictures,
        layer,
        activations.density(network.activations(pixels, [layer])[layer]),
        {percent: full_size(p, percent) for percent in SPARSITY.values()},
        {
            name: layer_ratios(
                network.bank(name), p.samples if name == layer else OF_LAYER,
                p.generator(LAYERS + i),
            )
            for i, name in enumerate(network.convolutions[1:])
        },
        layer_ratios(banks["random"], p.samples, p.generator(LAYERS)),
        activations.study(network, pixels, layer, generator=p.generator(PAIR)),
        {
            name: constants.by_filling(bank, OF_BANK, p.generator(CONSTANTS))
            for name, bank in activations.pair(
                network, smaller(network), p.generator(PAIR)
            ).items()
        },
        {name: constants.locally(bank) for name, bank in banks.items()},
        {
            "layers": coherent.layers(network, OF_BANK, p.generator(COHERENT)),
            "blends": coherent.blends(K, M, OF_BANK, p.generator(COHERENT + 1)),
            "twins": coherent.twins(K, M, OF_BANK, p.generator(COHERENT + 2)),
        },
    )


def load(p: Parameters) -> Network:
    """VGG-16 with the weights that the parameters name.

    Raises:
        ValueError: weights that end before conv(1,2), the first layer that takes activations.
    """
    network = p.network()
    if len(network.convolutions) < 2:
        check.fail("weights", p.weights, "a network of at least conv(1,1) and conv(1,2)")
    return network


def studied(network: Network) -> str:
    """conv(5,2), or the last convolution of a network that ends before."""
    names = network.convolutions
    return FILTERS if FILTERS in names else names[-1]


def smaller(network: Network) -> str:
    """The layer whose constants the page computes."""
    return SMALLER if SMALLER in network.convolutions else studied(network)


def random_bank(p: Parameters, draw: int = 0) -> FilterBank:
    """Random unit filters of the size of conv(5,2)."""
    generator = p.generator(RANDOM + draw)
    bank = FilterBank.gaussian(
        CHANNELS, CHANNELS, 3, dims=2, generator=generator, dtype=torch.float32, device=p.device
    )
    return bank.normalized()


def full_size(p: Parameters, percent: float, draw: int = 0) -> Ratios:
    """Figure 3(a) with random filters: K = M = 512, 14 x 14 codes."""
    bank = random_bank(p, draw)
    k = nonzeros(percent, bank.K, SIDE)
    return sample(bank, k, p.samples, p.generator(RANDOM + 1000 + draw))


def layer_ratios(bank: FilterBank, samples: int, generator: torch.Generator) -> LayerRatios:
    """Random codes with and without signs, as dense as those of conv(5,2)."""
    k = nonzeros(PERCENT, bank.K, SIDE)
    return LayerRatios(
        sample(bank, k, samples, generator),
        sample(bank, k, samples, generator, signs=False),
        ratios.row_energy(bank, SIDE) ** 0.5,
        ratios.coherent(bank, k, SIDE) ** 0.5,
        ratios.width(bank, SIDE),
    )


def draw(data: Data) -> Figure:
    """Figure 3(a) with random filters."""
    return draw_random(data.random)


def recording(parameters: Parameters) -> Recording:
    """What takes too long for a page; see `recordings`."""
    from invertnb.chapters.rip_2d import recordings

    return recordings.make(parameters)


def explorer(parameters: Parameters | None = None) -> Explorer:
    """Ratios of random codes by layer, sparsity and boundary."""
    p = Parameters() if parameters is None else parameters
    network = load(p)
    names = network.convolutions[1:][-9:]

    @functools.cache
    def drawn(layer: str, percent: float) -> Ratios:
        bank = network.bank(layer)
        stream = EXPLORED + 100 * names.index(layer) + round(percent)
        return sample(bank, nonzeros(percent, bank.K, SIDE), OF_LAYER, p.generator(stream))

    def show(layer: str, percent: float, boundary: str) -> View:
        found, bank = drawn(layer, percent).of(boundary), network.bank(layer)
        predicted = 1.0 if boundary == "full" else ratios.row_energy(bank, SIDE) ** 0.5
        squares = float(ratios.deviation(found).max())
        low, high = ratios.ends(found)
        values = {
            "K, M": f"{bank.K}, {bank.M}",
            "k": nonzeros(percent, bank.K, SIDE),
            "mean ratio": f"{float(found.mean()):.3f}",
            "predicted": f"{predicted:.3f}",
            "from, to": f"{low:.3f}, {high:.3f}",
            "largest |ratio^2 - 1| seen": f"{squares:.3f}",
        }
        return View(draw_histogram(found, predicted, boundary), values)

    middle = FILTERS if FILTERS in names else names[-1]
    return Explorer(
        "model-rip",
        [
            Choice("layer", list(names), "layer", middle),
            Slider("percent", (1, 7, 20.6), "nonzeros in percent", default=20.6),
            Choice("boundary", ["full", "cropped"], "boundary", "full"),
        ],
        show,
        alt="Histogram of the ratios of random codes with the filters of {layer}, {percent} "
        "percent of the entries nonzero, {boundary} boundary, with the predicted center.",
        caption=f"{OF_LAYER} random codes of 14 x 14 places a filter, nonzeros uniform on [-1, 1]; "
        f"{network.source.label}. Gray: 1 +- 0.05.",
    )
