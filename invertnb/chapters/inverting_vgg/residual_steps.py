"""Footnote 9: the one step of section 4.5 on the activations of ResNet-18, and what breaks.

The paper expects of ResNet what it shows for VGG and leaves it at that. Four things stand between:
no pooling inside the stages, so no windows and no switches; strides, where W has fewer rows than
columns; the sum of a block with its input, which is no convolution; and batch norm.

Batch norm is no part of W, whose rows have unit norm here as everywhere in the chapter. What its
scales and shifts change is measured apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invertnb import ModelSparse, random_activations, reconstruct, relative_error
from invertnb.chapters.inverting_vgg.activation import WINDOW, random_bank
from invertnb.chapters.inverting_vgg.inputs import RESIDUAL, middle
from invertnb.chapters.inverting_vgg.residual_network import (
    EVEN, Convolution, Passed, Trained, branch, calibrate, run,
)  # fmt: skip

#: What M may keep of h = W f: the largest entry of every window of 2 x 2, as if there were windows;
#: as many entries, the largest wherever they stand; what the network passes on; everything.
WINDOWS, LARGEST, PASSED, ALL = RULES = ("windows", "largest quarter", "ReLU", "everything")
OWN, RANDOM = "own", "random"
#: What batch norm may do to h before windows are compared: nothing; scale rows; scale and shift.
NORMS = ("unit rows", "scaled", "scaled and shifted")
#: Streams, from RESIDUAL: weights, activations, directions; filters, draw by draw.
NET, ACTIVATIONS, DIRECTIONS, FILTERS = range(RESIDUAL, RESIDUAL + 40, 10)
ITERATIONS, PERTURBED, TOL = 30, 1e-3, 1e-2


class Step(NamedTuple):
    """One step by rule, each of (images,).

    Attributes:
        error: ``||f - f_hat|| / ||f||`` with f_hat at the norm of f.
        kept: ``||z|| / ||f||`` of the code z that is kept.
        ratio: ``||W^T z|| / ||z||``; kept / ratio is the cosine of f and f_hat where z keeps
            entries of W f.
    """

    error: Tensor
    kept: Tensor
    ratio: Tensor


@dataclass(frozen=True)
class Layer:
    """What one step makes of the input of a convolution.

    Attributes:
        bank: the network's own filters, of unit norm.
        places: entries of the code over entries of the input, K n / (M D).
        crowded: share of the windows of what the network passes on with more than one nonzero.
        own, random: steps by rule, of the own filters and, draw by draw, of random ones.
        activations: error of random activations, (images,).
        floor: least error of any f_hat in the range of W^T, at the norm of f, (images,), by
            filters, up to what conjugate gradients leave; only where W has fewer rows than columns.
        norms: errors with windows by what batch norm does, see `NORMS`.
    """

    bank: Convolution
    places: float
    crowded: float
    own: Mapping[str, Step]
    random: Sequence[Mapping[str, Step]]
    activations: Tensor
    floor: Mapping[str, Tensor]
    norms: Mapping[str, Tensor]


@dataclass(frozen=True)
class Block:
    """A block with identity shortcut undone by x <- u - F(x) from x = u = x + F(x), image by image.

    Attributes:
        errors: relative errors of x after 0, 1, ... iterations, (1 + iterations, images).
        clipped: the last error from y = ReLU(u), what the network really passes on, (images,).
        expansion: the largest ``||F(a) - F(x)|| / ||a - x||`` on the way: Lip(F) is at least this.
        growth: factor by which a small error near x grows in an iteration, the spectral radius of
            F's derivative as power iterations estimate it, (images,).
        cut: share of the entries of u that ReLU sets to zero.
    """

    errors: Tensor
    clipped: Tensor
    expansion: Tensor
    growth: Tensor
    cut: float


@dataclass(frozen=True)
class Residual:
    """A network, layer by layer and block by block."""

    trained: Trained
    pixels: Tensor
    layers: Mapping[str, Layer]
    blocks: Mapping[str, Block]


def measure(
    trained: Trained, pixels: Tensor, generator: Callable[[int], torch.Generator],
    draws: int = 1, undone: int | None = None, iterations: int = ITERATIONS,
) -> Residual:
    """Layers and blocks of a network; one with random weights is calibrated on these images.

    Args:
        pixels: (images, 3, H, W) in [0, 1].
        draws: banks of random filters for each layer.
        undone: photographs whose blocks are undone; None for all.
        iterations: of each.
    """
    trained.net.to(pixels.device)
    if trained.source.tier == "random":
        calibrate(trained, pixels)
    seen, inputs = run(trained, pixels)
    filters = [generator(FILTERS + draw) for draw in range(draws)]
    activations, directions = generator(ACTIVATIONS), generator(DIRECTIONS)
    layers = {
        name: layer(trained, name, each, filters, activations) for name, each in seen.items()
    }
    blocks = {
        name: undo(branch(block), inputs[name][:undone], directions, iterations)
        for name, block in trained.blocks.items() if block.downsample is None
    }  # fmt: skip
    return Residual(trained, pixels, layers, blocks)


def cut(pixels: Tensor, side: int) -> Tensor:
    """The middle of images, (images, 3, side, side); of smaller ones as much as `EVEN` divides.

    Images below `EVEN` pixels are enlarged to that.
    """
    if min(pixels.shape[2:]) < EVEN:
        return F.interpolate(pixels, size=(EVEN, EVEN), mode="bilinear")
    return middle(pixels, side, EVEN)


def layer(
    trained: Trained, name: str, seen: Passed, filters: Sequence[torch.Generator],
    activations: torch.Generator,
) -> Layer:
    """One convolution: own filters, random ones from each generator, random activations."""
    raw, f = trained.bank(name), seen.f
    own = raw.normalized()
    drawn = [
        Convolution(random_bank(own, each).weight, own.stride, own.padding, own.left)
        for each in filters
    ]
    floor = {}
    if seen.passed[0].numel() < f[0].numel():
        floor = {which: least(f, bank) for which, bank in {OWN: own, RANDOM: drawn[0]}.items()}
    by_rule = steps(f, own, seen.passed)
    norms = {NORMS[0]: by_rule[WINDOWS].error} | normed(f, raw, trained.norm(name))
    return Layer(
        own, seen.passed[0].numel() / f[0].numel(), crowded(seen.passed), by_rule,
        [steps(f, bank) for bank in drawn],
        relative_error(f, random_activations(f, activations)), floor, norms,
    )  # fmt: skip


def steps(f: Tensor, bank: Convolution, passed: Tensor | None = None) -> dict[str, Step]:
    """One step and back in all rules.

    Args:
        f: (images, M, H, W), with a code of even sides.
        bank: filters W.
        passed: bool, in the shape of the code: which entries the network passes on; by default, of
            filters that are no network's, the positive ones.
    """
    h = bank.analysis(f)
    passed = h > 0 if passed is None else passed
    codes = {
        WINDOWS: ModelSparse(WINDOW, None).project(h).code,
        LARGEST: ModelSparse((1, 1), h[0].numel() // (WINDOW[0] * WINDOW[1])).project(h).code,
        PASSED: h * passed,
        ALL: h,
    }
    found = {}
    for rule, z in codes.items():
        back = bank._synthesis(z)
        found[rule] = Step(_error(f, back), _length(z) / _length(f), _length(back) / _length(z))
    return found


def least(f: Tensor, bank: Convolution) -> Tensor:
    """The error of the f_hat that least squares finds, at the norm of f.

    Unscaled it is the projection of f to the range of W^T, so no W^T z has a larger cosine with f.
    """
    return relative_error(f, reconstruct(f, bank, method="least squares", tol=TOL).signal)


def normed(f: Tensor, raw: Convolution, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Errors with windows where batch norm scales the rows of W, and where it shifts the code, too.

    Args:
        f: (images, M, H, W).
        raw: the filters as the network has them, which this batch norm follows.
    """
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = (norm.bias - scale * norm.running_mean).view(-1, 1, 1)
    scaled = Convolution(_wide(scale) * raw.weight, raw.stride, raw.padding, raw.left)
    h, model = scaled.analysis(f), ModelSparse(WINDOW, None)
    codes = {NORMS[1]: h, NORMS[2]: h + shift}
    return {
        which: _error(f, scaled._synthesis(model.project(each).code))
        for which, each in codes.items()
    }


