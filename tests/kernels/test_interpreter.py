"""The whole folder once more, under Triton's interpreter: the kernels themselves, without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from invertnb.kernels.launch import INTERPRET, triton

FOLDER = Path(__file__).parent


@pytest.mark.skipif(triton is None, reason="there is no Triton for this system")
@pytest.mark.skipif(INTERPRET, reason="this is the run under the interpreter")
def test_kernels_are_right_under_the_interpreter():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", FOLDER, "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-rs"],
        cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=900,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", result.stdout)[1])
    # Only what compiles for a chip may be left out.
    left_out = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED")]
    assert passed > 150 and all("interpreter" in line for line in left_out), result.stdout
