"""The command line refuses what it cannot do in one line, before any work is done."""

from __future__ import annotations

import json

import nbformat
import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "layer_as_matrx"], "unknown chapter 'layer_as_matrx': did you mean 'layer_as_matrix'?"),
        (["run", "layer_as_matrix", "--set", "sede=1"], "unknown parameter 'sede': did you mean 'seed'?"),
        (["run", "layer_as_matrix", "--set", "seed=one"], "seed='one': expected an integer"),
        (["run", "layer_as_matrix", "--set", "seed=-1"], "seed=-1: expected at least 0"),
        (["run", "layer_as_matrix", "--set", "seed"], "--set 'seed': expected name=value"),
        (["run", "layer_as_matrix", "--device", "tpu"], "device='tpu': expected one of cpu, cuda"),
        (["run", "layer_as_matrix", "--profile", "huge"], "profile='huge': expected one of embedded, paper"),
        (["refresh", "nothing_like_it"], "unknown chapter 'nothing_like_it'"),
        (["buld"], "No such command 'buld'"),
        (["run", "layer_as_matrix", "--profil", "paper"], "No such option: --profil"),
    ],
)
def test_bad_requests_are_one_line_and_no_work(toy, arguments, message):
    result = toy.run(*arguments)
    assert result.returncode != 0
    assert len(result.stderr.strip().splitlines()) == 1 and message in result.stderr
    assert not (toy.root / "_build" / "runs").exists()
    assert not list(toy.root.glob("_build/run-*"))


def test_run_leaves_the_book_alone_and_says_where_its_copy_is(toy):
    before = (toy.root / "book" / "layer_as_matrix.ipynb").read_bytes()
    result = toy.run("run", "layer_as_matrix", "--set", "seed=7")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("toy.number: 0.53: reproduced")
    copy = nbformat.read(result.stdout.strip().splitlines()[-1], as_version=4)
    assert "seed = 7" in "".join(cell.source for cell in copy.cells)
    assert copy.metadata["invertnb"]["parameters"]["seed"] == 7
    assert (toy.root / "book" / "layer_as_matrix.ipynb").read_bytes() == before
    assert not toy.html.exists()


def test_the_ledger_as_json_names_every_claim(toy):
    assert toy.run("refresh").returncode == 0
    rows = json.loads(toy.run("ledger", "--json").stdout)
    assert [row["id"] for row in rows] == ["toy.number", "toy.later"]
    wanted = {"id", "place", "paper", "ours", "spread", "verdict", "tier", "chapter"}
    assert all(wanted <= set(row) for row in rows)
    assert rows[0] | {"ours": 0.53, "spread": 0.02, "verdict": "reproduced", "seed": 0} == rows[0]
    assert rows[1]["ours"] is None and rows[1]["verdict"] == "needs weights"


def test_doctor_reports_device_data_and_tier(toy):
    result = toy.run("doctor", INVERTNB_DATA=str(toy.root / "absent"))
    assert result.returncode == 0
    assert "torch " in result.stdout and "device" in result.stdout
    assert "is no folder: tier embedded" in result.stdout
