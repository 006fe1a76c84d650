"""The parts of pages that are made from executed chapters: ledger, status, and numbers in the prose."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ..notebook.claims import Spread, show, show_ours, show_spread
from ..notebook.ledger import badge, folded, result
from .execute import Execution
from .gather import Row
from .schedule import CHAPTER_LIMIT_S, LONGER_S, side_by_side

#: Seconds that the whole book may take on two cores with a ready environment.
BOOK_LIMIT_S = 240
# In the status page's text, for what is known only when its HTML is made.
HTML_MARK, BOOK_MARK = "@seconds-of-the-html@", "@seconds-of-the-book@"
UNFOLDED = 5  # readings of a claim that the ledger shows without being asked


def substitutions(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """What prose pages may quote: ``{{ ours["figure2.c"] }}``, ``{{ verdict["..."] }}``, ``{{ cell["..."] }}``.

    ``spread`` holds a record's spread alone. All but ``cell`` also hold the other readings, as
    ``ours["figure2.c/true support given"]``.
    """
    ours, spread, verdict, cell = {}, {}, {}, {}
    for row in rows:
        identity, record = row.claim.id, row.record
        ours[identity] = _ours(record) if record else "not yet recorded"
        spread[identity] = show_spread(_spread(record)) if record else ""
        verdict[identity] = badge(row.verdict)
        # HTML, since a Markdown link would be taken for a reference to a source file.
        cell[identity] = f'<a href="{row.link}">the cell</a>' if row.link else ""
        for reading in record["readings"] if record else []:
            ours[f"{identity}/{reading['name']}"] = _ours(reading)
            spread[f"{identity}/{reading['name']}"] = show_spread(_spread(reading))
            verdict[f"{identity}/{reading['name']}"] = badge(reading["verdict"])
    return {"ours": ours, "spread": spread, "verdict": verdict, "cell": cell}


# Headings of the ledger page, by how a claim's place begins.
PARTS = (
    ("Section 3", ("Proposition", "Theorem 3", "Corollary", "Section 3")),
    ("Appendices A and B", ("Appendix", "Lemma", "Theorem A")),
    ("Footnotes", ("Footnote",)),
)


def part(place: str) -> str:
    """The heading that a place of the paper stands under: "Section 2.3, Algorithm 1" gives "Section 2"."""
    for heading, starts in PARTS:
        if place.startswith(starts):
            return heading
    return re.match(r"\w+ \d+", place)[0]


def ledger(rows: list[Row]) -> str:
    """The ledger page's tables, one a part of the paper, after a count of verdicts."""
    counts = Counter(row.verdict for row in rows)
    total = " ".join(f"{badge(verdict)} {count}" for verdict, count in counts.most_common())
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(part(row.claim.place), []).append(row)
    tables = [_raw(f'<p class="ledger-counts">{len(rows)} claims: {total}</p>')]
    for heading, group in groups.items():
        head = ("claim", "paper", "ours", "verdict", "how")
        body = "".join(_ledger_row(row) for row in group)
        tables.append(f"## {heading}\n\n{_raw(_table(f'Claims of {heading}', head, body))}")
    return "\n".join(tables)


