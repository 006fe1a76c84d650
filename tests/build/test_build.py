"""A build that fails, is killed, repeated, or runs beside another leaves a good book."""

from __future__ import annotations

import os
import signal
import time

import nbformat
import pytest

from toybook import CLAIMS, RECORD


def _wait(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_book_is_built_and_an_unchanged_one_is_left_alone(toy):
    first = toy.run("build")
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(toy.html / "index.html")
    assert "layer_as_matrix: executed" in first.stderr
    assert "0.53" in (toy.html / "book" / "intro.html").read_text()
    ledger = (toy.html / "book" / "ledger.html").read_text()
    assert "toy.number" in ledger and "needs weights" in ledger
    assert "layer_as_matrix.html#record-toy-number" in ledger
    assert 'id="record-toy-number"' in (toy.html / "book" / "layer_as_matrix.html").read_text()

    # Newer time stamps on everything are no change.
    for path in toy.root.glob("book/*"):
        os.utime(path)
    before = toy.html.resolve()
    second = toy.run("build")
    assert second.returncode == 0 and "nothing changed" in second.stderr
    assert "executed" not in second.stderr and toy.html.resolve() == before

    # A page's text alone: the HTML is new, the chapter is not executed again.
    (toy.root / "book" / "intro.md").write_text("# Another intro\n")
    third = toy.run("build")
    assert third.returncode == 0 and "executed" not in third.stderr
    assert "Another intro" in (toy.html / "book" / "intro.html").read_text()


def test_a_failing_chapter_leaves_the_last_good_book_and_its_partial_notebook(toy):
    assert toy.run("build").returncode == 0
    good = toy.pages()
    toy.write("reached = 'so far'\nreached", "1 / 0", RECORD)
    failed = toy.run("build")
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr and "_build/failed/layer_as_matrix.ipynb" in failed.stderr
    assert toy.pages() == good
    partial = nbformat.read(toy.root / "_build" / "failed" / "layer_as_matrix.ipynb", as_version=4)
    assert "so far" in str(partial.cells)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:", "SyntaxError"),
        ("import os\n\nos._exit(3)", "DeadKernelError"),
        ("import sys\n\nsys.exit(0)", "the kernel left before the last cell"),
    ],
)
def test_a_chapter_that_ends_oddly_is_one_clear_line(toy, source, message):
    toy.write(source, RECORD)
    failed = toy.run("build")
    lines = [line for line in failed.stderr.strip().splitlines() if line.startswith("error:")]
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert len(lines) == 1 and message in lines[0] and "_build/failed/layer_as_matrix.ipynb" in lines[0]
    assert (toy.root / "_build" / "failed" / "layer_as_matrix.ipynb").is_file()


def test_an_interrupted_build_stops_at_once_and_says_so(toy):
    toy.write("import time\n\ntime.sleep(120)", RECORD)
    process = toy.start("build")
    _wait(lambda: any((toy.root / "_build").glob("run-*/*.ipynb")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the command again" in err


def test_a_page_that_warns_fails_the_build_and_leaves_the_last_good_book(toy):
    assert toy.run("build").returncode == 0
    good = toy.pages()
    (toy.root / "book" / "intro.md").write_text("# Intro\n\n{doc}`nowhere`\n")
    failed = toy.run("build")
    assert failed.returncode == 1 and "_build/html.log" in failed.stderr
    assert "nowhere" in (toy.root / "_build" / "html.log").read_text()
    assert toy.pages() == good


@pytest.mark.parametrize("moment", ["in a cell", "in the builder"])
def test_a_killed_build_run_again_gives_the_book_of_a_clean_one(toy, moment):
    toy.write("import os, time\n\ntime.sleep(float(os.environ.get('TOY_SLEEP', 0)))", RECORD)
    build = toy.root / "_build"
    process = toy.start("build", TOY_SLEEP="60" if moment == "in a cell" else "0")
    mark = "run-*/*.ipynb" if moment == "in a cell" else "stage-*/out"
    _wait(lambda: any(build.glob(mark)))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not toy.html.exists()

    again = toy.run("build")
    assert again.returncode == 0, again.stderr
    survived = toy.pages()
    assert not [p for p in build.iterdir() if p.name.startswith("stage-")]
    for name in ("executed", "books"):
        os.rename(build / name, build / f"{name}-survived")
    (build / "html").unlink()
    assert toy.run("build").returncode == 0
    assert toy.pages() == survived


def test_two_builds_at_once_both_give_the_book(toy):
    both = [toy.start("build"), toy.start("build")]
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert sum("executed" in err for _, err in results) == 1
    assert "toy.number" in (toy.html / "book" / "ledger.html").read_text()


def test_a_record_without_a_claim_fails_the_build(toy):
    (toy.root / "book" / "claims.toml").write_text(CLAIMS.replace("toy.number", "toy.numeral"))
    result = toy.run("build")
    assert result.returncode == 1 and "unknown claim 'toy.number'" in result.stderr
    assert not toy.html.exists()


def test_a_claim_of_a_chapter_without_its_record_fails_the_build(toy):
    toy.write("1 + 1")
    result = toy.run("build")
    assert result.returncode == 1 and "toy.number" in result.stderr
    assert not toy.html.exists()


def test_refresh_writes_the_same_bytes_twice_and_no_frames(toy):
    explorer = """
import numpy as np
from invertnb.notebook import Explorer, Slider, View

Explorer("toy", [Slider("k", [1, 2], label="k")], lambda k: View(np.full((8, 8), 50 * k, np.uint8), {"k": k}), alt="Gray {k}")
"""
    toy.write(RECORD, explorer.strip())
    path = toy.root / "book" / "layer_as_matrix.ipynb"
    assert toy.run("refresh", "layer_as_matrix").returncode == 0
    once = path.read_bytes()
    assert toy.run("refresh").returncode == 0
    assert path.read_bytes() == once
    shown = nbformat.read(path, as_version=4).cells[-1].outputs[0].data
    assert set(shown) == {"text/plain", "image/png"}
    # The built page has what the committed notebook leaves out.
    assert toy.run("build").returncode == 0
    assert "data:image" in (toy.html / "book" / "layer_as_matrix.html").read_text()
