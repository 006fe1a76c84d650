"""What the benchmark recorded: book/recorded/kernels.csv, of each machine its newest run."""

from __future__ import annotations

import csv
import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FILE, MACHINE_CODE = "book/recorded/kernels.csv", "book/recorded/kernels_machine_code.csv"
COMMANDS = {
    "cpu": "invertnb bench --record",
    "gpu": "invertnb bench --device cuda --record",
    "machine code": "invertnb bench --compile",
}
KINDS = {"cpu": "CPU", "gpu": "GPU"}
_GPU = re.compile(r"(NVIDIA|Tesla|GeForce|Quadro|AMD Instinct)\b")
_NEEDED = ("date", "device", "threads", "kernel", "size", "dtype", "way", "seconds")
_NUMBERS = ("seconds", "low", "high", "ratio", "bytes", "operations", "percent")
_VERSIONS = ("python", "torch", "triton")


class Row(NamedTuple):
    """One way to do one task; without `seconds` it did not run, and `note` says why.

    `bytes` and `operations` are the least that the task needs, `percent` is of the copy bandwidth
    or matrix rate that the same run measured.
    """

    kernel: str
    size: str
    dtype: str
    way: str
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    items: int = 1
    bytes: float | None = None
    operations: float | None = None
    percent: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Recording:
    """One run on one machine; its ceilings are kept apart from its rows."""

    device: str
    threads: int
    date: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    copy: float | None
    matrix: dict[str, float]

    @property
    def kind(self) -> str:
        """ "gpu" or "cpu"."""
        return "gpu" if _GPU.match(self.device) else "cpu"

    @property
    def name(self) -> str:
        """The machine in a few words."""
        if self.kind == "gpu":
            return self.device
        return f"{self.device}, {self.threads} thread{'s' if self.threads != 1 else ''}"

    def of(self, kernel: str, size: str | None = None, dtype: str | None = None) -> list[Row]:
        """The rows of a kernel, of one size and one dtype if given, in the order recorded."""
        return [
            row for row in self.rows
            if row.kernel == kernel and size in (None, row.size) and dtype in (None, row.dtype)
        ]  # fmt: skip

    def tasks(self) -> list[tuple[str, str, str]]:
        """(kernel, size, dtype) of everything timed, in the order recorded."""
        return list(dict.fromkeys((row.kernel, row.size, row.dtype) for row in self.rows))


@dataclass(frozen=True)
class Recorded:
    """All machines, of each the newest run of each task, the newest machine first."""

    runs: tuple[Recording, ...] = ()

    def latest(self, kind: str) -> Recording | None:
        """The newest recording on a "cpu" or a "gpu", if there is one."""
        return next((run for run in self.runs if run.kind == kind), None)

    @property
    def cpu(self) -> Recording | None:
        """The newest recording on a CPU."""
        return self.latest("cpu")

    @property
    def gpu(self) -> Recording | None:
        """The newest recording on a GPU."""
        return self.latest("gpu")


def missing(kind: str) -> str:
    """What stands where nothing was recorded: that, and the command that records it."""
    what = {"cpu": "recorded on a CPU", "gpu": "recorded on a GPU"}.get(kind, kind)
    return f"{what}: none yet; the command is\n    {COMMANDS[kind]}"


def absent(recorded: Recorded, kind: str) -> str:
    """What stands where a machine has no row of a task: that, or `missing` without a machine."""
    run = recorded.latest(kind)
    if run is None:
        return missing(kind)
    return f"{run.name}, {run.date[:10]}: not timed; the command is\n    {COMMANDS[kind]}"


def coverage(recorded: Recorded) -> str:
    """What the newest GPU timed, and what the newest CPU timed and it did not."""
    run = recorded.gpu
    if run is None:
        return missing("gpu")
    timed = dict.fromkeys(kernel for kernel, *_ in run.tasks())
    lines = [f"timed on {run.name}, {run.date[:10]}:"]
    for kernel in timed:
        dtypes = dict.fromkeys(row.dtype for row in run.of(kernel))
        lines.append(f"    {kernel} ({', '.join(dtypes)})")
    others = recorded.cpu.tasks() if recorded.cpu else []
    left = [name for name in dict.fromkeys(kernel for kernel, *_ in others) if name not in timed]
    return "\n".join(lines + ["not timed there:", *(f"    {name}" for name in left)] * bool(left))


