"""How the tests are divided where several run at a time."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")

from parallel import turn, unit  # noqa: E402

FAULT = "tests/faults/test_faults.py::test_fault_turns_its_check_red[a scale of 1::2 is lost]"


@pytest.mark.parametrize(
    "nodeid, piece, when",
    [
        ("book/kernels.ipynb::Cell 3", "book/kernels.ipynb", 0),
        ("tests/kernels/test_interpreter.py::test_it", "tests/kernels/test_interpreter.py", 0),
        ("tests/core/test_iht.py::test_steps[1::2]", "tests/core/test_iht.py", 1),
        ("tests/faults/test_faults.py::test_faults_are_distinct", "tests/faults/test_faults.py", 1),
        (FAULT, FAULT, 2),
    ],
)
def test_a_file_stays_whole_and_a_seeded_fault_goes_by_itself(nodeid, piece, when):
    assert (unit(nodeid), turn(nodeid)) == (piece, when)
