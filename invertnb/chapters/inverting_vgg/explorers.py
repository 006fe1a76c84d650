"""The explorer: a photograph, what its decoder makes of a layer, and of what one step leaves of it.

Always the embedded network and its decoders on four of the embedded photographs, whatever network
the chapter runs on: no other has decoders.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import networks, random_activations, relative_error
from invertnb.chapters.inverting_vgg import activation, inputs
from invertnb.chapters.inverting_vgg.decoded import rectify
from invertnb.chapters.inverting_vgg.inputs import EXPLORED, Inputs
from invertnb.networks import Decoder, load_decoder, open_images
from invertnb.notebook import Choice, Explorer, NetworkParameters, View

#: Names for a reader, and of the files.
PHOTOGRAPHS = {"cat": "chelsea", "astronaut": "astronaut", "pagoda": "china", "flower": "flower"}
POOLS = ("pool(1)", "pool(2)", "pool(3)", "pool(4)")
FILTERS = ("learned", "random", "none")
SWITCHES = ("known", "fixed", "random")
PANELS = ("original", "decoded", "reconstructed", "error map")
#: Sides in pixels of the photographs, of a picture, and of the map of its errors (noise costs the
#: page most bytes); and the error, root mean square over the channels, that is brightest.
SEEN, SIDE, MAP_SIDE, BRIGHTEST = 160, 144, 84, 0.5

CAPTION = (
    "Original; decoded from the true activations f of the layer; decoded from what one step "
    "leaves of them, the positive part of f_hat = W^T M(W f, k); error map: original less "
    "reconstructed, root mean square over the channels, from black at 0 to the palest at "
    f"{BRIGHTEST} and more. Filters: learned, those of the convolution behind the layer; random, "
    "Gaussian ones of the same shape; none, Gaussian noise of the norm of f in place of f_hat. "
    "Switches, those of the decoder: known, the encoder's; fixed, with the decoder that was "
    "trained so; random, given to the decoder of known ones. Numbers: relative errors of f_hat "
    "and of the two decoded images, these without the mean that the network subtracts and with "
    "it added back. A half-width VGG-16 trained on CIFAR-10, and decoders trained for this "
    "book, stand in for the paper's networks."
)


@dataclass(frozen=True)
class Seen:
    """A decoded image.

    Attributes:
        image: (3, H, W) in [0, 1] up to overshoots.
        error: relative, the mean subtracted from image and original.
        with_mean: relative, of both as they are.
    """

    image: Tensor
    error: float
    with_mean: float

    @functools.cached_property
    def small(self) -> np.ndarray:
        """For the page."""
        return shrink(self.image)


class Study:
    """Everything that the explorer shows, each part computed once and only when it is asked for.

    Args:
        parameters: of the chapter, for the seed and the device.
    """

    def __init__(self, parameters: NetworkParameters) -> None:
        self.p = parameters
        self.network = networks.load("vgg16").to(parameters.device)
        for part in (self.start, self.f_hat, self.decoder, self.see):
            setattr(self, part.__name__, functools.cache(part))

    def start(self, photograph: str) -> Inputs:
        """Activations and switches of one photograph, and one draw of random filters."""
        everything = open_images()
        at = everything.names.index(PHOTOGRAPHS[photograph])
        only = replace(
            everything, paths=everything.paths[at : at + 1], side=SEEN, resize=8 * SEEN // 7
        )
        return inputs.gather(self.network, only, 1, self.p.generator)

    def f_hat(self, photograph: str, pool: str, filters: str) -> tuple[Tensor, float]:
        """One step with the layer's filters or random ones, or noise instead; and its error."""
        given = self.start(photograph)
        f = given.f[pool]
        if filters == "none":
            found = random_activations(f, self._generator(photograph, pool))
        else:
            bank = given.learned[pool] if filters == "learned" else given.random[pool][0]
            found = activation.step(f, bank, activation.FITTING, pool).signal
        return found, float(relative_error(f, found))

    def decoder(self, switches: str) -> Decoder:
        """The one that was trained with such switches; random ones go to that of known ones."""
        kind = "fixed" if switches == "fixed" else "known"
        return load_decoder(kind).to(self.p.device)

    def see(self, photograph: str, pool: str, filters: str | None, switches: str) -> Seen:
        """The image of f_hat, or that of f where filters is None."""
        given, decoder = self.start(photograph), self.decoder(switches)
        f = given.f[pool] if filters is None else rectify(self.f_hat(photograph, pool, filters)[0])
        out = decoder(f, pool, self.switches(photograph, pool, switches))
        target, mean = decoder.target(given.pixels), decoder.mean
        errors = relative_error(target, out), relative_error(target + mean, out + mean)
        return Seen((out + mean)[0], *map(float, errors))

    def switches(self, photograph: str, pool: str, kind: str) -> dict[str, Tensor] | None:
        """What a decoder is given: of all poolings up to this one, or nothing if it has its own."""
        if kind == "fixed":
            return None
        every = self.start(photograph).switches
        used = {name: every[name] for name in POOLS[: POOLS.index(pool) + 1]}
        if kind == "known":
            return used
        # The same ones whatever the filters, so that only the values differ.
        generator = self._generator(photograph, pool, 50)
        return {
            name: torch.randint(4, each.shape, generator=generator).to(each)
            for name, each in used.items()
        }

    def _generator(self, photograph: str, pool: str, more: int = 0) -> torch.Generator:
        stream = len(POOLS) * list(PHOTOGRAPHS).index(photograph) + POOLS.index(pool)
        return self.p.generator(EXPLORED + more + stream)


