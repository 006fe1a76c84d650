"""VGG-16 (configuration D) and AlexNet as chains of named layers, on torchvision's definitions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import AlexNet
from torchvision.models.vgg import make_layers

from invertnb import check
from invertnb.operators import FilterBank


@dataclass(frozen=True)
class Architecture:
    """A chain of convolutions (each with ReLU) and poolings.

    Attributes:
        name: as in a command line.
        blocks: the filters of each convolution at full width, a tuple for each block; a block ends
            with a pooling.
        published: the paper's name of each layer, as in Tables 2, 6 and 7.
    """

    name: str
    blocks: tuple[tuple[int, ...], ...]
    published: Mapping[str, str] = field(hash=False)

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names conv(i,j) in order."""
        return tuple(name for name in self.layers if name.startswith("conv"))

    @property
    def filters(self) -> tuple[int, ...]:
        """Filters of each convolution at full width, in order."""
        return tuple(many for block in self.blocks for many in block)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names conv(i,j) and pool(i) in order."""
        names = []
        for i, block in enumerate(self.blocks, start=1):
            names += [f"conv({i},{j})" for j in range(1, len(block) + 1)] + [f"pool({i})"]
        return tuple(names)

    def features(self, filters: Sequence[int]) -> nn.Sequential:
        """torchvision's modules, without memory for weights, for so many filters by convolution."""
        with torch.device("meta"):
            if self.name == "alexnet":
                return AlexNet(num_classes=1).features
            plan, left = [], list(filters)
            for block in self.blocks:
                plan += [*left[: len(block)], "M"]
                del left[: len(block)]
            return make_layers(plan)


def _vgg_names(blocks: tuple[tuple[int, ...], ...]) -> dict[str, str]:
    names = {}
    for i, block in enumerate(blocks, start=1):
        names |= {f"conv({i},{j})": f"c({i},{j})" for j in range(1, len(block) + 1)}
        names[f"pool({i})"] = f"p({i})"
    return names


_D = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# Simonyan and Zisserman (2015), table 1, column D.
VGG16 = Architecture("vgg16", _D, _vgg_names(_D))
# Krizhevsky (2014), "One weird trick": torchvision's AlexNet, with 64 filters where the network of
# 2012, which the paper's Table 6 fits, has 96.
ALEXNET = Architecture(
    "alexnet", ((64,), (192,), (384, 256, 256)),
    {
        "conv(1,1)": "conv1", "pool(1)": "pool1", "conv(2,1)": "conv2", "pool(2)": "pool2",
        "conv(3,1)": "conv3", "conv(3,2)": "conv4", "conv(3,3)": "conv5", "pool(3)": "pool5",
    },
)  # fmt: skip
ARCHITECTURES = {"vgg16": VGG16, "alexnet": ALEXNET}


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained to see: (scale * pixels - mean) / std for RGB pixels in [0, 1].

    Attributes:
        name: as in a command line.
        mean, std: by channel, in the order that the network takes.
        scale: 1, or 255 for networks that take bytes.
        order: "RGB" or "BGR".
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0
    order: str = "RGB"

    def __call__(self, images: Tensor) -> Tensor:
        """RGB images (batch, 3, H, W) in [0, 1] as the network takes them."""
        if self.order == "BGR":
            images = images.flip(1)
        mean, std = (images.new_tensor(each).view(3, 1, 1) for each in (self.mean, self.std))
        return (self.scale * images - mean) / std


