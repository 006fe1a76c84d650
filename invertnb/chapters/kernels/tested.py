"""Which tests ran on a GPU: book/recorded/kernels_tests.csv, made from the report of pytest."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from invertnb.chapters.kernels.recorded import lines_of, number_of
from invertnb.chapters.kernels.text import columns

FILE = "book/recorded/kernels_tests.csv"
COMMAND = "pytest tests/core tests/kernels -k cuda --junitxml REPORT"
DEVICE = "cuda"  # in the name of every test that runs on the GPU
FIELDS = ("date", "device", "python", "torch", "triton", "file", "selected", "passed", "failed")
SKIPPED = "skipped"  # a column that older files lack: nothing was skipped in their runs


class Tested(NamedTuple):
    """Tests of one file that were to run on the GPU; those without a result were cut off."""

    date: str
    device: str
    versions: str
    file: str
    selected: int
    passed: int
    failed: int
    skipped: int = 0

    @property
    def left(self) -> int:
        """Tests without a result."""
        return self.selected - self.passed - self.failed - self.skipped


def count(report: Path, selected: Iterable[str], where: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of the CSV from a JUnit report.

    Args:
        selected: node ids of the tests that were to run (`pytest --collect-only -q`). Of these, and
            of those in the report, the ones on the GPU count, in files that `selected` names.
        where: date, device and versions.

    Raises:
        ValueError: a file has more results than selected tests.
    """
    known = {i.strip() for i in selected if "::" in i and DEVICE in i}
    asked = Counter(node.partition("::")[0] for node in known)
    passed, failed, skipped = Counter(), Counter(), Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        file = (case.get("classname") or "").replace(".", "/") + ".py"
        if DEVICE in (case.get("name") or "") and file in asked:
            bad = case.find("failure") is not None or case.find("error") is not None
            out = case.find("skipped") is not None
            (failed if bad else skipped if out else passed)[file] += 1
    for file, number in asked.items():
        if passed[file] + failed[file] + skipped[file] > number:
            raise ValueError(f"{file}: more results than the {number} selected tests")
    return [
        {**where, "file": file, "selected": str(number), "passed": str(passed[file]),
         "failed": str(failed[file]), SKIPPED: str(skipped[file])}
        for file, number in sorted(asked.items())
    ]  # fmt: skip


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """The CSV of one run, in place of the one before."""
    fresh = path.with_suffix(".part")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*FIELDS, SKIPPED), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    fresh.replace(path)


def load(path: Path) -> list[Tested]:
    """Read the CSV; a file that does not exist holds none.

    Raises:
        ValueError: a column is missing or a row is malformed; names file, line and column.
    """
    found = []
    for line, entry in lines_of(path, FIELDS):
        numbers = {name: number_of(entry[name], f"{path.name}, line {line}: {name}", whole=True)
                   for name in ("selected", "passed", "failed", SKIPPED) if name in entry}  # fmt: skip
        versions = ", ".join(f"{name} {entry[name]}" for name in ("python", "torch", "triton"))
        found.append(Tested(entry["date"], entry["device"], versions, entry["file"], **numbers))
        if found[-1].left < 0:
            raise ValueError(f"{path.name}, line {line}: more results than selected tests")
    return found


def table(found: Iterable[Tested]) -> str:
    """A line a file, and the sum; where nothing ran on a GPU, that.

    Skipped tests have a column where there are any.
    """
    found = list(found)
    if not found:
        return f"tests on a GPU: none yet; the command is\n    {COMMAND}"
    heads = {"passed": "passed", "failed": "failed", SKIPPED: SKIPPED, "left": "cut off"}
    if not any(t.skipped for t in found):
        del heads[SKIPPED]
    rows = [("", *heads.values())]
    counts = [tuple(getattr(t, name) for name in heads) for t in found]
    names = [t.file.removeprefix("tests/") for t in found]
    counts.append(tuple(map(sum, zip(*counts, strict=True))))
    for name, numbers in zip([*names, "all"], counts, strict=True):
        rows.append((name, *map(str, numbers)))
    return f"{found[0].device}, {found[0].date[:10]}, {found[0].versions}\n{columns(rows)}"