def load(path: Path) -> Recorded:
    """Read the CSV; a file that does not exist holds no run.

    Raises:
        ValueError: a column is missing or a row is malformed; names file, line and column.
    """
    runs: dict[tuple[str, int], dict[str, list[dict]]] = {}
    for line, entry in lines_of(path, _NEEDED):
        where = f"{path.name}, line {line}"
        try:
            datetime.datetime.strptime(entry["date"], "%Y-%m-%d %H:%M")
        except ValueError:
            raise ValueError(f"{where}: date = {entry['date']!r}: expected as 2026-01-31 23:59") from None
        for name in ("device", "kernel", "way"):
            if not entry[name]:
                raise ValueError(f"{where}: {name} is empty")
        threads = number_of(entry["threads"], f"{where}: threads", whole=True)
        parsed = entry | {name: number_of(entry.get(name), f"{where}: {name}") for name in _NUMBERS}
        parsed["items"] = number_of(entry.get("items") or "1", f"{where}: items", whole=True)
        runs.setdefault((entry["device"], threads), {}).setdefault(entry["date"], []).append(parsed)
    newest = [
        _recording(device, threads, dates)
        for (device, threads), dates in runs.items()
    ]
    # More threads first among equals: that is how the machine is used.
    return Recorded(tuple(sorted(newest, key=lambda run: (run.date, run.threads), reverse=True)))


def _recording(device: str, threads: int, dates: dict[str, list[dict]]) -> Recording:
    """One machine: of each task the newest run, for a run may be of some topics only."""
    tasks: dict[tuple[str, str, str], tuple[str, dict[str, Row]]] = {}
    copy, matrix = None, {}
    for date in sorted(dates):
        for entry in dates[date]:
            if entry["kernel"] == "ceiling":
                if entry["way"] == "copy":
                    copy = entry["bytes"]
                else:
                    matrix[entry["dtype"]] = entry["operations"]
                continue
            row = Row(**{name: entry.get(name) for name in Row._fields if name != "note"},
                      note=entry.get("note") or "")  # fmt: skip
            task = row.kernel, row.size, row.dtype
            if tasks.get(task, ("",))[0] != date:  # all ways of a task are from one run
                tasks[task] = date, {}
            tasks[task][1][row.way] = row  # the later of two in one minute
    newest = max(dates)
    versions = {name: dates[newest][0].get(name) or "?" for name in _VERSIONS}
    rows = tuple(row for _, ways in tasks.values() for row in ways.values())
    return Recording(device, threads, newest, versions, rows, copy, matrix)


class Compiled(NamedTuple):
    """What one kernel became on sm_90: counts a thread, widths of loads and stores in words."""

    kernel: str
    dtype: str
    layout: str
    registers: int
    spills: int
    shared: int
    instructions: int
    per_window: float | None
    loads: str
    stores: str
    matrix: int
    triton: str


def load_machine_code(path: Path) -> list[Compiled]:
    """Read the CSV of compiled kernels; a file that does not exist holds none.

    Raises:
        ValueError: a column is missing or a row is malformed; names file, line and column.
    """
    found = []
    for line, entry in lines_of(path, Compiled._fields):
        whole = {
            name: number_of(entry[name] or "0", f"{path.name}, line {line}: {name}", whole=True)
            for name in ("registers", "spills", "shared", "instructions", "matrix")
        }
        per_window = number_of(entry["per_window"], f"{path.name}, line {line}: per_window")
        words = {name: entry[name] for name in ("kernel", "dtype", "layout", "loads", "stores", "triton")}
        found.append(Compiled(**words, **whole, per_window=per_window))
    return found


def lines_of(path: Path, needed: Iterable[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Number and entries of each line of a CSV; none of a file that does not exist.

    Raises:
        ValueError: a column is missing, or a line has another number of entries.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in needed if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path.name}: no column {absent[0]!r}")
        for entry in reader:
            if None in entry or None in entry.values():
                count = len(reader.fieldnames)
                raise ValueError(f"{path.name}, line {reader.line_num}: expected {count} columns")
            yield reader.line_num, entry


def number_of(text: str | None, what: str, whole: bool = False) -> float | int | None:
    """A number from 0 on, None for an empty text unless it must be whole.

    Raises:
        ValueError: anything else; `what` names it.
    """
    if not text and not whole:
        return None
    try:
        number = int(text) if whole else float(text)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{what} = {text!r}: expected {kind}, at least 0")
    return number


def side_and_layout(size: str) -> tuple[int, str]:
    """The side of a square code and its layout, from a size such as "2x64x28x28, channels last"."""
    shape, _, layout = size.partition(", ")
    return int(shape.rpartition("x")[2]), layout or "contiguous"
