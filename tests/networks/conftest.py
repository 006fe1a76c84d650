"""Small networks in the formats of real ones, and a server for them."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest
import torch

from invertnb.networks import VGG16, weights
from invertnb.networks.download import sha256

NARROW = (2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 6)  # filters of the thirteen convolutions
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of the convolutions in torchvision's chain


@pytest.fixture
def narrow() -> dict[str, torch.Tensor]:
    """Weights of a narrow VGG-16 under our names, with seed 0."""
    generator = torch.Generator().manual_seed(0)
    tensors, channels = {}, 3
    for name, filters in zip(VGG16.convolutions, NARROW, strict=True):
        tensors[f"{name}.weight"] = torch.randn(filters, channels, 3, 3, generator=generator) / 3
        tensors[f"{name}.bias"] = torch.randn(filters, generator=generator) / 10
        channels = filters
    return tensors


@pytest.fixture
def state_dict(narrow) -> dict[str, torch.Tensor]:
    """The same under torchvision's names, with a classifier that is not ours."""
    names = dict(zip(VGG16.convolutions, PLACES, strict=True))
    state = {}
    for name, tensor in narrow.items():
        layer, _, part = name.rpartition(".")
        state[f"features.{names[layer]}.{part}"] = tensor
    return state | {"classifier.0.weight": torch.full((2, 2), torch.nan)}


class Server:
    """Serves the files of a folder; `fault` spoils the answers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fault, self.requests = folder, "", 0
        self.over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                if outer.fault == "stall":
                    outer.over.wait(10)
                    return
                if outer.fault == "error":
                    self.send_error(503)
                    return
                body = (outer.folder / self.path.lstrip("/")).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if outer.fault == "other":
                    body = bytes(len(body))
                self.wfile.write(body[: len(body) // 2] if outer.fault == "cut" else body)

            def log_message(self, *arguments) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    running = Server(tmp_path / "served")
    yield running
    running.close()


@pytest.fixture
def served(server, state_dict, tmp_path, monkeypatch):
    """torchvision's download of VGG-16, from a small file on a local server and into a new cache."""
    part = tmp_path / "part.pth"
    torch.save(state_dict, part)
    digest = sha256(part)
    name = f"vgg16-{digest[:8]}.pth"
    part.rename(server.folder / name)
    enums = {}
    for each in ("IMAGENET1K_V1", "IMAGENET1K_FEATURES"):
        enums[each] = type("Weights", (), {"name": each, "url": f"{server.url}/{name}"})()

    class Enum(dict):
        def __iter__(self):
            return iter(self.values())

    monkeypatch.setitem(weights.ENUMS, "vgg16", Enum(enums))
    monkeypatch.setitem(weights.DIGESTS, digest[:8], digest)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    return server
