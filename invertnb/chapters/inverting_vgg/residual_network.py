"""ResNet-18 for footnote 9: its weights, its convolutions as matrices, what stands between them.

Architecture: He et al. (2016), as torchvision has it. A block adds its input to what its branch
makes of it: y = ReLU(S x + F(x)) with F = BN conv2 ReLU BN conv1; the shortcut S is the identity,
or, in the first block of layer2 to layer4, a convolution 1 x 1 of stride 2 with its batch norm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from invertnb import FilterBank, check
from invertnb.networks import download
from invertnb.networks.architecture import PREPROCESSING, Preprocessing, Source
from invertnb.operators import Size

WEIGHTS = ("random", "torchvision")
STAGES = ("layer1", "layer2", "layer3", "layer4")
#: Maps of every stage have even sides for images whose sides are multiples of this.
EVEN = 64
CLASSES = {10: "cifar10", 1000: "torchvision"}


@dataclass(frozen=True, eq=False)
class Convolution(FilterBank):
    """A `FilterBank` whose code may leave entries at the far end of each axis without a row.

    A network rounds (size + 2 padding - l) / stride down, where `FilterBank` asks for an integer:
    with a stride of 2, sides are even and the last padding is of no use.

    Args:
        left: the remainder, 0 to stride - 1, which all sizes must have.
    """

    left: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("left", self.left, 0, self.stride - 1)

    def normalized(self) -> Convolution:
        """With filters of unit norm."""
        return Convolution(super().normalized().weight, self.stride, self.padding, self.left)

    def code_size(self, size: Size) -> Size:
        """(n1, n2) for images (H, W)."""
        sides = check.extent("size", size, self.dims)
        return super().code_size(tuple(side - self.left for side in sides))

    def _synthesis(self, z: Tensor) -> Tensor:
        return F.conv_transpose2d(
            z, self.weight, stride=self.stride, padding=self.padding, output_padding=self.left
        )


@dataclass(frozen=True)
class Trained:
    """A ResNet-18 in evaluation mode, and where its weights are from.

    Attributes:
        source: `real` where they were trained on ImageNet.
        preprocessing: what it was trained to see.
    """

    net: ResNet
    source: Source
    preprocessing: Preprocessing

    @property
    def blocks(self) -> dict[str, nn.Module]:
        """Its eight blocks by name, as "layer2.0"."""
        return {
            f"{stage}.{i}": block
            for stage in STAGES for i, block in enumerate(getattr(self.net, stage))
        }  # fmt: skip

    @property
    def convolutions(self) -> dict[str, nn.Conv2d]:
        """Convolutions within the residual stages by name, in order: 16 of 3 x 3, 3 shortcuts."""
        return {
            name: module
            for name, module in self.net.named_modules()
            if isinstance(module, nn.Conv2d) and name.startswith("layer")
        }

    def norm(self, name: str) -> nn.BatchNorm2d:
        """The batch norm behind a convolution."""
        name = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        return self.net.get_submodule(name)

    def bank(self, name: str) -> Convolution:
        """The filters of a convolution as they are, for maps of even sides."""
        module = self.convolutions[name]
        left = (2 * module.padding[0] - module.kernel_size[0]) % module.stride[0]
        return Convolution(module.weight.detach(), module.stride[0], module.padding[0], left)


@dataclass(frozen=True)
class Passed:
    """What a convolution sees, and of its output what the network passes on.

    Attributes:
        f: the input, (images, M, H, W).
        passed: bool, (images, K, n1, n2): where the next ReLU is not zero. It stands behind the
            batch norm, and behind the sum with the shortcut except for conv1.
    """

    f: Tensor
    passed: Tensor


def load(weights: str, generator: torch.Generator, *, progress: bool = True) -> Trained:
    """A ResNet-18 with exactly these weights.

    Args:
        weights: "random", Gaussian of variance 2 / (M l^2) (He et al. 2015) with new batch norms;
            "torchvision", IMAGENET1K_V1, downloaded once; or the path of a file .safetensors with
            the tensors of torchvision's ResNet-18, of 1000 classes or, as
            `invertnb.networks.train_resnet` writes it, 10.
        generator: of random weights.

    Raises:
        ValueError: a file with other tensors.
        FileNotFoundError: no such file.
        OSError: a download that failed, see `download.fetch`.
    """
    if weights == "random":
        return _random(generator)
    if weights == "torchvision":
        given = ResNet18_Weights.IMAGENET1K_V1
        prefix = re.search(r"-([0-9a-f]{8,})\.", given.url).group(1)
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path = download.fetch(given.url, prefix, folder, progress=progress)
        state = torch.load(path, map_location="cpu", weights_only=True)
        label, tier, name = f"torchvision's {given}", "torchvision", given.name
    else:
        path, tier, name = Path(weights), "file", ""
        if not path.is_file():
            expected = "random, torchvision or the path of a file .safetensors"
            raise FileNotFoundError(f"resnet = {path.name!r}: expected {expected}")
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            check.fail("resnet", path.name, f"a file .safetensors ({error})")
        label = f"ResNet-18 from the file {path.name}"
    classes = len(state["fc.bias"]) if "fc.bias" in state else 0
    if classes not in CLASSES:
        check.fail("resnet", path.name, "the tensors of ResNet-18, of 10 or 1000 classes")
    net = resnet18(num_classes=classes)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        check.fail("resnet", path.name, f"the tensors of torchvision's ResNet-18 ({reason})")
    if classes == 10:
        label = "ResNet-18 trained on CIFAR-10, not the paper's"
    source = Source(tier, label, path.name, download.sha256(path), classes == 1000, name)
    return Trained(net.eval().requires_grad_(False), source, PREPROCESSING[CLASSES[classes]])


def _random(generator: torch.Generator) -> Trained:
    check.generator("generator", generator)
    with torch.device("meta"):  # no weights from torch's own generator
        net = resnet18(num_classes=1)
    net.fc = nn.Identity()
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            spread = (2 / module.weight[0].numel()) ** 0.5
            nn.init.normal_(module.weight, std=spread, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # 1, 0, and running 0, 1
    source = Source("random", "ResNet-18 with random weights")
    return Trained(net.eval().requires_grad_(False), source, PREPROCESSING["torchvision"])


def calibrate(trained: Trained, pixels: Tensor) -> None:
    """Set the statistics of all batch norms to those of these images, layer after layer."""
    norms = [each for each in trained.net.modules() if isinstance(each, nn.BatchNorm2d)]
    for each in norms:
        each.reset_running_stats()
        each.momentum = 1.0
    trained.net.train()
    with torch.no_grad():
        trained.net(trained.preprocessing(pixels))
    trained.net.eval()


def run(trained: Trained, pixels: Tensor) -> tuple[dict[str, Passed], dict[str, Tensor]]:
    """What convolutions see and pass on, and the inputs of blocks, (images, M, H, W), by name.

    Args:
        pixels: (images, 3, H, W) in [0, 1], with sides that are multiples of `EVEN`.
    """
    if any(side % EVEN for side in pixels.shape[2:]):
        check.fail("pixels", pixels, f"images whose sides are multiples of {EVEN}")
    seen: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}

    def keep(into: Mapping[str, Tensor], name: str, what: int) -> Callable:
        def hook(_module, given, result) -> None:
            into[name] = (given[0], result)[what]  # no ReLU overwrites either

        return hook

    hooks = [
        module.register_forward_hook(keep(seen, name, 0))
        for name, module in trained.convolutions.items()
    ]
    hooks += [
        block.register_forward_hook(keep(out, name, 1)) for name, block in trained.blocks.items()
    ]
    try:
        with torch.no_grad():
            trained.net(trained.preprocessing(pixels))
    finally:
        for each in hooks:
            each.remove()
    found = {}
    for name, f in seen.items():
        block, _, part = name.partition(".")
        block = f"{block}.{part.partition('.')[0]}"
        after = seen[f"{block}.conv2"] if name.endswith("conv1") else out[block]
        found[name] = Passed(f, after > 0)
    return found, {name: seen[f"{name}.conv1"] for name in out}


def branch(block: nn.Module) -> Callable[[Tensor], Tensor]:
    """F of a block: x -> BN(conv2(ReLU(BN(conv1(x)))))."""

    def F_of(x: Tensor) -> Tensor:
        with torch.no_grad():
            return block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))

    return F_of
