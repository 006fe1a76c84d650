"""Down to pixels without a decoder: the transposed step, layer after layer (footnote 3).

From the output of pool(i) down: unpool with the known switches, take off what a bias added, and
step back through each convolution with W^T, or with several steps of least squares. What ReLU and
pooling cut off is not nothing: an entry that they did not let through was at most zero, or at most
the largest of its window; `bounds=True` asks for that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check, notebook, reconstruct
from invertnb.chapters.inverting_vgg.activation import LEARNED, RANDOM, WINDOW
from invertnb.chapters.inverting_vgg.inputs import OTHERS, Inputs, pooled, shrunk
from invertnb.chapters.inverting_vgg.others import best_length, cosine, unscaled
from invertnb.chapters.rip_2d.ratios import significant
from invertnb.kernels.pool_switch import pool_switch
from invertnb.kernels.unpool import unpool
from invertnb.networks import VGG16, Network, gaussian
from invertnb.notebook.figures import Photographs, photographs
from invertnb.notebook.real_networks import inputs as provenance
from invertnb.notebook.real_networks import slug, words

#: Pixels along a side: larger photographs are shrunk to it; four poolings leave 5 places of it.
SIDE = 80
STEPS = 10
#: Steps for each convolution, and whether what ReLU and pooling cut off counts.
ONE, SEVERAL, BOUNDED = "1 step", f"{STEPS} steps", "with bounds"
MODES = {ONE: (1, False), SEVERAL: (STEPS, False), BOUNDED: (STEPS, True)}
TRUE, RECONSTRUCTED, UNTRAINED = "f", "f_hat", "f, random network"
DECODER = "decoder"
UNTRAINED_STREAM = 50


@dataclass(frozen=True)
class Downward:
    """One photograph from each pooling.

    Attributes:
        pixels: the photograph, (1, 3, SIDE, SIDE) in [0, 1], or smaller if it is.
        mean: what is subtracted from images before errors are taken, (3, 1, 1).
        images: estimates less the mean, (1, 3, SIDE, SIDE), by start (TRUE, RECONSTRUCTED or
            UNTRAINED), pooling and mode; for TRUE also by DECODER where there is one.
        layers: cosines between the true input of each convolution and its estimate from the true
            output, by network (LEARNED, RANDOM), convolution and mode.
    """

    pixels: Tensor
    mean: Tensor
    images: Mapping[str, Mapping[str, Mapping[str, Tensor]]]
    layers: Mapping[str, Mapping[str, Mapping[str, float]]]

    def cosine(self, start: str, pool: str, mode: str) -> float:
        """Of the angle between an estimate and the photograph, both less the mean."""
        return float(cosine(self.pixels - self.mean, self.images[start][pool][mode]))

    def best(self, start: str, pool: str, mode: str) -> Tensor:
        """An estimate at its best length for the photograph, (1, 3, SIDE, SIDE), the mean added."""
        given, target = self.images[start][pool][mode], self.pixels - self.mean
        square = given.square().sum()
        return self.mean + given * torch.where(square > 0, (given * target).sum() / square, 0.0)

    def errors(self, start: str, pool: str, mode: str) -> tuple[float, float, float]:
        """Mean subtracted; the same at the best length, ``|sine|``; mean added back."""
        target, given = self.pixels - self.mean, self.images[start][pool][mode]
        apart = (target - given).norm()
        sine = max(0.0, 1 - self.cosine(start, pool, mode) ** 2) ** 0.5
        return float(apart / target.norm()), sine, float(apart / self.pixels.norm())


def compute(inputs: Inputs, generator: Callable[[int], torch.Generator]) -> Downward:
    """The first photograph, shrunk, through the network, through a random one, and back."""
    small, network, pools = shrunk(inputs, SIDE, 1), inputs.network, inputs.pools
    pixels, f, switches = small.pixels, small.f, small.switches
    mean = average(network).to(pixels.device)
    hat = {pool: reconstruct(f[pool], inputs.learned[pool]).signal for pool in pools}
    images = {
        TRUE: descend(network, f, switches, MODES),
        RECONSTRUCTED: descend(network, hat, switches, (ONE, BOUNDED)),
    }
    untrained = twin(network, generator(OTHERS + UNTRAINED_STREAM)).to(pixels.device)
    images[UNTRAINED] = descend(untrained, *pooled(untrained, pixels, pools), (ONE, BOUNDED))
    if inputs.decodable:
        decoder = inputs.decoder()
        for pool in pools:
            given = {name: switches[name] for name in pools[: pools.index(pool) + 1]}
            images[TRUE][pool][DECODER] = decoder(f[pool], pool, given) + decoder.mean - mean
    layers = {
        LEARNED: layer_cosines(network, pixels, pools),
        RANDOM: layer_cosines(untrained, pixels, pools),
    }
    return Downward(pixels, mean, images, layers)


def recording(p: notebook.NetworkParameters) -> notebook.Recording:
    """Images from every pooling of a network, up to pool(4), without a decoder.

    By network (LEARNED, RANDOM), pooling and mode: mean and standard deviation over the images of
    the error as it comes ("error") and at the best length ("best"), both less the mean.
    """
    network, pictures = p.network(), p.pictures(p.photographs)
    pools = tuple(f"pool({i})" for i in range(1, 5) if f"pool({i})" in network.layers)
    pixels = F.interpolate(pictures.all(), (SIDE, SIDE), mode="area").to(p.device)
    untrained = twin(network, p.generator(OTHERS + UNTRAINED_STREAM)).to(p.device)
    results = {
        "network": words(network),
        "real": network.source.real,
        "images": len(pictures),
        "side": SIDE,
        "downward": {
            LEARNED: without_decoder(network, pixels, pools),
            RANDOM: without_decoder(untrained, pixels, pools),
        },
    }
    label = f"downward-{slug(network)}-{len(pictures)}"
    return notebook.Recording(label, provenance(network, pictures), results)


def without_decoder(
    network: Network, pixels: Tensor, pools: tuple[str, ...]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """[mean, standard deviation] over images by pooling, mode and kind of error.

    The deviation is that of a sample, and 0 for a single image.
    """
    target = pixels - average(network).to(pixels.device)
    found = descend(network, *pooled(network, pixels, pools), MODES)
    few = min(1, len(pixels) - 1)
    return {
        pool: {
            mode: {
                kind: [
                    significant(float(each), 3)
                    for each in (errors.mean(), errors.std(correction=few))
                ]
                for kind, errors in (
                    ("error", unscaled(target, image)), ("best", best_length(target, image)),
                )
            }
            for mode, image in by_mode.items()
        }
        for pool, by_mode in found.items()
    }  # fmt: skip


# --- One network, down and up ---------------------------------------------------------------------


def twin(network: Network, generator: torch.Generator) -> Network:
    """Random weights of the network's width and no bias, for images prepared in the same way."""
    width = len(network.filters("conv(1,1)")[0]) / VGG16.blocks[0][0]
    found = gaussian(VGG16, generator=generator, width=width)
    found.preprocessing = network.preprocessing
    return found


