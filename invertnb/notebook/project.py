"""Where the book's sources lie."""

from __future__ import annotations

from pathlib import Path


def root(start: Path | None = None) -> Path:
    """The folder that holds ``_toc.yml`` and ``book/``: above ``start`` (default: here), or the package's.

    Raises:
        FileNotFoundError: no such folder, as when the package was installed without its book.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "_toc.yml").is_file() and (folder / "book" / "claims.toml").is_file():
            return folder
    raise FileNotFoundError(
        f"no book at or above {here}: expected a folder with _toc.yml and book/claims.toml"
    )
