"""``invertnb sweep CHAPTER --grid k=10,20,40``: a chapter, or what it records, over a grid.

Every point has a record of its own, and a notebook where one was executed; both are written whole
or not at all, as soon as the point is done. A record holds the hash of all that the point depends
on, by which the same command run again knows what is finished.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from . import BuildError, notebooks, tabulate
from .chapters import Chapter, digest, versions
from .point import FINISHED
from .workers import on_cluster, on_this_machine


@dataclass(frozen=True, eq=False)
class Point:
    """One point: its place on the grid, all that it sets, the hash of what it depends on."""

    place: Mapping[str, Any]
    parameters: Mapping[str, Any]
    fingerprint: str

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.place.items())


@dataclass(frozen=True)
class Sweep:
    """A chapter over a grid, with the folder that keeps its points."""

    chapter: Chapter
    profile: str
    recording: bool
    points: Sequence[Point]
    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / "table.csv"

    def asked(self, point: Point) -> dict[str, Any]:
        """What :func:`invertnb.build.point.compute` takes."""
        return {
            "chapter": self.chapter.name,
            "root": str(self.chapter.root),
            "profile": self.profile,
            "parameters": dict(point.parameters),
            "recording": self.recording,
            "fingerprint": point.fingerprint,
            "versions": dict(versions()),
        }

    def record(self, point: Point) -> Path:
        return self.folder / f"{point.fingerprint[:16]}.json"

    def kept(self, point: Point) -> dict[str, Any] | None:
        """The record of this point if it is finished, here or in another sweep of the chapter."""
        name = self.record(point).name
        for path in (self.folder / name, *self.folder.parent.glob(f"{self.chapter.name}-*/{name}")):
            try:
                entry = json.loads(path.read_text(encoding="utf-8"))
                if entry["fingerprint"] != point.fingerprint or entry["status"] != FINISHED:
                    continue
                notebook = None if self.recording else path.with_suffix(".ipynb").read_text("utf-8")
            except (OSError, ValueError, KeyError):
                continue
            if path.parent != self.folder:
                return self.keep(point, {**entry, "notebook": notebook})
            return entry
        return None

    def keep(self, point: Point, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Write a point's notebook and then its record, which makes it finished."""
        path = self.record(point)
        # A record from another sweep has that one's axes: what is this sweep's own comes last.
        entry = {
            "parameters": dict(point.parameters),  # an answer has the defaults, too
            **answer,
            "chapter": self.chapter.name,
            "grid": dict(point.place),
            "profile": self.profile,
            "fingerprint": point.fingerprint,
        }
        if notebook := entry.pop("notebook", None):
            notebooks.write_bytes(f"{notebook.rstrip()}\n".encode(), path.with_suffix(".ipynb"))
        text = json.dumps(entry, indent=1, allow_nan=False, ensure_ascii=False)
        notebooks.write_bytes(f"{text}\n".encode(), path)
        return entry


def axes(grids: Sequence[str]) -> dict[str, list[str]]:
    """``["k=1,2", "layers=1,2;3"]`` to ``{"k": ["1", "2"], "layers": ["1,2", "3"]}``.

    Values are separated by commas, or, where there is a semicolon, by semicolons alone; one may end
    the list, so that ``layers=1,2;`` is the one value ``1,2``.

    Raises:
        ValueError: no values, an empty one, or a name given twice.
    """
    found: dict[str, list[str]] = {}
    for grid in grids:
        name, _, text = grid.partition("=")
        mark = ";" if ";" in text else ","
        values = [value.strip() for value in text.removesuffix(";").split(mark)]
        if not name or not all(values):
            raise ValueError(f"--grid {grid!r}: expected name=value,value,... (or with semicolons)")
        if name in found:
            raise ValueError(f"--grid {grid!r}: {name} is given twice")
        found[name] = values
    return found


def plan(
    chapter: Chapter,
    grids: Sequence[str],
    settings: Mapping[str, str],
    profile: str = "embedded",
    recording: bool = False,
    elsewhere: bool = False,
) -> Sweep:
    """The sweep over the product of these grids, every point validated.

    Args:
        settings: parameters that all points share.
        recording: call the chapter's ``recording`` in place of executing its notebook.
        elsewhere: other machines compute, so that a GPU need not be here.

    Raises:
        ValueError: a grid that :func:`axes` refuses; a name that is set, too; an unknown
            parameter; a value that its declaration refuses; a value given twice.
        BuildError: nothing to record.
    """
    if recording and not callable(getattr(chapter.module, "recording", None)):
        raise BuildError(f"chapter {chapter.name!r} has nothing to record")
    grid = axes(grids)
    for name in grid:
        if name in settings:
            raise ValueError(f"{name}={settings[name]}: {name} is given with --grid, too")
    inputs, points = chapter.inputs(recording), {}
    for values in itertools.product(*grid.values()):
        given = {**settings, **dict(zip(grid, values, strict=True))}
        # Whether there is a GPU, the worker knows.
        later = {"device": "cuda"} if elsewhere and given.get("device") == "cuda" else {}
        now = {name: value for name, value in given.items() if name not in later}
        parameters = chapter.parameters(profile, now) | later
        point = Point({k: parameters[k] for k in grid}, parameters, digest(inputs, parameters))
        if point.fingerprint in points:
            raise ValueError(f"--grid: the point {point} is given twice")
        points[point.fingerprint] = point
    swept = [
        [chapter.name, profile, recording, sorted(grid)],
        sorted(json.dumps(point.parameters, sort_keys=True) for point in points.values()),
    ]
    name = f"{chapter.name}-{hashlib.sha256(json.dumps(swept).encode()).hexdigest()[:10]}"
    folder = chapter.root / "_build" / "sweeps" / name
    return Sweep(chapter, profile, recording, list(points.values()), folder)


def run(sweep: Sweep, console: Console, scheduler: str | None = None) -> list[dict[str, Any]]:
    """Compute the points that are missing, keep each as it is done, and write the table.

    Args:
        scheduler: address of a Dask scheduler; None for this machine alone.

    Returns:
        The points' records, in the order of the grid.

    Raises:
        BuildError: no scheduler answers at the address, or it left before the end.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print("this sweep is at work already in another process; waiting for it")
        lock.acquire()
    try:
        return _run(sweep, console, scheduler)
    finally:
        lock.release()


def _run(sweep: Sweep, console: Console, scheduler: str | None) -> list[dict[str, Any]]:
    entries = {point: sweep.kept(point) for point in sweep.points}
    missing = [point for point in sweep.points if entries[point] is None]
    total, done = len(sweep.points), len(sweep.points) - len(missing)
    if done:
        console.print(f"{done} of {total} points are finished already")
    asked = [sweep.asked(point) for point in missing]
    try:
        # Without a missing point, no scheduler need be there.
        answers = on_cluster(asked, scheduler, console) if scheduler else on_this_machine(asked)
        for i, answer in answers if missing else ():
            entry = entries[missing[i]] = sweep.keep(missing[i], answer)
            finished = entry["status"] == FINISHED
            what = f"{entry['seconds']:.1f} s" if finished else f"failed: {entry['error']}"
            done += 1
            console.print(f"{done}/{total} {missing[i]}: {what}", markup=False, soft_wrap=True)
    finally:
        found = [entry for entry in entries.values() if entry]
        tabulate.write(found, sweep.table)
    return found
