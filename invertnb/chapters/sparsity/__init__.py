"""Chapter 8: sparsity and coherence of real networks (sections 4.3 and 4.4, appendix C.2).

Tables 2, 4, 6 and 7 from networks that are at hand: the embedded checkpoint live, weights trained
on ImageNet as far as they were recorded, and a reader's own by a parameter. `activity` measures the
outputs of layers, `banks` their filters, `rows` random filters of AlexNet's sizes, `matching`
looks for a published row that stands out of place, `verdicts` fills the ledger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import networks, notebook
from invertnb.chapters.proposition_1 import random_filters
from invertnb.chapters.sparsity import activity, banks, matching, rows
from invertnb.chapters.sparsity.activity import Activity
from invertnb.chapters.sparsity.banks import Bank
from invertnb.chapters.sparsity.explorers import explorer, map_explorer  # noqa: F401
from invertnb.chapters.sparsity.figures import draw_densities
from invertnb.networks import Images, Network, Source
from invertnb.networks.architecture import PREPROCESSING
from invertnb.notebook import Recording, load_recorded, parameter
from invertnb.notebook.figures import Figure

PAPER = {"count": 50_000, "draws": 200, "bank_draws": 20, "shifts": 512}

RANDOM, ALEX, BANKS, ROWS, ODDS = range(5)  # streams of draws
#: Preprocessing for weights, of which "auto" is what `networks.load` takes by itself.
CHOICES = ("auto", *PREPROCESSING)


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """Which networks and images, and how much is drawn."""

    weights: str = parameter(
        "embedded", path=True,
        help="of VGG-16: embedded, torchvision, IMAGENET1K_FEATURES or a file",
    )  # fmt: skip
    alexnet: str = parameter(
        "random", path=True, help="weights of AlexNet: random, torchvision or a file"
    )
    images: str = parameter(
        "embedded", path=True, help="embedded, folder (INVERTNB_DATA) or the path of a folder"
    )
    preprocessing: str = parameter(
        "auto", choices=CHOICES, help="what the networks were trained to see"
    )
    count: int = parameter(10, minimum=1, help="images used, at most")
    draws: int = parameter(8, minimum=3, help="random banks of each of AlexNet's sizes")
    bank_draws: int = parameter(3, minimum=1, help="random banks to compare partners with")
    shifts: int = parameter(
        128, minimum=0, help="largest number of filters that are compared over all shifts"
    )


@dataclass(frozen=True)
class Measured:
    """A network, measured.

    Attributes:
        source: which weights.
        images: which images, in words.
        layers: activity by layer.
        banks: filters by convolution; empty for random weights.
    """

    source: str
    images: str
    layers: Mapping[str, Activity]
    banks: Mapping[str, Bank]


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        network, images: live, for the explorers.
        source: the live network's weights.
        live: the network of `weights`.
        random: random weights of the same shape on the same images.
        alexnet: AlexNet, and whether its weights are real.
        recorded: a network that was measured elsewhere, and the line of its provenance; None
            where nothing was recorded.
        rows: Table 6's random row in the readings in place.
        recorded_rows: all readings by more draws, recorded: odds, and mean and sd by layer; and
            the line of its provenance; or None.
    """

    network: Network
    images: Images
    source: Source
    live: Measured
    random: Measured
    alexnet: tuple[Measured, bool]
    recorded: tuple[Measured, str] | None
    rows: Mapping[str, rows.Row]
    recorded_rows: tuple[Mapping, str] | None


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    network = _load(p, "vgg16", p.weights)
    images = _images(p)
    alexnet, real = _alexnet(p)
    width = len(network.filters("conv(1,1)")[0]) / 64
    random = networks.gaussian(networks.VGG16, generator=p.generator(RANDOM), width=width)
    random = random.truncated(network.layers[-1]).to(p.device)
    entries = load_recorded("sparsity")
    return Data(
        network, images, network.source,
        live=measure(p, network, images),
        random=Measured(
            random.source.label, images.label, activity.activities(random, images), {}
        ),
        alexnet=(measure(p, alexnet, images, banks_too=real), real),
        recorded=_recorded_network(entries),
        rows=rows.draw_rows(p.generator(ROWS), p.draws),
        recorded_rows=_recorded_rows(entries),
    )  # fmt: skip


