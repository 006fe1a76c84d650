"""A layer of the random CNNs: batch norm from patches, the pieces together, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from invertnb import FilterBank, Moments, encode, response_moments
from invertnb.kernels import patches
from invertnb.kernels.launch import INTERPRET

G = torch.Generator().manual_seed(0)
X, W = torch.randn(3, 3, 9, 10, generator=G), torch.randn(6, 3, 5, 5, generator=G)
ONE = torch.ones(6)


@pytest.fixture(params=[(0, 1), (2, 1), (1, 2)])
def geometry(request):
    return dict(zip(("padding", "stride"), request.param, strict=True))


def images(dtype=torch.float64, device="cpu"):
    """Correlated pixels far from zero mean, as those of photographs are."""
    x = F.avg_pool2d(torch.randn(3, 3, 12, 13, generator=G.manual_seed(1), dtype=torch.float64), 4, 1)
    return (100 + 40 * x).to(device, dtype)


def test_moments_are_those_of_the_responses(geometry, device):
    x, weight = images(device=device), W.double().to(device)
    moments = response_moments(x, weight, **geometry)
    response = F.conv2d(x, weight, **geometry)
    mean, variance = response.mean((0, 2, 3)), response.var((0, 2, 3), correction=0)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(moments.variance, variance, rtol=1e-10, atol=0)


def test_moments_of_half_precision_are_made_in_float64(device):
    x, weight = images(torch.bfloat16, device), W.bfloat16().to(device)
    moments = response_moments(x, weight)
    assert moments.mean.dtype == moments.variance.dtype == torch.float64
    expected = response_moments(x.double(), weight.double())
    for one, other in zip(moments, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("each", [1, 2])
def test_moments_of_parts_are_merged(each, monkeypatch):
    x, weight = images(), W.double()
    x = x + torch.arange(3).view(-1, 1, 1, 1) * 1000  # the parts' means lie far apart
    monkeypatch.setattr(patches, "ENTRIES", each * x[0].numel() * 25)
    response = F.conv2d(x, weight)
    moments = response_moments(x, weight)
    torch.testing.assert_close(moments.mean, response.mean((0, 2, 3)), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(
        moments.variance, response.var((0, 2, 3), correction=0), rtol=1e-10, atol=0
    )


def test_a_constant_response_has_no_negative_variance():
    flat = torch.full((2, 3, 9, 10), 1 / 3)
    assert (response_moments(flat, W).variance == 0).all()
    # Filters of zero sum see nothing of an offset, however the rounding falls.
    weight = W - W.mean((2, 3), keepdim=True)
    offsets = torch.randn(50, 3, 1, 1, generator=G).expand(-1, -1, 5, 5)
    assert (response_moments(offsets, weight).variance >= 0).all()


@pytest.fixture(params=["ieee", "tf32"])
def precision(request):
    """Of float32 convolutions on a CUDA device, and of the kernel under the interpreter."""
    convolution = torch.backends.cudnn.conv
    before, convolution.fp32_precision = convolution.fp32_precision, request.param
    yield request.param
    convolution.fp32_precision = before


def test_a_layer_is_batch_norm_relu_and_pooling(precision, geometry, device):
    x, weight = images(torch.float32, device), W.to(device)
    gamma, beta = torch.randn(2, 6, generator=G.manual_seed(2)).to(device)
    scale, bias = response_moments(x, weight, **geometry).normalization(gamma, beta, eps=1e-3)
    response = F.conv2d(x.double(), weight.double(), **geometry)
    normal = F.batch_norm(response, None, None, gamma.double(), beta.double(), True, eps=1e-3)
    expected = F.max_pool2d(F.relu(normal), 2)
    result = encode(x, weight, scale, bias, **geometry)
    # float32 responses of pixels around 100: the mean is subtracted after rounding.
    allowed = 1e-3 + 2e-5 * expected
    if precision == "tf32" and (device == "cuda" or INTERPRET):
        # Roundings to ten bits of fraction add up in squares: their spread is 0.8 of 2^-11 here.
        squares = F.max_pool2d(F.conv2d(x.double() ** 2, weight.double() ** 2, **geometry), 2)
        allowed = allowed + 2 * 2**-11 * scale.double().abs().view(-1, 1, 1) * squares.sqrt()
    assert result.shape == expected.shape and ((result - expected).abs() <= allowed).all()


def test_gamma_and_beta_learn_through_the_layer(device):
    x, weight = images(device=device), W.double().to(device)
    gamma = torch.ones(6, dtype=torch.float64, device=device, requires_grad=True)
    beta = torch.zeros_like(gamma, requires_grad=True)
    encode(x, weight, *response_moments(x, weight).normalization(gamma, beta)).square().sum().backward()
    got = gamma.grad, beta.grad
    response = F.conv2d(x, weight)
    normal = F.batch_norm(response, None, None, gamma, beta, True)
    expected = torch.autograd.grad(F.max_pool2d(F.relu(normal), 2).square().sum(), (gamma, beta))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_responses_are_those_of_the_operator():
    # W x of section 2.2, as convolution layers elsewhere in the package.
    code = FilterBank(W, padding=2).analysis(X)
    torch.testing.assert_close(encode(X, W, window=1, padding=2), code.relu())


def layer(x=X, weight=W, *tensors, **settings):
    return encode(x, weight, *tensors, **settings)


CASES = {
    "x: no tensor": (lambda: layer([1.0]), "x = [1.0]", "(batch, M, H, W)"),
    "x: axes": (lambda: layer(X[0]), "x = float32 tensor of shape (3, 9, 10)", "(batch, M, H, W)"),
    "x: integers": (lambda: layer(X.int()), "x = int32", "float16, bfloat16"),
    "x: small": (lambda: layer(X[..., :4]), "x = ", "5 x 5 at least"),
    "x: small, padded": (lambda: layer(X[:, :, :2], padding=1), "x = ", "3 x 3 at least"),
    "weight: no tensor": (lambda: layer(X, None), "weight = None", "(K, 3, l, l)"),
    "weight: signals": (lambda: layer(X, W[..., 0]), "weight = ", "(K, 3, l, l)"),
    "weight: channels": (lambda: layer(X, W[:, :2]), "of shape (6, 2, 5, 5)", "(K, 3, l, l)"),
    "weight: not square": (lambda: layer(X, W[..., :4]), "of shape (6, 3, 5, 4)", "square"),
    "weight: empty": (lambda: layer(X, W[:0]), "of shape (0, 3, 5, 5)", "one at least"),
    "weight: no channels": (lambda: layer(X[:, :0], W[:, :0]), "of shape (6, 0, 5, 5)", "one at least"),
    "weight: dtype": (lambda: layer(X, W.double()), "weight = float64", "float32 on cpu like x"),
    "weight: device": (lambda: layer(X, W.to("meta")), "on meta", "float32 on cpu like x"),
    "scale: number": (lambda: layer(X, W, 2.0), "scale = 2.0", "(6)"),
    "scale: shape": (lambda: layer(X, W, ONE[:5]), "scale = float32 tensor of shape (5,)", "(6)"),
    "scale: axes": (lambda: layer(X, W, ONE.view(6, 1, 1)), "scale = ", "(6)"),
    "bias: dtype": (lambda: layer(X, W, ONE, ONE.half()), "bias = float16", "float32 on cpu like x"),
    "window: zero": (lambda: layer(window=0), "window = 0", "at least 1"),
    "window: float": (lambda: layer(window=2.0), "window = 2.0", "an integer"),
    "window: too large": (lambda: layer(window=6), "window = 6", "5 x 6 responses"),
    "padding: negative": (lambda: layer(padding=-1), "padding = -1", "from 0 to 4"),
    "padding: a filter's length": (lambda: layer(padding=5), "padding = 5", "from 0 to 4"),
    "stride: zero": (lambda: layer(stride=0), "stride = 0", "at least 1"),
    "moments: no image": (lambda: response_moments(X[:0], W), "x = ", "one image"),
    "moments: weight": (lambda: response_moments(X, W[:, :2]), "weight = ", "(K, 3, l, l)"),
    "moments: stride": (lambda: response_moments(X, W, stride=True), "stride = True", "an integer"),
    "gamma: shape": (lambda: Moments(ONE, ONE).normalization(ONE[:5], ONE), "gamma = ", "(6)"),
    "beta: dtype": (lambda: Moments(ONE, ONE).normalization(ONE, ONE.half()), "beta = ", "gamma"),
    "beta: device": (lambda: Moments(ONE, ONE).normalization(ONE, ONE.to("meta")), "beta = ", "on cpu"),
    "eps: negative": (lambda: Moments(ONE, ONE).normalization(ONE, ONE, -1e-5), "eps = ", "at least 0"),
    "eps: nan": (lambda: Moments(ONE, ONE).normalization(ONE, ONE, math.nan), "eps = nan", "finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])
