"""The parts of pages that are made from executed chapters: ledger, status, and numbers in the prose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import Any

from ..notebook.claims import show, show_spread
from ..notebook.ledger import badge
from .execute import Execution
from .gather import Row

CHAPTER_LIMIT_S = 30


def substitutions(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """What prose pages may quote: ``{{ ours["figure2.c"] }}``, ``{{ verdict["..."] }}``, ``{{ cell["..."] }}``.

    ``ours`` also holds each other reading, as ``ours["figure2.c/true support given"]``.
    """
    ours, verdict, cell = {}, {}, {}
    for row in rows:
        identity, record = row.claim.id, row.record
        ours[identity] = _ours(record) if record else "not yet recorded"
        verdict[identity] = badge(row.verdict)
        cell[identity] = f"[the cell]({row.link})" if row.link else ""
        for reading in record["readings"] if record else []:
            ours[f"{identity}/{reading['name']}"] = _ours(reading)
            verdict[f"{identity}/{reading['name']}"] = badge(reading["verdict"])
    return {"ours": ours, "verdict": verdict, "cell": cell}


def ledger(rows: list[Row]) -> str:
    """The ledger page's tables, one a part of the paper, after a count of verdicts."""
    counts = Counter(row.verdict for row in rows)
    total = " ".join(f"{badge(verdict)} {count}" for verdict, count in counts.most_common())
    parts = [f'<p class="ledger-counts">{len(rows)} claims: {total}</p>']
    for place, group in groupby(rows, key=lambda row: row.claim.place):
        body = "".join(_ledger_row(row) for row in group)
        parts.append(
            f'<section class="ledger-place"><h3>{escape(place)}</h3><div class="ledger-scroll" tabindex="0" '
            f'role="region" aria-label="Claims of {escape(place)}"><table class="ledger"><thead><tr>'
            '<th scope="col">claim</th><th scope="col">paper</th><th scope="col">ours</th>'
            '<th scope="col">verdict</th><th scope="col">how</th></tr></thead>'
            f"<tbody>{body}</tbody></table></div></section>"
        )
    return _raw("\n".join(parts))


def _ledger_row(row: Row) -> str:
    claim, record = row.claim, row.record
    name = f'<th scope="row">{escape(claim.statement)}<br><code>{escape(claim.id)}</code></th>'
    paper = f"<td>{escape(show(claim.paper))}</td>"
    if not record:
        wait = f"tier: {escape(claim.tier)}; chapter to come"
        return f"<tr>{name}{paper}<td>–</td><td>{badge(row.verdict)}</td><td>{wait}</td></tr>"
    about = row.about
    settings = ", ".join(f"{key} {_plain(value)}" for key, value in about["parameters"].items())
    how = (
        f'<a href="{row.link}">{escape(about["chapter"])}</a><br><small>{escape(settings)}<br>'
        f"hash <code>{about['fingerprint'][:10]}</code></small>"
    )
    ours = _ours(record) + (f"<br><small>{escape(claim.reading)}</small>" if record["readings"] else "")
    lines = [f"<tr>{name}{paper}<td>{ours}</td><td>{badge(row.verdict)}</td><td>{how}</td></tr>"]
    lines += [
        f'<tr class="reading"><th scope="row">{escape(reading["name"])}</th><td></td>'
        f"<td>{_ours(reading)}</td><td>{badge(reading['verdict'])}</td><td></td></tr>"
        for reading in record["readings"]
    ]
    if record["note"]:
        lines.append(f'<tr class="reading"><td colspan="5">{escape(record["note"])}</td></tr>')
    return "".join(lines)


def status(executions: Iterable[Execution]) -> str:
    """The status page's tables: how long each chapter took, with what, on which versions."""
    executions = list(executions)
    rows = "".join(_status_row(e) for e in executions)
    total = sum(e.about["seconds"] for e in executions)
    versions = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(number)}</td></tr>"
        for name, number in executions[0].about["versions"].items()
    )
    return _raw(
        '<div class="ledger-scroll" tabindex="0" role="region" aria-label="Execution of the chapters">'
        '<table class="ledger"><thead><tr><th scope="col">chapter</th><th scope="col">seconds</th>'
        '<th scope="col">limit</th><th scope="col">code cells</th><th scope="col">profile</th>'
        '<th scope="col">parameters</th><th scope="col">hash</th></tr></thead>'
        f"<tbody>{rows}</tbody><tfoot><tr><th scope='row'>all chapters</th><td>{total:.1f}</td>"
        "<td colspan='5'></td></tr></tfoot></table></div>"
        f"<table class='ledger'><thead><tr><th scope='col'>package</th><th scope='col'>version</th></tr></thead>"
        f"<tbody>{versions}</tbody></table>"
    )


def _status_row(execution: Execution) -> str:
    about = execution.about
    settings = ", ".join(f"{key} {_plain(value)}" for key, value in about["parameters"].items())
    late = about["seconds"] > CHAPTER_LIMIT_S
    cells = sum(cell.cell_type == "code" for cell in execution.notebook.cells)
    return (
        f'<tr><th scope="row"><a href="{about["chapter"]}.html">{escape(about["chapter"])}</a></th>'
        f"<td>{about['seconds']:.1f}{' (over)' if late else ''}</td><td>{CHAPTER_LIMIT_S}</td><td>{cells}</td>"
        f"<td>{about['profile']}</td><td>{escape(settings)}</td>"
        f"<td><code>{about['fingerprint'][:10]}</code></td></tr>"
    )


def _ours(entry: Any) -> str:
    spread = tuple(entry["spread"]) if isinstance(entry["spread"], list) else entry["spread"]
    return escape(f"{show(entry['value'])} {show_spread(spread)}".strip())


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```\n"
