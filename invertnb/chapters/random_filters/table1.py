"""Table 1: small networks that a page has time for, and what was recorded at the paper's sizes."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invertnb.chapters.random_filters.inputs import Inputs
from invertnb.networks.notation import parse
from invertnb.networks.search import TABLE5, uniform
from invertnb.networks.training import Recipe, Run, fit
from invertnb.notebook import Recorded

ROWS = ("random", "learned")
DEPTHS = (1, 2, 3)
CELLS = ("1 layer", "2 layers", "3 layers")
#: Table 1, in percent.
PAPER = {"random": (66.5, 74.6, 74.8), "learned": (68.1, 83.3, 89.3)}
#: The small networks, on 8 x 8 digits and on 32 x 32 images of CIFAR-10.
SMALL = Recipe(
    dtype="float32", batch=50, pad=1, mirror=False, epochs=6, patience=3, dropout=0.2, smoothing=0.1
)
SMALL_CIFAR = dataclasses.replace(SMALL, pad=4, mirror=True, epochs=1, batch=100)
FEW_SEEDS = 2  # for the latter, which take longer


@dataclass(frozen=True)
class Small:
    """The small networks of a page.

    Attributes:
        data: what they were trained on, for a reader.
        real: whether that is CIFAR-10.
        runs: by row and depth, one for each seed.
    """

    data: str
    real: bool
    runs: Mapping[str, Mapping[int, Sequence[Run]]]

    def accuracies(self, row: str, depth: int) -> list[float]:
        """Of the test images, in percent, a number for each seed."""
        return [100 * run.test for run in self.runs[row][depth]]

    @property
    def longest(self) -> int:
        """Epochs of the longest run."""
        return max(len(run.history) for run in self.every())

    def every(self) -> Iterator[Run]:
        """All runs."""
        for by_depth in self.runs.values():
            for runs in by_depth.values():
                yield from runs


def compute(inputs: Inputs, generator: Callable[[int], torch.Generator]) -> Small:
    """Train the small networks: both rows, one to three layers, every seed.

    Large images have two seeds, half the filters and one epoch.

    `generator` plays no part: a run draws from the seed in its recipe.
    """
    small = inputs.side < 32
    base, seeds = (SMALL, inputs.seeds) if small else (SMALL_CIFAR, inputs.seeds[:FEW_SEEDS])
    base = dataclasses.replace(base, validation=inputs.held)
    runs: dict[str, dict[int, list[Run]]] = {row: {} for row in ROWS}
    with tempfile.TemporaryDirectory(prefix="invertnb-") as folder:
        for row in ROWS:
            for depth in DEPTHS:
                network = uniform(inputs.width // (1 if small else 2), 3, depth, inputs.side)
                runs[row][depth] = [
                    fit(
                        network, dataclasses.replace(base, learned=row == "learned", seed=seed),
                        inputs.data, Path(folder) / f"{row}-{depth}-{seed}",
                        device=inputs.device, progress=False,
                    )
                    for seed in seeds
                ]  # fmt: skip
    return Small(inputs.data.label, inputs.data.real, runs)


@dataclass(frozen=True)
class Cell:
    """A cell of Table 1 as recorded at the paper's size.

    Attributes:
        row: "random" or "learned".
        depth: convolution layers.
        network: of Table 5.
        runs: recorded runs of it, one for each seed.
    """

    row: str
    depth: int
    network: str
    runs: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """As in Table 1."""
        return CELLS[self.depth - 1]

    @property
    def paper(self) -> float:
        """Table 1's accuracy in percent."""
        return PAPER[self.row][self.depth - 1]

    @property
    def accuracies(self) -> list[float]:
        """Of the test images, in percent."""
        return [100 * run["test"] for run in self.runs]

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds in percent; None for one seed."""
        return statistics.stdev(self.accuracies) if len(self.runs) > 1 else None

    @property
    def late(self) -> bool:
        """Whether the best validation accuracy came within the last two epochs, in every run."""
        return all(run["best"] >= len(run["history"]["train"]) - 1 for run in self.runs)

    @property
    def overfit(self) -> float:
        """Points by which training exceeds validation accuracy in the last epoch, at most.

        Training accuracy is that of augmented images during the epoch, with dropout.
        """
        last = [[run["history"][name][-1] for name in ("train", "validation")] for run in self.runs]
        return max(100 * (train - held) for train, held in last)


def cells(recorded: Mapping[str, Recorded]) -> list[Cell]:
    """The cells with recorded runs, row by row; none where nothing was recorded."""
    if "table1" not in recorded:
        return []
    runs = recorded["table1"].results["runs"].values()
    found = []
    for row in ROWS:
        for depth, network in zip(DEPTHS, TABLE5[row], strict=True):
            own = [
                run for run in runs
                if run["architecture"] == network and run["recipe"]["learned"] == (row == "learned")
            ]  # fmt: skip
            if own:
                found.append(Cell(row, depth, network, own))
    return found


@dataclass(frozen=True)
class Choice:
    """What validation chooses among filter sizes, beside Table 5.

    Attributes:
        row, depth: the cell.
        width: filters in each layer of the networks compared.
        sizes: validation accuracy by filter size, in percent.
        published: the filter size of Table 5.
        images: validation images.
    """

    row: str
    depth: int
    width: int
    sizes: Mapping[int, float]
    published: int
    images: int

    @property
    def best(self) -> int:
        """The filter size with the largest validation accuracy."""
        return max(self.sizes, key=self.sizes.__getitem__)

    @property
    def margin(self) -> float:
        """Points by which the best size beats the published one."""
        return self.sizes[self.best] - self.sizes[self.published]

    @property
    def noise(self) -> float:
        """Two standard errors of a difference of two such accuracies, in points.

        Binomial, as if the two networks erred independently: they err on many images together, so
        this is wide.
        """
        share = [self.sizes[size] / 100 for size in (self.best, self.published)]
        return 200 * (sum(each * (1 - each) for each in share) / self.images) ** 0.5


def choices(recorded: Mapping[str, Recorded]) -> list[Choice]:
    """For each cell the comparison of filter sizes at the largest width where all were recorded."""
    if "grid" not in recorded:
        return []
    runs = list(recorded["grid"].results["runs"].values())
    found = []
    for row in ROWS:
        for depth, network in zip(DEPTHS, TABLE5[row], strict=True):
            compared: dict[int, dict[int, Mapping[str, Any]]] = {}
            for run in runs:
                layers = parse(run["architecture"]).layers
                if len(layers) == depth and run["recipe"]["learned"] == (row == "learned"):
                    compared.setdefault(layers[0].filters, {})[layers[0].size] = run
            full = [width for width, by_size in compared.items() if len(by_size) == 3]
            if full:
                by_size = compared[max(full)]
                some = next(iter(by_size.values()))
                sizes = {size: 100 * by_size[size]["validation"] for size in sorted(by_size)}
                published = parse(network).layers[0].size
                held = some["recipe"]["validation"]
                found.append(Choice(row, depth, max(full), sizes, published, held))
    return found
