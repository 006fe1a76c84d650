"""Seeded faults: each mutation of the core in faults.toml must turn its named check red.

Each runs in a copy of the package, in a process of its own. tests/conftest.py makes sure there
that the copy is what was imported, and pytest's exit code 1 with "1 failed" that the check itself
failed: an error in collecting or importing would exit otherwise.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from isolated import run

import invertnb

PACKAGE = Path(invertnb.__file__).parent
FAULTS = tomllib.loads(Path(__file__).with_name("faults.toml").read_text("utf-8"))["fault"]
NAMES = [fault["name"] for fault in FAULTS]


def copy_package(folder: Path) -> None:
    """The package without its caches; weights, which no fault touches, are linked."""

    def copy(source: str, target: str) -> None:
        (os.symlink if source.endswith(".safetensors") else shutil.copy2)(source, target)

    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "invertnb", ignore=ignore, copy_function=copy)


def mutate(fault: dict, folder: Path) -> Path:
    """A copy of the package with the fault in it; its path."""
    copy_package(folder)
    target = folder / "invertnb" / fault["file"]
    text = target.read_text(encoding="utf-8")
    assert text.count(fault["old"]) == 1, f"{fault['old']!r} must occur once in {fault['file']}"
    target.write_text(text.replace(fault["old"], fault["new"]), encoding="utf-8")
    return target


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory):
    """The outcomes of the chosen faults, checked two at a time; by name."""

    def outcome(fault):
        folder = tmp_path_factory.mktemp("fault")
        mutate(fault, folder)
        return run(fault["test"], folder, interpret=fault.get("interpret", False))

    chosen = {item.callspec.params["name"] for item in request.session.items
              if getattr(item, "originalname", "") == "test_fault_turns_its_check_red"}
    tmp_path_factory.getbasetemp()  # set up before two threads ask for it at once
    with ThreadPoolExecutor(2) as pool:
        yield {
            fault["name"]: pool.submit(outcome, fault)
            for fault in FAULTS
            if fault["name"] in chosen
        }


@pytest.mark.parametrize("name", NAMES)
def test_fault_turns_its_check_red(name, runs):
    code, output = runs[name].result()
    assert code == 1, output
    summary = output.splitlines()[-1]
    assert "1 failed" in summary and "error" not in summary, output


def test_the_sound_copy_is_green(tmp_path):
    # The same way of running, without a fault: red above comes from the faults alone.
    copy_package(tmp_path)
    code, output = run("tests/core/test_model.py", tmp_path)
    assert code == 0, output


def test_a_run_reports_its_own_code_while_another_thread_asks_after_it(tmp_path):
    # In place of a second run's start: a thread that asks after every child without a pause.
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            multiprocessing.active_children()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        codes = {run("tests/core/test_model.py", tmp_path).code for _ in range(6)}
    finally:
        done.set()
        asking.join()
    assert codes == {4}


def test_another_package_is_not_taken_for_the_copy(tmp_path):
    code, output = run("tests/core/test_model.py", tmp_path)  # an empty folder
    assert code == 4 and "expected the package under" in output


def test_faults_are_distinct():
    assert len(set(NAMES)) == len(NAMES) >= 24
    edits = {(fault["file"], fault["old"], fault["new"]) for fault in FAULTS}
    assert len(edits) == len(FAULTS)
