"""The classifiers of section 4.1: layers with random or learned filters, dropout, softmax.

The random rows of Table 1 keep their Gaussian filters; batch norm's scale and bias and the linear
classifier are learned. In the learned rows everything is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invertnb import check
from invertnb.encoder import Moments, encode, response_moments
from invertnb.networks.notation import Architecture, ConvolutionLayer

# Up to this many entries M l^2 of a filter, the moments of the responses come from the patches'
# covariance, which is exact over the whole training set; beyond it, from responses to a part of it.
PATCH = 160
SAMPLE = 2000  # images for those
BATCH = 250


class Standardize(nn.Module):
    """Bytes (batch, C, H, W) to numbers with mean 0 and deviation 1 in each channel.

    Mean and deviation are those of the training images, and part of the network's state.
    """

    def __init__(self, train: Tensor) -> None:
        super().__init__()
        values = torch.stack([some.double().flatten(2).mean((0, 2)) for some in train.split(5000)])
        sizes = torch.tensor([len(some) for some in train.split(5000)], device=train.device)
        share = (sizes / len(train)).double()[:, None]
        squares = torch.stack(
            [some.double().square().flatten(2).mean((0, 2)) for some in train.split(5000)]
        )
        mean = (share * values).sum(0)
        deviation = ((share * squares).sum(0) - mean.square()).clamp(min=1e-12).sqrt()
        self.register_buffer("mean", mean.float().view(-1, 1, 1))
        self.register_buffer("deviation", deviation.float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = (x.float() - self.mean) / self.deviation
        if torch.is_autocast_enabled(y.device.type):
            y = y.to(torch.get_autocast_dtype(y.device.type))
        return y.contiguous(memory_format=torch.channels_last)


class RandomLayer(nn.Module):
    """Fixed N(0, 1) filters, batch norm with learnable scale and bias, ReLU, max pooling: `encode`.

    Batch norm's moments are those over the training set with the scales 1 and biases 0 that
    training starts from, set once by `calibrate`. The filters below do not move, so these are the
    moments that batches scatter around; learned scales below change them, which this layer's own
    scale and bias can undo.
    """

    def __init__(self, channels: int, layer: ConvolutionLayer, generator: torch.Generator) -> None:
        super().__init__()
        shape = (layer.filters, channels, layer.size, layer.size)
        self.layer = layer
        self.register_buffer("weight", torch.randn(shape, generator=generator))
        self.register_buffer("mean", torch.zeros(layer.filters, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(layer.filters, dtype=torch.float64))
        self.scale = nn.Parameter(torch.ones(layer.filters))
        self.bias = nn.Parameter(torch.zeros(layer.filters))

    def forward(self, x: Tensor) -> Tensor:
        scale, bias = Moments(self.mean, self.variance).normalization(self.scale, self.bias)
        return encode(
            x, self.weight.to(x.dtype), scale.to(x.dtype), bias.to(x.dtype),
            window=self.layer.pool, padding=self.layer.padding,
        )  # fmt: skip

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Take the moments of the responses to x (batch, M, H, W)."""
        weight, padding = self.weight.to(x.dtype), self.layer.padding
        if weight[0].numel() <= PATCH:
            self.mean, self.variance = response_moments(x, weight, padding=padding)
            return
        total = torch.zeros_like(self.mean)
        squares, count = torch.zeros_like(total), 0
        for some in x.split(BATCH):
            response = F.conv2d(some, weight, padding=padding).transpose(0, 1).flatten(1).float()
            count += response.shape[1]
            total += response.sum(1)
            squares += response.square().sum(1)
        self.mean = total / count
        self.variance = (squares / count - self.mean.square()).clamp(min=0)


class LearnedLayer(nn.Sequential):
    """Convolution, batch norm, ReLU, max pooling; all learned."""

    def __init__(self, channels: int, layer: ConvolutionLayer) -> None:
        conv = nn.Conv2d(channels, layer.filters, layer.size, padding=layer.padding, bias=False)
        super().__init__(
            conv, nn.BatchNorm2d(layer.filters), nn.ReLU(inplace=True), nn.MaxPool2d(layer.pool)
        )
        self.layer = layer

    @property
    def weight(self) -> Tensor:
        """The filters, (K, M, l, l)."""
        return self[0].weight


class Classifier(nn.Module):
    """`standardize`, `layers`, average pooling, dropout and `head`: scores of the classes.

    Takes bytes (batch, C, H, W) and returns (batch, classes). Under torch.autocast the images are
    in its dtype from the start, and convolutions with random filters run in it too.

    Args:
        architecture: as `notation.parse` makes it.
        train: training images, uint8 (N, C, H, W): their moments set `standardize` and, for random
            filters, batch norm.
        classes: how many.
        learned: everything learned; else random filters that stay.
        dropout: probability, before the head.
        generator: draws filters and initial weights, on the CPU.

    Raises:
        ValueError: images that are no bytes, or too small for the poolings.
    """

    def __init__(
        self, architecture: Architecture, train: Tensor, classes: int, *, learned: bool,
        dropout: float, generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(train, Tensor) or train.dtype != torch.uint8 or train.dim() != 4:
            check.fail("train", train, "images as a uint8 tensor of shape (N, C, H, W)")
        check.integer("classes", classes, 2)
        check.flag("learned", learned)
        if not 0 <= dropout < 1:
            check.fail("dropout", dropout, "a probability below 1")
        self.architecture, self.learned = architecture, learned
        features = architecture.features(tuple(train.shape[1:]))
        channels = [train.shape[1], *(layer.filters for layer in architecture.layers)]
        pairs = list(zip(channels, architecture.layers, strict=False))
        self.standardize = Standardize(train)
        self.layers = nn.Sequential(
            *(LearnedLayer(M, layer) if learned else RandomLayer(M, layer, generator)
              for M, layer in pairs)
        )  # fmt: skip
        self.average, self.dropout = architecture.average, nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)
        with torch.no_grad():
            drawn = [self.head.weight, self.head.bias]
            drawn += [layer.weight for layer in self.layers if learned]
            for each in drawn:  # torch's own default, from the explicit generator
                fan = features if each.dim() < 4 else each[0].numel()
                each.uniform_(-(fan**-0.5), fan**-0.5, generator=generator)
        self.to(train.device, memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, (batch, features), without dropout."""
        y = self.layers(self.standardize(x))
        if self.average > 1:
            y = F.avg_pool2d(y, self.average)
        return y.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(x)))

    @torch.no_grad()
    def calibrate(self, train: Tensor) -> None:
        """Set batch norm's moments of random layers from training images, bottom up."""
        x = self.standardize(train)
        for number, layer in enumerate(self.layers):
            if isinstance(layer, LearnedLayer):
                continue
            layer.calibrate(x)
            if number + 1 < len(self.layers):
                x = torch.cat([layer(some) for some in spread(x, SAMPLE).split(BATCH)])


def spread(x: Tensor, count: int) -> Tensor:
    """So many of x (N, ...) at equal distances, or all: the first would be of the first class."""
    if len(x) <= count:
        return x
    return x[torch.arange(count, device=x.device) * len(x) // count]
