"""The roofline: what memory, instructions and tensor cores allow, and where each operation stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invertnb.chapters.kernels.counts import Operation
from invertnb.chapters.kernels.recorded import Recorded, Recording, missing, side_and_layout
from invertnb.chapters.kernels.text import rate, two
from invertnb.notebook import PALETTE, figure
from invertnb.notebook.figures import MUTED, Axes, Figure

COLOURS = {"instructions": "blue", "TF32": "orange", "bfloat16": "vermillion", "float32": "orange"}
NAMES = {"TF32": "products, float32 (TF32)", "bfloat16": "products, bfloat16"}


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second, and operations a second for each unit."""

    copy: float
    rates: Mapping[str, float]

    def bound(self, operation: Operation) -> tuple[str, float]:
        """What limits an operation, "memory" or its unit, and the operations a second that are left."""
        by_memory, by_unit = self.copy * operation.intensity, self.rates[operation.unit]
        return ("memory", by_memory) if by_memory < by_unit else (operation.unit, by_unit)

    def seconds(self, operation: Operation) -> float:
        """The least time for one item."""
        return operation.operations / self.bound(operation)[1]


#: Of an H200, from its data sheet: bytes a second, dense products a second in bfloat16 and TF32;
#: processors, lanes of each and clock.
SHEET = {"copy": 4.8e12, "bfloat16": 989e12, "TF32": 494e12}
#: The same chip with slower memory; by a part of the name under which the card is recorded.
SHEETS = {"H200": SHEET, "H100 80GB HBM3": SHEET | {"copy": 3.35e12}}
PROCESSORS, LANES, CLOCK = 132, 128, 1.98e9
#: The share of its data sheet that a large copy and a large product are expected to reach.
COPY_SHARE, PRODUCT_SHARE = 0.9, 0.8


def h200() -> Ceilings:
    """What an H200 is expected to reach: derived from its data sheet, not measured."""
    rates = {name: SHEET[name] * PRODUCT_SHARE for name in ("TF32", "bfloat16")}
    # One instruction a lane and a cycle.
    return Ceilings(SHEET["copy"] * COPY_SHARE, {"instructions": PROCESSORS * LANES * CLOCK, **rates})


def shares(run: Recording) -> dict[str, float]:
    """Of the recorded card's data sheet, what the run measured: "copy", "TF32" and "bfloat16".

    Empty for a card whose data sheet is not among `SHEETS`.
    """
    sheet = next((sheet for name, sheet in SHEETS.items() if name in run.device), None)
    if sheet is None:
        return {}
    found = {"copy": run.copy, "TF32": run.matrix.get("float32"), "bfloat16": run.matrix.get("bfloat16")}
    return {name: value / sheet[name] for name, value in found.items() if value is not None}


def table(operations: Sequence[Operation], ceilings: Ceilings) -> str:
    """Each operation: bytes and operations of an item, their ratio, the bound, the least time."""
    lines = [f"   {'':28}{'an item':>8}{'bytes':>10}{'operations':>12}{'ratio':>8}  bound by"]
    for letter, each in zip(LETTERS, operations, strict=False):
        lines.append(
            f"{letter}  {each.name:28}{each.item:>8}{two(each.bytes):>10}{two(each.operations):>12}"
            f"{two(each.intensity):>8}  {ceilings.bound(each)[0]}"
        )
    return "\n".join(lines)


def ceilings_table(recorded: Recorded) -> str:
    """Derived and measured ceilings, side by side; a missing GPU is said to be missing."""
    derived = h200()
    lines = ["H200, derived from its data sheet",
             f"   copy {rate(derived.copy, 'B/s')}"]  # fmt: skip
    lines += [f"   {unit} {rate(value, 'op/s')}" for unit, value in derived.rates.items()]
    lines.append(f"   memory and instructions balance at {two(_ridge(derived, 'instructions'))} op/B,")
    lines.append(f"   memory and TF32 products at {two(_ridge(derived, 'TF32'))} op/B")
    for kind in ("cpu", "gpu"):
        run = recorded.latest(kind)
        if run is None:
            lines.append(missing(kind))
            continue
        lines.append(f"{run.name}, measured")
        lines.append("   copy " + (rate(run.copy, "B/s") if run.copy else "not recorded"))
        lines += [f"   product in {dtype} {rate(value, 'op/s')}" for dtype, value in run.matrix.items()]
        if shares(run):
            lines.append("   of its data sheet: " + ", ".join(
                f"{name} {100 * share:.0f} %" for name, share in shares(run).items()))  # fmt: skip
    return "\n".join(lines)


def _ridge(ceilings: Ceilings, unit: str) -> float:
    return ceilings.rates[unit] / ceilings.copy


LETTERS = "abcdefghijklmnop"


