"""Files from the network: checked by SHA-256, and either whole or not there."""

from __future__ import annotations

import hashlib
import socket
import urllib.error
from http.client import HTTPException
from pathlib import Path

import torch

TIMEOUT_S = 60  # without a byte, after which a download is given up


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
            there before and does not have this SHA-256, which is left as it is. What the disk has
            to say (full, read-only) comes as it is.
    """
    path = folder / url.rpartition("/")[2]
    if path.exists():
        found = sha256(path)
        if not found.startswith(digest):
            raise OSError(f"{path}: expected SHA-256 {digest}, but found {found}: remove this file")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        torch.hub.download_url_to_file(url, str(path), digest, progress)
    except urllib.error.HTTPError as error:
        answer = f"the server answered {error.code} {error.reason}"
        raise OSError(f"{url}: expected a file, but {answer}") from None
    except RuntimeError as error:  # torch's word for another hash
        came = f"what came is cut short or another file ({error})"
        raise OSError(f"{url}: expected SHA-256 {digest}, but {came}") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise OSError(f"{url}: expected a file, but there is no connection ({reason})") from None
    finally:
        socket.setdefaulttimeout(patience)
    return path
