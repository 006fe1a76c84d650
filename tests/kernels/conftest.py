"""The devices the kernels are checked on, and outputs that hide nothing.

Every test here runs twice: as it is (plain PyTorch on the CPU, the kernels on a GPU), and in a
process of its own under Triton's interpreter, see test_interpreter.py.
"""

from __future__ import annotations

import math

import pytest
import torch

from invertnb.kernels.launch import INTERPRET


@pytest.fixture(params=["cpu"] + ["cuda"] * (torch.cuda.is_available() and not INTERPRET))
def device(request) -> str:
    """Every device of this machine."""
    return request.param


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fresh memory is full of NaN, or of the largest integer: an entry left unwritten shows."""
    plain, plain_like = torch.empty, torch.empty_like

    @torch.no_grad()
    def fill(fresh):
        if fresh.is_floating_point():
            return fresh.fill_(math.nan)
        return fresh if fresh.dtype == torch.bool else fresh.fill_(torch.iinfo(fresh.dtype).max)

    monkeypatch.setattr(torch, "empty", lambda *a, **k: fill(plain(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: fill(plain_like(*a, **k)))
