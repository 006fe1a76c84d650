"""Decoders: against torch's own unpooling, on a narrow network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.testing import assert_close

from invertnb.networks import VGG16, Network, Source
from invertnb.networks.architecture import PREPROCESSING
from invertnb.networks.decoder import Decoder, load_decoder

SOURCE = Source("file", "narrow")
KINDS = ("known", "fixed", "averaged")


@pytest.fixture
def encoder(narrow) -> Network:
    return Network(VGG16, narrow, PREPROCESSING["cifar10"], SOURCE)


@pytest.fixture
def mirrored(narrow) -> dict[str, torch.Tensor]:
    """Random weights of a decoder of pool(1) to pool(3) for the narrow network."""
    g = torch.Generator().manual_seed(1)
    tensors = {}
    for name in VGG16.convolutions[:7]:
        many, few = narrow[f"{name}.weight"].shape[:2]
        tensors[f"de{name}.weight"] = torch.randn(few, many, 3, 3, generator=g) / (3 * many**0.5)
        tensors[f"de{name}.bias"] = torch.randn(few, generator=g) / 10
    return tensors


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(2))


def by_hand(tensors, f, depth, flat, kind):
    """The same with torch's unpooling and one convolution after another."""
    x = f
    for block in range(depth, 0, -1):
        if kind == "known":
            x = F.max_unpool2d(x, flat[block], 2)
        elif kind == "fixed":
            wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
            wide[:, :, 1::2, 1::2] = x
            x = wide
        else:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
        for j in range(len(VGG16.blocks[block - 1]), 0, -1):
            name = f"deconv({block},{j})"
            x = F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)
            x = x if (block, j) == (1, 1) else F.relu(x)
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_against_torch(encoder, mirrored, images, kind, depth):
    decoder = Decoder(mirrored, kind, PREPROCESSING["cifar10"], SOURCE)
    assert decoder.layers == ("pool(1)", "pool(2)", "pool(3)")
    layer = f"pool({depth})"
    f = encoder.activations(images, [layer])[layer]
    names = decoder.layers[:depth]
    switches = {name: encoder.switches(images, name) for name in names} if kind == "known" else None
    flat = {
        int(name[5]): F.max_pool2d(encoder.before(images, name), 2, return_indices=True)[1]
        for name in names
    }
    found = decoder(f, layer, switches)
    assert found.shape == images.shape
    assert_close(found, by_hand(mirrored, f, depth, flat, kind), rtol=1e-4, atol=1e-5)
    mean = torch.tensor(PREPROCESSING["cifar10"].mean).view(3, 1, 1)
    assert_close(decoder.image(f, layer, switches), (found + mean).clamp(0, 1))
    assert_close(decoder.target(images), images - mean)


def test_other_switches_give_another_image(encoder, mirrored, images):
    decoder = Decoder(mirrored, "known", PREPROCESSING["cifar10"], SOURCE)
    f = encoder.activations(images, ["pool(1)"])["pool(1)"]
    own = {"pool(1)": encoder.switches(images, "pool(1)")}
    moved = {"pool(1)": (own["pool(1)"] + 1) % 4}
    assert not torch.allclose(decoder(f, "pool(1)", own), decoder(f, "pool(1)", moved), atol=1e-3)


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"layer": "pool(4)"}, ("layer = 'pool(4)'", "pool(3)")),
        ({"f": torch.zeros(1, 9, 6, 8)}, ("f =", "3")),
        ({"switches": None}, ("switches = []", "pool(1)")),
        ({"switches": {"pool(2)": torch.zeros(1, 3, 12, 16, dtype=torch.int64)}}, ("pool(2)",)),
        ({"switches": {"pool(1)": torch.full((1, 3, 12, 16), 4)}}, ("4", "3")),
        ({"switches": {"pool(1)": torch.zeros(1, 3, 6, 6, dtype=torch.int64)}}, ("(1, 3, 12, 16)",)),
    ],
)
def test_bad_input_is_named(mirrored, refuses, change, parts):
    decoder = Decoder(mirrored, "known", PREPROCESSING["cifar10"], SOURCE)
    good = {
        "f": torch.zeros(1, 3, 12, 16), "layer": "pool(1)",
        "switches": {"pool(1)": torch.zeros(1, 3, 12, 16, dtype=torch.int64)},
    }  # fmt: skip
    refuses(lambda: decoder(**(good | change)), *parts)


def test_switches_for_a_decoder_that_has_its_own_are_refused(mirrored, refuses):
    decoder = Decoder(mirrored, "fixed", PREPROCESSING["cifar10"], SOURCE)
    at = {"pool(1)": torch.zeros(1, 3, 12, 16, dtype=torch.int64)}
    refuses(lambda: decoder(torch.zeros(1, 3, 12, 16), "pool(1)", at), "switches = ['pool(1)']", "[]")


@pytest.mark.parametrize("name", ["deconv(1,1).weight", "deconv(2,2).bias"])
def test_weights_that_are_missing_are_named(mirrored, refuses, name):
    del mirrored[name]
    refuses(lambda: Decoder(mirrored, "known", PREPROCESSING["cifar10"], SOURCE), name.partition(".")[0])


def test_weights_that_do_not_fit_are_named(mirrored):
    mirrored["deconv(2,1).weight"] = torch.zeros(5, 4, 3, 3)
    with pytest.raises(ValueError, match=r"deconv\(2,1\)"):
        Decoder(mirrored, "known", PREPROCESSING["cifar10"], SOURCE)


def test_a_file_of_ones_own(mirrored, tmp_path):
    save_file(mirrored, tmp_path / "own.safetensors")
    decoder = load_decoder("averaged", tmp_path / "own.safetensors")
    assert decoder.layers[-1] == "pool(3)" and decoder.source.tier == "file"
    assert decoder.source.file == "own.safetensors" and len(decoder.source.sha256) == 64
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        load_decoder("known", tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"bad.safetensors.*expected"):
        load_decoder("known", tmp_path / "bad.safetensors")