def measured(operation: Operation, run: Recording) -> tuple[float, float] | None:
    """(operations a byte, operations a second) from a recorded row, or None.

    For pooling the largest contiguous size. Rows that state their operations are of another size
    than the operation: their own count is used.
    """
    if operation.row is None:
        return None
    kernel, way = operation.row
    rows = [r for r in run.of(kernel, dtype=operation.dtype) if r.way == way and r.seconds]
    if not rows:
        return None
    if operation.item == "entry":
        rows = [r for r in rows if side_and_layout(r.size)[1] == "contiguous" and r.bytes]
        if not rows:
            return None
        row = max(rows, key=lambda r: r.bytes)
        return operation.intensity, row.bytes * operation.intensity / row.seconds
    row = rows[0]
    return (operation.intensity, row.operations / row.seconds) if row.operations else None


def draw(operations: Sequence[Operation], recorded: Recorded) -> Figure:
    """Two rooflines: of a GPU, derived and, where one was recorded, measured; of the recorded CPU."""
    fig, axes = figure(7.8, 4.3, ncols=2, sharex=True)
    gpu, cpu = recorded.gpu, recorded.cpu
    _gpu_panel(axes[0], operations, gpu)
    _cpu_panel(axes[1], operations, cpu)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlim=(0.2, 3000), xlabel="operations for each byte moved")
        ax.grid(color=MUTED, alpha=0.15, lw=0.6)
    axes[0].set_ylabel("operations a second")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=9, ncols=4, loc="outside upper center")
    return fig


def _gpu_panel(ax: Axes, operations: Sequence[Operation], run: Recording | None) -> None:
    ceilings = h200()
    _roof(ax, ceilings, derived=run is not None)
    points = [(each.intensity, ceilings.bound(each)[1]) for each in operations]
    _marks(ax, operations, points, filled=False)
    low = 2e12
    if run is None:
        note = "GPU: derived ceilings;\nhollow: what they allow;\nrecorded on a GPU: none yet"
    else:
        found = [measured(each, run) for each in operations]
        _marks(ax, operations, found, filled=True)
        low = min([low, *(point[1] for point in found if point)])
        note = f"dashed and hollow: derived, H200;\nthe rest: recorded,\n{run.name}"
        if run.copy:
            _roof(ax, Ceilings(run.copy, run.matrix), named=False)
    ax.text(0.97, 0.03, note, transform=ax.transAxes, ha="right", va="bottom", fontsize=9, color=MUTED)
    ax.set_ylim(low / 5, 2e15)


def _cpu_panel(ax: Axes, operations: Sequence[Operation], run: Recording | None) -> None:
    if run is None or run.copy is None:
        ax.text(0.5, 0.5, "recorded on a CPU: none yet", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_ylim(1e8, 1e12)
        return
    _roof(ax, Ceilings(run.copy, run.matrix))
    points = [measured(each, run) for each in operations]
    _marks(ax, operations, points, filled=True)
    low = min([run.copy * 0.2, *(point[1] for point in points if point)])
    ax.text(0.97, 0.03, f"measured: {run.device},\n{run.threads} threads", transform=ax.transAxes,
            ha="right", va="bottom", fontsize=9, color=MUTED)  # fmt: skip
    ax.set_ylim(low / 5, 4 * max([*run.matrix.values(), run.copy]))


def _roof(ax: Axes, ceilings: Ceilings, derived: bool = False, named: bool = True) -> None:
    top = max([*ceilings.rates.values(), ceilings.copy])
    style = {"ls": "--", "lw": 1.2} if derived else {}
    ax.plot([0.1, top / ceilings.copy], [0.1 * ceilings.copy, top], color=PALETTE["black"],
            label="memory" if named else None, **style)  # fmt: skip
    for unit, value in ceilings.rates.items():
        ax.plot([value / ceilings.copy, 1e4], [value] * 2, color=PALETTE[COLOURS[unit]],
                label=NAMES.get(unit, unit) if named else None, **style)  # fmt: skip


def _marks(
    ax: Axes, operations: Sequence[Operation], points: Sequence[tuple[float, float] | None], filled: bool
) -> None:
    """A dot for each point; letters of neighbors stand together."""
    groups: list[list] = []
    for letter, each, point in zip(LETTERS, operations, points, strict=False):
        if point is None:
            continue
        edge = PALETTE[COLOURS[each.unit]]
        ax.plot(*point, "o", ms=7, mfc=edge if filled else "white", mec=edge, mew=1.5)
        near = next((g for g in groups if _apart(g[-1][1], point) < 0.25), None)
        if near is None:
            groups.append([(letter, point)])
        else:
            near.append((letter, point))
    for group in groups:
        # Below the roof, and to the right of its slope.
        x, y = max(point for _, point in group)
        ax.annotate(" ".join(letter for letter, _ in group), (x, y), (4, -5), textcoords="offset points",
                    va="top", fontsize=10)  # fmt: skip


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """In decades, the larger of both directions."""
    return max(abs(math.log10(a / b)) for a, b in zip(one, other, strict=True))
