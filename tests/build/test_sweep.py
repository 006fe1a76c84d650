"""A sweep keeps what is finished, whatever dies, and run again computes only what is missing."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from distributed import KilledWorker
from rich.console import Console

import invertnb.chapters.layer_as_matrix as module
from invertnb.build import BuildError, cli, workers
from invertnb.build import sweep as sweeps
from invertnb.build.chapters import chapter
from invertnb.build.point import compute
from invertnb.notebook import Recording
from toybook import lay_out

# Leaves the process that runs it under `ran`; waits while a file holds it; says (seed + l) / 10.
CELL = """
import os, pathlib, time
from IPython.display import display

root = pathlib.Path.cwd().parent
(root / "ran").mkdir(exist_ok=True)
part = root / f".{seed}-{l}-{os.getpid()}"
part.write_text(str(os.getppid()))
part.rename(root / "ran" / part.name[1:])
while (root / f"hold-{seed}-{l}").exists():
    time.sleep(0.05)
record = {"claim": "toy.number", "value": (seed + l) / 10, "spread": None, "shape": None,
          "verdict": "reproduced" if seed + l == 5 else "not reproduced", "readings": [], "note": ""}
results = {"sum": seed + l, "of": {"product": seed * l, "all": [seed, l]}}
display({"application/vnd.invertnb.records+json": [record],
         "application/vnd.invertnb.results+json": results}, raw=True)
if (seed, l) == (2, 5) and (root / "broken").exists():
    raise ArithmeticError("no luck")
