"""Fixtures for all tests, and the guard of the seeded faults."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

import invertnb

# tests/faults runs single tests against a mutated copy of the package, and names its folder here.
MUTANT = os.environ.get("INVERTNB_MUTANT")
if MUTANT and not Path(invertnb.__file__).is_relative_to(MUTANT):
    raise RuntimeError(f"expected the package under {MUTANT}, imported {invertnb.__file__}")

# The same examples at every run. A mutant has to fail, not to be explained: no shrinking there.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=30)
settings.register_profile(
    "mutant", settings.get_profile("repeatable"), phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("mutant" if MUTANT else "repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from parallel import Scheduling

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:
        from parallel import turn

        items.sort(key=lambda item: turn(item.nodeid))


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random draws."""
    return torch.Generator().manual_seed(20170524)


@pytest.fixture
def refuses():
    """A check that a call is refused in one clear line: `name = value: expected ...`, with these parts."""

    def check(call, *parts: str) -> None:
        with pytest.raises(ValueError) as caught:
            call()
        message = str(caught.value)
        assert re.match(r"(\w+|K n|conv\(\d,\d\)\.\w+) = .+: expected .+", message), message
        assert [part for part in parts if part not in message] == [], message

    return check
