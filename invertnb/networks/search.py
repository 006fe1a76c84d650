"""Table 1 and the search for the architectures of Table 5, a run in a folder of its own each.

    python -m invertnb.networks.search OUT --data cifar10 --what table
    python -m invertnb.networks.search OUT --data cifar10 --what grid --share 1/4

A second call does only what is missing, and goes on with a run where it stopped. With --share i/n
only the i-th of n equal parts is run, so that n calls can work side by side. What fails is named
with its reason, does not stop the rest, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from invertnb.networks.classifier import Classifier
from invertnb.networks.labelled import Labelled, open_labelled
from invertnb.networks.notation import Architecture, ConvolutionLayer, parse
from invertnb.networks.training import Recipe, Run, fit

# Table 5; the cells of Table 1 in the same order.
TABLE5 = {
    "random": (
        "(2048)5c-2pmax-4pave",
        "(2048)3c-2pmax-(2048)3c-2pmax-2pave",
        "(2048)3c-2pmax-(2048)3c-2pmax-(1024)3c-2pmax",
    ),
    "learned": (
        "(1024)5c-2pmax-4pave",
        "(1024)3c-2pmax-(1024)3c-2pmax-2pave",
        "(1024)3c-2pmax-(1024)3c-2pmax-(1024)3c-2pmax",
    ),
}
# Recipes that were tried at 256 filters in three learned, and 512 in two random layers.
_LONG = 50  # a patience that never ends these short runs
_NINE = Recipe(epochs=9, patience=_LONG, dropout=0.2, smoothing=0.1)
_SEVEN = Recipe(learned=False, epochs=7, patience=_LONG, pad=0)
TRIED = {
    "learned": {
        "a": Recipe(epochs=9, patience=_LONG),
        "b": _NINE,
        "c": dataclasses.replace(_NINE, rate=0.3),
        "d": dataclasses.replace(_NINE, rate=0.04),
        "e": dataclasses.replace(_NINE, head=512.0),
    },
    "random": {
        "a": dataclasses.replace(_SEVEN, pad=4),
        "b": _SEVEN,
        "c": dataclasses.replace(_SEVEN, mirror=False),
        "d": dataclasses.replace(_SEVEN, rate=0.02),
        "e": dataclasses.replace(_SEVEN, rate=0.3, dropout=0.2),
        "f": dataclasses.replace(_SEVEN, inner=False),
    },
}
# How the two rows are trained: the best of these on validation images, for so many epochs by depth.
LEARNED, RANDOM = TRIED["learned"]["c"], TRIED["random"]["e"]
EPOCHS = {"learned": (12, 11, 16), "random": (10, 7, 7)}
# Five epochs each for the grid, which compares architectures and not recipes.
SHORT = {
    "learned": dataclasses.replace(TRIED["learned"]["b"], epochs=5),
    "random": dataclasses.replace(TRIED["random"]["b"], epochs=5),
}
# Appendix C.1's ranges.
SIZES, WIDTHS, DEPTHS = (3, 5, 7), (64, 128, 256, 1024, 2048), (1, 2, 3)
SEEN = 4  # the classifier's image is averaged to this side where it is larger


@dataclass(frozen=True)
class Point:
    """One run to be made; `label` names it where architecture, row and seed do not."""

    architecture: Architecture
    recipe: Recipe
    label: str = ""

    @property
    def name(self) -> str:
        """Of the run's folder: architecture, row and seed, or the label."""
        if self.label:
            return self.label
        row = "learned" if self.recipe.learned else "random"
        plain = str(self.architecture).replace("(", "").replace(")", "x")
        return f"{row}-{plain}-seed{self.recipe.seed}"