def shrink(image: Tensor) -> np.ndarray:
    """An image (3, H, W), cut to [0, 1], as (SIDE, SIDE, 3) uint8."""
    small = F.interpolate(
        image[None].clamp(0, 1), (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False
    )
    return (255 * small[0].clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()


def error_map(original: Tensor, image: Tensor) -> np.ndarray:
    """How far an image (3, H, W), cut to [0, 1], is off: (MAP_SIDE, MAP_SIDE, 3) uint8."""
    off = (original - image.clamp(0, 1)).square().mean(0).sqrt()
    small = F.interpolate(off[None, None], (MAP_SIDE, MAP_SIDE), mode="area")[0, 0]
    level = (small / BRIGHTEST).clamp(0, 1).cpu().numpy()
    return np.ascontiguousarray(matplotlib.colormaps["magma"](level, bytes=True)[..., :3])


def explorer(parameters: NetworkParameters | None = None) -> Explorer:
    """Original, decoded, reconstructed and error map by photograph, layer, filters and switches."""
    p = NetworkParameters() if parameters is None else parameters
    study = Study(p)

    def show(photograph: str, layer: str, filters: str, switches: str) -> View:
        original = study.start(photograph).pixels[0]
        true = study.see(photograph, layer, None, switches)
        found = study.see(photograph, layer, filters, switches)
        panels = shrink(original), true.small, found.small, error_map(original, found.image)
        errors = {
            "error of activations": study.f_hat(photograph, layer, filters)[1],
            "decoded": true.error,
            "reconstructed": found.error,
            "decoded + mean": true.with_mean,
            "reconstructed + mean": found.with_mean,
        }
        return View(
            dict(zip(PANELS, panels, strict=True)),
            {name: f"{error:.2f}" for name, error in errors.items()},
            photograph=True,
        )

    elsewhere = "" if p.weights == "embedded" else " So here, too: other weights have no decoders."
    return Explorer(
        "inverting-vgg",
        [
            Choice("photograph", list(PHOTOGRAPHS), "photograph", "pagoda"),
            Choice("layer", POOLS, "layer", "pool(2)"),
            Choice("filters", FILTERS, "filters"),
            Choice("switches", SWITCHES, "switches"),
        ],
        show,
        alt="Photograph ({photograph}) in four pictures: original; decoded from {layer}, switches: "
        "{switches}; decoded after one step, filters: {filters}; error map",
        caption=CAPTION + elsewhere,
    )