def convolutions(pool: str) -> list[str]:
    """The convolutions of a pooling's block, the last one first."""
    block = int(pool[5])
    return [f"conv({block},{j})" for j in range(len(VGG16.blocks[block - 1]), 0, -1)]


def descend(
    network: Network, f: Mapping[str, Tensor], switches: Mapping[str, Tensor], modes
) -> dict[str, dict[str, Tensor]]:
    """Images less their mean, by pooling and mode."""
    return {
        pool: {
            mode: as_pixels(network, down(network, each, pool, switches, *MODES[mode]))
            for mode in modes
        }
        for pool, each in f.items()
    }


def down(
    network: Network, h: Tensor, pool: str, switches: Mapping[str, Tensor], steps: int = 1,
    bounds: bool = False,
) -> Tensor:
    """An estimate of the prepared image from the output of pool(i), (batch, 3, H, W).

    Args:
        h: that output, (batch, K, n1, n2), true or reconstructed.
        switches: of pool(1) to pool(i).
        steps: see `step_back`, for each convolution.
        bounds: whether entries that ReLU or pooling cut off are bounded.

    Raises:
        ValueError: no step.
    """
    check.integer("steps", steps, 1)
    for block in range(int(pool[5]), 0, -1):
        h, most = unpooled(h, switches[f"pool({block})"])
        for name in convolutions(f"pool({block})"):
            h = step_back(network, name, h, steps, most if bounds else None)
            most = torch.zeros_like(h)
    return h


