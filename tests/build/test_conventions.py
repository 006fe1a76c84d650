"""Files that must agree with each other."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib

import nbformat
import pytest
import yaml

from invertnb.build.chapters import chapters
from invertnb.build.cli import README_PICTURE, README_TAG
from invertnb.build.notebooks import picture
from invertnb.notebook.claims import load
from invertnb.notebook.project import root

ROOT = root()
CHAPTERS = chapters(ROOT)


def test_environment_yml_equals_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [*project["dependencies"], "--editable ."]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_citation_and_package_have_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert "1705.08664" in str(citation)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_its_module_with_compute_draw_and_explorer(name):
    module = CHAPTERS[name].module
    assert all(callable(getattr(module, part)) for part in ("compute", "draw", "explorer"))
    module.Parameters(**module.PAPER)


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_parameters_cell_equals_the_declared_defaults(name):
    (cell,) = [c for c in CHAPTERS[name].read().cells if "parameters" in c.metadata.get("tags", [])]
    assert {"hide-input", "remove-input"} & set(cell.metadata.tags)
    typed = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
    }
    declared = CHAPTERS[name].module.Parameters()
    # Lists in the notebook, tuples in the declaration.
    typed = {key: tuple(v) if isinstance(v, list) else v for key, v in typed.items()}
    assert typed == dataclasses.asdict(declared)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_committed_notebook_is_executed_in_order_and_clean(name):
    path = CHAPTERS[name].notebook
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    # A chapter with photographs weighs more: they, and verdicts by layer and form.
    photographs = sum(
        len(output.data.get("image/jpeg", "")) for cell in notebook.cells
        for output in cell.get("outputs", []) if "data" in output
    )
    assert path.stat().st_size < (1_000_000 if photographs else 300_000)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in code:
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell.metadata)
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", "a warning was printed"
            assert not any("widget" in kind for kind in output.get("data", {}))
            written = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users)/|0x[0-9a-f]{8,}|\.py:\d+", written)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_the_parts_that_a_reader_expects(name):
    notebook = CHAPTERS[name].read()
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").lower()
    for part in ("**you will learn**", "**you need**", "**time to read:**", "## summary", "## what next"):
        assert part in prose, part
    assert len(re.findall(r"^### exercise \d: ", prose, re.MULTILINE)) in (2, 3)
    figures = [cell for cell in notebook.cells if "figure" in cell.metadata.get("mystnb", {})]
    assert figures
    for cell in figures:
        assert cell.metadata.mystnb.figure.caption and cell.metadata.mystnb.figure.name
        assert cell.metadata.mystnb.image.alt
    assert any(re.search(r"chapter\.(\w+_)?explorer\(", cell.source) for cell in notebook.cells)


def test_the_picture_of_the_readme_is_the_output_of_a_cell():
    shown = {picture(chapter.read(), README_TAG) for chapter in CHAPTERS.values()} - {None}
    assert shown == {(ROOT / README_PICTURE).read_bytes()}
    assert f"]({README_PICTURE})" in (ROOT / "README.md").read_text()


# Chapters of our own, on which the paper says nothing.
OF_OUR_OWN = {"kernels"}


def test_every_claim_belongs_to_a_chapter_that_is_written():
    named = {claim.chapter for claim in load(ROOT / "book" / "claims.toml").values()}
    assert named == set(CHAPTERS) - OF_OUR_OWN
    assert set(CHAPTERS) >= OF_OUR_OWN