def uniform(width: int, size: int, depth: int, side: int = 32) -> Architecture:
    """`depth` equal layers with 2 x 2 max pooling, averaged to 4 x 4 as in Table 5."""
    layers = (ConvolutionLayer(width, size, 2),) * depth
    return Architecture(layers, max(1, side // 2**depth // SEEN))


def table(
    recipes: dict[str, Recipe], seeds: Iterable[int] = (0, 1, 2),
    epochs: dict[str, Sequence[int]] | None = None,
) -> list[Point]:  # fmt: skip
    """The six cells of Table 1 at the architectures of Table 5, every seed.

    Args:
        recipes: of the rows.
        seeds: a run of every cell for each.
        epochs: of the rows by depth, in place of the recipes' own.
    """
    points = []
    for seed in seeds:
        for row, texts in TABLE5.items():
            for depth, text in enumerate(texts):
                recipe = dataclasses.replace(recipes[row], seed=seed)
                if epochs is not None:
                    recipe = dataclasses.replace(recipe, epochs=epochs[row][depth])
                points.append(Point(parse(text), recipe))
    return points


def tried() -> list[Point]:
    """The runs by which the recipes were chosen."""
    places = {"learned": uniform(256, 3, 3), "random": uniform(512, 3, 2)}
    return [
        Point(places[row], recipe, f"{row}-{key}")
        for row, recipes in TRIED.items() for key, recipe in recipes.items()
    ]  # fmt: skip


def steps(width: int = 64, epochs: int = 10, longer: int = 30) -> list[Point]:
    """A narrow learned network with two layers: few steps, more steps, more epochs of these."""
    base = dataclasses.replace(LEARNED, epochs=epochs)
    more = dataclasses.replace(base, batch=125, rate=0.1)
    named = {
        f"learned-batch-{base.batch}": base, f"learned-batch-{more.batch}": more,
        f"learned-batch-{more.batch}-epochs-{longer}": dataclasses.replace(more, epochs=longer),
    }  # fmt: skip
    return [Point(uniform(width, 3, 2), recipe, name) for name, recipe in named.items()]


def grid(
    recipes: dict[str, Recipe], widths: Iterable[int] = WIDTHS, sizes: Iterable[int] = SIZES,
    depths: Iterable[int] = DEPTHS, seeds: Iterable[int] = (0,), side: int = 32,
) -> list[Point]:  # fmt: skip
    """Equal layers over the ranges of appendix C.1, for both rows; the cheap ones first."""
    points = [
        Point(uniform(width, size, depth, side), dataclasses.replace(recipe, seed=seed))
        for seed in seeds for width in widths for size in sizes for depth in depths
        for recipe in recipes.values()
    ]  # fmt: skip
    return sorted(points, key=lambda point: operations(point.architecture, side))


def operations(architecture: Architecture, side: int = 32, channels: int = 3) -> int:
    """Multiplications of the convolutions for an image of side x side."""
    total = 0
    for layer in architecture.layers:
        total += layer.filters * channels * layer.size**2 * side**2
        channels, side = layer.filters, side // layer.pool
    return total


def search(
    points: Sequence[Point], data: Labelled, folder: Path, *, device: str = "cpu",
    progress: bool = True, after: Callable[[Classifier, Path], None] | None = None,
) -> tuple[list[Run], dict[str, str]]:  # fmt: skip
    """Make the runs that are missing; the records of all, and what went wrong by the run's name.

    A run that fails does not stop the others, and is tried again by the next call. The test set
    plays no part here: `chosen` looks at validation only.

    Args:
        points: the runs.
        data: as `open_labelled` gives it.
        folder: a folder in it for each run.
        device: "cpu" or "cuda".
        progress: show bars.
        after: called with the trained network and the run's folder.
    """
    runs, failed = [], {}
    for number, point in enumerate(points, 1):
        place = folder / point.name
        call = None if after is None else (lambda net, place=place: after(net, place))
        try:
            runs.append(
                fit(
                    point.architecture, point.recipe, data, place, device=device,
                    progress=progress, after=call,
                    description=f"{number}/{len(points)} {point.name}",
                )  # fmt: skip
            )
        # A recipe that diverges, memory or a disk that is full, a state that is damaged.
        except (ValueError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            failed[point.name] = (str(error) or type(error).__name__).splitlines()[0]
        # Not above: the error at hand still holds the network that did not fit.
        if point.name in failed and device != "cpu":
            torch.cuda.empty_cache()
    return runs, failed


def chosen(runs: Iterable[Run]) -> Run:
    """The run with the best validation accuracy; of equals, the first. There must be one."""
    return max(runs, key=lambda run: run.validation)


def part(points: Sequence[Point], share: str) -> list[Point]:
    """Every n-th point from the i-th, for a share "i/n"."""
    words = share.split("/")
    fits = len(words) == 2 and all(word.isdecimal() for word in words)
    if not fits or not 1 <= int(words[0]) <= int(words[1]):
        raise ValueError(f"share = {share!r}: expected i/n with 1 <= i <= n, as 1/4")
    return list(points[int(words[0]) - 1 :: int(words[1])])


def main(words: Sequence[str] | None = None) -> int:
    """The command line; 1 if a run failed, otherwise 0."""
    parser = argparse.ArgumentParser(
        prog="python -m invertnb.networks.search", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("out", type=Path, help="folder with a folder in it for each run")
    parser.add_argument("--data", default="auto", help="what open_labelled takes (%(default)s)")
    parser.add_argument("--what", choices=("table", "grid"), required=True)
    parser.add_argument("--share", default="1/1", help="the i-th of n parts (%(default)s)")
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2 for the table, 0 for the grid")
    grids = {"widths": WIDTHS, "sizes": SIZES, "depths": DEPTHS}
    for name, values in grids.items():
        shown = " ".join(map(str, values))
        parser.add_argument(f"--{name}", type=int, nargs="+", help=f"of the grid ({shown})")
    changed = ("epochs", "validation", "batch")
    for name in changed:
        parser.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    asked = vars(parser.parse_args(words))
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        data = open_labelled(asked["data"], progress=True)
        change = {name: given[name] for name in changed if name in given}
        if not data.real:  # fewer images, as a rule
            change.setdefault("validation", len(data.train) // 5)
            change.setdefault("batch", min(LEARNED.batch, max(2, len(data.train) // 30)))
            change["pad"] = min(LEARNED.pad, data.train.shape[3] // 8)
        rows = {"learned": LEARNED, "random": RANDOM} if asked["what"] == "table" else SHORT
        recipes = {row: dataclasses.replace(recipe, **change) for row, recipe in rows.items()}
        options = {name: given[name] for name in ("seeds", *grids) if name in given}
        if asked["what"] == "grid":
            points = grid(recipes, side=data.train.shape[3], **options)
        elif extra := [f"--{name}" for name in grids if name in options]:
            raise ValueError(f"{', '.join(extra)}: expected with --what grid only")
        else:
            points = table(recipes, epochs=None if "epochs" in change else EPOCHS, **options)
        points = part(points, asked["share"])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{data.label}: {len(points)} runs")
    runs, failed = search(points, data, asked["out"], device=asked["device"])
    report(runs, failed)
    return int(bool(failed))


def report(runs: Sequence[Run], failed: dict[str, str]) -> None:
    """Print each run, the choice in each row of Table 1 with its test accuracy, and what failed."""
    for run in runs:
        learned = "learned" if run.recipe["learned"] else "random"
        print(f"{learned:8} seed {run.recipe['seed']}  {run.validation:7.2%}  {run.architecture}")
    for learned in (True, False):
        row = [run for run in runs if run.recipe["learned"] is learned]
        if row:
            best = chosen(row)
            name = "learned" if learned else "random"
            print(f"chosen, {name}: {best.architecture}, {best.test:.2%} of the test images")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
