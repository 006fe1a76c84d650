"""Cleaning executed notebooks: what is noise, and what a committed notebook leaves out."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

import nbformat

WIDGET = "application/vnd.jupyter.widget-view+json"


def without_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook less what differs between two equal runs: timings, kernel details, widget state."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        for output in cell.get("outputs", []):
            # The model behind a widget view has a random id and is gone with its kernel.
            output.get("data", {}).pop(WIDGET, None)
        if cell.get("outputs"):
            cell.outputs = _whole_streams(cell.outputs)
    for key in ("papermill", "widgets", "execution"):
        notebook.metadata.pop(key, None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _whole_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs with neighboring pieces of one stream joined: where it breaks is a matter of timing."""
    whole: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            whole.append(output)
    return whole


def without_frames(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed: explorers keep their still picture; frames live in the book."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata.pop("invertnb", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.get("text/plain", "").startswith("Explorer "):
                data.pop("text/html", None)
    return notebook


def picture(notebook: nbformat.NotebookNode, tag: str) -> bytes | None:
    """The PNG that the first cell with this tag shows, if there is one."""
    for cell in notebook.cells:
        if tag in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    write_bytes((nbformat.writes(notebook) + "\n").encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(part, 0o644)
    os.replace(part, path)
