"""Weights by tier: embedded in the package, torchvision's, a local file, or random."""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from invertnb import check
from invertnb.networks.architecture import (
    ARCHITECTURES, PREPROCESSING, Architecture, Network, Source,
)  # fmt: skip
from invertnb.networks.download import fetch, sha256

STATIC = Path(__file__).parent / "static"
EMBEDDED = STATIC / "vgg16_half_cifar10.safetensors"

# torchvision names a file after the first digits of its SHA-256; all of them, where they are known.
DIGESTS = {
    "397923af": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "7be5be79": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
}
ENUMS = {"vgg16": models.VGG16_Weights, "alexnet": models.AlexNet_Weights}
DEFAULT = "IMAGENET1K_V1"
# What the readers of the three formats raise for a file that is damaged or something else.
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, RuntimeError,
    ValueError, KeyError,
)


def load(
    architecture: str = "vgg16", weights: str | Path = "embedded", *,
    preprocessing: str | None = None, progress: bool = True,
) -> Network:
    """A network with weights of exactly the tier that is asked for; there is no fallback.

    Args:
        architecture: "vgg16" or "alexnet".
        weights: "embedded", the checkpoint in this package (VGG-16 at half width, CIFAR-10);
            "torchvision" or "IMAGENET1K_V1", and for VGG-16 "IMAGENET1K_FEATURES", the weights that
            were trained with Caffe: downloaded once to torch's cache; or the path of a file
            .safetensors, .npz, .pt or .pth, which may hold the first convolutions only.
        preprocessing: for a file, what the network was trained to see: "torchvision", "features",
            "caffe" or "cifar10". By default "caffe" where the file names its tensors as Caffe does
            (conv1_1.weight), and else "torchvision".
        progress: show a bar while a file comes.

    Raises:
        ValueError: an unknown name, a file that does not hold these layers, or a preprocessing for
            weights that have their own.
        FileNotFoundError: no such file.
        OSError: a download that failed, see `download.fetch`.
    """
    chain = ARCHITECTURES[check.choice("architecture", architecture, tuple(ARCHITECTURES))]
    if preprocessing is not None:
        check.choice("preprocessing", preprocessing, tuple(PREPROCESSING))
        if not Path(weights).is_file():
            check.fail("preprocessing", preprocessing, f"none: that of {str(weights)!r} is known")
    names = {"torchvision": DEFAULT} | {each.name: each.name for each in ENUMS[chain.name]}
    if str(weights) in names:
        return _from_torchvision(chain, names[str(weights)], progress)
    if str(weights) == "embedded":
        return _embedded(chain)
    return _from_file(chain, Path(weights), preprocessing)


def gaussian(
    architecture: Architecture, *, generator: torch.Generator, width: float = 1.0
) -> Network:
    """Random weights of variance 2 / (M l^2), with which ReLU keeps energy (He et al. 2015); no bias.

    Args:
        architecture: VGG16 or ALEXNET.
        generator: a CPU generator.
        width: share of the filters of each layer, for VGG-16.

    Raises:
        ValueError: arguments out of range, or a width other than 1 for AlexNet.
    """
    check.generator("generator", generator)
    check.real("width", width, 0.0, strict=True)
    if width != 1 and architecture.name != "vgg16":
        check.fail("width", width, "1: torchvision has AlexNet at one width")
    modules = architecture.features(architecture.filters)
    sides = [module.kernel_size[0] for module in modules if hasattr(module, "weight")]
    tensors, channels = {}, 3
    filters = [round(width * each) for each in architecture.filters]
    for name, side, many in zip(architecture.convolutions, sides, filters, strict=True):
        weight = torch.randn(many, channels, side, side, generator=generator)
        tensors[f"{name}.weight"] = weight * math.sqrt(2 / weight[0].numel())
        tensors[f"{name}.bias"] = torch.zeros(many)
        channels = many
    source = Source("random", f"random Gaussian weights, {architecture.name} at width {width:g}")
    return Network(architecture, tensors, PREPROCESSING["torchvision"], source)


def card() -> dict:
    """What is known of the embedded checkpoint: data, recipe, seed, accuracy, curves, hash."""
    return json.loads(EMBEDDED.with_suffix(".json").read_text())


