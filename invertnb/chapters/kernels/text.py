"""Numbers in words: two significant digits, prefixes, and tables for narrow output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def two(value: float | None) -> str:
    """Two significant digits, without an exponent where that is short; "-" for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.1e}")
    if abs(rounded) >= 1e6:
        return rate(value, "").strip()
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:.2g}" if abs(rounded) < 1 else f"{rounded:.1f}"


def rate(value: float, unit: str) -> str:
    """Two significant digits with a prefix: 4.3 TB/s, 0.52 ms; below 1e-9 in pico."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    rounded = float(f"{value:.1e}")
    for size, prefix in _PREFIXES:
        if abs(rounded) >= size:
            break
    else:
        size, prefix = 1e-12, "p"
    return f"{two(rounded / size)} {prefix}{unit}".strip()


def seconds(value: float | None) -> str:
    """A time with its unit; "-" for None."""
    return "-" if value is None else rate(value, "s")


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows of words as aligned columns, the first to the left, the others right.

    A row of one word is a heading: it stands by itself and does not widen the first column.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    whole = [row for row in rows if len(row) > 1]
    widths = [max(map(len, cells)) for cells in zip(*whole, strict=True)]
    lines = []
    for row in rows:
        if len(row) == 1:
            lines.append(row[0])
            continue
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
