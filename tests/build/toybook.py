"""A book of one small chapter, on which builds can be broken, killed and repeated in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CLAIMS = """
[[entry]]
id = "toy.number"
place = "Section 1"
statement = "a number"
paper = 0.5
rule = { within = 0.1 }
tier = "embedded"
chapter = "layer_as_matrix"

[[entry]]
id = "toy.later"
place = "Section 2"
statement = "a statement of a later chapter"
paper = "holds"
rule = "holds"
tier = "weights"
chapter = "later"
"""
RECORD = 'from invertnb.notebook import record\n\nrecord("toy.number", 0.53, 0.02)'


class Toy:
    """The small book's folder, with the command line at hand."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, *sources: str) -> None:
        """Give the chapter these code cells, after its parameters."""
        cells = [
            new_markdown_cell("# A toy chapter", id="title"),
            new_code_cell("seed = 0", id="parameters", metadata={"tags": ["parameters"]}),
        ]
        cells += [new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
        notebook = new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / "book" / "layer_as_matrix.ipynb")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "invertnb.build.cli", *arguments],
            cwd=self.root,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell's background jobs ignore interrupts, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def html(self) -> Path:
        return self.root / "_build" / "html"

    def pages(self) -> dict[str, bytes]:
        """The built book's files, less the status page (times) and the builder's own caches."""
        skip = {"status.html", "status.md", ".buildinfo", "environment.pickle", "searchindex.js"}
        book = self.html.resolve()
        return {
            str(path.relative_to(book)): path.read_bytes()
            for path in sorted(book.rglob("*"))
            if path.is_file() and path.name not in skip
        }


def lay_out(root: Path) -> Toy:
    """Write the small book's sources into ``root``."""
    (root / "book").mkdir()
    (root / "_config.yml").write_text(
        "title: Toy\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"
        "sphinx:\n  config:\n    nb_mime_priority_overrides: [['html', 'text/html', 0]]\n"
        "    suppress_warnings: ['mystnb.unknown_mime_type']\n"
    )
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- file: book/layer_as_matrix\n"
        "- file: book/ledger\n- file: book/status\n"
    )
    (root / "book" / "claims.toml").write_text(CLAIMS)
    (root / "book" / "intro.md").write_text("# Intro\n\n{{ ours['toy.number'] }}\n")
    for page in ("ledger", "status"):
        text = f"# {page}\n\n```{{include}} _made/{page}.md\n```\n"
        (root / "book" / f"{page}.md").write_text(text)
    book = Toy(root)
    book.write(RECORD)
    return book
