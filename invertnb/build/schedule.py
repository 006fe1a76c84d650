"""Executing several chapters side by side, with a bar that names them and the time left."""

from __future__ import annotations

import heapq
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from . import notebooks
from .chapters import Chapter
from .execute import Execution, OnCell, environment, execute, keep, usual_seconds

# Each chapter computes on one thread; two at a time are what the book's time limit is stated for.
AT_ONCE = 2
# A signal may reach a thread at work (it does while that thread starts others); the main thread then
# learns of it only when it next wakes by itself.
WAKE_S = 0.2
#: Seconds that a chapter may take, two at a time, each on one thread; and those that may take longer.
CHAPTER_LIMIT_S, LONGER_S = 30, {"inverting_vgg": 60, "random_filters": 60}


def order(usual: Mapping[str, float]) -> list[str]:
    """Names of chapters in the order to begin them: the longest first, so that none ends alone.

    Those that may take a minute lead even where none was timed yet, and of equals the later ones:
    chapters grow through the book.

    Args:
        usual: seconds that each usually takes, in reading order.
    """
    return sorted(reversed(usual), key=lambda name: (name in LONGER_S, usual[name]), reverse=True)


def side_by_side(seconds: Mapping[str, float]) -> float:
    """Seconds until the last ends where chapters of these seconds go :data:`AT_ONCE` at a time, in order."""
    free = [0.0] * AT_ONCE
    for name in order(seconds):
        heapq.heapreplace(free, free[0] + seconds[name])
    return max(free)


def execute_all(
    chapters: list[Chapter], console: Console, then: Callable[[Execution], None] = lambda done: None
) -> dict[str, Execution]:
    """Execute chapters at their defaults, by name; each is kept, and passed to `then`, when it is done.

    Raises:
        BuildError: one failed; those at work beside it are finished and kept, no other is begun.
    """
    with _bar(chapters, console) as on_cell, environment(threads=1):

        def work(chapter: Chapter) -> Execution:
            done = execute(chapter, {}, on_cell=on_cell(chapter))
            keep(done)
            then(done)
            console.print(f"{chapter.name}: executed in {done.about['seconds']:.1f} s")
            return done

        start = time.monotonic()
        named = {chapter.name: chapter for chapter in chapters}
        pool = ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1))
        first = order({name: usual_seconds(chapter) for name, chapter in named.items()})
        pending = {name: pool.submit(work, named[name]) for name in first}
        stay = True
        try:
            left = set(pending.values())
            while left:
                done, left = wait(left, timeout=WAKE_S, return_when=FIRST_EXCEPTION)
                for task in done:
                    task.result()
            made = {name: task.result() for name, task in pending.items()}
            _note(made.values(), time.monotonic() - start)
            return made
        except KeyboardInterrupt:
            stay = False
            raise
        finally:
            pool.shutdown(stay, cancel_futures=True)


def _note(made: Iterable[Execution], seconds: float) -> None:
    """Keep how long these took together."""
    made = list(made)
    if not made:
        return
    content = {"seconds": round(seconds, 1), "fingerprints": _fingerprints(made)}
    notebooks.write_bytes(json.dumps(content).encode(), _notes(made[0].chapter.root))


def together(executions: Iterable[Execution]) -> float | None:
    """Seconds that these executions took in one go; None where they come from more than one."""
    executions = list(executions)
    notes = _notes(executions[0].chapter.root)
    if not notes.exists():
        return None
    noted = json.loads(notes.read_text(encoding="utf-8"))
    return noted["seconds"] if noted["fingerprints"] == _fingerprints(executions) else None


def _notes(root: Path) -> Path:
    return root / "_build" / "together.json"


def _fingerprints(executions: Iterable[Execution]) -> dict[str, str]:
    return {e.about["chapter"]: e.about["fingerprint"] for e in executions}


def execute_one(
    chapter: Chapter, parameters: Mapping[str, Any], profile: str, console: Console
) -> Execution:
    """Execute one chapter with these parameters, outside of the store."""
    with _bar([chapter], console) as on_cell, environment():
        return execute(chapter, parameters, profile, on_cell(chapter))


@contextmanager
def _bar(chapters: list[Chapter], console: Console) -> Iterator[Any]:
    usual = {chapter.name: usual_seconds(chapter) for chapter in chapters}
    state = _State(usual)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
    with Progress(*columns, console=console, transient=True, disable=not chapters) as bar:
        task = bar.add_task("", total=1.0, left="")

        def on_cell(chapter: Chapter) -> OnCell:
            def show(cell: int, cells: int) -> None:
                done, names, left = state.update(chapter.name, cell, cells)
                minutes, seconds = divmod(round(left), 60)
                bar.update(task, completed=done, description=names, left=f"about {minutes}:{seconds:02d} left")

            show(0, 1)
            return show

        yield on_cell


class _State:
    """How far the chapters are, judged by how long each took when it was last executed."""

    def __init__(self, usual: Mapping[str, float]) -> None:
        self.usual = dict(usual)
        self.left = dict(usual)
        self.started: dict[str, float] = {}
        self.lock = threading.Lock()

    def update(self, name: str, cell: int, cells: int) -> tuple[float, str, float]:
        """Share done, names at work, seconds left, after `cell` of `cells` cells of this chapter."""
        with self.lock:
            start = self.started.setdefault(name, time.monotonic())
            spent = time.monotonic() - start
            # A chapter that has outrun its usual time is judged by its pace in cells.
            late = spent * (cells - cell) / max(cell, 1)
            self.left[name] = 0.0 if cell == cells else max(self.usual[name] - spent, min(late, spent))
            if cell == cells:
                del self.started[name]
            total = sum(self.usual.values())
            names = f"{len(self.usual)} chapters: {', '.join(self.started)}"
            longest = max(self.left.values())
            left = max(longest, sum(self.left.values()) / AT_ONCE)
            return 1 - min(sum(self.left.values()) / total, 1.0), names, left
