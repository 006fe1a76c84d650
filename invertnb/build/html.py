"""Building the HTML book from executed chapters, and putting it in place in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import nbformat
import yaml

from . import BuildError, notebooks, pages
from .chapters import contents, file_hash
from .execute import Execution
from .gather import Row
from .schedule import together

BUILDERS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme", "sphinx-proof")


def fingerprint(root: Path, executions: Iterable[Execution]) -> str:
    """Hash of all that the HTML depends on: executed chapters, pages, package sources, builders."""
    sources = [root / "_config.yml", root / "_toc.yml"]
    sources += [p for p in sorted((root / "book").rglob("*")) if p.is_file() and p.suffix != ".ipynb"]
    sources += sorted((root / "invertnb").rglob("*.py"))
    inputs = {
        "chapters": [[e.about["chapter"], e.about["fingerprint"]] for e in executions],
        "files": {
            str(p.relative_to(root)): file_hash(p) for p in sources if ".ipynb_checkpoints" not in p.parts
        },
        "versions": {name: version(name) for name in BUILDERS},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def current(root: Path) -> str | None:
    """Fingerprint of the book in place, or None."""
    book = root / "_build" / "html"
    return book.resolve().name if (book / "index.html").exists() else None


def build(root: Path, executions: list[Execution], rows: list[Row], identity: str) -> Path:
    """Build the book and point ``_build/html`` at it; the last good book stays until then.

    Raises:
        BuildError: the builder warned or failed; its log's path is in the message.
    """
    books = root / "_build" / "books"
    books.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=root / "_build", prefix="stage-") as scratch:
        source, out = Path(scratch) / "source", Path(scratch) / "out"
        _stage(root, source, executions, rows)
        run = subprocess.run(
            [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
            + ["--path-output", str(out), "-W", "--keep-going", "-q"],
            capture_output=True,
            text=True,
        )
        log = root / "_build" / "html.log"
        log.unlink(missing_ok=True)
        if run.returncode:
            log.write_text((run.stdout + run.stderr).replace(str(source), "."), encoding="utf-8")
            raise BuildError(f"building the HTML failed (log: {log.relative_to(root)})")
        status = out / "_build" / "html" / "book" / "status.html"
        chapters_s = pages.chapters_seconds(executions, together(executions))
        page = pages.timed(status.read_text(encoding="utf-8"), chapters_s, time.monotonic() - start)
        status.write_text(page, encoding="utf-8")
        final = books / identity
        # A folder of this name can only be left over from a book that is no longer in place.
        shutil.rmtree(final, ignore_errors=True)
        os.replace(out / "_build" / "html", final)
    _point(root / "_build" / "html", final)
    for old in books.iterdir():
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return root / "_build" / "html" / "index.html"


def _point(link: Path, target: Path) -> None:
    """Make ``link`` lead to ``target`` in one step, so that a reader never finds half a book."""
    new = link.with_name(f".{link.name}-{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    os.replace(new, link)


def _stage(root: Path, source: Path, executions: list[Execution], rows: list[Row]) -> None:
    """Lay out what Sphinx reads: pages as they are, chapters as executed, parts that the ledger gives."""
    ignore = shutil.ignore_patterns("*.ipynb", "*.toml", ".ipynb_checkpoints", "recorded")
    shutil.copytree(root / "book", source / "book", ignore=ignore)
    shutil.copy(root / "_toc.yml", source)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config.setdefault("sphinx", {}).setdefault("config", {})["myst_substitutions"] = pages.substitutions(rows)
    (source / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    for execution in executions:
        notebook = nbformat.from_dict(execution.notebook)
        # How long it took differs from run to run; a reader's download of the source should not.
        del notebook.metadata["invertnb"]
        notebooks.write(notebook, source / "book" / execution.chapter.notebook.name)
    made = source / "book" / "_made"
    made.mkdir()
    (made / "ledger.md").write_text(pages.ledger(rows), encoding="utf-8")
    (made / "status.md").write_text(pages.status(executions, together(executions)), encoding="utf-8")
    (source / "book" / "ledger.json").write_text(
        json.dumps([row.as_json() for row in rows], indent=1, ensure_ascii=False), encoding="utf-8"
    )
    for page in contents(root):
        if not any((source / f"{page}{kind}").exists() for kind in (".md", ".ipynb")):
            raise BuildError(f"_toc.yml names {page!r}, but there is no such page")
