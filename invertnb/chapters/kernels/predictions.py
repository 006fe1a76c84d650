"""Ratios predicted from counted bytes, and the recorded ones beside them."""

from __future__ import annotations

import math
from typing import NamedTuple

from invertnb.chapters.kernels.counts import predicted, total, ways
from invertnb.chapters.kernels.recorded import Recorded, Recording, absent, side_and_layout
from invertnb.chapters.kernels.text import columns, two
from invertnb.notebook import PALETTE, figure
from invertnb.notebook.figures import MUTED, Axes, Figure

TASKS = ("keep", "pool_switch", "unpool")
LAYOUTS = ("contiguous", "channels last")
SIZES = {"float32": 4, "bfloat16": 2}
COLOURS = {"keep": "blue", "pool_switch": "green", "unpool": "vermillion"}
MARKS = {"eager, amax": "v", "compiled": "s", "compiled, amax": "D", "ours": "o"}


def bytes_table(itemsize: int) -> str:
    """Every pass of every way with its bytes an entry, the sum, and the predicted ratio."""
    lines = []
    for task, known in ways(itemsize).items():
        for way, passes in known.items():
            lines.append((f"{task}, {way}", "", f"{total(passes):g}", f"{two(predicted(task, way, itemsize))}x"))
            lines += [(f"  {step.name}", f"{step.bytes:g}", "", "") for step in passes]
    return columns([("", "bytes", "sum", "ratio"), *lines])


class Comparison(NamedTuple):
    """One way at one layout and dtype, over the sizes recorded.

    Attributes:
        ratios: recorded ratio to the literal way, one a size.
        excess: bytes that the time would have paid for at copy speed, over the bytes counted; as a
            mean over sizes. About 1: limited by memory.
        literal_excess: the same of the literal way. The recorded ratio is the predicted one times
            literal_excess / excess.
    """

    task: str
    way: str
    layout: str
    dtype: str
    predicted: float
    ratios: tuple[float, ...]
    excess: float | None
    literal_excess: float | None

    @property
    def ratio(self) -> float:
        """Geometric mean of the recorded ratios."""
        return _mean(self.ratios)

    @property
    def limit(self) -> str:
        """What the excess says."""
        if self.excess is None:
            return "?"
        return "other" if self.excess > 2 else "cache" if self.excess < 0.75 else "memory"


