"""The chapters of the table of contents, and the content hash that decides whether one must run again."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import nbformat
import yaml
from nbformat.v4 import new_notebook

from . import BuildError

PROFILES = ("embedded", "paper")
# What can change a chapter's output without any file of ours changing.
PACKAGES = ("torch", "numpy", "matplotlib", "pillow", "ipywidgets")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book with the module of the same name."""

    name: str
    notebook: Path

    @property
    def root(self) -> Path:
        return self.notebook.parent.parent

    @functools.cached_property
    def module(self) -> ModuleType:
        try:
            return importlib.import_module(f"invertnb.chapters.{self.name}")
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BuildError(f"the module of chapter {self.name!r} cannot be imported: {what}") from None

    def parameters(self, profile: str, settings: Mapping[str, str]) -> dict[str, Any]:
        """What papermill injects: the profile's overrides, then ``settings``, validated together.

        Raises:
            ValueError: an unknown profile or parameter, or a value that its declaration refuses.
        """
        if profile not in PROFILES:
            raise ValueError(f"profile={profile!r}: expected one of {', '.join(PROFILES)}")
        declared = self.module.Parameters
        values = dict(self.module.PAPER) if profile == "paper" else {}
        values |= declared.parse(settings)
        declared(**values)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def read(self) -> nbformat.NotebookNode:
        return nbformat.read(self.notebook, as_version=4)

    def fingerprint(self, parameters: Mapping[str, Any], recording: bool = False) -> str:
        """Hash of all that the executed chapter depends on (see :meth:`inputs`); never of a time stamp."""
        return digest(self.inputs(recording), parameters)

    def inputs(self, recording: bool = False) -> dict[str, Any]:
        """What the executed chapter depends on beside its parameters.

        Notebook sources and metadata, the chapter's module and every module below it, files beside
        those modules, the claims, recorded results, and versions. With ``recording``, what the
        chapter's ``recording`` depends on: the same less the notebook and what is recorded already.
        """
        notebook = new_notebook() if recording else self.read()
        files = self._files(notebook)
        if recording:
            kept = ("book", "recorded")
            files = {name: path for name, path in files.items() if Path(name).parts[:2] != kept}
        return {
            "cells": [[c.cell_type, c.source, dict(c.metadata)] for c in notebook.cells],
            "files": {name: file_hash(path) for name, path in files.items()},
            "versions": versions(),
        }

    def _files(self, notebook: nbformat.NotebookNode) -> dict[str, Path]:
        graph = import_graph()
        modules = {f"invertnb.chapters.{self.name}"} | imported(notebook) & graph.modules
        for module in list(modules):
            modules |= graph.find_upstream_modules(module)
        package = Path(importlib.import_module("invertnb").__file__).parent
        files = set()
        for module in modules:
            stem = package.joinpath(*module.split(".")[1:])
            source = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
            # Templates and the like lie in a folder `static` beside the module that reads them.
            beside = (path for path in source.parent.glob("static/**/*") if path.is_file())
            files |= {source, *beside}
        named = {str(path.relative_to(package.parent)): path for path in files}
        recorded = sorted((self.root / "book" / "recorded").glob(f"{self.name}*"))
        for path in (self.root / "book" / "claims.toml", *recorded):
            named[str(path.relative_to(self.root))] = path
        return named


@functools.cache
def import_graph() -> grimp.ImportGraph:
    try:
        return grimp.build_graph("invertnb", cache_dir=None)
    except grimp.exceptions.SourceSyntaxError as error:
        raise BuildError(f"the package cannot be read: {error}") from None


def imported(notebook: nbformat.NotebookNode) -> set[str]:
    """Names of the ``invertnb`` modules that a notebook's code cells import."""
    names = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        # Magics are not Python; they import nothing of ours.
        lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.split("\n")]
        try:
            tree = ast.parse("\n".join(lines))
        except SyntaxError:
            continue  # The execution will say so, with the cell.
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "invertnb"}


def digest(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """The fingerprint of these inputs of a chapter with these parameters."""
    entries = {**inputs, "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def contents(root: Path) -> list[str]:
    """All documents of the table of contents, in reading order."""
    try:
        toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
        parts = toc.get("parts", [toc])
        return [toc["root"], *(entry["file"] for part in parts for entry in part.get("chapters", []))]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise BuildError(f"_toc.yml is no table of contents: {what}") from None


def chapters(root: Path) -> dict[str, Chapter]:
    """The book's executed chapters by name, in reading order."""
    paths = [root / f"{name}.ipynb" for name in contents(root)]
    return {path.stem: Chapter(path.stem, path) for path in paths if path.exists()}


def chapter(root: Path, name: str) -> Chapter:
    """The chapter of this name.

    Raises:
        BuildError: there is none; the message names the nearest.
    """
    known = chapters(root)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise BuildError(f"unknown chapter {name!r}: {hint}")
    return known[name]


