"""Executing chapters with papermill, each result kept under the hash of what it was made from."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from . import BuildError, notebooks
from .chapters import Chapter, versions

# A hang, not a slow machine: no cell of ours needs a hundredth of it.
CELL_TIMEOUT_S = 1800
KEPT = 3
OnCell = Callable[[int, int], None]


class _Engine(NBClientEngine):
    """papermill's engine, telling us of each finished cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **kwargs):
        complete = nb_man.cell_complete

        def cell_complete(cell, cell_index=None, **extra):
            complete(cell, cell_index=cell_index, **extra)
            if on_cell:
                on_cell(cell_index + 1, len(nb_man.nb.cells))

        nb_man.cell_complete = cell_complete
        # Widget state would hold every explorer a second time; the page does not need it.
        super().execute_managed_notebook(nb_man, kernel_name, store_widget_state=False, **kwargs)


papermill_engines.register("invertnb", _Engine)


@dataclass(frozen=True)
class Execution:
    """An executed chapter: its notebook, and under ``notebook.metadata["invertnb"]`` how it was made."""

    chapter: Chapter
    notebook: nbformat.NotebookNode

    @property
    def about(self) -> Mapping[str, Any]:
        return self.notebook.metadata["invertnb"]


def store(root: Path) -> Path:
    return root / "_build" / "executed"


def stored(chapter: Chapter, fingerprint: str) -> Execution | None:
    """The execution kept under this fingerprint, if there is one."""
    path = store(chapter.root) / chapter.name / f"{fingerprint}.ipynb"
    if not path.exists():
        return None
    return Execution(chapter, nbformat.read(path, as_version=4))


def keep(execution: Execution) -> Path:
    """Write an execution into the store, whole or not at all, and drop all but the newest few."""
    folder = store(execution.chapter.root) / execution.chapter.name
    path = folder / f"{execution.about['fingerprint']}.ipynb"
    notebooks.write(execution.notebook, path)
    # Modification times only choose which old copies to drop; what is current, the hash decides.
    old = sorted(folder.glob("*.ipynb"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for stale in [p for p in old if p != path][KEPT - 1 :]:
        stale.unlink(missing_ok=True)
    return path


def usual_seconds(chapter: Chapter) -> float:
    """How long the chapter took when last executed; a guess before that."""
    kept = sorted((store(chapter.root) / chapter.name).glob("*.ipynb"), key=lambda p: p.stat().st_mtime_ns)
    return nbformat.read(kept[-1], as_version=4).metadata["invertnb"]["seconds"] if kept else 15.0


def execute(
    chapter: Chapter,
    parameters: Mapping[str, Any],
    profile: str = "embedded",
    on_cell: OnCell | None = None,
) -> Execution:
    """Execute one chapter with papermill, in the environment of :func:`environment`.

    Raises:
        BuildError: a cell failed; the partial notebook is kept and the message says where.
    """
    build = chapter.root / "_build"
    build.mkdir(exist_ok=True)
    # Taken before the run: a file that changes during it must count as a change.
    fingerprint = chapter.fingerprint(parameters)
    with tempfile.TemporaryDirectory(dir=build, prefix="run-") as scratch:
        partial = Path(scratch) / chapter.notebook.name
        start = time.monotonic()
        try:
            papermill.execute_notebook(
                chapter.notebook,
                partial,
                parameters=dict(parameters),
                engine_name="invertnb",
                kernel_name="python3",
                cwd=chapter.notebook.parent,
                progress_bar=False,
                execution_timeout=CELL_TIMEOUT_S,
                on_cell=on_cell,
            )
        except PapermillExecutionError as error:
            why = f"in cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise _failure(chapter, partial, why) from None
        except (DeadKernelError, CellTimeoutError) as error:
            raise _failure(chapter, partial, f"{type(error).__name__}: {error}") from None
        seconds = time.monotonic() - start
        notebook = notebooks.without_noise(nbformat.read(partial, as_version=4))
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        if counts != list(range(1, len(counts) + 1)):
            raise _failure(chapter, partial, "the kernel left before the last cell")
    notebook.metadata["invertnb"] = {
        "chapter": chapter.name,
        "fingerprint": fingerprint,
        "seconds": round(seconds, 1),
        "profile": profile,
        "parameters": all_parameters(chapter, parameters),
        "versions": versions(),
    }
    return Execution(chapter, notebook)


def _failure(chapter: Chapter, partial: Path, why: str) -> BuildError:
    """Keep the partial notebook, and say in one line what happened and where it is."""
    failed = chapter.root / "_build" / "failed" / chapter.notebook.name
    failed.parent.mkdir(exist_ok=True)
    why = why.splitlines()[0]
    message = f"chapter {chapter.name!r} failed: {why}"
    if not partial.exists():
        return BuildError(message, why)
    notebook = nbformat.read(partial, as_version=4)
    os.replace(partial, failed)
    message += f" (partial notebook: {failed.relative_to(chapter.root)})"
    return BuildError(message, why, notebook)


def all_parameters(chapter: Chapter, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter that the chapter ran with, defaults included, in the order that a file keeps."""
    values = dict(sorted(vars(chapter.module.Parameters(**overrides)).items()))
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@contextmanager
def environment(threads: int | None = None) -> Iterator[None]:
    """The kernels' environment: explorers embed their frames, ipykernel keeps its start-up notes, and
    a kernel computes on so many threads, unless OMP_NUM_THREADS says otherwise."""
    with tempfile.TemporaryDirectory(prefix="invertnb-") as scratch:
        profile = Path(scratch) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 50\n")
        changes = {
            "INVERTNB_FRAMES": "1",
            "IPYTHONDIR": scratch,
        }
        if threads and "OMP_NUM_THREADS" not in os.environ:
            changes["OMP_NUM_THREADS"] = str(threads)
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
