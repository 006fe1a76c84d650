"""What the chapter records for Tables 1 and 5: recorded runs, and what smaller ones say."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from invertnb.chapters.random_filters.table1 import CELLS, ROWS, Cell, Choice
from invertnb.networks.notation import parse
from invertnb.networks.search import TABLE5

#: Digits of a percentage.
DIGITS = 1


def table1(data: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Claims table1.* with what `record` takes for them.

    The value is that of a softmax classifier trained by gradient descent at the architecture of
    Table 5. The ridge classifier on features of random networks of this architecture is a reading.
    """
    recorded = {(cell.row, cell.depth): cell for cell in data.cells}
    for row in ROWS:
        for depth, name in enumerate(CELLS, 1):
            cell = recorded.get((row, depth))
            yield f"table1.{row}.{name}", _value(data, cell) | {"readings": _closed(data, row, depth)}


def three_layers(data: Any) -> dict[str, Any]:
    """section2.1.accuracy: three random layers, only the classifier trained."""
    cell = next((c for c in data.cells if (c.row, c.depth) == ("random", 3)), None)
    return _value(data, cell) | {"readings": _closed(data, "random", 3)}


def _value(data: Any, cell: Cell | None) -> dict[str, Any]:
    if cell is None:
        return {"value": None}
    about = cell.runs[0]["about"]
    seeds = f"{len(cell.runs)} seed{'s' if len(cell.runs) > 1 else ''}"
    epochs = max(len(run["history"]["train"]) for run in cell.runs)
    note = f"{cell.network}, {seeds}, {epochs} epochs, {about['device']}"
    if cell.late:
        note += "; the best epoch is one of the last two"
    if remark := data.inputs.recorded["table1"].results.get("note"):
        note += f"; {remark}"
    found = {"value": round(cell.mean, DIGITS), "note": note}
    return found if cell.spread is None else found | {"spread": round(cell.spread, 2)}


def _closed(data: Any, row: str, depth: int) -> dict[str, Any]:
    """Readings of the closed form at the cell's architecture."""
    if row != "random" or "closed" not in data.inputs.recorded:
        return {}
    fits = closed(data.inputs.recorded["closed"].results, depth)
    if not fits:
        return {}
    mean = round(statistics.fmean(fits), DIGITS)
    spread = round(statistics.stdev(fits), 2) if len(fits) > 1 else None
    return {"ridge classifier in closed form on random features": (mean, spread)}


def closed(results: Mapping[str, Any], depth: int) -> list[float]:
    """Test accuracies in percent of the closed form with all filters of Table 5, by seed."""
    network = TABLE5["random"][depth - 1]
    last = parse(network).layers[-1].filters
    return [
        100 * each["test"]
        for entry in results["runs"].values() if entry["architecture"] == network
        for each in entry["fits"] if each["filters"] == last
    ]  # fmt: skip


def table5(data: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Claims table5.*: no value, since the published search was not repeated in full.

    What was compared is the filter size: a reading says whether the published one is as good as
    the best.
    """
    found = {(choice.row, choice.depth): choice for choice in data.choices}
    for row in ROWS:
        for depth, name in enumerate(CELLS, 1):
            choice = found.get((row, depth))
            yield f"table5.{row}.{name}", {"value": None} if choice is None else chosen(choice)


def chosen(choice: Choice) -> dict[str, Any]:
    """The published size is as good as the best, within two standard errors."""
    sizes = ", ".join(f"{size}: {value:.1f} %" for size, value in choice.sizes.items())
    return {
        "value": None,
        "readings": {
            "filter size alone: within two standard errors of the best": (
                choice.margin <= choice.noise
            )
        },
        "note": (
            f"compared at {choice.width} filters a layer, few epochs, one seed: {sizes} of "
            f"{choice.images:,} validation images; two standard errors are {choice.noise:.1f} points"
        ),
    }


