"""The benchmark: checked before it is timed, ratios in one run, and a CSV that only grows."""

from __future__ import annotations

import csv
import importlib

import pytest
import torch

from invertnb.build import BuildError, bench
from invertnb.build.bench import coding, frame, isometry, peers, pooling
from invertnb.build.bench.frame import Ceiling, Task, Unavailable, close, time_task
from invertnb.kernels.launch import INTERPRET, triton
from invertnb.notebook.project import root


def task(ways, agree=close(1e-6), **more):
    return Task("sum", "3", "float32", ways, agree, rounds=2, **more)


def test_every_way_is_timed_against_the_first():
    x = torch.arange(3.0)
    ways = {"loop": lambda: sum(x.unbind()), "sum": lambda: x.sum(), "mean": lambda: 3 * x.mean()}
    timings = list(time_task(task(ways, bytes=12), "cpu", Ceiling(1e9, {})))
    assert [t.way for t in timings] == list(ways)
    for t in timings:
        assert 0 < t.low <= t.seconds <= t.high
        assert t.ratio == pytest.approx(timings[0].seconds / t.seconds)
        assert t.percent == pytest.approx(100 * 12 / t.seconds / 1e9)


def test_the_matrix_rate_is_the_ceiling_of_operations():
    ways = {"one": lambda: torch.ones(1)}
    (timing,) = time_task(task(ways, operations=1000.0), "cpu", Ceiling(1.0, {"float32": 1e12}))
    assert timing.percent == pytest.approx(100 * 1000 / timing.seconds / 1e12)
    (timing,) = time_task(task(ways, operations=1000.0), "cpu", Ceiling(1.0, {"bfloat16": 1e12}))
    assert timing.percent is None


def test_a_wrong_way_is_not_timed():
    ways = {"right": lambda: torch.ones(3), "wrong": lambda: torch.full((3,), 1.001)}
    with pytest.raises(BuildError, match="sum 3 float32: wrong disagrees.*relative error 1.0e-03"):
        list(time_task(task(ways), "cpu"))
    ways["wrong"] = lambda: torch.tensor([1.0, 1.0, torch.nan])
    with pytest.raises(BuildError, match="relative error nan"):
        list(time_task(task(ways), "cpu"))


def test_what_cannot_run_says_why():
    def missing():
        raise Unavailable("no such package")

    timings = list(time_task(task({"one": lambda: torch.ones(1), "peer": missing}), "cpu"))
    assert timings[1].seconds is None and timings[1].note == "not run: no such package"


def test_pooling_is_exact_or_not_timed():
    with pytest.raises(AssertionError, match="1 of 3 entries"):
        pooling.exactly(torch.ones(3), torch.tensor([1.0, 2.0, 1.0]))


def test_a_form_that_keeps_ties_may_do_nothing_else():
    one = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]]])
    assert pooling.but_for_ties(one, torch.tensor([[[[3.0, -3.0], [0.0, 0.0]]]])) == "keeps 1 ties more"
    assert pooling.but_for_ties(one, one) == ""
    for wrong in ([[3.0, -2.0], [0.0, 0.0]], [[0.0, 3.0], [0.0, 0.0]]):
        with pytest.raises(AssertionError, match="no tie"):
            pooling.but_for_ties(one, torch.tensor([[wrong]]))


@pytest.fixture
def small(monkeypatch):
    """Small sizes, so that all ways of all tasks can be checked here."""
    monkeypatch.setattr(pooling, "SIZES", {"cpu": [(1, 2, 8)], "cuda": [(1, 2, 8)]})
    monkeypatch.setattr(isometry, "SAMPLES", {"cpu": 64, "cuda": 64})
    monkeypatch.setattr(coding, "SIZES", ((8, 3, 3, 8),))
    monkeypatch.setattr(coding, "EXPLICIT", ((8, 3, 3, 8), 0.1))
    monkeypatch.setattr(coding, "STEP_SHAPES", {"cpu": (2, 3, 4, 4), "cuda": (2, 3, 4, 4)})
    monkeypatch.setattr(peers, "SIGNALS", 3)