""".strip()
GRID = ["sweep", "layer_as_matrix", "--grid", "seed=1,2", "--grid", "l=3,5"]
HEAD = "seed,l,status,seconds,toy.number,toy.number verdict,of.product,sum,error,device,worker,fingerprint"
BY_HAND = [
    ["1", "3", "finished", "0.4", "not reproduced", "3", "4", ""],
    ["1", "5", "finished", "0.6", "not reproduced", "5", "6", ""],
    ["2", "3", "finished", "0.5", "reproduced", "6", "5", ""],
    ["2", "5", "failed", "", "", "", "", "in cell 3: ArithmeticError: no luck"],
]
ASIDE = ("seconds", "device", "worker", "fingerprint")
HANG_S = 300


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy").mkdir()
    book = lay_out(tmp_path / "toy")
    book.write(CELL)
    return book


@pytest.fixture
def invertnb(toy, monkeypatch, capsys):
    """The command line within this process: (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["invertnb", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    monkeypatch.chdir(toy.root)
    monkeypatch.setenv("COLUMNS", "200")
    return call


def _wait(condition, client=None):
    """What the condition gives once it gives something; not longer than the client lives."""
    end = time.monotonic() + HANG_S
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        assert client is None or client.poll() is None, client.communicate()
        time.sleep(0.05)
    return found


def _ran(toy, point="*"):
    """The executions of a point, or of all: the process above the kernel of each."""
    return [int(path.read_text()) for path in (toy.root / "ran").glob(f"{point}-*")]


def _folder(toy):
    (found,) = (toy.root / "_build" / "sweeps").glob("layer_as_matrix-*")
    return found


def _table(toy):
    with (_folder(toy) / "table.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ASIDE} for row in csv.DictReader(file)]


def _kept(toy):
    entries = [json.loads(p.read_text()) for p in toy.root.glob("_build/sweeps/*/*.json")]
    return {f"{e['grid']['seed']}-{e['grid']['l']}": e for e in entries}


def test_a_grid_by_hand_with_a_point_that_fails_and_what_a_rerun_does(toy, invertnb):
    (toy.root / "broken").touch()
    status, out, err = invertnb(*GRID)
    assert status == 1 and len(_ran(toy)) == 4, err
    assert "seed=2, l=5: failed: in cell 3: ArithmeticError: no luck\n" in err
    assert "4/4 " in err and err.endswith("error: 1 of 4 points failed; the same command tries them again\n")
    assert (_folder(toy) / "table.csv").read_text().splitlines()[0] == HEAD
    assert [list(row.values()) for row in _table(toy)] == BY_HAND
    assert "0.5 reproduced" in out and out.splitlines()[-1] == str(_folder(toy) / "table.csv")

    entry = _kept(toy)["1-5"]
    parameters = {"seed": 1, "l": 5, "K": 96, "device": "cpu"}
    assert entry["parameters"] | parameters == entry["parameters"] and entry["seconds"] > 0
    assert entry["results"]["of"]["all"] == [1, 5] and "torch" in entry["versions"]
    notebook = nbformat.read(_folder(toy) / f"{entry['fingerprint'][:16]}.ipynb", as_version=4)
    assert "l = 5" in "".join(cell.source for cell in notebook.cells)
    failed = _folder(toy) / f"{_kept(toy)['2-5']['fingerprint'][:16]}.ipynb"
    assert "ArithmeticError" in failed.read_text()

    (toy.root / "broken").unlink()
    status, _, err = invertnb(*GRID)
    assert status == 0 and "3 of 4 points are finished already" in err
    assert len(_ran(toy)) == 5 and len(_ran(toy, "2-5")) == 2
    assert [row["status"] for row in _table(toy)] == ["finished"] * 4

    # The same points in another order, and in another sweep; a record that lost its notebook.
    assert invertnb(*GRID[:3], "l=5,3", "--grid", "seed=2,1")[0] == 0
    assert [row["toy.number"] for row in _table(toy)] == ["0.7", "0.6", "0.5", "0.4"]
    failed.unlink()
    assert invertnb(*GRID[:3], "l=3", "--grid", "seed=1,2")[0] == 0
    assert len(_ran(toy)) == 5 and len(list(toy.root.glob("_build/sweeps/*/*.ipynb"))) == 5
    missing = _missing(toy)
    assert missing == ["seed=2, l=5"]

    # A changed chapter has no finished points, nor has one with another parameter.
    assert _missing(toy, {"K": "97"}) == ["seed=1, l=3", "seed=1, l=5", "seed=2, l=3", "seed=2, l=5"]
    toy.write(CELL, "1 + 1")
    assert len(_missing(toy)) == 4


def _missing(toy, settings={}):
    planned = sweeps.plan(chapter(toy.root, "layer_as_matrix"), GRID[3::2], settings)
    return [str(point) for point in planned.points if planned.kept(point) is None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "sede=1,2"], "unknown parameter 'sede': did you mean 'seed'?"),
        (["--grid", "l=3,5", "--grid", "seed=1,-1"], "seed=-1: expected at least 0"),
        (["--grid", "seed=1,two"], "seed='two': expected an integer"),
        (["--grid", "seed=1;2,3"], "seed='2,3': expected an integer"),
        (["--grid", "seed=1", "--grid", "seed=2"], "--grid 'seed=2': seed is given twice"),
        (["--grid", "seed=1,01"], "--grid: the point seed=1 is given twice"),
        (["--grid", "seed="], "--grid 'seed=': expected name=value,value"),
        (["--grid", "seed"], "--grid 'seed': expected name=value,value"),
        (["--grid", "seed=1,,2"], "--grid 'seed=1,,2': expected name=value,value"),
        (["--grid", "seed=1", "--set", "seed=2"], "seed=2: seed is given with --grid, too"),
        (["--grid", "device=cpu,tpu"], "device='tpu': expected one of cpu, cuda"),
        (["--grid", "seed=1", "--profile", "huge"], "profile='huge': expected one of"),
        (["--grid", "seed=1", "--record"], "chapter 'layer_as_matrix' has nothing to record"),
        ([], "Missing option '--grid'"),
    ],
)
def test_bad_requests_are_one_line_before_anything_runs(toy, invertnb, arguments, message):
    status, out, err = invertnb("sweep", "layer_as_matrix", *arguments)
    assert status != 0 and out == ""
    assert len(err.splitlines()) == 1 and message in err
    assert not (toy.root / "_build").exists()


def test_values_with_commas_are_separated_by_semicolons():
    assert sweeps.axes(["a=1,2", "b=1,2;3", "c=1,2;"]) == {"a": ["1", "2"], "b": ["1,2", "3"], "c": ["1,2"]}


