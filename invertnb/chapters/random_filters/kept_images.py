"""Images that stand for others, at their norm: what one step gives back, noise, blur, averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from invertnb import FilterBank, check
from invertnb.chapters.random_filters.inputs import KEPT
from invertnb.reconstruct import reconstruct

#: Streams of the generator, one for each draw of filters.
FILTERS = KEPT
SIZE = 3  # side of a filter
RATIOS = (1, 2, 4, 8, 16, 32, 64)  # filters for each channel of the image
BATCH = 125  # images at a time, for their responses to many filters
HALVINGS = 40
NARROW = 1e-3  # variance of a blur in square pixels that blurs nothing


@dataclass(frozen=True)
class Step:
    """What is kept, and in how many steps the image is made of it.

    Attributes:
        ratio: K / C, filters for each of the image's channels.
        window: side of the pooling windows.
        share: of the windows' entries, the part of largest magnitude that is kept.
        steps: iterations of Algorithm 1 (normalized step, if more than one).
        pooling: "abs" as in the model, or "rectified" as in a network.
    """

    ratio: int
    window: int = 2
    share: float = 1.0
    steps: int = 1
    pooling: str = "abs"

    def kept(self, image: Sequence[int]) -> int:
        """Nonzeros of the code of an image (channels, height, width)."""
        channels, height, width = image
        windows = self.ratio * channels * (height // self.window) * (width // self.window)
        return max(1, round(self.share * windows))

    def of(self, x: Tensor, bank: FilterBank) -> Tensor:
        """x_hat of standardized images (batch, C, H, W), with the first filters of the bank.

        Raises:
            ValueError: a bank with too few filters.
        """
        K = self.ratio * x.shape[1]
        if bank.K < K:
            check.fail("bank", bank.K, f"{K} filters at least")
        some = FilterBank(bank.weight[:K], bank.stride, bank.padding)
        k = None if self.share == 1 else self.kept(x.shape[1:])
        block = (self.window, self.window)
        return torch.cat(
            [
                reconstruct(
                    part, some, k, block=block, pooling=self.pooling, iterations=self.steps
                ).signal
                for part in x.split(BATCH)
            ]
        )


def drawn(
    channels: int, generator: Callable[[int], Generator], draw: int
) -> FilterBank:
    """Gaussian filters of unit norm, float32, padded so that images keep their size."""
    bank = FilterBank.gaussian(
        RATIOS[-1] * channels, channels, SIZE, dims=2, padding=SIZE // 2,
        generator=generator(FILTERS + draw), dtype=torch.float32,
    )  # fmt: skip
    return bank.normalized()


def at_error(x: Tensor, direction: Tensor, error: Tensor) -> Tensor:
    """The image with the norm of x and this relative error that lies in the plane of both.

    Two images of one norm and at the angle t have the relative error 2 sin(t / 2).

    Args:
        x: (batch, C, H, W), no image of it zero.
        direction: of the same shape; what it has of x is taken out.
        error: (batch,), from 0 to 2.

    Raises:
        ValueError: shapes that do not fit, or an error out of range.
    """
    check.array("direction", direction, tuple(x.shape))
    check.array("error", error, (len(x),))
    if len(x) and not 0 <= float(error.min()) <= float(error.max()) <= 2:
        check.fail("error", error, "relative errors from 0 to 2")
    unit = x / _norm(x)
    across = direction - (direction * unit).flatten(1).sum(1).view(-1, 1, 1, 1) * unit
    angle = 2 * torch.asin(error / 2).view(-1, 1, 1, 1)
    return angle.cos() * x + angle.sin() * across * (_norm(x) / _norm(across))


def noisy(x: Tensor, error: Tensor, generator: Generator) -> Tensor:
    """x (batch, C, H, W) with Gaussian noise, at its norm and with these errors (batch,)."""
    check.generator("generator", generator)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)  # the same on every device
    return at_error(x, noise.to(x.device), error)


def blurred(x: Tensor, error: Tensor) -> Tensor:
    """x under a Gaussian blur, scaled to its norm, of such a width that it has these errors.

    The image is continued by reflection, where the blur is diagonal in the cosine basis. An error
    that no blur reaches gets the widest, whose deviation is the image's side: of a channel it
    leaves hardly more than the mean.

    Args:
        x: (batch, C, H, W), float32 or float64.
        error: (batch,).
    """
    check.array("error", error, (len(x),))
    bases = [_cosines(side).to(x.device) for side in x.shape[2:]]
    c = torch.einsum("ih,bchw,jw->bcij", bases[0], x.double(), bases[1])
    squares = c.square().sum(1)
    rows, columns = (math.pi * torch.arange(side).to(c) / side for side in x.shape[2:])
    frequency = rows[:, None].square() + columns.square()
    low = torch.full((len(x), 1, 1), math.log(NARROW)).to(c)
    high = torch.full_like(low, 2 * math.log(max(x.shape[2:])))
    wanted = 1 - error.double().square() / 2  # the cosine of the angle
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        g = torch.exp(-middle.exp() * frequency / 2)
        inner, size = (g * squares).sum((1, 2)), (g.square() * squares).sum((1, 2))
        near = inner / (size * squares.sum((1, 2))).sqrt() >= wanted
        low = torch.where(near[:, None, None], middle, low)
        high = torch.where(near[:, None, None], high, middle)
    g = torch.exp(-((low + high) / 2).exp() * frequency / 2)[:, None]
    found = torch.einsum("ih,bcij,jw->bchw", bases[0], g * c, bases[1])
    return (found * (_norm(c) / _norm(found))).to(x.dtype)


def averaged(x: Tensor, window: int) -> Tensor:
    """Each window's mean at all its pixels, scaled to the norm of x (batch, C, H, W).

    Raises:
        ValueError: windows that do not fill the image.
    """
    check.integer("window", window, 1)
    if any(side % window for side in x.shape[2:]):
        check.fail("window", window, f"a divisor of {tuple(x.shape[2:])}")
    small = F.avg_pool2d(x, window)
    wide = small.repeat_interleave(window, 2).repeat_interleave(window, 3)
    return wide * (_norm(x) / _norm(wide))


def _cosines(side: int) -> Tensor:
    """The orthonormal cosine basis (DCT-II), a row for each frequency."""
    place = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi * place[:, None] * (place + 0.5) / side) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
