"""Files from the network: checked by SHA-256, and either whole or not there."""

from __future__ import annotations

import hashlib
import urllib.error
from http.client import HTTPException
from pathlib import Path

import torch


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(url: str, digest: str, folder: Path, *, progress: bool = True) -> Path:
    """The file behind an address, from `folder` if it is there, and then checked all the same.

    Args:
        url: http, https or file.
        digest: the first digits of the file's SHA-256, at least 8; all 64 where they are known.
        folder: where files are kept; made if need be.
        progress: show a bar.

    Raises:
        OSError: no connection, an error of the server, or a file whose SHA-256 is another, such as
            one that was cut short; no part of it stays in the folder. Also for a file that was
            there before and does not have this SHA-256, which is left as it is.
    """
    path = folder / url.rpartition("/")[2]
    if path.exists():
        found = sha256(path)
        if not found.startswith(digest):
            raise OSError(f"{path}: expected SHA-256 {digest}, but found {found}: remove this file")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), digest, progress)
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: expected a file, but the server answered {error.code} {error.reason}") from None
    except RuntimeError as error:  # torch's word for another hash
        raise OSError(f"{url}: expected SHA-256 {digest}, but what came is cut short or another file ({error})") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise OSError(f"{url}: expected a file, but there is no connection ({reason})") from None
    return path
