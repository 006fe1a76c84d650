"""What chapters on real networks share: the network, the images, the names of recordings."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from invertnb import networks
from invertnb.networks.architecture import PREPROCESSING, parse_layer

from .parameters import Parameters, parameter


@dataclass(frozen=True)
class NetworkParameters(Parameters):
    """Parameters of a chapter that runs VGG-16 on images."""

    weights: str = parameter(
        "embedded", path=True,
        help="of VGG-16: embedded, torchvision, IMAGENET1K_FEATURES or the path of a file",
    )  # fmt: skip
    preprocessing: str = parameter(
        "auto", choices=("auto", *PREPROCESSING),
        help="what a network from a file was trained to see",
    )  # fmt: skip
    images: str = parameter(
        "embedded", path=True, help="embedded, folder (INVERTNB_DATA) or the path of a folder"
    )
    skip_corrupt: bool = parameter(
        False, help="leave out images that cannot be read, and name them"
    )

    def network(self) -> networks.Network:
        """VGG-16 with the weights that are asked for, on the device; loaded once."""
        return _network(self.weights, self.preprocessing, self.device)

    def pictures(self, count: int) -> networks.Images:
        """The first so many of the images that are asked for, or all if there are fewer."""
        found = networks.open_images(self.images, skip_corrupt=self.skip_corrupt)
        return found.first(min(count, len(found)))


@functools.lru_cache(2)
def _network(weights: str, preprocessing: str, device: str) -> networks.Network:
    given = None if preprocessing == "auto" else preprocessing
    return networks.load("vgg16", weights, preprocessing=given).to(device)


def slug(network: networks.Network) -> str:
    """A recording's label for a network: architecture, blocks unless all are there, and weights."""
    name = network.architecture.name
    if network.layers != network.architecture.layers:
        blocks = sorted({parse_layer(layer)[0] for layer in network.layers})
        name += "-blocks" + "".join(map(str, blocks))
    source = network.source
    if source.tier == "file" and source.real:
        return name
    if source.tier == "torchvision":
        return f"{name}-{source.weights.lower().replace('_', '-')}"
    return f"{name}-{'narrow' if source.tier == 'file' else source.tier}"


def words(network: networks.Network) -> str:
    """A few words on the weights, and which blocks there are if the network is not whole."""
    source = network.source
    found = {
        "embedded": "embedded checkpoint",
        "torchvision": f"torchvision {source.weights}",
        "file": "real weights" if source.real else "narrow weights",
        "random": "random weights",
    }[source.tier]
    if network.layers != network.architecture.layers:
        last = max(parse_layer(layer)[0] for layer in network.layers)
        found += {1: " of block 1", 2: " of blocks 1 and 2"}.get(last, f" of blocks 1 to {last}")
    return found


def inputs(network: networks.Network, images: networks.Images) -> dict[str, str]:
    """Provenance of a recording: weights and images with their SHA-256, and what was skipped."""
    digest = network.source.sha256
    skipped = f", without {', '.join(images.skipped)}" if images.skipped else ""
    return {
        "weights": f"{network.source.label}, SHA-256 {digest}",
        "images": f"{images.label}{skipped}, SHA-256 {images.sha256}",
    }