def _table(label: str, head: tuple[str, ...], body: str) -> str:
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    # Wide tables scroll by themselves on a phone; the tab stop lets a keyboard do it.
    return (
        f'<div class="ledger-scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="ledger"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _ledger_row(row: Row) -> str:
    claim, record = row.claim, row.record
    name = (
        f'<th scope="row">{escape(claim.statement)}<br>'
        f"<small>{escape(claim.place)}, <code>{escape(claim.id)}</code></small></th>"
    )
    paper = f'<td data-label="paper">{escape(show(claim.paper))}</td>'
    if not record:
        wait = f"tier: {escape(claim.tier)}; chapter to come"
        verdict = f'<td data-label="verdict">{badge(row.verdict)}</td>'
        return f'<tr>{name}{paper}<td data-label="ours">–</td>{verdict}<td>{wait}</td></tr>'
    about = row.about
    how = (
        f'<td><a href="{row.link}">{escape(about["chapter"])}</a>'
        f"<details><summary>parameters</summary><small>{_settings(about)}<br>"
        f"hash <code>{about['fingerprint'][:10]}</code></small></details></td>"
    )
    reading = "" if claim.reading == "as stated" else f"<br><small>{escape(claim.reading)}</small>"
    lines = [f"<tr>{name}{paper}{result(record['value'], _spread(record), row.verdict, reading)}{how}</tr>"]
    readings = [
        f'<tr class="reading"><th scope="row">{escape(other["name"])}</th><td></td>'
        f"{result(other['value'], _spread(other), other['verdict'])}<td></td></tr>"
        for other in record["readings"]
    ]
    lines += readings if len(readings) <= UNFOLDED else [
        folded(readings, [each["verdict"] for each in record["readings"]], 5)
    ]
    if record["note"]:
        lines.append(f'<tr class="reading"><td colspan="5">{escape(record["note"])}</td></tr>')
    return "".join(lines)


def status(executions: Iterable[Execution], together: float | None = None) -> str:
    """The status page's tables: how long the book and each chapter took, with what, and versions.

    Args:
        together: seconds that the chapters took in one build; None where no build executed them all.
    """
    executions = list(executions)
    parts = ("part", "seconds", "limit", "how known")
    head = ("chapter", "seconds", "limit", "code cells", "profile", "parameters", "hash")
    total = sum(e.about["seconds"] for e in executions)
    body = "".join(_status_row(e) for e in executions)
    body += f'<tr><th scope="row">all chapters</th><td>{total:.1f}</td><td colspan="5"></td></tr>'
    versions = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(number)}</td></tr>'
        for name, number in executions[0].about["versions"].items()
    )
    return "\n".join(
        (
            _raw(_table("The whole book", parts, _whole(executions, together))),
            _raw(_table("Execution of the chapters", head, body)),
            _raw(_table("Versions", ("package", "version"), versions)),
        )
    )


def chapters_seconds(executions: Iterable[Execution], together: float | None) -> float:
    """How long the chapters take side by side: as measured, or else reckoned from each one's."""
    seconds = {e.about["chapter"]: e.about["seconds"] for e in executions}
    return side_by_side(seconds) if together is None else together


def timed(page: str, chapters: float, html: float) -> str:
    """The status page's HTML with the seconds of the HTML, and of the book, in their places."""
    late = " (over)" if chapters + html > BOOK_LIMIT_S else ""
    return page.replace(HTML_MARK, f"{html:.1f}").replace(BOOK_MARK, f"{chapters + html:.1f}{late}")


def _whole(executions: list[Execution], together: float | None) -> str:
    how = (
        "reckoned: the seconds below, two chapters at a time, in the order in which a build begins them"
        if together is None else "measured: one build executed them all, two at a time"
    )
    rows = (
        ("chapters", f"{chapters_seconds(executions, together):.1f}", "", how),
        ("HTML", HTML_MARK, "", "measured: this build"),
        ("all", BOOK_MARK, BOOK_LIMIT_S, "the sum"),
    )
    return "".join(
        f'<tr><th scope="row">{part}</th><td>{seconds}</td><td>{limit}</td><td>{how}</td></tr>'
        for part, seconds, limit, how in rows
    )


def _status_row(execution: Execution) -> str:
    about = execution.about
    limit = LONGER_S.get(about["chapter"], CHAPTER_LIMIT_S)
    late = " (over)" if about["seconds"] > limit else ""
    cells = sum(cell.cell_type == "code" for cell in execution.notebook.cells)
    return (
        f'<tr><th scope="row"><a href="{about["chapter"]}.html">{escape(about["chapter"])}</a></th>'
        f"<td>{about['seconds']:.1f}{late}</td><td>{limit}</td><td>{cells}</td>"
        f"<td>{about['profile']}</td><td>{_settings(about)}</td>"
        f"<td><code>{about['fingerprint'][:10]}</code></td></tr>"
    )


def _settings(about: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{key} {_plain(value)}" for key, value in about["parameters"].items()))


def _ours(entry: Mapping[str, Any]) -> str:
    return escape(show_ours(entry["value"], _spread(entry)))


def _spread(entry: Mapping[str, Any]) -> Spread:
    return tuple(entry["spread"]) if isinstance(entry["spread"], list) else entry["spread"]


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```\n"
