"""An interrupt reaches the build, whichever of its threads the system hands it to."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from invertnb.build import schedule


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
    try:
        with pytest.raises(KeyboardInterrupt):
            schedule.execute_all([SimpleNamespace(name="one")], Console(quiet=True))
        assert not ended
    finally:
        stop.set()
