"""Recording what a chapter found about a claim of the paper.

``record`` is called in a notebook cell. What it returns shows itself beside the claim and its verdict,
and carries the numbers in a MIME type of its own, from which the build gathers the ledger.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import claims as book

#: Records that one table shows with all their readings; those of longer ones are folded.
UNFOLDED = 10
MIME = "application/vnd.invertnb.records+json"


@dataclass(frozen=True)
class Reading:
    """What came out under one reading of the paper's text."""

    name: str
    value: float | bool
    spread: book.Spread = None
    verdict: str = ""


@dataclass(frozen=True)
class Record:
    """One claim with our value; shows itself in a notebook."""

    claim: book.Claim
    value: float | bool | None
    spread: book.Spread
    verdict: str
    readings: tuple[Reading, ...] = field(default=())
    note: str = ""
    shape: bool | None = None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return Records((self,))._repr_mimebundle_(include, exclude)


class Records(tuple):
    """Several records, shown as one table."""

    # IPython has a printer of its own for tuples, which it would prefer to the bundle's text.
    def _repr_pretty_(self, printer, cycle) -> None:
        printer.text("\n".join(_plain(record) for record in self))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return {
            "text/plain": "\n".join(_plain(record) for record in self),
            "text/html": _table(self),
            MIME: [_payload(record) for record in self],
        }


def record(
    claim: str,
    value: float | bool | None,
    spread: float | tuple[float, float] | None = None,
    *,
    shape: bool | None = None,
    readings: Mapping[str, Any] | None = None,
    note: str = "",
) -> Record:
    """Record our ``value`` for a claim of ``book/claims.toml`` and judge it by the claim's rule.

    Args:
        claim: the claim's id, as ``"table4.random.(2,1)"``.
        value: our number under the claim's stated reading; for a statement, whether it held; None
            where nothing of the claim's tier ran, as where its weights are not to be had. What ran
            in its stead is a reading, and never the value.
        spread: standard deviation over seeds, or the range (low, high) that was seen.
        shape: whether the trend held where the value does not; gives the verdict "shape only".
        readings: other readings of the text, ``{name: value or (value, spread)}``; each is judged too.
        note: what a reader must know beside the number.

    Raises:
        ValueError: unknown claim, a value that is not finite, or of a kind that the rule cannot
            judge; None for a claim that waits for nothing.
    """
    entry = book.find(book.load(), claim)
    if value is None and entry.tier == "embedded":
        raise ValueError(f"value=None of claim {claim!r}: expected a finite number or True/False, as its tier is embedded")
    value = None if value is None else _number(claim, value)
    spread = _spread(claim, spread)
    others = []
    for name, given in (readings or {}).items():
        other, width = given if isinstance(given, tuple) else (given, None)
        other, width = _number(claim, other), _spread(claim, width)
        others.append(Reading(name, other, width, entry.judge(other, width)))
    return Record(entry, value, spread, entry.judge(value, spread, shape), tuple(others), note, shape)


def _number(claim: str, value: Any) -> float | bool:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return value
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"value={value!r} of claim {claim!r}: expected a finite number or True/False")
    # Six digits: more than any page shows, few enough to be equal on every machine.
    return float(f"{value:.6g}")


def _spread(claim: str, spread: Any) -> book.Spread:
    if spread is None:
        return None
    if isinstance(spread, (tuple, list)):
        low, high = (_number(claim, end) for end in spread)
        return (low, high)
    return _number(claim, spread)


def anchor(claim: str) -> str:
    """The id of the place where a claim is recorded in the built page."""
    return "record-" + re.sub(r"[^a-z0-9]+", "-", claim.lower()).strip("-")


def _payload(record: Record) -> dict[str, Any]:
    return {
        "claim": record.claim.id,
        "value": record.value,
        "spread": list(record.spread) if isinstance(record.spread, tuple) else record.spread,
        "verdict": record.verdict,
        "readings": [
            {**asdict(r), "spread": list(r.spread) if isinstance(r.spread, tuple) else r.spread}
            for r in record.readings
        ],
        "note": record.note,
        "shape": record.shape,
    }


def _plain(record: Record) -> str:
    lines = [
        f"{record.claim.id}: paper {book.show(record.claim.paper)}; "
        f"ours {book.show_ours(record.value, record.spread)} ({record.claim.reading}): {record.verdict}"
    ]
    lines += [f"    {r.name}: {book.show_ours(r.value, r.spread)}: {r.verdict}" for r in record.readings]
    return "\n".join(lines + ([f"    {record.note}"] if record.note else []))


def badge(verdict: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict verdict-{verdict.replace(" ", "-").lower()}">{html.escape(verdict)}</span>'


def _table(records: Records) -> str:
    rows = []
    for record in records:
        claim = record.claim
        rows.append(
            f'<tr id="{anchor(claim.id)}"><th scope="row">{html.escape(claim.place)}: '
            f"{html.escape(claim.statement)} <code>{html.escape(claim.id)}</code></th>"
            f'<td data-label="paper">{html.escape(book.show(claim.paper))}</td>'
            f"{result(record.value, record.spread, record.verdict)}</tr>"
        )
        readings = [
            f'<tr class="reading"><th scope="row">{html.escape(r.name)}</th><td></td>'
            f"{result(r.value, r.spread, r.verdict)}</tr>"
            for r in record.readings
        ]
        many = len(records) > UNFOLDED and len(readings) > 1
        rows += [folded(readings, [r.verdict for r in record.readings], 4)] if many else readings
        if record.note:
            rows.append(f'<tr class="reading"><td colspan="4">{html.escape(record.note)}</td></tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claim", "paper", "ours", "verdict"))
    return (
        f'<div class="ledger-records"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def folded(lines: Sequence[str], verdicts: Iterable[str], columns: int) -> str:
    """Many readings behind a line that counts their verdicts."""
    counts = Counter(verdicts)
    total = " ".join(f"{badge(verdict)} {count}" for verdict, count in counts.most_common())
    return (
        f'<tr class="reading"><td colspan="{columns}"><details><summary>{len(lines)} readings: {total}'
        f'</summary><table class="ledger"><tbody>{"".join(lines)}</tbody></table></details></td></tr>'
    )


def result(value: float | bool | None, spread: book.Spread, verdict: str, more: str = "") -> str:
    """The cells for our value and its verdict; the labels serve phones, where rows become blocks."""
    ours = html.escape(book.show_ours(value, spread))
    return f'<td data-label="ours">{ours}{more}</td><td data-label="verdict">{badge(verdict)}</td>'
