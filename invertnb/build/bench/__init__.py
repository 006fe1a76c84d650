"""Speed by ratios in one run, each figure after a check that all ways give the same numbers.

Rows go to a CSV that only grows: `book/recorded/kernels.csv` with --record, which the chapter on the
kernels plots, else `_build/bench.csv`.
"""

from __future__ import annotations

import csv
import datetime
import importlib
import io
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from ...kernels.launch import triton
from .frame import Ceiling, Task, Timing, measure_ceiling, time_task

# One module each, with `tasks(device)`, in the order in which they run.
TOPICS = ("pooling", "isometry", "encoder", "coding", "shifts")
FIELDS = (
    "date", "device", "threads", "python", "torch", "triton", "kernel", "size", "dtype", "way",
    "seconds", "low", "high", "ratio", "items", "bytes", "operations", "percent", "note",
)  # fmt: skip


def tasks(device: str, topics: Iterable[str] = TOPICS) -> Iterator[Task]:
    """The tasks of some topics."""
    modules = [importlib.import_module(f".{topic}", __name__) for topic in topics]
    for module in modules:
        yield from module.tasks(device)


def run(device: str, topics: Iterable[str], ceiling: Ceiling) -> Iterator[Timing]:
    """Check and time every way of every task, in order.

    Raises:
        BuildError: two ways of one task disagree.
    """
    for task in tasks(device, topics):
        yield from time_task(task, device, ceiling)


def conditions(device: str) -> dict[str, str]:
    """What a row must say beside its numbers: date, device, threads and versions."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{_processor()}"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "device": name,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": getattr(triton, "__version__", "none"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "cpu"


def ceiling_rows(ceiling: Ceiling, where: dict[str, str]) -> Iterator[dict[str, str]]:
    """The measured ceilings as rows of their own: bytes or operations in one second."""
    yield where | {"kernel": "ceiling", "way": "copy", "seconds": "1", "bytes": f"{ceiling.copy:.4g}"}
    for dtype, rate in ceiling.matrix.items():
        yield where | {"kernel": "ceiling", "dtype": dtype, "way": "matmul", "seconds": "1",
                       "operations": f"{rate:.4g}"}  # fmt: skip


def row(timing: Timing, where: dict[str, str]) -> dict[str, str]:
    """A timing as a row of the CSV."""
    task = timing.task

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    return where | {
        "kernel": task.kernel, "size": task.size, "dtype": task.dtype, "way": timing.way,
        "seconds": number(timing.seconds), "low": number(timing.low), "high": number(timing.high),
        "ratio": number(timing.ratio), "items": str(task.items), "bytes": number(task.bytes),
        "operations": number(task.operations), "percent": number(timing.percent),
        "note": timing.note,
    }  # fmt: skip


def append(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Add rows to a CSV, a header first if it is new; all of them in one write, or none."""
    new = not path.exists() or not path.stat().st_size
    text = _text(rows, FIELDS, header=new)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, rows: Iterable[dict[str, str]], fields: Sequence[str]) -> None:
    """A CSV made anew, put in place when it is whole."""
    text = _text(rows, fields, header=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _text(rows: Iterable[dict[str, str]], fields: Sequence[str], header: bool) -> str:
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, fields, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


__all__ = [
    "FIELDS", "TOPICS", "append", "ceiling_rows", "conditions", "measure_ceiling", "row", "run", "write",
]  # fmt: skip
