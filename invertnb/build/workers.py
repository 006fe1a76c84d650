"""Where the points of a sweep are computed: on this machine, or by a Dask scheduler's workers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from rich.console import Console

from . import BuildError
from .execute import environment
from .point import FAILED, compute
from .schedule import AT_ONCE, WAKE_S

#: A scheduler that does not answer for so long is none.
ANSWER_S = 10
LOOK_S = 5.0
AGAIN = "run the same command again to go on from here"

Asked = Mapping[str, Any]
Answers = Iterator[tuple[int, dict[str, Any]]]


def on_this_machine(asked: Sequence[Asked]) -> Answers:
    """The answers of :func:`invertnb.build.point.compute`, each with its index, as they come.

    Notebooks run as a build runs them, two at a time on one thread each (fewer at a time where
    OMP_NUM_THREADS gives each more). On a GPU they run one after another, and so do recordings,
    which compute in this process with all of its threads.
    """
    gpu = any(each["parameters"].get("device") == "cuda" for each in asked)
    recording = any(each["recording"] for each in asked)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(int(given), 1) if given.isdecimal() else 1
    at_once = 1 if gpu or recording else max(1, min(AT_ONCE, (os.cpu_count() or 1) // threads))
    with contextlib.nullcontext() if recording else environment(None if gpu else threads):
        pool, stay = ThreadPoolExecutor(at_once), False
        try:
            pending = {pool.submit(compute, each): i for i, each in enumerate(asked)}
            for i, future in _collect(pending):
                yield i, future.result()
            stay = True
        finally:
            pool.shutdown(stay, cancel_futures=True)


def on_cluster(asked: Sequence[Asked], address: str, console: Console) -> Answers:
    """The same from the workers of the scheduler at this address, which need not see this folder.

    A point whose worker dies runs on another, as often as the scheduler's `allowed-failures` say.
    Beyond that the point may be to blame, or one that ran beside it on the same workers; so it runs
    once more when all others are done, and alone.

    Raises:
        BuildError: no scheduler answers at the address, or it left before the end.
    """
    # What matters is said in one line each; the library's own lines come dozens at a time.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    client = _connect(address)
    pool, remote = client.get_executor(), _by_value()

    def submit(i: int) -> Future:
        key = f"{asked[i]['chapter']}-{uuid.uuid4()}"
        return pool.submit(remote, json.dumps(asked[i]), key=key)

    def outcomes(indices: Sequence[int]) -> Iterator[tuple[int, Future]]:
        for i, future in _collect({submit(i): i for i in indices}, _Watch(client, console)):
            if future.cancelled():
                raise BuildError(f"the Dask scheduler at {address!r} left: {AGAIN}")
            yield i, future

    closing = True
    try:
        suspects = []
        for i, future in outcomes(range(len(asked))):
            if _killed_workers(future):
                suspects.append(i)
            else:
                yield i, _answer(future)
        for suspect in suspects:
            for i, future in outcomes([suspect]):
                yield i, _answer(future)
    except KeyboardInterrupt:
        closing = False  # It takes seconds, and this process ends anyway.
        raise
    finally:
        if closing:
            client.close()


def _connect(address: str) -> Any:
    from distributed import Client

    connected: queue.SimpleQueue = queue.SimpleQueue()

    def connect() -> None:
        with contextlib.suppress(Exception):
            connected.put(Client(address, timeout=ANSWER_S, set_as_default=False))
        connected.put(None)

    # In a thread of its own: the library's time limit does not hold where something else answers.
    threading.Thread(target=connect, daemon=True).start()
    end = time.monotonic() + ANSWER_S + WAKE_S
    client = None
    while time.monotonic() < end:
        with contextlib.suppress(queue.Empty):
            client = connected.get(timeout=WAKE_S)
            break
    if client is None:
        why = f"no Dask scheduler answers at {address!r} within {ANSWER_S} s"
        how = "start one with dask scheduler, and workers with dask worker"
        raise BuildError(f"{why}: {how}")
    return client


def _by_value() -> Callable[[str], dict[str, Any]]:
    # A function within a function travels as its code, so that the scheduler, which unpacks what it
    # passes on, need not have this package.
    def answer(text):
        import importlib
        import json

        return importlib.import_module("invertnb.build.point").answer(json.loads(text))

    return answer


def _collect(
    pending: dict[Future, int], idle: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Future]]:
    while pending:
        done, _ = wait(pending, timeout=WAKE_S, return_when=FIRST_COMPLETED)
        # What came before a scheduler left is kept before its leaving is said.
        for future in sorted(done, key=Future.cancelled):
            yield pending.pop(future), future
        if not done:
            idle()


def _killed_workers(future: Future) -> bool:
    from distributed import KilledWorker

    return isinstance(future.exception(), KilledWorker)


def _answer(future: Future) -> dict[str, Any]:
    error = future.exception()
    if error is None:
        return future.result()
    if _killed_workers(future):
        why = f"each of the last {error.allowed_failures + 1} workers that ran it died"
    else:
        what = str(error).strip().splitlines() or [""]
        why = f"the worker could not begin: {type(error).__name__}: {what[0]}"
    return {"status": FAILED, "error": why}


class _Watch:
    """Says, once, that there is no worker; a sweep waits for one, as queues may give it late."""

    def __init__(self, client: Any, console: Console) -> None:
        self.client, self.console = client, console
        self.next, self.said = 0.0, False

    def __call__(self) -> None:
        if time.monotonic() < self.next:
            return
        with contextlib.suppress(Exception):  # of a scheduler that left, of which the points tell
            some = bool(self.client.scheduler_info()["workers"])
            if not some and not self.said:
                self.console.print("no worker is there: waiting for one (start it: dask worker)")
            self.said = not some
        self.next = time.monotonic() + LOOK_S