def _mean(values: tuple[float, ...]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def compare(run: Recording) -> list[Comparison]:
    """All ways that were counted and recorded, the literal ones included."""
    found = []
    for dtype, itemsize in SIZES.items():
        for task, known in ways(itemsize).items():
            least = total(known["ours"])  # what the benchmark states as the task's bytes
            for layout in LAYOUTS:
                rows = [r for r in run.of(task, dtype=dtype)
                        if r.seconds and side_and_layout(r.size)[1] == layout]  # fmt: skip
                literal = None
                for way, passes in known.items():
                    some = [r for r in rows if r.way == way]
                    if not some:
                        continue
                    paid = [r.seconds * run.copy / (r.bytes / least) / total(passes)
                            for r in some if run.copy and r.bytes]  # fmt: skip
                    excess = _mean(tuple(paid)) if paid else None
                    literal = excess if way == "eager" else literal
                    found.append(Comparison(
                        task, way, layout, dtype, predicted(task, way, itemsize),
                        tuple(r.ratio for r in some if r.ratio), excess, literal,
                    ))  # fmt: skip
    return found


def table(recorded: Recorded) -> str:
    """Predicted and recorded ratios for each machine, and what the time of each way is worth."""
    parts = []
    for kind in ("cpu", "gpu"):
        run = recorded.latest(kind)
        if run is None or not compare(run):
            parts.append(absent(recorded, kind))
            continue
        rows = [("", "predicted", "recorded", "excess", "limit")]
        last = None
        for each in compare(run):
            group = f"{each.dtype}, {each.layout}, {each.task}"
            if group != last:
                rows.append((group,))
                last = group
            rows.append((f"  {each.way}", f"{two(each.predicted)}x", f"{two(each.ratio)}x",
                         two(each.excess), each.limit))  # fmt: skip
        parts.append(f"{run.name}, {run.date[:10]}\n{columns(rows)}")
    return "\n\n".join(parts)


def verdict(recorded: Recorded, kind: str = "cpu") -> str:
    """In a few lines: how many predictions held, and of those that did not, which side is to blame."""
    run = recorded.latest(kind)
    if run is None or not compare(run):
        return absent(recorded, kind)
    others = [each for each in compare(run) if each.way != "eager" and each.excess]
    held = [each for each in others if _off(each) <= 1.5]
    lines = [f"{run.name}: of {len(others)} recorded ratios",
             f"   {len(held):2} within a factor of 1.5 of the prediction"]  # fmt: skip
    left = [each for each in others if each not in held]
    sides = ("the way itself takes", lambda e: e.excess), ("the literal way takes", lambda e: e.literal_excess)
    for name, value in sides:
        wrong = [each for each in left if value(each) > 2]
        left = [each for each in left if each not in wrong]
        if wrong:
            each = max(wrong, key=value)
            lines.append(f"   {len(wrong):2} off: {name} over twice the time of its bytes,")
            lines.append(f"      most, {two(value(each))} times: {each.task}, {each.way}, {each.layout}")
    cached = [each for each in left if min(each.excess, each.literal_excess) < 0.75]
    lines.append(f"   {len(cached):2} off: one of the two ran faster than memory, from the cache")
    lines.append(f"   {len(left) - len(cached):2} off by less than that explains")
    return "\n".join(lines)


def _off(each: Comparison) -> float:
    return max(each.ratio / each.predicted, each.predicted / each.ratio)


def draw(recorded: Recorded) -> Figure:
    """Recorded against predicted ratio; on the diagonal bytes are all that counts."""
    fig, axes = figure(7.8, 4.2, ncols=2, sharex=True, sharey=True)
    for ax, kind in zip(axes, ("cpu", "gpu"), strict=True):
        run = recorded.latest(kind)
        _panel(ax, run, kind)
        ax.set(xscale="log", yscale="log", xlim=(0.8, 6.5), ylim=(0.1, 20), xlabel="predicted ratio")
        ax.set_xticks([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"])
        ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20"])
        ax.minorticks_off()
    axes[0].set_ylabel("recorded ratio")
    for task, colour in COLOURS.items():
        axes[0].plot([], [], "s", ms=7, color=PALETTE[colour], label=task)
    for way, mark in MARKS.items():
        axes[0].plot([], [], mark, ms=6, mfc="white", mec=PALETTE["black"], label=way)
    fig.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=9, ncols=4,
               loc="outside upper center")  # fmt: skip
    return fig


def _panel(ax: Axes, run: Recording | None, kind: str) -> None:
    ax.plot([0.1, 20], [0.1, 20], color=MUTED, lw=1, ls="--")
    ax.axhline(1, color=MUTED, lw=0.8, alpha=0.5)
    if run is None or not compare(run):
        for task, known in ways(4).items():
            for way in known:
                if way != "eager":
                    x = predicted(task, way, 4)
                    ax.plot(x, x, MARKS[way], ms=6, mfc="none", mec=PALETTE[COLOURS[task]], alpha=0.6)
        where = f"recorded on a {kind.upper()}: none yet" if run is None else f"not timed on\n{run.name}"
        ax.text(0.5, 0.07, f"predictions alone;\n{where}", transform=ax.transAxes, ha="center",
                color=MUTED, fontsize=9.5)  # fmt: skip
        return
    for each in compare(run):
        if each.way == "eager" or each.dtype != "float32":
            continue
        colour = PALETTE[COLOURS[each.task]]
        # Beside each other where tasks have the same prediction.
        x = each.predicted * 1.04 ** (TASKS.index(each.task) - 1)
        fill = colour if each.layout == "contiguous" else "white"
        ax.plot([x, x], [min(each.ratios), max(each.ratios)], color=colour, lw=1)
        ax.plot(x, each.ratio, MARKS[each.way], ms=7, mfc=fill, mec=colour)
    ax.text(0.97, 0.03, run.name, transform=ax.transAxes, ha="right", color=MUTED, fontsize=9)
