"""The ledger: every claim of the paper beside what the executed chapters recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..notebook.claims import NEEDS, Claim, find, load
from ..notebook.ledger import MIME, anchor
from . import BuildError
from .chapters import Chapter, chapters
from .execute import Execution, all_parameters, stored


@dataclass(frozen=True)
class Row:
    """One claim with its record, if there is one, and how that was made."""

    claim: Claim
    record: Mapping[str, Any] | None = None
    about: Mapping[str, Any] | None = None

    @property
    def verdict(self) -> str:
        return self.record["verdict"] if self.record else NEEDS[self.claim.tier]

    @property
    def link(self) -> str | None:
        """Where the record stands in the built book, relative to its ``book/`` folder."""
        return f"{self.about['chapter']}.html#{anchor(self.claim.id)}" if self.record else None

    def as_json(self) -> dict[str, Any]:
        record, about = self.record or {}, self.about or {}
        parameters = about.get("parameters", {})
        return {
            "id": self.claim.id,
            "place": self.claim.place,
            "statement": self.claim.statement,
            "paper": self.claim.paper,
            "ours": record.get("value"),
            "spread": record.get("spread"),
            "verdict": self.verdict,
            "tier": self.claim.tier,
            "chapter": self.claim.chapter,
            "reading": self.claim.reading,
            "readings": record.get("readings", []),
            "note": record.get("note", ""),
            "link": self.link,
            "seed": parameters.get("seed"),
            "device": parameters.get("device"),
            "parameters": parameters,
            "hash": about.get("fingerprint"),
        }


def records(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """What an executed notebook recorded, in order."""
    return [
        record
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for record in output.get("data", {}).get(MIME, [])
    ]


def collect(executions: Iterable[Execution], claims: Mapping[str, Claim] | None = None) -> list[Row]:
    """All claims of the paper, in its order, with the records of these executed chapters.

    Raises:
        BuildError: a record without a claim, twice, or of another chapter's claim; a claim of one of
            these chapters without a record.
    """
    claims = load() if claims is None else claims
    found: dict[str, Row] = {}
    present = set()
    for execution in executions:
        name = execution.chapter.name
        present.add(name)
        for record in records(execution.notebook):
            try:
                claim = find(claims, record["claim"])
            except ValueError as error:
                raise BuildError(f"chapter {name!r} records an {error}") from None
            if claim.chapter != name:
                raise BuildError(
                    f"claim {claim.id!r} is recorded in {name!r}, but claims.toml gives it to {claim.chapter!r}"
                )
            if claim.id in found:
                raise BuildError(f"claim {claim.id!r} is recorded twice in {name!r}")
            found[claim.id] = Row(claim, _judged(claim, record), execution.about)
    missing = [c.id for c in claims.values() if c.chapter in present and c.id not in found]
    if missing:
        raise BuildError(f"claims without a record in their chapter: {', '.join(missing)}")
    return [found.get(claim.id, Row(claim)) for claim in claims.values()]


def _judged(claim: Claim, record: dict[str, Any]) -> dict[str, Any]:
    """The record with the verdicts of today's rules, which may be newer than a committed output."""

    def verdict(entry: Mapping[str, Any], shape: bool | None = None) -> str:
        spread = tuple(entry["spread"]) if isinstance(entry["spread"], list) else entry["spread"]
        return claim.judge(entry["value"], spread, shape)

    readings = [{**reading, "verdict": verdict(reading)} for reading in record["readings"]]
    return {**record, "verdict": verdict(record, record.get("shape")), "readings": readings}


def latest(root: Path) -> list[Row]:
    """The ledger without executing anything: from current executions where there are any, otherwise
    from the outputs that are committed with the notebooks."""
    return collect([_latest(chapter) for chapter in chapters(root).values()])


def _latest(chapter: Chapter) -> Execution:
    current = stored(chapter, chapter.fingerprint({}))
    if current:
        return current
    notebook = chapter.read()
    notebook.metadata["invertnb"] = {
        "chapter": chapter.name,
        # Whether the sources are still those of the outputs, only an execution can tell.
        "fingerprint": None,
        "parameters": all_parameters(chapter, {}),
    }
    return Execution(chapter, notebook)
