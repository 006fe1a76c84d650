"""Layer 1 of the random CNN of Table 5: 3 to 2048 filters of 5 x 5 on CIFAR-10, pooled 2 x 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import encode, response_moments
from ...kernels.encoder import encode_naive
from .frame import Task, close, compiled, name_of

SIDE, CHANNELS, LENGTH, WINDOW = 32, 3, 5, 2
# Images and filters. The literal form holds a few arrays of 6.4 MB an image: 20 GB on a GPU.
SIZES = {"cpu": (8, 2048), "cuda": (1024, 2048)}
OUTPUTS = (SIDE - LENGTH + 1) ** 2  # responses of one filter to one image


def tasks(device: str) -> Iterator[Task]:
    """The layer, its gradient in scale and bias, and its batch-norm statistics."""
    images, K = SIZES[device]
    size = f"{images}x{CHANNELS}x{SIDE}x{SIDE}, K={K} l={LENGTH}"
    operations = 2.0 * CHANNELS * LENGTH**2 * K * OUTPUTS * images
    for dtype in (torch.float32, torch.bfloat16):
        rtol = 1.6e-2 if dtype == torch.bfloat16 else 2e-3 if device == "cuda" else 1e-5
        x, weight, scale, bias = _layer(images, K, dtype, device)
        ways = {"literal": encode_naive, "pooling first": _pooling_first}
        ways |= {f"{name}, compiled": compiled(way) for name, way in ways.items()}
        ways["encode"] = _encode
        yield Task(
            "encode", size, name_of(dtype),
            {name: _bound(way, x, weight, scale, bias) for name, way in ways.items()},
            close(rtol), operations=operations, items=images,
        )  # fmt: skip
        ways = {"literal": encode_naive, "pooling first": _pooling_first, "encode": _encode}
        yield Task(
            "encode, learning scale and bias", size, name_of(dtype),
            {name: _bound(_gradient(way), x, weight, scale, bias) for name, way in ways.items()},
            close(10 * rtol), operations=operations, items=images,
        )  # fmt: skip
    x, weight, *_ = _layer(images, K, torch.float32, device)
    yield Task(
        "response_moments", size, "float32",
        {"literal": lambda: _moments_of_responses(x, weight),
         "response_moments": lambda: tuple(response_moments(x, weight))},
        close(1e-3 if device == "cuda" else 1e-5), items=images,
    )  # fmt: skip


def _layer(images: int, K: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(images, CHANNELS, SIDE, SIDE, generator=g)
    weight = torch.randn(K, CHANNELS, LENGTH, LENGTH, generator=g) / math.sqrt(CHANNELS * LENGTH**2)
    scale, bias = torch.randn(2, K, generator=g)
    return tuple(t.to(device, dtype) for t in (x, weight, scale, bias))


def _pooling_first(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, window: int, padding: int, stride: int
) -> Tensor:
    """The best that separate operations do: scale in the filters, channels last, ReLU in place."""
    x, weight = (
        t.contiguous(memory_format=torch.channels_last) for t in (x, weight * scale.view(-1, 1, 1, 1))
    )
    return F.max_pool2d(F.conv2d(x, weight, bias, stride, padding), window).relu_()


def _encode(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, window: int, padding: int, stride: int
) -> Tensor:
    return encode(x, weight, scale, bias, window=window, padding=padding, stride=stride)


def _bound(way: Callable, *tensors: Tensor) -> Callable[[], object]:
    return lambda: way(*tensors, WINDOW, 0, 1)


def _gradient(way: Callable) -> Callable:
    def run(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, *geometry: int) -> tuple[Tensor, ...]:
        learned = scale.detach().requires_grad_(), bias.detach().requires_grad_()
        return torch.autograd.grad(way(x, weight, *learned, *geometry).sum(), learned)

    return run


def _moments_of_responses(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(F.conv2d(x, weight), (0, 2, 3), correction=0)
    return mean, variance
