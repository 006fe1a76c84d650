"""How `pytest -n 2` divides the tests: files whole, the long ones first, the seeded faults one by one.

A file's tests stay with one worker, since they share fixtures and, of a notebook, a kernel. The
seeded faults share nothing; they come last and fill in what the files leave uneven.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

FAULT = "test_faults.py::test_fault_turns_its_check_red"
# What holds one worker for half a minute or more in one piece.
LONG = (".ipynb", "test_interpreter.py", "test_built_pages.py", "test_build.py")


def unit(nodeid: str) -> str:
    """What goes to one worker in one piece: a seeded fault by itself, any other test with its file."""
    return nodeid if FAULT in nodeid else nodeid.partition("::")[0]


def turn(nodeid: str) -> int:
    """0 for tests in a long file, 1 for others, 2 for the seeded faults."""
    return 2 if FAULT in nodeid else 1 - unit(nodeid).endswith(LONG)


class Scheduling(LoadScopeScheduling):
    """xdist's scheduling by scope, with our units as scopes, in the order of the collection."""

    def __init__(self, config, log=None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