PREPROCESSING = {
    each.name: each
    for each in (
        Preprocessing("torchvision", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        # IMAGENET1K_FEATURES: Caffe's weights, their channels turned to RGB.
        Preprocessing("features", (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
        Preprocessing("caffe", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 255.0, "BGR"),
        Preprocessing("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    )
}


@dataclass(frozen=True)
class Source:
    """Which weights a network has, to be written beside its numbers.

    Attributes:
        tier: "embedded", "torchvision", "file" or "random".
        label: a line for a reader.
        file: name of the file, without its folder; empty for random weights.
        sha256: of that file; empty for random weights.
        real: whether these may be weights that the paper speaks of, trained on ImageNet:
            torchvision's, or a file with filters as many as the architecture has.
        weights: torchvision's name of the weights; empty for others.
    """

    tier: str
    label: str
    file: str = ""
    sha256: str = ""
    real: bool = False
    weights: str = ""


class Network:
    """A network, from its first layer to any other, whose layers are known by name.

    Layers are conv(i,j), the j-th convolution of block i with its ReLU, and pool(i); the paper's
    own names ("c(1,1)", "conv5") are understood, too.

    Args:
        architecture: VGG16 or ALEXNET.
        tensors: "conv(i,j).weight" (K, M, l, l) and "conv(i,j).bias" (K,) of the first
            convolutions, at least one; the network ends after the pooling that follows the last
            one, if the whole block is there.
        preprocessing: applied to images before the first layer.
        source: which weights these are.

    Raises:
        ValueError: tensors that are missing, do not fit together or are not finite.
    """

    def __init__(
        self, architecture: Architecture, tensors: Mapping[str, Tensor],
        preprocessing: Preprocessing, source: Source,
    ) -> None:
        self.architecture, self.preprocessing, self.source = architecture, preprocessing, source
        given = [name for name in architecture.convolutions if f"{name}.weight" in tensors]
        expected = architecture.convolutions[: len(given)]
        if not given or tuple(given) != expected:
            wanted = next(name for name in architecture.convolutions if name not in given)
            expected = f"the first convolutions, but {wanted} is missing"
            check.fail("tensors", sorted(tensors), expected)
        widths = [len(tensors[f"{name}.weight"]) for name in given]
        modules = architecture.features([*widths, *architecture.filters[len(widths) :]])
        self._parts: dict[str, list[nn.Module]] = {}
        self._fill(modules, tensors, given)

    def _fill(
        self, modules: nn.Sequential, tensors: Mapping[str, Tensor], given: Sequence[str]
    ) -> None:
        """Modules by layer, with their weights, up to the first convolution that has none."""
        names = iter(self.architecture.layers)
        channels = 3
        for module in modules:
            if isinstance(module, nn.ReLU):
                self._parts[name].append(nn.ReLU())  # noqa: F821 (the layer before)
                continue
            name = next(names)
            if isinstance(module, nn.Conv2d):
                if name not in given:
                    return
                weight, bias = self._pair(name, tensors, channels, module.kernel_size[0])
                channels = len(weight)
                module.weight = nn.Parameter(weight, requires_grad=False)
                module.bias = nn.Parameter(bias, requires_grad=False)
            self._parts[name] = [module]

    @staticmethod
    def _pair(
        name: str, tensors: Mapping[str, Tensor], channels: int, side: int
    ) -> tuple[Tensor, Tensor]:
        weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        if bias is None:
            check.fail("tensors", sorted(tensors), f"{name}.bias beside {name}.weight")
        weight, bias = weight.detach().float(), bias.detach().float()
        check.array(f"{name}.weight", weight, ("K", channels, side, side))
        check.array(f"{name}.bias", bias, (len(weight),))
        return weight, bias

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, in order."""
        return tuple(self._parts)

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions, in order."""
        return tuple(name for name in self._parts if name.startswith("conv"))

    def layer(self, name: str) -> str:
        """The layer's name conv(i,j) or pool(i), for that name or the paper's own.

        Raises:
            ValueError: a name that this network does not have.
        """
        ours = {theirs: ours for ours, theirs in self.architecture.published.items()}
        found = ours.get(name, name)
        if found not in self._parts:
            check.fail("layer", name, "one of " + ", ".join(self._parts))
        return found

    def truncated(self, last: str) -> Network:
        """The network up to and including one layer; it shares the weights."""
        last, part = self.layer(last), object.__new__(Network)
        part.architecture, part.preprocessing = self.architecture, self.preprocessing
        part.source = self.source
        keep = self.layers[: self.layers.index(last) + 1]
        part._parts = {name: self._parts[name] for name in keep}
        return part

    def to(self, device: str | torch.device) -> Network:
        """This network with its weights on a device."""
        for modules in self._parts.values():
            for module in modules:
                module.to(device)
        return self

    def filters(self, layer: str) -> tuple[Tensor, Tensor]:
        """Weight (K, M, l, l) and bias (K,) of a convolution, float32."""
        module = self._module(layer, nn.Conv2d, "a convolution")
        return module.weight.detach(), module.bias.detach()

    def bank(self, layer: str, normalized: bool = True) -> FilterBank:
        """The filters as the W of section 2.2, with the layer's stride and padding; unit norm."""
        module = self._module(layer, nn.Conv2d, "a convolution")
        bank = FilterBank(module.weight.detach(), module.stride[0], module.padding[0])
        return bank.normalized() if normalized else bank

    def activations(
        self, images: Tensor, layers: Iterable[str] | None = None, *, rectified: bool = True
    ) -> dict[str, Tensor]:
        """Outputs by layer's name, (batch, K, n1, n2), float32.

        Args:
            images: RGB (batch, 3, H, W) in [0, 1].
            layers: which; all by default. Nothing is computed beyond the last of them.
            rectified: False gives convolutions before their ReLU.

        Raises:
            ValueError: unknown layers; images of another shape or range, or too small.
        """
        wanted = [self.layer(name) for name in (self.layers if layers is None else layers)]
        found: dict[str, Tensor] = {}
        x = self._first(images)
        last = max(self.layers.index(name) for name in wanted) if wanted else -1
        with torch.inference_mode():
            for name in self.layers[: last + 1]:
                module, *rest = self._parts[name]
                x = self._room(name, module, x)
                if name in wanted and not rectified:
                    found[name] = x
                for each in rest:
                    x = each(x)
                if name in wanted and (rectified or not rest):
                    found[name] = x
        return {name: found[name].clone() for name in wanted}

    def before(self, images: Tensor, layer: str, *, rectified: bool = True) -> Tensor:
        """The input of a layer: the output of the one before it, or the prepared images."""
        place = self.layers.index(self.layer(layer))
        if place == 0:
            return self._first(images)
        name = self.layers[place - 1]
        return self.activations(images, [name], rectified=rectified)[name]

    def switches(self, images: Tensor, pool: str) -> Tensor:
        """Where each maximum of pool(i) stood in its window, row-major, int64 (batch, K, n1, n2)."""
        module = self._module(pool, nn.MaxPool2d, "a pooling")
        x = self.before(images, pool)
        size, stride = module.kernel_size, module.stride
        flat = F.max_pool2d(x, size, stride, return_indices=True)[1]
        rows, columns = flat // x.shape[3], flat % x.shape[3]
        top = stride * torch.arange(flat.shape[2], device=flat.device).view(-1, 1)
        left = stride * torch.arange(flat.shape[3], device=flat.device)
        return (rows - top) * size + columns - left

    def _first(self, images: Tensor) -> Tensor:
        check.array("images", images, ("batch", 3, "H", "W"))
        low, high = (float(end) for end in images.aminmax())
        if low < 0 or high > 1:
            check.fail("images", images, f"values from 0 to 1, but found {low} to {high}")
        weight = self._parts[self.layers[0]][0].weight
        return self.preprocessing(images.to(weight.device, torch.float32))

    def _module(self, layer: str, kind: type, what: str) -> nn.Module:
        module = self._parts[self.layer(layer)][0]
        if not isinstance(module, kind):
            check.fail("layer", layer, what)
        return module

    @staticmethod
    def _room(name: str, module: nn.Module, x: Tensor) -> Tensor:
        padding, side = (
            each if isinstance(each, int) else each[0]
            for each in (module.padding, module.kernel_size)
        )
        if min(x.shape[2:]) + 2 * padding < side:
            check.fail("images", x, f"images large enough for {name}, a window of {side}")
        return module(x)

    def __repr__(self) -> str:
        return f"{self.architecture.name} to {self.layers[-1]}, {self.source.label}"


def parse_layer(name: str) -> tuple[int, ...]:
    """(i, j) of conv(i,j), (i,) of pool(i)."""
    return tuple(int(number) for number in re.findall(r"\d+", name))
