"""Data flows one way: the import contracts of pyproject.toml, [tool.importlinter]."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint(root: Path) -> subprocess.CompletedProcess:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-P", "-c", command, "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
        timeout=120,
    )


def test_contracts_are_kept():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_broken_contract_is_found(tmp_path):
    # A copy of the package's bare files with two imports that point upwards.
    for source in (ROOT / "invertnb").rglob("*.py"):
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    model = tmp_path / "invertnb" / "model.py"
    text = model.read_text(encoding="utf-8")
    model.write_text(text + "\nimport matplotlib\nimport invertnb.iht\n", encoding="utf-8")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "invertnb.model -> invertnb.iht" in result.stdout
    assert "invertnb.model -> matplotlib" in result.stdout