def _embedded(chain: Architecture) -> Network:
    if chain.name != "vgg16":
        expected = f"torchvision or a file: none of {chain.name} is embedded"
        check.fail("weights", "embedded", expected)
    expected, found = card()["sha256"], sha256(EMBEDDED)
    if found != expected:
        check.fail("weights", EMBEDDED.name, f"SHA-256 {expected}, but found {found}")
    label = "embedded checkpoint: VGG-16 at half width, trained on CIFAR-10"
    source = Source("embedded", label, EMBEDDED.name, found)
    return Network(chain, load_file(EMBEDDED), PREPROCESSING["cifar10"], source)


def _from_torchvision(chain: Architecture, name: str, progress: bool) -> Network:
    weights = ENUMS[chain.name][name]
    prefix = re.search(r"-([0-9a-f]{8,})\.", weights.url).group(1)
    folder = Path(torch.hub.get_dir()) / "checkpoints"  # where torchvision itself keeps them
    path = fetch(weights.url, DIGESTS.get(prefix, prefix), folder, progress=progress)
    transforms = "features" if name == "IMAGENET1K_FEATURES" else "torchvision"
    source = Source(
        "torchvision", f"torchvision's {weights}", path.name, sha256(path), True, weights.name
    )
    return Network(chain, _ours(chain, _read(path)), PREPROCESSING[transforms], source)


def _from_file(chain: Architecture, path: Path, preprocessing: str | None) -> Network:
    if not path.is_file():
        expected = "embedded, torchvision, IMAGENET1K_FEATURES or the path of a file"
        raise FileNotFoundError(f"weights = {str(path)!r}: expected {expected}")
    digest = sha256(path)
    if chain.name == "vgg16" and digest == card()["sha256"]:
        return _embedded(chain)  # a copy of the checkpoint is the checkpoint
    tensors = _read(path)
    if preprocessing is None:
        preprocessing = "caffe" if any(_CAFFE.match(name) for name in tensors) else "torchvision"
    tensors = _ours(chain, tensors)
    real = full_width(chain, tensors)
    narrow = "" if real else ", narrower than the paper's network"
    label = f"file {path.name} ({preprocessing} preprocessing{narrow})"
    source = Source("file", label, path.name, digest, real)
    return Network(chain, tensors, PREPROCESSING[preprocessing], source)


def full_width(chain: Architecture, tensors: Mapping[str, Tensor]) -> bool:
    """Whether each convolution that is there has as many filters as the architecture says."""
    widths = dict(zip(chain.convolutions, chain.filters, strict=True))
    return all(
        len(tensors[f"{name}.weight"]) == many
        for name, many in widths.items() if f"{name}.weight" in tensors
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; nothing in the file is executed."""
    if path.suffix not in (".safetensors", ".npz", ".pt", ".pth"):
        check.fail("weights", path.name, "a file .safetensors, .npz, .pt or .pth")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        check.fail("weights", path.name, f"tensors in the format of its suffix ({reason})")
    if not isinstance(state, Mapping):
        check.fail("weights", path.name, f"a state dict, but it holds a {type(state).__name__}")
    return {str(name): each for name, each in state.items() if isinstance(each, Tensor)}


_CAFFE = re.compile(r"conv(\d)_(\d)\.(weight|bias)$")
_TORCHVISION = re.compile(r"(?:module\.)?features\.(\d+)\.(weight|bias)$")
_OURS = re.compile(r"conv\(\d,\d\)\.(weight|bias)$")


def _ours(chain: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of our layers; what belongs to a classifier is left out."""
    modules = chain.features(chain.filters)
    places = [place for place, module in enumerate(modules) if hasattr(module, "weight")]
    by_place = dict(zip(places, chain.convolutions, strict=True))
    found = {}
    for name, tensor in tensors.items():
        if match := _TORCHVISION.match(name):
            layer, part = by_place.get(int(match[1])), match[2]
            if layer is None:
                check.fail("weights", name, f"a convolution of {chain.name}, at one of {places}")
        elif match := _CAFFE.match(name):
            layer, part = f"conv({match[1]},{match[2]})", match[3]
            if layer not in chain.convolutions:
                check.fail("weights", name, f"a convolution of {chain.name}")
        elif match := _OURS.match(name):
            layer, part = name.rpartition(".")[0], match[1]
        else:
            continue
        found[f"{layer}.{part}"] = tensor
    if not found:
        expected = "names features.0.weight, conv1_1.weight or conv(1,1).weight"
        check.fail("weights", sorted(tensors)[:5], expected)
    return found
