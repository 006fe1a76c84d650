"""Seeded faults: each mutation of the core in faults.toml must turn its named check red.

Each runs in a copy of the package, in a process of its own. tests/conftest.py makes sure there
that the copy is what was imported, and pytest's exit code 1 with "1 failed" that the check itself
failed: an error in collecting or importing would exit otherwise.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import pytest
from isolated import run

import invertnb

PACKAGE = Path(invertnb.__file__).parent
FAULTS = tomllib.loads(Path(__file__).with_name("faults.toml").read_text("utf-8"))["fault"]
NAMES = [fault["name"] for fault in FAULTS]


def copy_package(folder: Path) -> None:
    """The package with its compiled modules; weights, which no fault touches, are linked."""

    def copy(source: str, target: str) -> None:
        (os.symlink if source.endswith(".safetensors") else shutil.copy2)(source, target)

    # A module that another process is compiling lies there half-written, under a longer name.
    ignore = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(PACKAGE, folder / "invertnb", ignore=ignore, copy_function=copy)


def mutate(fault: dict, folder: Path) -> Path:
    """A copy of the package with the fault in it; its path."""
    copy_package(folder)
    target = folder / "invertnb" / fault["file"]
    text = target.read_text(encoding="utf-8")
    assert text.count(fault["old"]) == 1, f"{fault['old']!r} must occur once in {fault['file']}"
    target.write_text(text.replace(fault["old"], fault["new"]), encoding="utf-8")
    # A compiled module stands for a source of the same date and size, and the sound one came along.
    os.utime(target, (0, 0))
    return target


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_fault_turns_its_check_red(fault, tmp_path):
    mutate(fault, tmp_path)
    code, output = run(fault["test"], tmp_path, interpret=fault.get("interpret", False))
    assert code == 1, output
    summary = output.splitlines()[-1]
    assert "1 failed" in summary and "error" not in summary, output


def test_the_sound_copy_is_green(tmp_path):
    # The same way of running, without a fault: red above comes from the faults alone.
    copy_package(tmp_path)
    code, output = run("tests/core/test_model.py", tmp_path)
    assert code == 0, output


def test_another_package_is_not_taken_for_the_copy(tmp_path):
    code, output = run("tests/core/test_model.py", tmp_path)  # an empty folder
    assert code == 4 and "expected the package under" in output


def test_faults_are_distinct():
    assert len(set(NAMES)) == len(NAMES) >= 24
    edits = {(fault["file"], fault["old"], fault["new"]) for fault in FAULTS}
    assert len(edits) == len(FAULTS)
