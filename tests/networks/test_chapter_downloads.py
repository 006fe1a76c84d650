"""A chapter with weights that come from a server: whole or not at all, and labeled."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from invertnb import networks
from invertnb.chapters import sparsity as chapter
from invertnb.chapters.sparsity import verdicts
from invertnb.notebook import real_networks


@pytest.fixture
def parameters(served, tmp_path, monkeypatch):
    """torchvision's weights, which the local server has, and two images."""
    monkeypatch.setattr(networks.weights, "full_width", lambda chain, tensors: True)
    monkeypatch.setattr(chapter, "load_recorded", lambda name: {})
    real_networks._network.cache_clear()  # it knows weights by their name
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = torch.Generator().manual_seed(6)
    for i in range(2):
        pixels = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((256, 256)).save(folder / f"{i}.png")
    yield chapter.Parameters(
        weights="torchvision", images=str(folder), count=2, draws=3, bank_draws=1
    )
    real_networks._network.cache_clear()


def kept(tmp_path) -> list:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_downloaded_weights_give_the_claims_their_values(parameters, served, tmp_path):
    data = chapter.compute(parameters)
    assert served.requests == 1 and len(kept(tmp_path)) == 1
    assert data.live.real and data.live.tier == "torchvision"
    for record in verdicts.table2(data):
        assert record.value is not None and not record.readings
        assert "torchvision" in record.note and "folder photographs, 2 images" in record.note
        assert record.note.startswith("live: ")
    for record in (verdicts.pairs(data), verdicts.compressible(data)):
        assert isinstance(record.value, bool) and "torchvision" in record.note
    recording = chapter.recording(dataclasses.replace(parameters, count=1))
    assert recording.label == "vgg16-imagenet1k-v1" and served.requests == 1


@pytest.mark.parametrize("call", ["compute", "recording"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [("cut", "cut short or another file"), ("other", "cut short or another file"),
     ("error", "the server answered 503")],
)  # fmt: skip
def test_a_download_that_fails_ends_the_chapter(parameters, served, tmp_path, call, fault, message):
    served.fault = fault
    with pytest.raises(OSError, match=message):
        getattr(chapter, call)(parameters)
    assert not kept(tmp_path)
