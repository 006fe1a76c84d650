"""What makes a chapter run again: contents of all that it depends on, and nothing else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

import invertnb

from invertnb.build import chapters
from invertnb.build.chapters import Chapter


@pytest.fixture
def chapter(toy) -> Chapter:
    return chapters.chapters(toy.root)["layer_as_matrix"]


def test_outputs_and_time_stamps_do_not_count(chapter):
    before = chapter.fingerprint({})
    notebook = chapter.read()
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="x")]
    notebook.cells[-1].execution_count = 3
    nbformat.write(notebook, chapter.notebook)
    assert chapter.fingerprint({}) == before


def test_sources_metadata_parameters_and_claims_count(chapter, toy):
    seen = {chapter.fingerprint({}), chapter.fingerprint({"seed": 1})}
    notebook = chapter.read()
    notebook.cells[0].source += " changed"
    nbformat.write(notebook, chapter.notebook)
    seen.add(chapter.fingerprint({}))
    notebook.cells[0].metadata["tags"] = ["new"]
    nbformat.write(notebook, chapter.notebook)
    seen.add(chapter.fingerprint({}))
    claims = toy.root / "book" / "claims.toml"
    claims.write_text(claims.read_text() + "\n# a rule\n")
    seen.add(chapter.fingerprint({}))
    (toy.root / "book" / "recorded").mkdir()
    (toy.root / "book" / "recorded" / "layer_as_matrix.json").write_text("{}")
    seen.add(chapter.fingerprint({}))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("invertnb/chapters/layer_as_matrix.py", True),
        ("invertnb/operators.py", True),
        ("invertnb/check.py", True),
        ("invertnb/notebook/static/explorer.js", True),
        ("invertnb/chapters/proposition_1/__init__.py", False),
        ("invertnb/build/pages.py", False),
    ],
)
def test_lower_modules_count_and_others_do_not(chapter, monkeypatch, module, counts):
    assert (Path(invertnb.__file__).parents[1] / module).is_file()
    before = chapter.fingerprint({})
    true_hash = chapters.file_hash
    monkeypatch.setattr(
        chapters, "file_hash", lambda p: "changed" if str(p).endswith(module) else true_hash(p)
    )
    assert (chapter.fingerprint({}) != before) is counts
