"""The records of a sweep as one table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..notebook.claims import show
from . import notebooks

LAST = ("error", "device", "worker", "fingerprint")


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each record, in this order: the grid's parameters, status, seconds, every claim's
    value and verdict, every result that is no list (``outer.inner`` of nested ones), and how it was
    made."""
    return [
        {
            **{name: _text(value) for name, value in record["grid"].items()},
            "status": record["status"],
            "seconds": record.get("seconds"),
            **dict(_claims(record)),
            **dict(_flat(record.get("results", {}))),
            **{name: record.get(name) for name in LAST},
        }
        for record in records
    ]


def write(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the table as CSV, whole or not at all; a value that a record lacks is empty."""
    table = rows(records)
    # In the order of first appearance, with what every record has at the end.
    names = list(dict.fromkeys(name for row in table for name in row if name not in LAST))
    text = io.StringIO()
    file = csv.DictWriter(text, [*names, *LAST], lineterminator="\n")
    file.writeheader()
    file.writerows(table)
    notebooks.write_bytes(text.getvalue().encode(), path)


def show_table(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print grid, status, claims and results, a claim's verdict beside its value.

    Where not all columns fit, those that differ between points go first; what is left is counted.
    """
    lines = []
    for record in records:
        line = {name: _text(value) for name, value in record["grid"].items()}
        seconds = record.get("seconds")
        line |= {"status": record["status"], "s": "" if seconds is None else f"{seconds:.1f}"}
        line |= {c["claim"]: f"{show(c['value'])} {c['verdict']}" for c in record.get("claims", ())}
        line |= {name: show(value) for name, value in _flat(record.get("results", {}))}
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    always = [*records[0]["grid"], "status", "s"]
    found = [name for name in names if name not in always]

    def width(columns: Sequence[str]) -> int:
        return sum(2 + max(len(n), *(len(line.get(n, "")) for line in lines)) for n in columns)

    if width(names) > console.width:
        found.sort(key=lambda name: len({line.get(name) for line in lines}) == 1)
        while found and width([*always, *found]) > console.width:
            found.pop()
    left, names = len(names) - len(always) - len(found), [*always, *found]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(name))
    for line in lines:
        table.add_row(*(Text(line.get(name, "")) for name in names))
    console.print(table)
    if left:
        console.print(f"{left} more columns in the file")


def _claims(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for claim in record.get("claims", ()):
        yield claim["claim"], claim["value"]
        yield f"{claim['claim']} verdict", claim["verdict"]


def _flat(results: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in results.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif not isinstance(value, list):
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
