"""One point of a sweep, computed in this process or on a Dask worker.

What goes in and what comes out are mappings as JSON has them, so that a scheduler between the two
needs neither this package nor a file system in common.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from ..notebook.project import root as find_root
from . import BuildError, gather
from .chapters import Chapter, chapter, digest, file_hash, versions
from .execute import environment, execute
from .record import device_name

FINISHED, FAILED = "finished", "failed"
#: Numbers and texts by name that a chapter displays under this MIME type become columns of a sweep.
RESULTS = "application/vnd.invertnb.results+json"
PACKAGE = Path(__file__).resolve().parents[1]
#: The package's modules as they were when this process loaded them.
LOADED = {str(path.relative_to(PACKAGE.parent)): file_hash(path) for path in PACKAGE.rglob("*.py")}

_entering = threading.Lock()


@functools.cache
def _environment() -> None:
    """The kernels' environment, for good: the points of this process, side by side, share it."""
    held = contextlib.ExitStack()
    held.enter_context(environment(threads=1))
    atexit.register(held.close)


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """On a Dask worker: :func:`compute`, in the kernels' environment, with the worker's address."""
    from distributed import get_worker

    with _entering:
        _environment()
    return compute(asked) | {"worker": f"{get_worker().address} on {socket.gethostname()}"}


def compute(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Execute a chapter, or call its ``recording``, at one point.

    Args:
        asked: ``chapter``, ``root`` (where the repository lies on the machine that asks),
            ``profile``, ``parameters``, ``recording``, and what is expected: ``fingerprint`` and
            ``versions``.

    Returns:
        ``status``; ``error`` of a failed point; ``seconds``, ``device``, ``parameters``,
        ``claims``, ``results`` and ``inputs`` of a finished one; under ``notebook`` what was
        executed, as text.
        A point that fails, whatever it raises, is an answer, too.
    """
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions() | {"invertnb": version("invertnb")},
        "worker": socket.gethostname(),
    }
    begin = time.monotonic()
    try:
        make = _record if asked["recording"] else _execute
        made = make(_chapter(asked), asked)
        # What JSON cannot hold, as NaN and infinity, fails here and not where it is written.
        json.dumps(made, allow_nan=False)
        return {"status": FINISHED, **about, **made}
    except (Exception, SystemExit) as error:
        notebook = getattr(error, "notebook", None)
        return {
            "status": FAILED,
            "error": error.why if isinstance(error, BuildError) else _one_line(error),
            "seconds": round(time.monotonic() - begin, 1),
            **about,
            "notebook": nbformat.writes(notebook) if notebook else None,
        }


def _chapter(asked: Mapping[str, Any]) -> Chapter:
    """The chapter as it lies here: in the folder that was named, or in this machine's own.

    Raises:
        BuildError: it is not the one that was asked for; the message says what differs.
    """
    folders = [Path(asked["root"])]
    with contextlib.suppress(FileNotFoundError):
        folders.append(find_root())
    host, why = socket.gethostname(), ""
    for folder in folders:
        try:
            found = chapter(folder, asked["chapter"])
            inputs = found.inputs(asked["recording"])
            if digest(inputs, asked["parameters"]) == asked["fingerprint"]:
                _not_stale(inputs["files"])
                return found
            why = why or f"other files of chapter {found.name!r} than the sweep began with"
        except (OSError, BuildError) as error:
            missing = f"no chapter {asked['chapter']!r} ({_one_line(error)})"
    here, there = versions(), asked["versions"]
    others = [f"{n} {here.get(n)}, not {v}" for n, v in there.items() if here.get(n) != v]
    raise BuildError(f"refused: {host} has {', '.join(others) or why or missing}")


def _not_stale(files: Mapping[str, str]) -> None:
    # A worker may be older than the files: what it has loaded is then not what the hash is of.
    changed = [name for name, found in files.items() if LOADED.get(name, found) != found]
    if changed:
        what = f"{changed[0]}, which has changed since: start the worker again"
        raise RuntimeError(f"{socket.gethostname()} has loaded {what}")


def _execute(here: Chapter, asked: Mapping[str, Any]) -> dict[str, Any]:
    done = execute(here, asked["parameters"], asked["profile"])
    outputs = [o for cell in done.notebook.cells for o in cell.get("outputs", [])]
    results: dict[str, Any] = {}
    for output in outputs:
        results |= output.get("data", {}).get(RESULTS, {})
    parameters = done.about["parameters"]
    return {
        "seconds": done.about["seconds"],
        "device": device_name(parameters["device"], _threads()),
        "parameters": parameters,
        "claims": gather.records(done.notebook),
        "results": results,
        "notebook": nbformat.writes(done.notebook),
    }


def _record(here: Chapter, asked: Mapping[str, Any]) -> dict[str, Any]:
    parameters = here.module.Parameters(**asked["parameters"])
    begin = time.monotonic()
    recording = here.module.recording(parameters)
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "device": device_name(parameters.device),
        "parameters": dataclasses.asdict(parameters),
        "claims": [],
        "label": recording.label,
        "inputs": dict(recording.inputs),
        "results": dict(recording.results),
    }


def _threads() -> int | None:
    """What a kernel computes on, where the environment says so."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else None


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