def unpooled(h: Tensor, switches: Tensor) -> tuple[Tensor, Tensor]:
    """h at the switches, zero elsewhere, and what no entry of a window exceeded: its largest."""
    most = h.repeat_interleave(WINDOW[0], 2).repeat_interleave(WINDOW[1], 3)
    return unpool(h.contiguous(), switches.to(torch.uint8), WINDOW), most


def step_back(
    network: Network, name: str, h: Tensor, steps: int, most: Tensor | None = None
) -> Tensor:
    """The input of a convolution from its output h, by projected gradients from zero.

    Looks for f, nonnegative except where it is an image, with W f + b near h where h > 0, in least
    squares. Elsewhere nothing is asked for, or W f + b <= most, by the square of what exceeds it.
    Each step has the length of an exact line search among the entries that are not yet met: the
    first is W^T (h - b) at the length that comes nearest to h, which needs no f.

    Args:
        h: (batch, K, n1, n2), 0 where ReLU or pooling let nothing through.
        steps: at least 1.
        most: in the shape of h.
    """
    bank, bias = network.bank(name, normalized=False), network.filters(name)[1].view(-1, 1, 1)
    at = h > 0
    wanted = torch.where(at, h - bias, 0.0)
    f, explained = torch.zeros_like(bank._synthesis(wanted)), torch.zeros_like(wanted)
    for i in range(steps):
        gap = torch.where(at, wanted - explained, 0.0)
        if most is not None:
            gap = torch.where(at, gap, (most - bias - explained).clamp(max=0))
        gradient = bank._synthesis(gap)
        along = bank._analysis(gradient) * (at if most is None else gap != 0)
        square, curvature = (each.flatten(1).square().sum(1) for each in (gradient, along))
        length = torch.where(curvature > 0, square / curvature.clamp(min=1e-30), 0.0)
        f = f + length.view(-1, 1, 1, 1) * gradient
        if name != "conv(1,1)":
            f = f.clamp(min=0)
        if i < steps - 1:
            explained = bank._analysis(f)
    return f


def layer_cosines(
    network: Network, pixels: Tensor, pools: tuple[str, ...], modes=(ONE, BOUNDED)
) -> dict[str, dict[str, float]]:
    """How near each step comes alone: cosines of the input of a convolution and its estimate.

    The output is the true one; the last convolution of a block is seen through its pooling.
    """
    found = {}
    for pool in pools:
        for name in reversed(convolutions(pool)):
            f, h = network.before(pixels, name), network.activations(pixels, [name])[name]
            most = torch.zeros_like(h)
            if name == convolutions(pool)[0]:
                h, most = unpooled(*pool_switch(h, WINDOW, "signed"))
            found[name] = {}
            for mode in modes:
                steps, bounds = MODES[mode]
                estimate = step_back(network, name, h, steps, most if bounds else None)
                found[name][mode] = float(cosine(f, estimate).mean())
    return found


# --- Pixels ---------------------------------------------------------------------------------------


def average(network: Network) -> Tensor:
    """The mean that the network subtracts, (3, 1, 1), RGB in [0, 1]."""
    given = network.preprocessing
    mean = torch.tensor(given.mean).view(3, 1, 1) / given.scale
    return mean.flip(0) if given.order == "BGR" else mean


def as_pixels(network: Network, prepared: Tensor) -> Tensor:
    """A prepared image (batch, 3, H, W) as RGB less the mean, in units where pixels reach 1."""
    given = network.preprocessing
    less = prepared * prepared.new_tensor(given.std).view(3, 1, 1) / given.scale
    return less.flip(1) if given.order == "BGR" else less


def draw_downward(downward: Downward) -> Photographs:
    """The photograph and its estimates from each pooling, at their best lengths, cut to [0, 1]."""
    rows, pools = {}, list(downward.images[TRUE])
    decodable = all(DECODER in downward.images[TRUE][pool] for pool in pools)
    columns = {mode: (TRUE, mode) for mode in MODES} | {"random": (UNTRAINED, BOUNDED)}
    if decodable:
        columns["decoder"] = (TRUE, DECODER)
    for pool in pools:
        pictures = [downward.pixels]
        for name, (start, mode) in columns.items():
            given = downward.images[start][pool][mode]
            pictures.append(
                given + downward.mean if name == "decoder" else downward.best(start, pool, mode)
            )
        rows[pool] = [each[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy() for each in pictures]
    return photographs(rows, ["original", *columns], width=5.6)