def test_a_recording_is_kept_with_the_sweep_and_not_in_the_book(toy, invertnb, monkeypatch):
    def recording(p):
        value = float("nan") if p.seed == 2 else p.seed / 4
        return Recording("toy", {"images": "none"}, {"accuracy": {"best": value}, "all": [1, 2]})

    monkeypatch.setattr(module, "recording", recording, raising=False)
    command = ["sweep", "layer_as_matrix", "--grid", "seed=1,2,3", "--record"]
    status, out, err = invertnb(*command)
    assert status == 1 and "seed=2: failed: ValueError: Out of range float" in err
    assert [(row["seed"], row["accuracy.best"]) for row in _table(toy)] == [("1", "0.25"), ("2", ""), ("3", "0.75")]
    assert not (toy.root / "book" / "recorded").exists() and not (toy.root / "ran").exists()
    # What is written on the page is no input of a recording; what is already recorded neither.
    toy.write(CELL, "1 + 1")
    (toy.root / "book" / "recorded").mkdir()
    (toy.root / "book" / "recorded" / "layer_as_matrix-toy.json").write_text("{}")
    assert "2 of 3 points are finished already" in invertnb(*command)[2]


def test_a_record_of_another_sweep_is_put_on_this_ones_axes(toy, monkeypatch):
    monkeypatch.setattr(module, "recording", lambda p: None, raising=False)
    here, answer = chapter(toy.root, "layer_as_matrix"), {"status": "finished", "seconds": 1.0}
    few = sweeps.plan(here, ["seed=1,2"], {"l": "3"}, recording=True)
    for point in few.points:
        few.keep(point, answer)
    more = sweeps.plan(here, ["seed=1,2", "l=3,5"], {}, recording=True)
    more = dataclasses.replace(more, profile="paper")  # where it changes no parameter
    taken = [entry for point in more.points if (entry := more.kept(point))]
    assert [entry["grid"] for entry in taken] == [{"seed": 1, "l": 3}, {"seed": 2, "l": 3}]
    written = [json.loads(more.record(point).read_text()) for point in more.points[::2]]
    assert written == taken and {entry["profile"] for entry in written} == {"paper"}
    less = sweeps.plan(here, ["l=3,4"], {"seed": "2"}, recording=True)
    assert less.kept(less.points[0])["grid"] == {"l": 3} and less.kept(less.points[1]) is None


def test_a_worker_with_other_files_or_versions_refuses(toy):
    planned = sweeps.plan(chapter(toy.root, "layer_as_matrix"), ["seed=1"], {})
    asked = planned.asked(planned.points[0])
    toy.write("1 + 1")
    answer = compute(asked)
    assert answer["status"] == "failed"
    assert "refused: " in answer["error"]
    assert "has other files of chapter 'layer_as_matrix' than the sweep began with" in answer["error"]
    asked["versions"] |= {"torch": "0.1"}
    assert ", not 0.1" in compute(asked)["error"]


def test_an_interrupt_stops_a_sweep_at_once(toy, monkeypatch):
    stop, ended = threading.Event(), []

    def point(asked):
        time.sleep(0.3)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        stop.wait(HANG_S)
        ended.append(asked)

    monkeypatch.setattr(workers, "compute", point)
    planned = sweeps.plan(chapter(toy.root, "layer_as_matrix"), ["seed=1"], {})
    # A shell's background job is started with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(planned, Console(quiet=True))
        assert not ended
    finally:
        signal.signal(signal.SIGINT, before)
        stop.set()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "what://ever", "silent"])
