"""Executing several chapters side by side, with a bar that names them and the time left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .chapters import Chapter
from .execute import Execution, OnCell, environment, execute, keep, usual_seconds

# Each chapter computes on one thread; two at a time are what the book's time limit is stated for.
AT_ONCE = 2
# A signal may reach a thread at work (it does while that thread starts others); the main thread then
# learns of it only when it next wakes by itself.
WAKE_S = 0.2


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

        # The longest first, so that none is left to run alone at the end.
        order = sorted(chapters, key=usual_seconds, reverse=True)
        pool = ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1))
        pending = {chapter.name: pool.submit(work, chapter) for chapter in order}
        stay = True
        try:
            left = set(pending.values())
            while left:
                done, left = wait(left, timeout=WAKE_S, return_when=FIRST_EXCEPTION)
                for task in done:
                    task.result()
            return {name: task.result() for name, task in pending.items()}
        except KeyboardInterrupt:
            stay = False
            raise
        finally:
            pool.shutdown(stay, cancel_futures=True)


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