# The other topics take longer; their ways are checked by their own tests and in each run.
@pytest.mark.parametrize("topic", ["pooling", "isometry", "coding"])
def test_all_ways_of_a_topic_agree(topic, small, monkeypatch):
    def same_speed(ways, device, rounds):
        return {name: [1.0, 1.0] for name in ways}

    monkeypatch.setattr(frame, "_rounds", same_speed)
    timings = list(bench.run("cpu", [topic], Ceiling(1.0, {})))
    assert len({t.task.name for t in timings}) >= 5
    for t in timings:
        assert t.seconds == 1.0 or "compiler" in t.note or "is not installed" in t.note


def test_a_library_that_is_missing_is_named():
    with pytest.raises(Unavailable, match="no_such_library is not installed"):
        peers.library("no_such_library.part")


def test_recovered_codes_are_counted():
    task = next(peers.recovery("cpu"))
    right = task.ways["ours, model-based HTP"]()
    assert task.agree(None, right) == "recovers 100 of 100"
    assert task.agree(None, torch.cat([right[:60], 1.01 * right[60:]])) == "recovers 60 of 100"
    with pytest.raises(AssertionError, match="no numbers"):
        task.agree(None, right * torch.nan)


def test_every_topic_has_tasks():
    for topic in bench.TOPICS:
        assert callable(importlib.import_module(f"invertnb.build.bench.{topic}").tasks)


def test_ceilings_are_measured():
    ceiling = frame.measure_ceiling("cpu", side=64)
    assert ceiling.copy > 1e6 and set(ceiling.matrix) == {"float32", "bfloat16"}
    rows = list(bench.ceiling_rows(ceiling, bench.conditions("cpu")))
    assert float(rows[0]["bytes"]) == pytest.approx(ceiling.copy, rel=1e-3)


def test_the_csv_only_grows(tmp_path):
    path = tmp_path / "new" / "bench.csv"
    where = bench.conditions("cpu")
    (timing,) = time_task(task({"one, or so": lambda: torch.ones(1)}), "cpu")
    for _ in range(2):
        bench.append(path, [bench.row(timing, where)])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and tuple(rows[0]) == bench.FIELDS
    assert rows[1]["way"] == "one, or so" and float(rows[1]["ratio"]) == 1.0
    assert rows[0]["torch"] == torch.__version__ and rows[0]["threads"] == str(torch.get_num_threads())


def test_a_failure_leaves_the_csv_as_it_was(tmp_path):
    path = tmp_path / "bench.csv"
    bench.write(path, [{"date": "1"}], ["date"])

    def rows():
        yield {"date": "2"}
        raise RuntimeError

    for change in (lambda: bench.append(path, rows()), lambda: bench.write(path, rows(), ["date"])):
        with pytest.raises(RuntimeError):
            change()
        assert path.read_text() == "date\n1\n" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_said_in_one_line(toy):
    result = toy.run("bench", "--device", "cuda")
    assert result.returncode != 0 and "device='cuda'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_topic_is_said_in_one_line(toy):
    result = toy.run("bench", "pool")
    assert result.returncode != 0 and "topic 'pool': expected one of pooling" in result.stderr


@pytest.mark.skipif(triton is None or INTERPRET, reason="nothing is compiled here")
def test_all_kernels_are_compiled_for_the_record():
    from invertnb.build.bench import chip

    rows = list(chip.rows())
    assert {row["kernel"] for row in rows} == {
        "pool_switch", "unpool", "keep", "encode", "fista_step", "draw_atoms", "atom_norms"}  # fmt: skip
    for row in rows:
        assert tuple(row) == chip.FIELDS and row["spills"] == "0"
    with (root() / "book/recorded/kernels_machine_code.csv").open(encoding="utf-8", newline="") as file:
        recorded = {(row["kernel"], row["dtype"], row["layout"]) for row in csv.DictReader(file)}
    assert recorded == {(row["kernel"], row["dtype"], row["layout"]) for row in rows}
