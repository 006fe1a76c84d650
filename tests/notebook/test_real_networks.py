"""What chapters on real networks share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from invertnb import networks
from invertnb.networks import VGG16, Network, Source
from invertnb.notebook import NetworkParameters
from invertnb.notebook.real_networks import inputs, slug


def network(last: str, source: Source) -> Network:
    full = networks.gaussian(VGG16, generator=torch.Generator().manual_seed(0), width=1 / 16)
    part = full.truncated(last)
    part.source = source
    return part


@pytest.mark.parametrize(
    ("last", "source", "label"),
    [
        ("pool(5)", Source("embedded", "x"), "vgg16-embedded"),
        ("pool(5)", Source("torchvision", "x", real=True, weights="IMAGENET1K_V1"), "vgg16-imagenet1k-v1"),
        ("pool(2)", Source("file", "x", real=True), "vgg16-blocks12"),
        ("conv(3,1)", Source("file", "x", real=True), "vgg16-blocks123"),
        ("pool(5)", Source("file", "x", real=True), "vgg16"),
        ("pool(5)", Source("file", "x"), "vgg16-narrow"),
        ("conv(1,2)", Source("random", "x"), "vgg16-blocks1-random"),
    ],
)  # fmt: skip
def test_a_label_names_what_is_there_and_never_two_networks_alike(last, source, label):
    assert slug(network(last, source)) == label


def test_paths_are_understood_from_where_the_command_is_called(tmp_path, monkeypatch):
    (tmp_path / "w.npz").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    given = NetworkParameters.parse({"weights": "w.npz", "images": "embedded", "skip_corrupt": "yes"})
    assert given == {"weights": str(tmp_path / "w.npz"), "images": "embedded", "skip_corrupt": True}
    assert NetworkParameters.parse({"weights": "nowhere.npz"}) == {"weights": "nowhere.npz"}


def test_the_network_and_the_pictures_are_those_that_are_asked_for():
    p = NetworkParameters()
    assert p.network().source == networks.load().source and p.network() is p.network()
    assert len(p.pictures(3)) == 3 and len(p.pictures(10**6)) == 10
    with pytest.raises(ValueError, match="preprocessing = 'caffe': expected none"):
        NetworkParameters(preprocessing="caffe").network()


def test_provenance_names_the_images_that_were_left_out(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    images = NetworkParameters(images=str(tmp_path), skip_corrupt=True).pictures(5)
    images.all()
    given = inputs(networks.load(), images)
    assert "without b.png" in given["images"] and images.sha256 in given["images"]
    assert networks.load().source.sha256 in given["weights"] and str(tmp_path.parent) not in str(given)
