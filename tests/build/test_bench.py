"""The benchmark: checked before it is timed, and ratios in one run."""

from __future__ import annotations

import pytest
import torch

from invertnb import rip
from invertnb.build import BuildError, bench


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench, "SAMPLES", 300)


def test_every_task_is_timed_against_its_first_way():
    timings = list(bench.run())
    assert [t.way for t in timings] == [
        "dense product", "table of correlations", *("Gershgorin", "semidefinite") * 2,
    ]  # fmt: skip
    for timing in timings:
        assert timing.seconds > 0 and timing.ratio > 0
    assert timings[1].ratio == pytest.approx(timings[0].seconds / timings[1].seconds)


def test_a_wrong_way_is_not_timed(monkeypatch):
    right = rip.sample_ratios

    def wrong(*arguments, **settings):
        ratios = right(*arguments, **settings)
        return rip.Ratios(ratios.synthesis * 1.001, ratios.support)

    monkeypatch.setattr(rip, "sample_ratios", wrong)
    with pytest.raises(BuildError, match="differ by"):
        next(bench.run())


def test_a_certificate_below_a_code_is_not_timed(monkeypatch):
    monkeypatch.setattr(rip, "gershgorin", lambda atoms: 0.1)
    with pytest.raises(BuildError, match="Gershgorin: 0.1 is below a code's"):
        list(bench.run())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_said_in_one_line(toy):
    result = toy.run("bench", "--device", "cuda")
    assert result.returncode != 0 and "device='cuda'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
