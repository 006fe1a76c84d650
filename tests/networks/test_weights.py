"""Weights by tier: what is asked for, or a clear error; never something else."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from invertnb import networks
from invertnb.networks import VGG16, download, weights
from invertnb.networks.download import fetch, sha256


def equal(network, tensors) -> bool:
    return all(
        torch.equal(network.filters(layer)[part == "bias"], tensors[f"{layer}.{part}"].float())
        for layer in network.convolutions
        for part in ("weight", "bias")
    )


# --- the embedded checkpoint --------------------------------------------------------------------


def test_the_embedded_checkpoint_is_what_its_card_says():
    card = json.loads(weights.EMBEDDED.with_suffix(".json").read_text())
    assert weights.EMBEDDED.stat().st_size <= 8 * 10**6
    assert card["sha256"] == sha256(weights.EMBEDDED)
    assert card["accuracy"]["folded, float16 weights"] >= 0.91
    assert {len(curve) for curve in card["curves"].values()} == {card["recipe"]["epochs"]}
    tensors = load_file(weights.EMBEDDED)
    assert {each.dtype for each in tensors.values()} == {torch.float16}
    network = networks.load()
    assert network.layers == VGG16.layers and equal(network, tensors)
    half = [filters // 2 for block in VGG16.blocks for filters in block]
    assert [len(network.filters(name)[0]) for name in network.convolutions] == half
    assert (network.source.tier, network.source.real) == ("embedded", False)
    assert "CIFAR-10" in network.source.label and "half width" in network.source.label


def test_a_checkpoint_that_was_altered_is_refused(tmp_path, monkeypatch, refuses):
    copy = tmp_path / weights.EMBEDDED.name
    copy.write_bytes(weights.EMBEDDED.read_bytes()[:-1] + b"\1")
    copy.with_suffix(".json").write_text(weights.EMBEDDED.with_suffix(".json").read_text())
    monkeypatch.setattr(weights, "EMBEDDED", copy)
    refuses(networks.load, copy.name, "SHA-256")


def test_there_is_no_embedded_alexnet(refuses):
    refuses(lambda: networks.load("alexnet"), "embedded", "alexnet")


# --- local files --------------------------------------------------------------------------------


def test_three_formats_and_three_ways_of_naming_hold_the_same_network(narrow, state_dict, tmp_path):
    save_file(narrow, tmp_path / "ours.safetensors")
    torch.save(state_dict, tmp_path / "theirs.pth")
    caffe = {
        name.replace("(", "").replace(",", "_").replace(")", ""): each.numpy()
        for name, each in narrow.items()
    }
    assert "conv1_1.weight" in caffe
    np.savez(tmp_path / "caffe.npz", **caffe)
    for name, rule in (
        ("ours.safetensors", "torchvision"), ("theirs.pth", "torchvision"), ("caffe.npz", "caffe")
    ):  # fmt: skip
        network = networks.load("vgg16", tmp_path / name)
        assert equal(network, narrow)
        assert network.preprocessing.name == rule
        assert network.source.tier == "file" and not network.source.real  # too narrow
        assert "narrower than the paper's network" in network.source.label
        assert network.source.file == name and name in network.source.label
        assert str(tmp_path) not in network.source.label
        assert network.source.sha256 == sha256(tmp_path / name)
    assert networks.load("vgg16", tmp_path / name, preprocessing="features").preprocessing.order == "RGB"


def test_a_file_of_the_full_width_may_be_real(tmp_path):
    generator = torch.Generator().manual_seed(0)
    full = {
        "conv1_1.weight": torch.randn(64, 3, 3, 3, generator=generator).numpy(),
        "conv1_1.bias": torch.zeros(64).numpy(),
    }
    np.savez(tmp_path / "first.npz", **full)
    assert networks.load("vgg16", tmp_path / "first.npz").source.real


def test_a_copy_of_the_checkpoint_is_the_checkpoint(tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.EMBEDDED.read_bytes())
    network = networks.load("vgg16", copy)
    assert network.source == networks.load().source
    assert network.preprocessing.name == "cifar10"


@pytest.mark.parametrize("name", ["embedded", "torchvision", "IMAGENET1K_FEATURES"])
def test_weights_that_have_a_preprocessing_take_no_other(name, refuses):
    refuses(lambda: networks.load("vgg16", name, preprocessing="caffe"), "'caffe'", name)


def test_a_file_may_hold_the_first_layers_only(narrow, tmp_path):
    first = {name: each for name, each in narrow.items() if name < "conv(3"}
    save_file(first, tmp_path / "blocks12.safetensors")
    assert networks.load("vgg16", tmp_path / "blocks12.safetensors").layers == VGG16.layers[:6]


class Trap:
    """Leaves a trace if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, refuses):
    torch.save({"features.0.weight": Trap(str(tmp_path / "trace"))}, tmp_path / "bad.pth")
    refuses(lambda: networks.load("vgg16", tmp_path / "bad.pth"), "bad.pth", "format")
    np.savez(tmp_path / "bad.npz", **{"conv1_1.weight": np.array(Trap(str(tmp_path / "trace")))})
    refuses(lambda: networks.load("vgg16", tmp_path / "bad.npz"), "bad.npz", "format")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz", ".safetensors"])
