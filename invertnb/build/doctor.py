"""What is installed, which device, which data and weights are found, and the tier that they give."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..kernels.launch import triton
from .chapters import PACKAGES, chapters
from .execute import stored
from .html import BUILDERS, current


def report(root: Path) -> list[tuple[str, str]]:
    """Name and finding, line by line."""
    lines = [(name, _version(name)) for name in (*PACKAGES, *BUILDERS, "jupyterlab", "papermill", "nbval")]
    if torch.cuda.is_available():
        lines.append(("device", f"cuda: {torch.cuda.get_device_name()}"))
    else:
        lines.append(("device", f"cpu, {torch.get_num_threads()} threads (no CUDA device)"))
    kernels = f"{_version('triton')}: kernels on CUDA devices" if triton else "none: plain PyTorch everywhere"
    lines.append(("triton", kernels))
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    lines.append(("chromium", "found" if chromium else "not found: browser tests are skipped"))
    lines += [_data(), _labelled(), _weights()]
    for name, chapter in chapters(root).items():
        fresh = stored(chapter, chapter.fingerprint({})) is not None
        lines.append((f"chapter {name}", "executed and current" if fresh else "to be executed"))
    lines.append(("book", "built" if current(root) else "not built: run make book"))
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _data() -> tuple[str, str]:
    given = os.environ.get("INVERTNB_DATA")
    if not given:
        return "data", "INVERTNB_DATA is not set: tier embedded"
    if not Path(given).is_dir():
        return "data", f"INVERTNB_DATA={given!r} is no folder: tier embedded"
    kinds = sorted(entry.name for entry in Path(given).iterdir() if entry.is_dir())
    return "data", f"INVERTNB_DATA holds {', '.join(kinds) or 'no folders'}: tier data"


def _labelled() -> tuple[str, str]:
    from ..networks.labelled import cifar10_folder

    if cifar10_folder():
        return "labelled", "INVERTNB_DATA holds cifar10, for Table 1"
    return "labelled", "no cifar10 under INVERTNB_DATA: scikit-learn's digits in its place"


def _weights() -> tuple[str, str]:
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(path.name for kind in ("vgg16*", "alexnet*") for path in cache.glob(kind))
    if found:
        return "weights", f"torchvision's cache holds {', '.join(found)}: tier weights"
    return "weights", "no VGG-16 or AlexNet of torchvision's in its cache: the embedded checkpoint"
