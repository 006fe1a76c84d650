"""A layer of the random-filter CNNs of section 4.1 (Tables 1 and 5): filters, batch norm, pooling."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels import encoder
from invertnb.kernels.patches import filter_rows, patch_moments

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def encode(
    x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None, *,
    window: int = 2, padding: int = 0, stride: int = 1,
) -> Tensor:
    """``max_pool(relu(scale * conv(x, weight) + bias))``, without storing the responses.

    With scale and bias from `Moments.normalization` this is a layer of the paper's random CNNs:
    convolution, batch norm with learnable scale and bias, ReLU, 2 x 2 max pooling. NaN propagates;
    responses beyond the last whole window are dropped, as in torch's max_pool2d.

    One product with the patches of x, pooled as it is made, for filters of few entries: on an NVIDIA
    GPU from sm_90 on a Triton kernel up to M l^2 = 160 (not for float64), on the CPU plain PyTorch up to 128
    where x and weight need no gradient. Everything else, and what torch.compile traces on the CPU,
    is convolution, pooling, then scale, bias and ReLU on the pooled values. Sums are made in
    float32 at least; float32 on a CUDA device multiplies in TF32 where
    torch.backends.cudnn.conv.fp32_precision (or allow_tf32) lets a convolution do so, which is
    torch's default.

    Args:
        x: images (batch, M, H, W) in float16, bfloat16, float32 or float64, in any layout; the
            batch may be empty.
        weight: filters (K, M, l, l), in the dtype and on the device of x.
        scale: a factor of each filter's response, (K,), of any sign; None for 1.
        bias: (K,), added after the scale; None for 0.
        window: side of the square pooling windows, which do not overlap; 1 pools nothing.
        padding: zeros on each side of the images, from 0 to l - 1.
        stride: of the convolution.

    Returns:
        (batch, K, n1 // window, n2 // window) for responses (n1, n2), channels_last in memory
        whatever the layout of x. Differentiable once in x, weight, scale and bias; where scale is
        0, in the scale from the right.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or no whole window.
    """
    _check_layer(x, weight, padding, stride, least=0)
    K, l = len(weight), weight.shape[-1]
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None:
            _check_tensor(name, value, (K,), like=x)
    check.integer("window", window, 1)
    n = [(side + 2 * padding - l) // stride + 1 for side in x.shape[2:]]
    if min(n) < window:
        check.fail("window", window, f"at most the {n[0]} x {n[1]} responses of a filter")
    return encoder.encode(x, weight, scale, bias, window, padding, stride)


class Moments(NamedTuple):
    """Mean and variance of each filter's response over images and positions, (K,) in float64.

    The variance is the biased one, by which batch norm divides.
    """

    mean: Tensor
    variance: Tensor

    def normalization(
        self, gamma: Tensor, beta: Tensor, eps: float = 1e-5
    ) -> tuple[Tensor, Tensor]:
        """The scale and the bias of `encode` that make batch norm with these parameters.

        scale = gamma / sqrt(variance + eps) and bias = beta - scale * mean, in the dtype of gamma;
        differentiable in gamma and beta.

        Raises:
            ValueError: gamma or beta not (K,), of different dtypes, or not on the moments' device.
        """
        for name, value in (("gamma", gamma), ("beta", beta)):
            _check_tensor(name, value, tuple(self.mean.shape), device=self.mean.device)
        if beta.dtype != gamma.dtype:
            check.fail("beta", beta, "the dtype of gamma")
        check.real("eps", eps, 0)
        scale = gamma.double() / (self.variance + eps).sqrt()
        bias = beta.double() - scale * self.mean
        return scale.to(gamma.dtype), bias.to(gamma.dtype)


def response_moments(x: Tensor, weight: Tensor, *, padding: int = 0, stride: int = 1) -> Moments:
    """Moments of the responses to fixed filters, from those of the patches: no response is made.

    With patches of mean m and covariance C, filter w responds with mean <w, m> and variance
    w^T C w. For layer 1 of Table 5, C is 75 x 75 and costs 1/27 of the operations of the 2048
    filters' responses, of which a step of batch norm would keep 6.4 MB an image.

    Args:
        x: images (batch, M, H, W) as for `encode`, at least one.
        weight: filters (K, M, l, l).
        padding, stride: of the convolution. All responses count, even those that pooling drops.

    Returns:
        Moments in float64, computed in float64 throughout; rounding can only be seen in a variance
        that is 1e-12 or less of the largest.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check_layer(x, weight, padding, stride, least=1)
    mean, covariance = patch_moments(x, weight.shape[-1], padding, stride)
    rows = filter_rows(weight).double()
    return Moments(rows @ mean, ((rows @ covariance) * rows).sum(1).clamp(min=0))


def _check_layer(x: Any, weight: Any, padding: Any, stride: Any, least: int) -> None:
    _check_tensor("x", x, ("batch", "M", "H", "W"))
    if len(x) < least:
        check.fail("x", x, "one image at least")
    _check_tensor("weight", weight, ("K", x.shape[1], "l", "l"), like=x)
    K, M, l, width = weight.shape
    if width != l or not K or not M or not l:
        check.fail("weight", weight, "square filters (K, M, l, l), one at least")
    check.integer("padding", padding, 0, l - 1)
    check.integer("stride", stride, 1)
    if min(x.shape[2:]) + 2 * padding < l:
        check.fail("x", x, f"images of {l - 2 * padding} x {l - 2 * padding} at least, for the filters")


def _check_tensor(
    name: str, value: Any, shape: tuple[int | str, ...], like: Tensor | None = None,
    device: torch.device | None = None,
) -> None:
    # Not check.array: half precision is fine here, NaN propagates, and nothing is read from a GPU.
    fits = isinstance(value, Tensor) and value.dim() == len(shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        check.fail(name, value, "a tensor of shape (" + ", ".join(map(str, shape)) + ")")
    if value.dtype not in DTYPES:
        check.fail(name, value, "dtype float16, bfloat16, float32 or float64")
    if like is not None and (value.dtype, value.device) != (like.dtype, like.device):
        kind = str(like.dtype).removeprefix("torch.")
        check.fail(name, value, f"{kind} on {like.device} like x")
    if device is not None and value.device != device:
        check.fail(name, value, f"a tensor on {device}")
