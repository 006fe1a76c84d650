"""Recorded times and ratios as bars, and the frames of the explorers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from invertnb.chapters.kernels.predictions import TASKS
from invertnb.chapters.kernels.recorded import (
    KINDS, Recorded, Recording, Row, absent, missing, side_and_layout,
)  # fmt: skip
from invertnb.chapters.kernels.text import columns, seconds, two
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure
from invertnb.notebook.figures import MUTED, Figure

COLOURS = {"cpu": "blue", "gpu": "vermillion"}
DTYPES = {"float32": "blue", "bfloat16": "orange", "float16": "green", "float64": "purple"}


def ratios(recorded: Recorded, kernels: Sequence[str]) -> str:
    """Time of an item and ratio of every way of some kernels; what is missing is said to be."""
    parts = []
    for kind in ("cpu", "gpu"):
        run = recorded.latest(kind)
        rows = [] if run is None else [row for kernel in kernels for row in run.of(kernel)]
        if not rows:
            parts.append(absent(recorded, kind))
            continue
        lines, last = [("", "an item", "ratio")], None
        for row in rows:
            task = f"{row.kernel}, {row.size}, {row.dtype}"
            if task != last:
                lines.append((task,))
                last = task
            if row.seconds is None:
                lines.append((f"  {row.way}: {row.note or 'not run'}",))
                continue
            lines.append((f"  {row.way}", seconds(row.seconds / row.items), _times(row.ratio)))
        parts.append(f"{run.name}, {run.date[:10]}\n{columns(lines)}")
    return "\n\n".join(parts)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{two(ratio)}x"


def draw_ratios(recorded: Recorded, kernels: Sequence[str]) -> Figure:
    """A bar for each way: how many times faster than the literal way, which has the ratio 1.

    Over several tasks of a kernel the geometric mean, with the range.
    """
    runs = [run for run in (recorded.cpu, recorded.gpu) if run and any(map(run.of, kernels))]
    labels, bars = [], []
    for kernel in kernels:
        ways = dict.fromkeys(row.way for run in runs for row in run.of(kernel) if row.ratio)
        labels.append((kernel if ways else f"{kernel}: not recorded yet", True))
        for way in ways:
            for run in runs:
                rows = [row for row in run.of(kernel) if row.way == way and row.ratio]
                if rows:
                    bars.append((len(labels), run, rows))
            labels.append((way, False))
    fig, ax = figure(7.5, 0.7 + 0.28 * len(labels))
    both = len(runs) > 1
    for position, run, rows in bars:
        found = [row.ratio for row in rows]
        mean = math.exp(sum(map(math.log, found)) / len(found))
        shift = 0 if not both else 0.2 if run.kind == "gpu" else -0.2
        # From 1 on, to the left for what is slower.
        ax.barh(position + shift, mean - 1, left=1, height=0.36 if both else 0.65,
                color=PALETTE[COLOURS[run.kind]])  # fmt: skip
        text = f" {two(mean)}x, {seconds(rows[0].seconds / rows[0].items)} an item"
        if len(rows) > 1:
            text = f" {two(mean)}x, {two(min(found))} to {two(max(found))} in {len(rows)} tasks"
        ax.text(max(mean, 1), position + shift, text, va="center", fontsize=8.5)
    for run in runs if both else ():
        ax.barh(0, 0, left=1, color=PALETTE[COLOURS[run.kind]], label=run.name)
    if both:
        fig.legend(frameon=False, fontsize=9, ncols=2, loc="outside upper center")
    ax.set_yticks(range(len(labels)), [f"{name}:" if head else name for name, head in labels])
    for tick, (_, head) in zip(ax.get_yticklabels(), labels, strict=True):
        if head:
            tick.set_color(MUTED)
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    ax.axvline(1, color=MUTED, lw=1)
    most = max((row.ratio for _, _, rows in bars for row in rows), default=1)
    least = min((row.ratio for _, _, rows in bars for row in rows), default=1)
    ax.set(xscale="log", xlabel="times as fast as the first way", ylim=(len(labels) - 0.4, -0.6),
           xlim=(min(0.7, least / 1.5), max(10, most**1.55 * 2)))  # fmt: skip
    return fig


def cases(run: Recording) -> list[tuple[str, str, str]]:
    """(kernel, size, dtype) of the tasks beside pooling and unpooling."""
    return [task for task in run.tasks() if task[0] not in TASKS]


def draw_case(rows: Sequence[Row]) -> Figure:
    """Time of every way of one task, with percent of the measured ceiling."""
    rows = [row for row in rows if row.seconds]
    ways = list(dict.fromkeys(row.way for row in rows))
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    fig, ax = figure(6.6, 2.9)
    if not rows:
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set(xticks=[], yticks=[])
        return fig
    height = 0.7 / len(dtypes)
    for row in rows:
        i = dtypes.index(row.dtype)
        y = ways.index(row.way) + (i - (len(dtypes) - 1) / 2) * height
        time = 1000 * row.seconds
        ax.barh(y, time, height=0.9 * height, color=PALETTE[DTYPES.get(row.dtype, "black")],
                label=row.dtype if row.way == ways[0] else None)  # fmt: skip
        percent = "" if row.percent is None else f", {two(row.percent)} %"
        ax.text(time, y, f" {seconds(row.seconds)}{percent}", va="center", fontsize=9)
    times = [1000 * row.seconds for row in rows]
    ax.set(xlim=(0, max(times) * 1.3), xlabel="milliseconds", ylim=(len(ways) - 0.4, -0.6))
    ax.set_yticks(range(len(ways)), ways)
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    if len(dtypes) > 1:
        ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    return fig


def _values(run: Recording, rows: Sequence[Row]) -> dict[str, str]:
    timed = [row for row in rows if row.seconds]
    if not timed:
        return {"recorded": "no"}
    best = min(timed, key=lambda row: row.seconds)
    unit = "matrix rate" if best.bytes is None else "copy bandwidth"
    return {
        "machine": run.name,
        "size": " and ".join(dict.fromkeys(f"{row.size}, {row.dtype}" for row in timed)),
        "fastest": f"{best.way}: {seconds(best.seconds / best.items)} an item, {_times(best.ratio)}",
        f"percent of the measured {unit}": two(best.percent),
    }


def pooling_explorer(recorded: Recorded) -> Explorer:
    """Time by way for pooling and unpooling, over machine, task, size and layout.

    Raises:
        ValueError: none of them was recorded.
    """
    runs = [run for run in (recorded.cpu, recorded.gpu) if run and any(run.of(t) for t in TASKS)]
    if not runs:
        raise ValueError(f"no row of {', '.join(TASKS)}; {missing('cpu')}")
    sides = sorted({side_and_layout(r.size)[0] for run in runs for t in TASKS for r in run.of(t)})

    def show(task: str, side: int, layout: str, machine: str = runs[0].kind) -> View:
        run = next(run for run in runs if run.kind == machine)
        rows = [row for row in run.of(task) if side_and_layout(row.size) == (side, layout)]
        return View(draw_case(rows), _values(run, rows))

    controls = [
        Choice("task", TASKS, "task"),
        Slider("side", sides, "rows and columns of a code", default=sides[-1]),
        Choice("layout", ("contiguous", "channels last"), "layout"),
    ]
    if len(runs) > 1:
        controls.insert(0, Choice("machine", {KINDS[run.kind]: run.kind for run in runs}, "machine"))
    gpu = recorded.gpu
    where = "Recorded on a GPU: none yet." if gpu is None else ""
    if gpu is not None and gpu not in runs:
        where = f"Not timed on the {gpu.name}."
    named = " on the {machine}" if len(runs) > 1 else ""
    return Explorer(
        "pooling-times", controls, show,
        alt="Bars of time by way for {task}, codes of {side} rows and columns, {layout}" + named,
        caption="Time by way; percent of the copy bandwidth that the same run measured, by the least "
        f"bytes that the task must move. {where}".strip(),
    )  # fmt: skip


def tasks_explorer(recorded: Recorded) -> Explorer:
    """Time by way for every other task that was recorded, each with its machine.

    Raises:
        ValueError: none was recorded.
    """
    options = {}
    for run in (recorded.cpu, recorded.gpu):
        for kernel, size, dtype in cases(run) if run else ():
            options[f"{KINDS[run.kind]}: {kernel}, {size}, {dtype}"] = (run, kernel, size, dtype)
    if not options:
        raise ValueError(f"no other task; {missing('cpu')}")

    def show(task: str) -> View:
        run, *case = options[task]
        rows = run.of(*case)
        return View(draw_case(rows), _values(run, rows))

    return Explorer(
        "task-times", [Choice("task", list(options), "task")], show,
        alt="Bars of time by way for {task}",
        caption="Time by way of the other tasks; percent of the matrix rate that the same run measured, "
        "where the task states its operations.",
    )  # fmt: skip
