"""Results that were computed elsewhere, or at a size that a build has no time for, with provenance.

A chapter's module may have a function ``recording(parameters) -> Recording``. ``invertnb run
CHAPTER --record`` calls it and writes ``book/recorded/<chapter>-<label>.json``; the chapter reads
the file back and shows it beside what it computes itself, each labelled. The files are inputs of the
chapter: when one changes, the chapter is executed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .project import root

ABOUT = ("date", "device", "versions", "seed", "parameters", "inputs", "command", "seconds")


class Recording(NamedTuple):
    """What a chapter's ``recording`` returns.

    Attributes:
        label: a slug for the file's name, as "vgg16-blocks12".
        inputs: what was read, by kind: ``{"weights": "file x.npz, SHA-256 ...", "images": ...}``.
        results: numbers, strings, lists and dicts, as JSON has them.
    """

    label: str
    inputs: Mapping[str, str]
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One recorded file: its results, and what is known of how they came about."""

    label: str
    about: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def provenance(self) -> str:
        """One line for the page."""
        about, versions = self.about, self.about["versions"]
        inputs = "".join(f"; {kind}: {what}" for kind, what in about["inputs"].items())
        return (
            f"recorded {about['date']} on {about['device']}, torch {versions['torch']}, "
            f"seed {about['seed']}{inputs}; {about['command']}"
        )


def load_recorded(chapter: str) -> dict[str, Recorded]:
    """The recorded results of a chapter by label; empty where none were recorded.

    Raises:
        ValueError: a file that is not what ``invertnb run --record`` writes.
    """
    found = {}
    for path in sorted((root() / "book" / "recorded").glob(f"{chapter}-*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: expected JSON, but {error}") from None
        if not isinstance(entry, dict) or set(entry) != {"about", "results"}:
            raise ValueError(f"{path.name}: expected an object of about and results")
        if missing := set(ABOUT) - set(entry["about"]):
            without = ", ".join(sorted(missing))
            raise ValueError(f"{path.name}: expected provenance, but {without} is missing")
        label = path.stem.removeprefix(f"{chapter}-")
        found[label] = Recorded(label, entry["about"], entry["results"])
    return found


def write_recorded(
    chapter: str, recording: Recording, about: Mapping[str, Any], folder: Path
) -> Path:
    """Write a recording with its provenance, whole or not at all.

    Raises:
        ValueError: a label that is no slug, or results that JSON cannot hold, as NaN and infinity.
    """
    label = recording.label
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", label):
        raise ValueError(f"label={label!r}: expected small letters, digits and hyphens")
    entry = {"about": {**about, "inputs": dict(recording.inputs)}, "results": recording.results}
    try:
        text = _lines(entry)
    except TypeError as error:
        what = f"expected what JSON can hold, but {error}"
        raise ValueError(f"results of {chapter!r}: {what}") from None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{chapter}-{recording.label}.json"
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
    return path


def _lines(value: Any, indent: str = "") -> str:
    """JSON with an entry of an object on a line, and lists on one line each."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    inner = indent + " "
    entries = (f"{inner}{json.dumps(str(k))}: {_lines(v, inner)}" for k, v in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
