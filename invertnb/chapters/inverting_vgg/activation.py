"""Table 3 in activation space: one step on the output of pool(i), under every reading of the text.

The paper says that f_hat = W^T M(W f, k) is computed "with k from Table 2" and scaled to the norm
of f. It does not say how entries of a window are compared (a max pooling takes the largest, the
theory the largest magnitude, a network the largest after ReLU), nor which row of Table 2 gives k,
nor of what that row's percentage is taken. A `Reading` settles both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import (
    FilterBank, notebook, random_activations, reconstruct, relative_error,
)  # fmt: skip
from invertnb.networks import Network
from invertnb.reconstruct import POOLING, Reconstruction

WINDOW = (2, 2)
#: The columns of Table 3.
LEARNED, RANDOM, ACTIVATIONS = METHODS = ("learned", "random", "activations")
#: Which windows keep their entry: all, or as many as a percentage of Table 2 leaves. Of entries, of
#: which a window holds four, so that from 25 percent on all windows do; or of windows.
EVERY = "every window"
KEEP = (
    EVERY, "c(i+1,1), of entries", "c(i+1,1), of windows", "p(i+1), of entries",
    "p(i+1), of windows",
)  # fmt: skip


class Reading(NamedTuple):
    """How a step pools, and how many windows it keeps."""

    pooling: str
    keep: str

    def __str__(self) -> str:
        return f"{self.pooling}, {self.keep}"


READINGS = tuple(Reading(*each) for each in itertools.product(POOLING, KEEP))
#: As section 2.3 defines M(z, k), with k a number of entries; and what fits Table 3 best.
STATED = Reading("abs", "c(i+1,1), of entries")
FITTING = Reading("signed", "c(i+1,1), of windows")


class Step(NamedTuple):
    """One step on some images, (images,) each.

    Attributes:
        error: ``||f - f_hat|| / ||f||`` with the norm matched.
        kept: ``||z|| / ||f||``, z = M(W f, k).
        ratio: ``||W^T z|| / ||z||``, which the model-RIP holds near 1.
    """

    error: Tensor
    kept: Tensor
    ratio: Tensor

    @property
    def cosine(self) -> Tensor:
        """Of the angle between f and f_hat, from the two ratios.

        z has entries of W f on its support, so <W^T z, f> = <z, W f> = ``||z||^2``.
        """
        return self.kept / self.ratio

    @property
    def best(self) -> Tensor:
        """The error that f_hat has at its best length: the sine."""
        return (1 - self.cosine.square()).clamp(min=0).sqrt()


Steps = Mapping[str, Mapping[Reading, Step]]


def layers(network: Network) -> tuple[str, ...]:
    """The poolings of Table 3 that a convolution of this network follows."""
    return tuple(
        f"pool({i})" for i in range(1, 5) if f"conv({i + 1},1)" in network.layers
    )  # fmt: skip


def following(pool: str) -> str:
    """The convolution whose filters encode the output of a pooling: conv(i+1,1)."""
    return f"conv({int(pool[5]) + 1},1)"


def windows_kept(keep: str, pool: str, windows: int) -> int | None:
    """The k of a reading, for a code with so many windows; None where every window keeps one."""
    if keep == EVERY:
        return None
    block = int(pool[5]) + 1
    book = notebook.claims.load()
    row = f"table2.c({block},1)" if keep.startswith("c") else f"table2.p({block})"
    share = float(book[row].paper) / 100
    entries = math.prod(WINDOW) if keep.endswith("entries") else 1
    k = max(1, round(share * entries * windows))
    return k if k < windows else None


def random_bank(bank: FilterBank, generator: torch.Generator) -> FilterBank:
    """Gaussian filters of unit norm in the shape, padding, dtype and place of a bank."""
    drawn = FilterBank.gaussian(
        bank.K, bank.M, bank.l, dims=2, padding=bank.padding, generator=generator
    )
    return drawn.normalized().to(bank.weight.device, bank.weight.dtype)


def step(
    f: Tensor, bank: FilterBank, reading: Reading, pool: str, h: Tensor | None = None
) -> Reconstruction:
    """f_hat in a reading, at the norm of f; h is W f, where it is at hand."""
    windows = bank.K * (f.shape[2] // WINDOW[0]) * (f.shape[3] // WINDOW[1])
    k = windows_kept(reading.keep, pool, windows)
    return reconstruct(f, bank, k, block=WINDOW, pooling=reading.pooling, h=h)


def measure(f: Tensor, found: Reconstruction) -> Step:
    """Its error, and the two ratios that determine it."""
    size, code, signal = (
        torch.linalg.vector_norm(each, dim=(1, 2, 3)) for each in (f, found.code, found.signal)
    )
    error = relative_error(f, found.signal)
    return Step(*(each.double() for each in (error, code / size, signal / (found.scale * code))))


def steps(
    f: Tensor, bank: FilterBank, pool: str, readings: Iterable[Reading] = READINGS
) -> dict[Reading, Step]:
    """One step in every reading; those with the same k are one computation.

    Args:
        f: the output of `pool`, (images, M, H, W).
    """
    windows = bank.K * (f.shape[2] // WINDOW[0]) * (f.shape[3] // WINDOW[1])
    h, by_reading = bank.analysis(f), {}
    found: dict[tuple[str, int | None], Step] = {}
    for each in readings:
        key = each.pooling, windows_kept(each.keep, pool, windows)
        if key not in found:
            found[key] = measure(f, step(f, bank, each, pool, h))
        by_reading[each] = found[key]
    return by_reading


#: What a random Gaussian activation may be; the paper's error, sqrt(2), is that of the first.
CHANCE = ("Gaussian", "positive parts", "magnitudes")


def chance(f: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Relative errors of random activations with the norm of f, by kind, (images,)."""
    drawn = random_activations(f, generator)
    kinds = dict(zip(CHANCE, (drawn, drawn.clamp(min=0), drawn.abs()), strict=True))
    size = f.flatten(1).norm(dim=1)
    found = {}
    for name, each in kinds.items():
        scale = size / each.flatten(1).norm(dim=1)
        found[name] = relative_error(f, each * scale.view(-1, 1, 1, 1)).double()
    return found


def published(space: str, method: str, pool: str) -> float:
    """An entry of Table 3; space is "activation" or "image"."""
    return float(notebook.claims.load()[f"table3.{space}.{method}.{pool[5]}"].paper)


def misfit(means: Mapping[str, Mapping[str, float]]) -> float:
    """Root mean square of what was measured less Table 3, over its learned and random columns.

    Args:
        means: in activation space, by pooling and method.
    """
    gaps = [
        each[method] - published("activation", method, pool)
        for pool, each in means.items()
        for method in (LEARNED, RANDOM)
    ]
    return math.sqrt(sum(gap**2 for gap in gaps) / len(gaps))


def means(found: Mapping[str, Steps], reading: Reading) -> dict[str, dict[str, float]]:
    """Mean errors in one reading, by pooling and method."""
    return {
        pool: {method: float(each[reading].error.mean()) for method, each in methods.items()}
        for pool, methods in found.items()
    }


def ranked(
    found: Mapping[str, Steps], readings: Sequence[Reading] = READINGS
) -> list[tuple[float, Reading]]:
    """The readings with their misfits, the best first."""
    return sorted((misfit(means(found, each)), each) for each in readings)
