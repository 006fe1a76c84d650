"""What is recorded: Table 1 at the architectures of Table 5, and the search around them.

`runs` names a folder in which every run has a folder of its own. What is missing there is trained,
and what was interrupted goes on; `missing=False` only collects what is finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from invertnb import notebook
from invertnb.chapters import random_filters as chapter
from invertnb.chapters.random_filters import kept_study
from invertnb.chapters.random_filters.recordings_closed import closed, frozen  # noqa: F401
from invertnb.networks import search
from invertnb.networks.labelled import open_labelled
from invertnb.networks.training import Run, read_run

#: What `_packed` keeps of each epoch.
CURVES = ("loss", "train", "validation", "seconds")


def table(p: chapter.Parameters) -> notebook.Recording:
    """The six cells of Table 1 at the paper's sizes."""
    recipes = {"learned": search.LEARNED, "random": search.RANDOM}
    return _recording("table1", p, search.table(recipes, range(3), search.EPOCHS))


def grid(p: chapter.Parameters) -> notebook.Recording:
    """Depth, filter size and number of filters around them."""
    return _recording("grid", p, search.grid(search.SHORT, widths=p.widths))


def tuning(p: chapter.Parameters) -> notebook.Recording:
    """The recipes that were tried, at fewer filters."""
    return _recording("tuning", p, search.tried())


def steps(p: chapter.Parameters) -> notebook.Recording:
    """What more steps give in the same epochs, at 64 filters."""
    return _recording("steps", p, search.steps())


def kept(p: chapter.Parameters) -> notebook.Recording:
    """How one step's reconstructions of CIFAR-10 are read."""
    data = open_labelled(p.data)
    results = kept_study.recorded(data, p.generator, Path(p.runs) / "kept", device=p.device)
    read = {"data": f"{data.label}, SHA-256 {data.sha256[:16]}"}
    return notebook.Recording("kept", read, results | {"note": p.note})


def _recording(
    label: str, p: chapter.Parameters, points: Sequence[search.Point]
) -> notebook.Recording:
    folder = Path(p.runs) / label
    if p.missing:
        data = open_labelled(p.data)
        _, failed = search.search(points, data, folder, device=p.device)
        if failed:
            name, why = next(iter(failed.items()))
            raise ValueError(f"runs = {len(failed)} failed: expected none; {name}: {why}")
    runs = {
        point.name: _finished(folder / point.name, point)
        for point in points if (folder / point.name / "run.json").exists()
    }  # fmt: skip
    if not runs:
        raise ValueError(f"runs = {p.runs!r}: expected a folder with finished runs in {label}")
    kinds = {run.data["sha256"]: run.data for run in runs.values()}
    if len(kinds) > 1:
        found = [f"{each['label']}, SHA-256 {each['sha256'][:16]}" for each in kinds.values()]
        raise ValueError(f"runs = {p.runs!r}: expected runs on one set of images: {found}")
    (data,) = kinds.values()
    results = {
        "data": data, "asked": len(points), "note": p.note,
        "runs": {name: _packed(run) for name, run in runs.items()},
    }  # fmt: skip
    where = sorted({f"{run.about['device']}, torch {run.about['versions']['torch']}" for run in runs.values()})
    read = {"data": f"{data['label']}, SHA-256 {data['sha256'][:16]}", "runs": "; ".join(where)}
    return notebook.Recording(label, read, results)


def _finished(folder: Path, point: search.Point) -> Run:
    run = read_run(folder)
    if run.architecture != str(point.architecture):
        raise ValueError(f"{folder.name} = {run.architecture}: expected {point.architecture}")
    if run.recipe != dataclasses.asdict(point.recipe):
        raise ValueError(f"{folder.name} = {run.recipe}: expected {point.recipe}")
    return run


def _packed(run: Run) -> Mapping[str, Any]:
    """A run as it is recorded: its curves as lists."""
    packed = dataclasses.asdict(run)
    del packed["data"]
    packed["history"] = {name: [each[name] for each in run.history] for name in CURVES}
    return packed