def test_a_damaged_file_is_refused_by_name(narrow, tmp_path, suffix, refuses):
    path = tmp_path / f"damaged{suffix}"
    for content in (b"", b"no tensors here", pickle.dumps([1])):
        path.write_bytes(content)
        refuses(lambda: networks.load("vgg16", path), path.name, "weights")


def test_files_with_something_else_are_refused(tmp_path, refuses):
    torch.save([1, 2], tmp_path / "list.pt")
    refuses(lambda: networks.load("vgg16", tmp_path / "list.pt"), "list.pt", "state dict", "list")
    save_file({"layer1.weight": torch.ones(2)}, tmp_path / "resnet.safetensors")
    refuses(lambda: networks.load("vgg16", tmp_path / "resnet.safetensors"), "layer1.weight")
    save_file({"features.1.weight": torch.ones(2)}, tmp_path / "shifted.safetensors")
    refuses(lambda: networks.load("vgg16", tmp_path / "shifted.safetensors"), "features.1.weight")
    (tmp_path / "weights.h5").write_bytes(b"x")
    refuses(lambda: networks.load("vgg16", tmp_path / "weights.h5"), "weights.h5", ".safetensors")
    with pytest.raises(FileNotFoundError, match="'nowhere.npz': expected embedded, torchvision"):
        networks.load("vgg16", "nowhere.npz")
    refuses(lambda: networks.load("vgg19"), "vgg19")
    refuses(lambda: networks.load("vgg16", preprocessing="bgr"), "bgr")


# --- downloads ----------------------------------------------------------------------------------


def left(tmp_path) -> list:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "rule"),
    [("torchvision", "torchvision"), ("IMAGENET1K_V1", "torchvision"), ("IMAGENET1K_FEATURES", "features")],
)
def test_torchvisions_weights_come_once_and_are_checked_again(served, narrow, tmp_path, name, rule):
    for _ in range(2):
        network = networks.load("vgg16", name, progress=False)
        assert equal(network, narrow) and network.layers == VGG16.layers
    assert served.requests == 1
    assert (network.preprocessing.name, network.source.tier) == (rule, "torchvision")
    (kept,) = left(tmp_path)
    assert network.source.sha256 == sha256(kept) and network.source.real
    kept.write_bytes(b"altered")
    with pytest.raises(OSError, match="expected SHA-256 .* remove this file"):
        networks.load("vgg16", name, progress=False)
    assert kept.exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("cut", "cut short or another file"), ("other", "cut short or another file"),
     ("error", "the server answered 503")],
)  # fmt: skip
def test_a_download_that_fails_says_why_and_leaves_nothing(served, tmp_path, fault, message):
    served.fault = fault
    with pytest.raises(OSError, match=message):
        networks.load("vgg16", "torchvision", progress=False)
    assert served.requests == 1 and not left(tmp_path)
    served.fault = ""
    assert networks.load("vgg16", "torchvision", progress=False).source.tier == "torchvision"


def test_without_a_network_there_is_a_clear_error(served, tmp_path):
    served.close()
    with pytest.raises(OSError, match="expected a file, but there is no connection"):
        networks.load("vgg16", "torchvision", progress=False)
    assert not left(tmp_path)


def test_torchvision_still_names_its_files_by_the_digests_we_know():
    known = {weights.ENUMS["vgg16"]["IMAGENET1K_V1"].url, weights.ENUMS["alexnet"]["IMAGENET1K_V1"].url}
    for url in known:
        assert any(f"-{prefix}." in url for prefix in weights.DIGESTS)
    assert all(digest.startswith(prefix) for prefix, digest in weights.DIGESTS.items())
    assert {each.name for each in weights.ENUMS["vgg16"]} == {"IMAGENET1K_V1", "IMAGENET1K_FEATURES"}


def test_a_server_that_stalls_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    (server.folder / "x.bin").write_bytes(b"some bytes")
    server.fault = "stall"
    with pytest.raises(OSError, match="no connection .*timed out"):
        fetch(f"{server.url}/x.bin", "0" * 64, tmp_path / "kept", progress=False)
    assert not list((tmp_path / "kept").iterdir())


def test_fetch_understands_the_first_digits_of_a_digest(server, tmp_path):
    (server.folder / "x.bin").write_bytes(b"some bytes")
    digest = sha256(server.folder / "x.bin")
    path = fetch(f"{server.url}/x.bin", digest[:8], tmp_path / "kept", progress=False)
    assert path.read_bytes() == b"some bytes"
