"""The command line: ``invertnb build | run | sweep | refresh | ledger | bench | doctor``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout
from rich.console import Console

from ..notebook.claims import show
from ..notebook.project import root as find_root
from . import BuildError, notebooks
from .chapters import PROFILES, chapter, chapters
from .execute import Execution, stored
from .schedule import execute_all, execute_one

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
README_TAG, README_PICTURE = "readme", "book/_static/readme.png"
console = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command line; what a person must mend is one line and a non-zero exit."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if status == 130:
            raise KeyboardInterrupt
        sys.exit(status or 0)
    except (BuildError, ValueError, FileNotFoundError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer says of the arguments themselves
            raise
        console.print(f"error: {error.format_message()}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; run the command again to go on from here")
        # Not sys.exit, which would wait for the chapters at work; their kernels end with this process.
        os._exit(130)


@app.command()
def build() -> None:
    """Execute the chapters whose inputs changed, collect the ledger and build the HTML book."""
    from . import gather, html

    root = find_root()
    with _alone(root):
        book = chapters(root)
        kept = {name: stored(c, c.fingerprint({})) for name, c in book.items()}
        made = execute_all([c for c in book.values() if kept[c.name] is None], console)
        executions = [made.get(name) or kept[name] for name in book]
        rows = gather.collect(executions)
        identity = html.fingerprint(root, executions)
        if html.current(root) != identity:
            console.print("building the HTML")
            html.build(root, executions, rows, identity)
        else:
            console.print("nothing changed")
    print(root / "_build" / "html" / "index.html")


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="CHAPTER", help="a chapter's name, as proposition_1")],
    settings: Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="a parameter")] = [],
    device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None,
    profile: Annotated[str, typer.Option(help=" or ".join(PROFILES))] = "embedded",
    record: Annotated[
        bool, typer.Option("--record", help="compute what the chapter records and write it to "
                           "book/recorded/, which the book shows; the notebook is not executed")
    ] = False,
) -> None:
    """Execute one chapter with other parameters; the book is left as it is."""
    from . import gather

    root = find_root()
    asked = chapter(root, name)
    given = _settings(settings, device)
    parameters = asked.parameters(profile, given)
    if record:
        from .record import record as keep

        path = keep(asked, parameters, ["invertnb", *sys.argv[1:]])
        print(path.relative_to(root))
        return
    done = execute_one(asked, parameters, profile, console)
    path = root / "_build" / "runs" / f"{name}-{done.about['fingerprint'][:10]}.ipynb"
    notebooks.write(done.notebook, path)
    for found in gather.records(done.notebook):
        print(f"{found['claim']}: {show(found['value'])}: {found['verdict']}")
    print(path)


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(metavar="CHAPTER", help="a chapter's name, as rip_2d")],
    grid: Annotated[
        list[str],
        typer.Option(metavar="NAME=A,B,C", help="a parameter and its values; once for each "
                     "parameter. With a semicolon, values are separated by semicolons and may hold "
                     "commas: 'NAME=1,2;3' is 1,2 and 3, and 'NAME=1,2;' is the one value 1,2"),
    ],
    settings: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="a parameter of all points")
    ] = [],
    device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None,
    profile: Annotated[str, typer.Option(help=" or ".join(PROFILES))] = "embedded",
    record: Annotated[
        bool, typer.Option("--record", help="at each point compute what the chapter records, in "
                           "place of its notebook; kept with the sweep, not in book/recorded/")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="of a Dask scheduler, whose workers "
                                 "compute; without one, this machine, two notebooks at a time or "
                                 "one recording")
    ] = None,
) -> None:
    """Execute one chapter at every point of a grid; run again, only what is missing or failed."""
    from . import sweep as sweeps
    from .tabulate import show_table

    given = _settings(settings, device)
    asked = chapter(find_root(), name)
    planned = sweeps.plan(asked, grid, given, profile, record, elsewhere=scheduler is not None)
    entries = sweeps.run(planned, console, scheduler)
    show_table(entries, Console(highlight=False))
    print(planned.table)
    if failed := sum(entry["status"] != sweeps.FINISHED for entry in entries):
        count = f"{failed} of {len(entries)} points failed"
        raise BuildError(f"{count}; the same command tries them again")


@app.command()
def refresh(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CHAPTER]...", help="default: all")] = None,
) -> None:
    """Execute chapters again and rewrite the outputs that are committed with their notebooks."""
    root = find_root()
    asked = [chapter(root, name) for name in names] if names else list(chapters(root).values())

    def commit(done: Execution) -> None:
        notebooks.write(notebooks.without_frames(done.notebook), done.chapter.notebook)
        # The picture of README.md is the output of a tagged cell, so that it cannot go stale.
        if front := notebooks.picture(done.notebook, README_TAG):
            notebooks.write_bytes(front, root / README_PICTURE)

    with _alone(root):
        execute_all(asked, console, commit)


@app.command()
def ledger(
    as_json: Annotated[bool, typer.Option("--json", help="a list of objects, for programs")] = False,
) -> None:
    """Every claim of the paper with our number and verdict."""
    from . import gather

    rows = gather.latest(find_root())
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=1, ensure_ascii=False))
        return
    for row in rows:
        ours = show(row.record["value"]) if row.record else "-"
        print(f"{row.claim.id:32} paper {show(row.claim.paper):>14}  ours {ours:>14}  {row.verdict}")


@app.command()
def bench(
    topics: Annotated[
        list[str] | None, typer.Argument(help="pooling, isometry, encoder, coding, shifts; all by default")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    record: Annotated[
        bool, typer.Option("--record", help="append to book/recorded/kernels.csv, which the book shows")
    ] = False,
    compile_only: Annotated[
        bool, typer.Option("--compile", help="time nothing; compile the kernels for sm_90 and record "
                           "registers, spills and widths in book/recorded/kernels_machine_code.csv")
    ] = False,
) -> None:
    """Speed beside the plain ways and other libraries, in one run, each after its check."""
    import torch

    from . import bench as benchmark

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device={device!r}: expected cpu, or cuda where there is a CUDA device")
    for topic in topics or ():
        if topic not in benchmark.TOPICS:
            raise ValueError(f"topic {topic!r}: expected one of {', '.join(benchmark.TOPICS)}")
    root = find_root()
    if compile_only:
        from .bench import chip

        path = root / "book/recorded/kernels_machine_code.csv"
        benchmark.write(path, chip.rows(), chip.FIELDS)
        print(f"wrote {path.relative_to(root)}")
        return
    path = root / ("book/recorded/kernels.csv" if record else "_build/bench.csv")
    where = benchmark.conditions(device)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    ceiling = benchmark.measure_ceiling(device)
    print(f"copy {ceiling.copy / 1e9:.1f} GB/s, " + ", ".join(
        f"{dtype} {rate / 1e12:.2f} TFLOP/s" for dtype, rate in ceiling.matrix.items()))  # fmt: skip
    rows, last = list(benchmark.ceiling_rows(ceiling, where)), None
    for timing in benchmark.run(device, topics or benchmark.TOPICS, ceiling):
        if timing.task is not last:
            print(timing.task.name)
            last = timing.task
        rows.append(benchmark.row(timing, where))
        if timing.seconds is None:
            print(f"    {timing.way:28} {timing.note}")
            continue
        share = "" if timing.percent is None else f"{timing.percent:5.0f} %"
        print(f"    {timing.way:28} {1000 * timing.seconds:10.3f} ms {timing.ratio:8.2f}x {share} {timing.note}")
    benchmark.append(path, rows)
    print(f"appended to {path.relative_to(root)}")


@app.command()
def doctor() -> None:
    """What is installed and found here, and which tier it gives."""
    from .doctor import report

    for name, finding in report(find_root()):
        print(f"{name:28} {finding}")


def _settings(settings: list[str], device: str | None) -> dict[str, str]:
    return dict(map(_pair, settings)) | ({} if device is None else {"device": device})


def _pair(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {setting!r}: expected name=value")
    return name, value


@contextmanager
def _alone(root: Path):
    """One build at a time in this folder; a lock of the system, so that a killed build leaves none."""
    (root / "_build").mkdir(exist_ok=True)
    lock = FileLock(root / "_build" / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print("another build is at work in this folder; waiting for it")
        lock.acquire()
    try:
        _sweep(root / "_build")
        yield
    finally:
        lock.release()


def _sweep(build: Path) -> None:
    """Remove what a killed build left behind; only called under the lock."""
    for left in (*build.glob("stage-*"), *build.glob("run-*")):
        # `invertnb run` needs no lock: what a live process may still use is left alone.
        if time.time() - left.stat().st_mtime > 6 * 3600 or left.name.startswith("stage-"):
            shutil.rmtree(left, ignore_errors=True)
    for left in build.glob(".html-*"):
        left.unlink(missing_ok=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
