"""One test against a copy of the package, in a process that has never imported another one.

This module imports nothing of the package: it is what the fork server's children start from.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """pytest's exit code (None: killed after the time limit) and all it printed."""

    code: int | None
    output: str


# Importing what the package and its tests stand on takes seconds, so it is done once, in a server
# that forks for each run. Nothing of the package itself: each run imports its own copy.
PRELOADED = (
    "torch", "torch.testing", "torchvision.models", "torchvision.transforms.v2", "scipy.optimize",
    "scipy.stats", "skimage.data", "matplotlib.figure", "ipywidgets", "IPython.display",
    "nbformat", "pytest", "hypothesis.strategies",
)  # fmt: skip
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(list(PRELOADED))


def run(test: str, folder: Path, limit: float = 120, interpret: bool = False) -> Outcome:
    """Run one pytest node with the package in `folder` first on the path.

    `interpret` runs the Triton kernels under the interpreter, on CPU tensors.
    """
    log = folder / "log.txt"
    process = _server.Process(target=_child, args=(test, str(folder), interpret))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return Outcome(None, log.read_text("utf-8"))
    return Outcome(process.exitcode, log.read_text("utf-8"))


def _child(test: str, folder: str, interpret: bool) -> None:
    with open(Path(folder, "log.txt"), "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest
    import torch

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    assert not any(name.split(".")[0] == "invertnb" for name in sys.modules)
    sys.path.insert(0, folder)
    os.environ["INVERTNB_MUTANT"] = folder
    os.environ["TRITON_INTERPRET"] = str(int(interpret))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    sys.exit(pytest.main([test, "-q", "-o", "addopts=", "-p", "no:cacheprovider"]))
