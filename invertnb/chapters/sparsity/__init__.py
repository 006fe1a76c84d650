"""Chapter 8: sparsity and coherence of real networks (sections 4.3 and 4.4, appendix C.2).

Tables 2, 4, 6 and 7 from networks that are at hand: the embedded checkpoint live, weights trained
on ImageNet as far as they were recorded, and a reader's own by a parameter. `activity` measures the
outputs of layers, `banks` their filters, `measured` both, `rows` random filters of AlexNet's sizes,
`matching` looks for a published row that stands out of place, `recordings` are what was measured
elsewhere, `verdicts` fills the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from invertnb import networks, notebook
from invertnb.chapters.proposition_1 import random_filters
from invertnb.chapters.sparsity import activity, banks, matching, measured, recordings, rows
from invertnb.chapters.sparsity.banks import Bank
from invertnb.chapters.sparsity.explorers import explorer, map_explorer  # noqa: F401
from invertnb.chapters.sparsity.figures import draw_densities
from invertnb.chapters.sparsity.measured import Measured
from invertnb.networks import Images, Network
from invertnb.notebook import NetworkParameters, load_recorded, parameter
from invertnb.notebook.figures import Figure

PAPER = {"count": 50_000, "draws": 200, "bank_draws": 20, "shifts": 512}

RANDOM, ALEX, BANKS, ROWS, ODDS, REDRAWN = range(6)  # streams of draws
REDRAWS, FEW = 2, 10  # further draws of random weights, and the images they see at most


@dataclass(frozen=True)
class Parameters(NetworkParameters):
    """Which networks and images, and how much is drawn."""

    alexnet: str = parameter(
        "random", path=True, help="weights of AlexNet: random, torchvision or the path of a file"
    )
    count: int = parameter(10, minimum=1, help="images used, at most")
    draws: int = parameter(8, minimum=3, help="random banks of each of AlexNet's sizes")
    bank_draws: int = parameter(3, minimum=1, help="random banks to compare partners with")
    shifts: int = parameter(
        128, minimum=0, help="largest number of filters that are compared over all shifts"
    )
    study: str = parameter(
        "network", choices=("network", "random rows"),
        help="what --record computes: the networks, or Table 6's random row in all readings",
    )  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        network, images: live, for the explorers.
        live: the network of `weights`.
        random: random weights of the same shape on the same images.
        redrawn: percent of the nonzeros that hold 90 percent of the energy, the largest over
            convolutions, for more draws of random weights.
        alexnet: AlexNet.
        recorded: the network with real weights that was measured elsewhere, and the line of its
            provenance; None where nothing was recorded.
        recorded_alexnet: the same for AlexNet.
        rows: Table 6's random row in the readings in place.
        recorded_rows: all readings by more draws, recorded: odds, and mean and sd by layer; and
            the line of its provenance; or None.
    """

    network: Network
    images: Images
    live: Measured
    random: Measured
    redrawn: tuple[float, ...]
    alexnet: Measured
    recorded: tuple[Measured, str] | None
    recorded_alexnet: tuple[Measured, str] | None
    rows: Mapping[str, rows.Row]
    recorded_rows: tuple[Mapping, str] | None

    @property
    def skipped(self) -> list[str]:
        """Names of images that were asked for and could not be read."""
        return list(dict.fromkeys(self.images.skipped))


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    network, images = p.network(), p.pictures(p.count)
    alexnet = load_alexnet(p)
    few = images.first(min(FEW, len(images)))
    entries = load_recorded("sparsity")
    return Data(
        network, images,
        live=measure(p, network, images),
        random=measured.measure(random_like(p, network, RANDOM), images, filters=False),
        redrawn=tuple(
            activity.most_needed(activity.activities(random_like(p, network, REDRAWN + i), few))
            for i in range(REDRAWS)
        ),
        alexnet=measure(p, alexnet, images),
        recorded=recordings.real_network(entries),
        recorded_alexnet=recordings.real_alexnet(entries),
        rows=rows.draw_rows(p.generator(ROWS), p.draws),
        recorded_rows=recordings.recorded_rows(entries),
    )  # fmt: skip


def measure(
    p: Parameters, network: Network, images: Images, *, progress: bool = False
) -> Measured:
    """A network on images; the filters, too, unless they are random."""
    return measured.measure(
        network, images, filters=network.source.tier != "random", generator=p.generator(BANKS),
        draws=p.bank_draws, shifts=p.shifts, progress=progress,
    )  # fmt: skip


def random_like(p: Parameters, network: Network, stream: int) -> Network:
    """Random weights for the layers and the width of a network."""
    width = len(network.filters("conv(1,1)")[0]) / 64
    random = networks.gaussian(networks.VGG16, generator=p.generator(stream), width=width)
    return random.truncated(network.layers[-1]).to(p.device)


def load_alexnet(p: Parameters) -> Network:
    """AlexNet; what a file of its weights was trained to see is taken from `preprocessing`, too."""
    if p.alexnet == "random":
        generator = p.generator(ALEX)
        return networks.gaussian(networks.ALEXNET, generator=generator).to(p.device)
    given = None if p.preprocessing == "auto" or not Path(p.alexnet).is_file() else p.preprocessing
    return networks.load("alexnet", p.alexnet, preprocessing=given).to(p.device)


def recording(parameters: Parameters) -> notebook.Recording:
    """What `study` names: the network of `weights` on `images`, with AlexNet; or random rows."""
    p = parameters
    return recordings.random_rows(p) if p.study == "random rows" else recordings.network(p)


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
