"""Table 3 in activation space: one step on the output of pool(i), under every reading of the text.

The paper says that f_hat = W^T M(W f, k) is computed "with k from Table 2" and scaled to the norm of
f. It does not say how entries of a window are compared (a max pooling takes the largest, the theory
the largest magnitude, a network the largest after ReLU), nor which row of Table 2 gives k, nor of
what that row's percentage is taken. A `Reading` settles both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import FilterBank, notebook, random_activations, reconstruct, relative_error
from invertnb.networks import Network
from invertnb.reconstruct import POOLING

WINDOW = (2, 2)
LEARNED, RANDOM, ACTIVATIONS = METHODS = ("learned", "random", "activations")
#: Which windows keep their entry: all, or as many as a percentage of Table 2 leaves. Of entries, of
#: which a window holds four, so that from 25 percent on all windows do; or of windows.
EVERY = "every window"
KEEP = (EVERY, "c(i+1,1), of entries", "c(i+1,1), of windows", "p(i+1), of windows")


class Reading(NamedTuple):
    """How a step pools, and how many windows it keeps."""

    pooling: str
    keep: str

    def __str__(self) -> str:
        return f"{self.pooling}, {self.keep}"


READINGS = tuple(Reading(*each) for each in itertools.product(POOLING, KEEP))
Errors = Mapping[str, Mapping[Reading, Tensor]]


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
    return min(windows, max(1, round(share * entries * windows)))


def random_bank(bank: FilterBank, generator: torch.Generator) -> FilterBank:
    """Gaussian filters of unit norm in the shape, padding, dtype and place of a bank."""
    drawn = FilterBank.gaussian(
        bank.K, bank.M, bank.l, dims=2, padding=bank.padding, generator=generator
    )
    return drawn.normalized().to(bank.weight.device, bank.weight.dtype)


def step(f: Tensor, bank: FilterBank, reading: Reading, pool: str) -> Tensor:
    """f_hat in a reading, at the norm of f."""
    windows = bank.K * (f.shape[2] // WINDOW[0]) * (f.shape[3] // WINDOW[1])
    k = windows_kept(reading.keep, pool, windows)
    return reconstruct(f, bank, k, block=WINDOW, pooling=reading.pooling).signal


def errors(
    f: Tensor, pool: str, banks: Mapping[str, FilterBank], generator: torch.Generator,
    readings: Iterable[Reading] = READINGS,
) -> dict[str, dict[Reading, Tensor]]:
    """Relative errors by filters and reading, one for each image; and of random activations.

    Args:
        f: the output of `pool`, (images, M, H, W).
        banks: filters by name.
        generator: of the random activations, which have no filters and one error for all readings.
    """
    readings = tuple(readings)
    found = {
        name: {each: relative_error(f, step(f, bank, each, pool)).double() for each in readings}
        for name, bank in banks.items()
    }
    drawn = relative_error(f, random_activations(f, generator)).double()
    return found | {ACTIVATIONS: dict.fromkeys(readings, drawn)}


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


def means(found: Mapping[str, Errors], reading: Reading) -> dict[str, dict[str, float]]:
    """Mean errors in one reading, by pooling and method."""
    return {
        pool: {method: float(each[reading].mean()) for method, each in methods.items()}
        for pool, methods in found.items()
    }


def best(found: Mapping[str, Errors], readings: Sequence[Reading] = READINGS) -> list[tuple[float, Reading]]:
    """The readings with their misfits, the best first."""
    return sorted((misfit(means(found, each)), each) for each in readings)
