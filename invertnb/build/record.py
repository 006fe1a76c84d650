"""``invertnb run CHAPTER --record``: a chapter's long computation, kept with its provenance."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from ..notebook.recorded import write_recorded
from . import BuildError
from .chapters import Chapter

PACKAGES = ("torch", "torchvision", "numpy", "invertnb")


def record(chapter: Chapter, values: Mapping[str, Any], command: Sequence[str]) -> Path:
    """Call the chapter's ``recording`` and write what it returns; the path of the file.

    Args:
        chapter: one whose module has a function ``recording``.
        values: parameters, validated.
        command: words of the command line, of which paths keep their last part only.

    Raises:
        BuildError: a chapter that records nothing.
    """
    if not callable(getattr(chapter.module, "recording", None)):
        raise BuildError(f"chapter {chapter.name!r} has nothing to record")
    parameters = chapter.module.Parameters(**values)
    begin = time.monotonic()
    recording = chapter.module.recording(parameters)
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(parameters.device),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "seed": parameters.seed,
        "parameters": {
            key: _without_folder(each) for key, each in dataclasses.asdict(parameters).items()
        },
        "command": shlex.join(_without_folder(word) for word in command),
        "seconds": round(time.monotonic() - begin, 1),
    }
    return write_recorded(chapter.name, recording, about, chapter.root / "book" / "recorded")


def device_name(device: str, threads: int | None = None) -> str:
    """The GPU's name, or the CPU's with its threads: those of this process where none are named."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    threads = threads or torch.get_num_threads()
    return f"CPU ({name}, {threads} thread{'s' if threads != 1 else ''})"


def _without_folder(value: Any) -> Any:
    """A path, or the path in NAME=PATH, without its folder; anything else as it is."""
    if not isinstance(value, str):
        return value
    name, rest = re.fullmatch(r"(\w+=)?(.*)", value, re.DOTALL).groups(default="")
    return name + (PureWindowsPath(rest).name if set("/\\") & set(rest) else rest)
