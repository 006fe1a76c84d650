"""The order of the chapters, the seconds of the whole, and an interrupt while they are executed."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_notebook
from rich.console import Console

from invertnb.build import pages, schedule
from invertnb.build.chapters import Chapter
from invertnb.build.execute import Execution


def executed(root, name: str, seconds: float = 1.0) -> Execution:
    notebook = new_notebook()
    notebook.metadata["invertnb"] = {
        "chapter": name, "fingerprint": f"hash of {name}", "seconds": seconds,
        "profile": "embedded", "parameters": {}, "versions": {"torch": "2"},
    }  # fmt: skip
    return Execution(Chapter(name, root / "book" / f"{name}.ipynb"), notebook)


def test_the_longest_chapter_begins_first_and_untimed_ones_from_the_back():
    assert schedule.order({"a": 2.0, "b": 9.0, "c": 5.0}) == ["b", "c", "a"]
    # As in a first build: each is taken to need the same, and one may take a minute.
    untimed = dict.fromkeys(["a", "inverting_vgg", "b", "c"], 15.0)
    assert schedule.order(untimed) == ["inverting_vgg", "c", "b", "a"]


@pytest.mark.parametrize(
    "seconds, total",
    [
        ({"a": 3.0}, 3.0),
        ({"a": 3.0, "b": 5.0}, 5.0),
        # One process 5, the other 4 + 3.
        ({"a": 3.0, "b": 5.0, "c": 4.0}, 7.0),
        # One 6 + 2, the other 5 + 4, which is the later to end.
        ({"a": 2.0, "b": 4.0, "c": 5.0, "d": 6.0}, 9.0),
    ],
)
def test_seconds_side_by_side(seconds, total):
    assert schedule.side_by_side(seconds) == total


def test_seconds_are_measured_only_where_one_build_executed_all(tmp_path, monkeypatch):
    def execute(chapter, parameters, on_cell=None):
        time.sleep(0.15)
        return executed(tmp_path, chapter.name)

    monkeypatch.setattr(schedule, "execute", execute)
    (tmp_path / "book").mkdir()
    book = [executed(tmp_path, name).chapter for name in ("one", "two", "three")]
    made = schedule.execute_all(book, Console(quiet=True)).values()
    assert 0.15 <= schedule.together(made) < 60
    assert schedule.together([*made][:2]) is None
    # A later build executes one of them again.
    again = schedule.execute_all(book[:1], Console(quiet=True)).values()
    assert schedule.together(made) is None and schedule.together(again) is not None


def test_the_status_page_adds_up_the_book_and_says_how_it_knows(tmp_path):
    seconds = {"one": 40.0, "two": 60.0, "three": 50.0}
    made = [executed(tmp_path, name, seconds[name]) for name in seconds]
    for together, chapters, how in ((None, 90.0, "reckoned"), (101.5, 101.5, "measured: one")):
        page = pages.status(made, together)
        assert how in page and f"<td>{chapters:.1f}</td>" in page
        assert pages.chapters_seconds(made, together) == chapters
    whole = pages.timed(page, 101.5, 138.4)
    assert "<td>138.4</td>" in whole and "<td>239.9</td><td>240</td>" in whole
    assert "<td>240.1 (over)</td>" in pages.timed(page, 101.5, 138.6)
    assert "@" not in whole


def test_an_interrupt_that_a_working_thread_receives_stops_the_build(monkeypatch):
    stop, ended = threading.Event(), []

    def execute(chapter, parameters, on_cell=None):
        time.sleep(0.5)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        stop.wait(60)
        ended.append(chapter.name)
        raise AssertionError("the build waited for the chapter at work")

    monkeypatch.setattr(schedule, "execute", execute)
    monkeypatch.setattr(schedule, "usual_seconds", lambda chapter: 1.0)
    # A shell's background jobs ignore interrupts, and so would tests run as one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            schedule.execute_all([SimpleNamespace(name="one")], Console(quiet=True))
        assert not ended
    finally:
        stop.set()
        signal.signal(signal.SIGINT, before)
