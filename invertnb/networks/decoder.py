"""What-where decoders (Zhang et al. 2016): images from activations of VGG-16, pooling by pooling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invertnb import check
from invertnb.kernels.unpool import unpool
from invertnb.model import SWITCHES
from invertnb.networks.architecture import PREPROCESSING, VGG16, Preprocessing, Source
from invertnb.networks.download import sha256

WINDOW = (2, 2)
CENTER = 3  # of a window of 2 x 2, by kernel / 2 in each direction: its last place


class Decoder:
    """The encoder's blocks in reverse: unpooling, then as many 3 x 3 convolutions, ReLU between.

    One chain serves all layers: the decoder of pool(i) is its last i blocks, and a block gives an
    estimate of what stood before the encoder's block. What comes out is an image in [0, 1] less
    the mean of the training images; nothing holds it in that range.

    Args:
        tensors: "deconv(i,j).weight" (M, K, 3, 3) and ".bias" (M,), for all j of blocks 1 to some
            depth, as cross-correlations with padding 1.
        switches: what the unpooling was trained with, "known", "fixed" or "averaged".
        preprocessing: whose mean the images lack.
        source: which weights these are.

    Raises:
        ValueError: tensors that are missing or do not fit together.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], switches: str, preprocessing: Preprocessing,
        source: Source,
    ) -> None:
        self.switches = check.choice("switches", switches, SWITCHES)
        self.preprocessing, self.source = preprocessing, source
        self._stages: list[list[tuple[Tensor, Tensor]]] = []
        few = 3
        for block, filters in enumerate(VGG16.blocks, start=1):
            names = [f"deconv({block},{j})" for j in range(1, len(filters) + 1)]
            if not any(f"{name}.weight" in tensors for name in names):
                break
            stage = []
            for name in names:
                weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
                if weight is None or bias is None:
                    check.fail("tensors", sorted(tensors), f"{name}.weight and {name}.bias")
                weight, bias = weight.detach().float(), bias.detach().float()
                check.array(f"{name}.weight", weight, (few, "K", 3, 3))
                check.array(f"{name}.bias", bias, (few,))
                few = weight.shape[1]
                stage.insert(0, (weight, bias))
            self._stages.append(stage)
        if not self._stages:
            check.fail("tensors", sorted(tensors), "deconv(1,1).weight and more")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be decoded, pool(1) to pool(depth)."""
        return tuple(f"pool({i})" for i in range(1, len(self._stages) + 1))

    def to(self, device: str | torch.device) -> Decoder:
        """This decoder with its weights on a device."""
        self._stages = [[(w.to(device), b.to(device)) for w, b in stage] for stage in self._stages]
        return self

    def __call__(
        self, f: Tensor, layer: str, switches: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Images without their mean, (batch, 3, H, W), float32.

        Args:
            f: activations of the layer, true or reconstructed, (batch, K, n1, n2).
            layer: pool(i), one of `layers`.
            switches: for a decoder of known switches, the positions by pooling's name, for pool(1)
                to pool(i), as `Network.switches` gives them; any others may stand in their place.

        Raises:
            ValueError: an unknown layer; activations or switches that do not fit; switches given to
                a decoder that has its own, or not given to one that needs them.
        """
        depth = self.layers.index(check.choice("layer", layer, self.layers)) + 1
        K = self._stages[depth - 1][0][0].shape[1]
        check.array("f", f, ("batch", K, "n1", "n2"))
        wanted = self.layers[:depth] if self.switches == "known" else ()
        given = dict(switches or {})
        if sorted(given) != sorted(wanted):
            check.fail("switches", sorted(given), f"switches of {list(wanted)}")
        x = f.to(self._stages[0][0][0])
        with torch.no_grad():
            for block in range(depth, 0, -1):
                x = self._unpool(x, given.get(f"pool({block})"))
                for j, (weight, bias) in enumerate(self._stages[block - 1]):
                    x = F.conv2d(x, weight, bias, padding=1)
                    if block > 1 or j < len(self._stages[0]) - 1:
                        x = F.relu(x)
        return x

    def image(
        self, f: Tensor, layer: str, switches: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The decoded images with the mean added back, cut to [0, 1]."""
        return (self(f, layer, switches) + self.mean).clamp(0, 1)

    def target(self, images: Tensor) -> Tensor:
        """What the decoder was trained to give for these images (batch, 3, H, W) in [0, 1]."""
        return images.to(self.mean) - self.mean

    @property
    def mean(self) -> Tensor:
        """The mean of the training images by channel, (3, 1, 1)."""
        return self._stages[0][0][0].new_tensor(self.preprocessing.mean).view(3, 1, 1)

    def _unpool(self, x: Tensor, places: Tensor | None) -> Tensor:
        if self.switches == "averaged":
            return F.interpolate(x, scale_factor=2, mode="nearest") / 4
        if places is None:
            places = torch.full(x.shape, CENTER, dtype=torch.uint8, device=x.device)
        return unpool(x, places, WINDOW)


def load_decoder(switches: str = "known", path: str | Path | None = None) -> Decoder:
    """A decoder of the embedded network: one of the package's own, or another file like them.

    Args:
        switches: what it was trained with: "known", "fixed" or "averaged".
        path: a safetensors file of tensors "deconv(i,j).weight" and ".bias"; by default the
            package's, whose SHA-256 must be the one of its card.

    Raises:
        ValueError: unknown switches, a file that is damaged or holds something else.
        FileNotFoundError: no such file.
    """
    check.choice("switches", switches, SWITCHES)
    file = Path(path) if path else embedded(switches)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    digest = sha256(file)
    if path is None and digest != decoder_card(switches)["sha256"]:
        check.fail("decoder", file.name, f"the SHA-256 of its card, but found {digest}")
    label = f"decoder of the embedded network, {switches} switches"
    source = Source("embedded" if path is None else "file", label, file.name, digest)
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        check.fail("path", file.name, f"a safetensors file, but {error}")
    return Decoder(tensors, switches, PREPROCESSING["cifar10"], source)


def embedded(switches: str) -> Path:
    """The package's file for a kind of switches."""
    return Path(__file__).parent / "static" / f"vgg16_half_decoders_{switches}.safetensors"


def decoder_card(switches: str = "known") -> dict:
    """The model card of an embedded decoder: data, recipe, seed, held-out errors, curve, hash."""
    return json.loads(embedded(switches).with_suffix(".json").read_text())
