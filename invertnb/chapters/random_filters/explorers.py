"""The explorer: networks by width, filter size and depth (Table 5), from recorded runs only.

What was not recorded is shown as that, and no other run stands in for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from invertnb import notebook
from invertnb.networks import search
from invertnb.networks.notation import Architecture, parse
from invertnb.networks.search import Point
from invertnb.notebook import PALETTE, Choice, Explorer, View, figure, load_recorded
from invertnb.notebook.figures import Figure

ROWS = ("learned", "random")
IMAGE = (3, 32, 32)  # of CIFAR-10, on which all of them were trained
PAPER = "Table 5: 1024 / 2048"  # filters of learned / random rows
WIDTHS = {"64": "64", "256": "256", PAPER: PAPER}
SEEDS = range(3)
STUDIES = {"grid": "grid", "table1": "table"}  # what --set study= makes them
ABSENT = "not recorded"
LIMITS = (0.1, 0.95)  # of all pictures' accuracies
CURVES = {"train": "--", "validation": "-"}
COLOURS = dict(zip(ROWS, ("blue", "vermillion"), strict=True))
LEGEND = "train – –, validation —, test □"

CAPTION = (
    "Networks of one to three layers of random filters, where only batch norm's scales and biases "
    "and the classifier are learned, and of learned filters. Shares of images that are "
    "right: validation after each epoch; train over the epoch, as it goes on, of shifted or "
    "mirrored images and with dropout, so that it may be lower; test, once, at the epoch that "
    "validation chose. The accuracies below are means where there are several seeds."
)
SHORT = (
    "The networks of 64 and of 256 filters had {epochs} epochs and one seed, which compares them "
    "with each other and not with Table 1; {missing} of these {asked} runs are missing."
)


@dataclass(frozen=True)
class Cell:
    """One row of one setting.

    Attributes:
        architecture: None where Table 5 has none.
        runs: as recorded, one for each seed that there is.
        why: what to say without runs.
    """

    architecture: Architecture | None
    runs: tuple[Mapping[str, Any], ...] = ()
    why: str = ""

    def accuracies(self) -> str:
        """Validation and test, mean over the seeds."""
        if not self.runs:
            return ABSENT
        means = (fmean(run[name] for run in self.runs) for name in ("validation", "test"))
        return ", ".join(f"{100 * mean:.1f} %" for mean in means)

    def trained(self) -> str:
        """Epochs, seeds and device."""
        if not self.runs:
            return ABSENT
        seeds = [str(run["recipe"]["seed"]) for run in self.runs]
        devices = sorted({run["about"]["device"] for run in self.runs})
        word = "seed" if len(seeds) == 1 else "seeds"
        epochs = self.runs[0]["recipe"]["epochs"]
        return f"{epochs} epochs, {word} {', '.join(seeds)}, {'; '.join(devices)}"

    def features(self) -> str:
        """How many numbers of an image the classifier sees."""
        return f"{self.architecture.features(IMAGE):,}" if self.architecture else ABSENT

    def multiplications(self) -> str:
        """Of the convolutions, for one image."""
        if not self.architecture:
            return ABSENT
        return f"{search.operations(self.architecture, IMAGE[1], IMAGE[0]) / 1e6:,.1f} million"


class Study:
    """Looks up what is recorded.

    Args:
        recorded: of the chapter, by label.
    """

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self.recorded = recorded

    def cell(self, width: str, size: int, depth: int, row: str) -> Cell:
        """The runs of a setting, or why there are none."""
        label, points = asked(width, size, depth, row)
        if not points:
            return Cell(None, why="at these widths only Table 5's were trained")
        architecture = points[0].architecture
        if label not in self.recorded:
            return Cell(architecture, why=f"there is no file of {label!r}{_command(label)}")
        try:
            every = self.recorded[label].results["runs"]
            found = [checked(every[p.name], p) for p in points if p.name in every]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            return Cell(architecture, why=f"{label!r} is stale: it {what}{_command(label)}")
        why = "" if found else f"missing from {label!r}"
        return Cell(architecture, tuple(found), why)

    def caption(self) -> str:
        """With what is special about the recordings, and how many runs are missing."""
        parts = [CAPTION]
        names = {
            point.name
            for width in ("64", "256") for size in search.SIZES for depth in search.DEPTHS
            for row in ROWS for point in asked(width, size, depth, row)[1]
        }  # fmt: skip
        results = [self.recorded[label].results for label in STUDIES if label in self.recorded]
        try:
            if "grid" in self.recorded:
                missing = len(names - set(self.recorded["grid"].results["runs"]))
                epochs = search.SHORT["learned"].epochs
                parts.append(SHORT.format(epochs=epochs, missing=missing, asked=len(names)))
            parts += dict.fromkeys(f"{each['data']['label']}." for each in results)
            notes = dict.fromkeys(each["note"] for each in results if each["note"])
            parts += [f"Random rows: {note}." for note in notes]
        except (KeyError, TypeError):  # a stale recording, which the picture tells
            pass
        return " ".join(parts)


def asked(width: str, size: int, depth: int, row: str) -> tuple[str, list[Point]]:
    """The recording that a setting belongs to, and its runs; none for sizes not in Table 5."""
    if width != PAPER:
        return "grid", [Point(search.uniform(int(width), size, depth), search.SHORT[row])]
    architecture = parse(search.TABLE5[row][depth - 1])
    if {layer.size for layer in architecture.layers} != {size}:
        return "table1", []
    recipe = search.LEARNED if row == "learned" else search.RANDOM
    recipe = dataclasses.replace(recipe, epochs=search.EPOCHS[row][depth - 1])
    return "table1", [Point(architecture, dataclasses.replace(recipe, seed=seed)) for seed in SEEDS]


def checked(run: Mapping[str, Any], point: Point) -> Mapping[str, Any]:
    """The run, if it is the one that `point` asks for.

    Raises:
        KeyError: a run without something that the explorer shows.
        ValueError: a run of another architecture or with another recipe.
    """
    if run["architecture"] != str(point.architecture):
        raise ValueError("has another architecture by this name")
    wanted = dataclasses.asdict(point.recipe)
    if other := [name for name in wanted if run["recipe"].get(name) != wanted[name]]:
        raise ValueError(f"has {other[0]} {run['recipe'].get(other[0])}, not {wanted[other[0]]}")
    for name in ("validation", "test", "best"):
        run[name]
    if len(run["history"]["train"]) != len(run["history"]["validation"]):
        raise ValueError("has curves of different lengths")
    run["about"]["device"]
    return run


def _command(label: str) -> str:
    return f"\n(invertnb run random_filters --set study={STUDIES[label]} --record)"


def draw(cells: Sequence[Cell]) -> Figure:
    """Training curves of the learned and of the random row, and where there are none, why."""
    fig, ax = figure(width=6.0, height=2.8)
    longest, epochs = 1, {}
    for (row, colour), cell, place in zip(COLOURS.items(), cells, (0.26, 0.09), strict=True):
        colour = PALETTE[colour]
        for run in cell.runs:
            for name, style in CURVES.items():
                curve = run["history"][name]
                ax.plot(range(1, len(curve) + 1), curve, style, color=colour, lw=1.5)
            ax.plot(run["best"], run["test"], "s", ms=5, mec=colour, mfc="white")
            epochs[row] = run["recipe"]["epochs"]
            longest = max(longest, epochs[row])
        text = f"{row}: {cell.why and f'{ABSENT}, {cell.why}' or LEGEND}"
        ax.text(0.99, place, text, color=colour, size=9.5, ha="right", va="center",
                transform=ax.transAxes)  # fmt: skip
    ax.set(ylim=LIMITS, xlim=(0.8, longest + 0.2), ylabel="share of images right")
    ax.set_xticks(range(1, longest + 1, 1 + longest // 8) if epochs else [])
    ax.set_xlabel(f"epoch, of {_count(epochs, cells)}" if epochs else "epoch")
    # Fixed margins: quicker than a computed layout, and no frame is displaced.
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.11, right=0.99, bottom=0.18, top=0.98)
    return fig


def _count(epochs: Mapping[str, int], cells: Sequence[Cell]) -> str:
    """How long the rows were trained."""
    if len(set(epochs.values())) > 1:
        return " and ".join(f"{n} ({row})" for row, n in epochs.items())
    short = [dataclasses.asdict(recipe) for recipe in search.SHORT.values()]
    few = all(run["recipe"] in short for cell in cells for run in cell.runs)
    return f"{next(iter(epochs.values()))}{' only' if few else ''}"


def values(cells: Sequence[Cell]) -> dict[str, str]:
    """What stands under the picture."""
    found = {}
    for row, cell in zip(ROWS, cells, strict=True):
        found[row] = str(cell.architecture) if cell.architecture else ABSENT
        found[f"{row}: validation, test"] = cell.accuracies()
    parts = {
        "features that the classifier sees": Cell.features,
        "multiplications for an image": Cell.multiplications,
        "trained": Cell.trained,
    }
    for label, part in parts.items():
        texts = [part(cell) for cell in cells]
        both = " / ".join(f"{text} ({row})" for row, text in zip(ROWS, texts, strict=True))
        found[label] = texts[0] if len(set(texts)) == 1 else both
    return found


def explorer(parameters: notebook.Parameters | None = None) -> Explorer:
    """Accuracies and training curves by width, filter size and depth, learned beside random.

    Args:
        parameters: of the chapter, on which nothing here depends: all runs are recorded.
    """
    del parameters
    damaged = ""
    try:
        study = Study(load_recorded("random_filters"))
    except ValueError as error:
        study, damaged = Study({}), f" A recording cannot be read: {error}."

    def show(width: str, size: int, depth: int) -> View:
        cells = [study.cell(width, size, depth, row) for row in ROWS]
        return View(draw(cells), values(cells))

    return Explorer(
        "random-filters",
        [
            Choice("width", WIDTHS, "filters in a layer", "256"),
            Choice("size", search.SIZES, "filter size"),
            Choice("depth", search.DEPTHS, "layers", 3),
        ],
        show,
        alt="Accuracy on training and validation images over the epochs, with learned and with "
        "random filters; filters in a layer: {width}, filter size: {size}, layers: {depth}; or "
        "the words: not recorded",
        caption=study.caption() + damaged,
    )
