"""Seeded faults: each mutation of the core in faults.toml must turn its named check red.

Each runs in a copy of the package, in a process of its own. tests/conftest.py makes sure there
that the copy is what was imported, and pytest's exit code 1 with "1 failed" that the check itself
failed: an error in collecting or importing would exit otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import invertnb

ROOT = Path(__file__).parents[2]
PACKAGE = Path(invertnb.__file__).parent
FAULTS = tomllib.loads(Path(__file__).with_name("faults.toml").read_text("utf-8"))["fault"]
NAMES = [fault["name"] for fault in FAULTS]


def mutate(fault: dict, folder: Path) -> Path:
    """A copy of the package with the fault in it; its path."""
    shutil.copytree(PACKAGE, folder / "invertnb", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "invertnb" / fault["file"]
    text = target.read_text(encoding="utf-8")
    assert text.count(fault["old"]) == 1, f"{fault['old']!r} must occur once in {fault['file']}"
    target.write_text(text.replace(fault["old"], fault["new"]), encoding="utf-8")
    return target


def check(test: str, folder: Path) -> subprocess.CompletedProcess:
    """One test against the package in `folder`."""
    environment = {
        **os.environ, "INVERTNB_MUTANT": str(folder), "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    # -P keeps the working directory, which holds the sound package, off the path.
    command = [sys.executable, "-P", "-m", "pytest", test, "-q", "-o", "addopts=",
               "-p", "no:cacheprovider"]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory):
    """The chosen faults, checked two at a time; by name."""

    def run(fault):
        folder = tmp_path_factory.mktemp("fault")
        mutate(fault, folder)
        return check(fault["test"], folder)

    chosen = {item.callspec.params["name"] for item in request.session.items
              if getattr(item, "originalname", "") == "test_fault_turns_its_check_red"}  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        yield {fault["name"]: pool.submit(run, fault) for fault in FAULTS if fault["name"] in chosen}


@pytest.mark.parametrize("name", NAMES)
def test_fault_turns_its_check_red(name, runs):
    result = runs[name].result()
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "1 failed" in result.stdout and "error" not in result.stdout.splitlines()[-1], output


def test_the_sound_copy_is_green(tmp_path):
    # The same way of running, without a fault: red above comes from the faults alone.
    shutil.copytree(PACKAGE, tmp_path / "invertnb", ignore=shutil.ignore_patterns("__pycache__"))
    result = check("tests/core/test_model.py", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_another_package_is_not_taken_for_the_copy(tmp_path):
    result = check("tests/core/test_model.py", tmp_path)  # an empty folder
    assert result.returncode == 4 and "expected the package under" in result.stderr


def test_faults_are_distinct():
    assert len(set(NAMES)) == len(NAMES) >= 24
    assert len({(fault["file"], fault["new"]) for fault in FAULTS}) == len(FAULTS)