def crowded(passed: Tensor) -> float:
    """Of the windows with a nonzero, the share with more than one."""
    many = F.avg_pool2d(passed.float(), WINDOW, divisor_override=1)
    return float((many > 1).sum() / (many > 0).sum().clamp(min=1))


def undo(
    F_of: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator,
    iterations: int = ITERATIONS,
) -> Block:
    """The fixed-point iteration for x + F(x), as i-ResNet (Behrmann et al. 2019) undoes it.

    It converges from everywhere if Lip(F) < 1, and from near x if and only if (but for the border)
    the spectral radius of F's derivative at x is below 1.

    Args:
        F_of: the branch of the block.
        x: its input, (images, M, H, W).
        generator: of the directions of small errors.
    """
    of_x = F_of(x)
    u = x + of_x
    errors = _iterate(F_of, x, u, iterations)
    # F(x_t) - F(x) = x - x_(t+1): what an iteration does to the error is what F does to it.
    before = errors[:-1]
    expansion = torch.where(before > 0, errors[1:] / before, 0.0).amax(0)
    clipped = _iterate(F_of, x, u.clamp(min=0), iterations)[-1]
    d = torch.randn(x.shape, generator=generator).to(x)
    small, factors = PERTURBED * _length(x), []
    for _ in range(iterations):
        d = F_of(x + d * _wide(small / _length(d))) - of_x
        factors.append(_length(d) / small)
    last = torch.stack(factors[iterations // 2 :])
    return Block(
        errors, clipped, expansion, last.log().mean(0).exp(), float((u <= 0).float().mean())
    )  # fmt: skip


def _iterate(
    F_of: Callable[[Tensor], Tensor], x: Tensor, u: Tensor, iterations: int
) -> Tensor:
    """Relative errors of u, u - F(u), ..., (1 + iterations, images)."""
    guess, errors, size = u, [_length(u - x)], _length(x)
    for _ in range(iterations):
        guess = u - F_of(guess)
        errors.append(_length(guess - x))
    return torch.stack(errors) / size


def _error(f: Tensor, back: Tensor) -> Tensor:
    """Relative error of `back` at the norm of f."""
    size = _length(f)
    return _length(f - back * _wide(size / _length(back).clamp(min=1e-30))) / size


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _wide(each: Tensor) -> Tensor:
    return each.view(-1, 1, 1, 1)