def measure(
    p: Parameters, network: Network, images: Images, *, banks_too: bool = True,
    progress: bool = False,
) -> Measured:
    """A network on images: the outputs of all layers, and the filters of all convolutions."""
    generator, found = p.generator(BANKS), {}
    for name in network.convolutions if banks_too else ():
        weight = network.filters(name)[0]
        found[name] = banks.examine(
            weight, generator, draws=p.bank_draws, all_shifts=len(weight) <= p.shifts
        )
    layers = activity.activities(network, images, progress=progress)
    return Measured(network.source.label, images.label, layers, found)


def recording(parameters: Parameters) -> Recording:
    """The network of `weights` on `images`; or, for the embedded weights, random rows.

    Random rows need no weights, only draws: `invertnb run sparsity --profile paper --record`.
    """
    p = parameters
    if p.weights == "embedded":
        found = rows.draw_rows(p.generator(ROWS), p.draws, all_shifts=True)
        streams = [generator_of(p) for _ in found]
        return Recording("random-rows", {"draws": str(p.draws)}, rows.results(found, streams))
    network, images = _load(p, "vgg16", p.weights), _images(p)
    measured = measure(p, network, images, progress=True)
    blocks = sorted({activity.depth(name)[0] for name in network.layers})
    whole = network.layers == networks.VGG16.layers
    label = "vgg16" if whole else "vgg16-blocks" + "".join(map(str, blocks))
    inputs = {
        "weights": f"{network.source.label}; SHA-256 {network.source.sha256}",
        "images": f"{images.label}; SHA-256 {images.sha256}",
    }
    results = {
        "source": measured.source,
        "images": measured.images,
        "layers": {name: each.results() for name, each in measured.layers.items()},
        "banks": {name: each.results() for name, each in measured.banks.items()},
    }
    return Recording(label, inputs, results)


def draw(data: Data) -> Figure:
    """Table 2 with what was measured."""
    recorded = data.recorded[0].layers if data.recorded else {}
    return draw_densities(data.live.layers, recorded, data.random.layers)


def table4_matches(values: Mapping[str, Mapping[str, float]]) -> list[matching.Matching]:
    """Table 4's learned row at every displacement, for measured coherences by reading."""
    return matching.match(published4(), list(published4()), values)


def published4() -> dict[str, float]:
    """Table 4's learned row, by convolution."""
    book = notebook.claims.load()
    return {
        f"conv{layer}": book[f"table4.learned.{layer}"].paper for layer in random_filters.LAYERS
    }


def coherences(measured: Mapping[str, Bank]) -> dict[str, dict[str, float]]:
    """By reading and convolution, as far as they were computed."""
    values = {
        reading: {name: bank.coherence(reading) for name, bank in measured.items()}
        for reading in banks.READINGS
    }
    return {
        reading: {name: value for name, value in each.items() if value is not None}
        for reading, each in values.items()
    }


def cosines(data: Data, layer: str) -> Tensor:
    """Inner products of the live network's filters in one layer, NaN on the diagonal."""
    return banks.cosines(data.network.filters(layer)[0].cpu())


def _load(p: Parameters, architecture: str, weights: str) -> Network:
    preprocessing = None if p.preprocessing == "auto" else p.preprocessing
    return networks.load(architecture, weights, preprocessing=preprocessing).to(p.device)


def _alexnet(p: Parameters) -> tuple[Network, bool]:
    if p.alexnet == "random":
        generator = p.generator(ALEX)
        return networks.gaussian(networks.ALEXNET, generator=generator).to(p.device), False
    network = _load(p, "alexnet", p.alexnet)
    return network, network.source.real


def _images(p: Parameters) -> Images:
    images = networks.open_images(p.images)
    if len(images) <= p.count:
        return images
    return dataclasses.replace(
        images.first(p.count), label=f"the first {p.count} of {images.label}"
    )


def _recorded_network(entries: Mapping[str, notebook.Recorded]) -> tuple[Measured, str] | None:
    """The recorded network with the most layers."""
    found = [entry for label, entry in entries.items() if label.startswith("vgg16")]
    if not found:
        return None
    entry = max(found, key=lambda each: len(each.results["layers"]))
    layers = {name: Activity.of(each) for name, each in entry.results["layers"].items()}
    filters = {name: Bank.of(each) for name, each in entry.results["banks"].items()}
    measured = Measured(entry.results["source"], entry.results["images"], layers, filters)
    return measured, entry.provenance


def _recorded_rows(entries: Mapping[str, notebook.Recorded]) -> tuple[Mapping, str] | None:
    entry = entries.get("random-rows")
    return None if entry is None else (entry.results, entry.provenance)


def generator_of(p: Parameters) -> torch.Generator:
    """For the odds of rows, the same draws for every reading."""
    return p.generator(ODDS)