def test_an_address_without_a_scheduler_is_one_line(toy, invertnb, monkeypatch, address):
    monkeypatch.setattr(workers, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if address == "silent":
            address = f"127.0.0.1:{silent.getsockname()[1]}"
        status, _, err = invertnb(*GRID, "--scheduler", address)
    assert status == 1 and len(err.splitlines()) == 1
    assert f"no Dask scheduler answers at '{address}' within 0.3 s" in err


def test_a_point_that_kills_its_workers_fails_alone(toy, monkeypatch):
    """What ran beside it is blamed with it; run once more alone, it is cleared."""
    asked, submitted = [], []

    def submit(call, text, key):
        seed = json.loads(text)["parameters"]["seed"]
        submitted.append(seed)
        future = Future()
        if seed == 2 or (seed == 1 and submitted.count(1) == 1):
            future.set_exception(KilledWorker("point", SimpleNamespace(address="x"), 3))
        elif seed == 3:
            future.set_exception(ModuleNotFoundError("No module named 'invertnb'"))
        else:
            future.set_result({"status": "finished", "seconds": 1.0})
        return future

    client = SimpleNamespace(get_executor=lambda: SimpleNamespace(submit=submit), close=asked.clear)
    monkeypatch.setattr("distributed.Client", lambda *_, **__: client)
    planned = sweeps.plan(chapter(toy.root, "layer_as_matrix"), ["seed=1,2,3,4"], {})
    entries = sweeps.run(planned, Console(quiet=True), "tcp://somewhere")
    assert [entry["status"] for entry in entries] == ["finished", "failed", "failed", "finished"]
    assert entries[1]["error"] == "each of the last 4 workers that ran it died"
    assert "could not begin: ModuleNotFoundError: No module named 'invertnb'" in entries[2]["error"]
    assert sorted(submitted) == [1, 1, 2, 2, 3, 4]


class Dask:
    """A scheduler and two workers as processes of their own, in a folder that is not the book's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        # The scheduler needs neither the package nor the book.
        (folder / "without" / "invertnb").mkdir(parents=True)
        (folder / "without" / "invertnb" / "__init__.py").write_text("raise ImportError('not here')")
        address = ["--scheduler-file", "scheduler.json", "--host", "127.0.0.1", "--no-dashboard"]
        self.scheduler = self.start("scheduler", "--port", "0", *address, PYTHONPATH=str(folder / "without"))
        for _ in range(2):
            self.start("worker", "--no-nanny", "--nthreads", "1", "--local-directory", str(folder), *address)
        self.address = _wait(self._address)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        log = (self.folder / "log.txt").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], cwd=self.folder, stdout=log, stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def _address(self) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / "scheduler.json").read_text())["address"]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def clusters():
    started = []
    yield started
    for cluster in started:
        cluster.stop()


@pytest.fixture
def dask(clusters, tmp_path_factory):
    """One for all tests, as starting one takes seconds, until one of them kills its scheduler."""
    if not clusters or clusters[-1].scheduler.poll() is not None:
        clusters.append(Dask(tmp_path_factory.mktemp("dask")))
    return clusters[-1]


def test_a_worker_killed_at_work_changes_nothing_in_the_table(toy, dask, invertnb):
    (toy.root / "broken").touch()
    hold = toy.root / "hold-1-3"
    hold.touch()
    client = toy.start(*GRID, "--scheduler", dask.address)
    (worker,) = _wait(lambda: _ran(toy, "1-3"), client)
    assert worker in [process.pid for process in dask.processes]
    os.kill(worker, signal.SIGKILL)
    _wait(lambda: len(_ran(toy, "1-3")) == 2, client)
    hold.unlink()
    _, err = client.communicate(timeout=HANG_S)
    assert client.returncode == 1, err
    assert len(_ran(toy)) == 5 and "tcp://127.0.0.1" in _kept(toy)["1-3"]["worker"]
    swept = _table(toy)

    os.rename(toy.root / "_build", toy.root / "_cluster")
    status, _, err = invertnb(*GRID)
    assert status == 1 and len(_ran(toy)) == 9, err
    assert _table(toy) == swept and [list(row.values()) for row in swept] == BY_HAND


def test_a_killed_client_run_again_computes_what_is_missing(toy, dask, invertnb):
    hold = toy.root / "hold-2-5"
    hold.touch()
    client = toy.start(*GRID, "--scheduler", dask.address)
    _wait(lambda: len(_kept(toy)) == 3 and _ran(toy, "2-5"), client)
    client.kill()
    client.communicate()
    hold.unlink()
    status, _, err = invertnb(*GRID, "--scheduler", dask.address)
    assert status == 0 and "3 of 4 points are finished already" in err and err.count("seed=") == 1
    assert [len(_ran(toy, point)) for point in ("1-3", "1-5", "2-3", "2-5")] == [1, 1, 1, 2]
    assert [row["toy.number"] for row in _table(toy)] == ["0.4", "0.6", "0.5", "0.7"]


def test_a_scheduler_that_dies_is_one_line_and_what_is_finished_stays(toy, dask, invertnb):
    (toy.root / "hold-2-5").touch()

    def end() -> None:
        _wait(lambda: len(_kept(toy)) == 4 or (len(_kept(toy)) == 3 and _ran(toy, "2-5")))
        dask.scheduler.kill()

    thread = threading.Thread(target=end)
    thread.start()
    status, _, err = invertnb(*GRID, "--scheduler", dask.address)
    thread.join()
    assert status == 1
    assert [line for line in err.splitlines() if "seed=" not in line] == [
        f"error: the Dask scheduler at '{dask.address}' left: run the same command again to go on from here"
    ]
    assert [row["status"] for row in _table(toy)] == ["finished"] * 3
    (toy.root / "hold-2-5").unlink()
