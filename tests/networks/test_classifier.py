"""The classifiers of section 4.1 against torch's own modules, layer by layer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from invertnb.networks import classifier
from invertnb.networks.classifier import Classifier, LearnedLayer, RandomLayer, Standardize, spread
from invertnb.networks.notation import ConvolutionLayer, parse


def images(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Bytes whose neighbours resemble each other, and channels with moments of their own."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, shape[0], *(side + 2 for side in shape[1:]), generator=generator)
    smooth = F.avg_pool2d(rough, 3, stride=1)
    return (smooth * torch.linspace(90, 250, shape[0])[:, None, None]).to(torch.uint8)


def make(text: str, train: torch.Tensor, *, learned=False, seed: int = 0, **options) -> Classifier:
    generator = torch.Generator().manual_seed(seed)
    options = {"classes": 3, "dropout": 0.5} | options
    return Classifier(parse(text), train, learned=learned, generator=generator, **options)


def by_modules(x: torch.Tensor, layer: RandomLayer) -> torch.Tensor:
    """The layer in float64, batch norm with the moments of this very batch."""
    norm = torch.nn.BatchNorm2d(len(layer.weight), dtype=torch.float64)
    norm.weight.data = layer.scale.detach().double()
    norm.bias.data = layer.bias.detach().double()
    response = F.conv2d(x, layer.weight.double(), padding=layer.layer.size // 2)
    return F.max_pool2d(F.relu(norm.train()(response)), layer.layer.pool).detach()


# Filters with 9 M, 25 M or M entries: the first layer's moments come from patches, those of a
# second layer with M >= 18 filters of 3 x 3 below from responses.
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("(5)3c-2pmax", (3, 8, 8)),
        ("(5)5c-2pmax", (3, 9, 7)),
        ("(4)1c-3pmax", (1, 8, 8)),
        ("(20)3c-2pmax-(5)3c-2pmax", (3, 8, 8)),
        ("(20)3c-2pmax-(5)3c", (2, 11, 7)),
        ("(6)5c-(7)3c-3pmax", (3, 9, 9)),
    ],
)
def test_random_layers_are_convolution_batch_norm_relu_and_pooling(text, shape):
    train = images(30, *shape)
    net = make(text, train)
    net.calibrate(train)
    generator = torch.Generator().manual_seed(1)
    last = net.layers[-1]
    with torch.no_grad():  # learned, of either sign
        last.scale.copy_(torch.randn(len(last.scale), generator=generator))
        last.bias.copy_(torch.randn(len(last.bias), generator=generator))
        found = net.layers(net.standardize(train))
    want = net.standardize(train).double()
    for layer in net.layers:
        want = by_modules(want, layer)
    assert found.shape == want.shape
    torch.testing.assert_close(found.double(), want, rtol=1e-4, atol=1e-4)
    assert want.abs().max() > 1


def test_moments_come_from_images_at_equal_distances(monkeypatch):
    # A set in the order of its classes: the first half is dark, the second bright and rougher.
    train = torch.cat([images(40, 3, 8, 8) // 4, images(40, 3, 8, 8, seed=1)])
    net = make("(20)3c-2pmax-(5)3c", train)
    monkeypatch.setattr(classifier, "SAMPLE", 16)
    net.calibrate(train)
    some = net.layers[0](net.standardize(train[::5])).double()
    last = net.layers[1]
    response = F.conv2d(some, last.weight.double(), padding=1)
    variance, mean = torch.var_mean(response, (0, 2, 3), correction=0)
    torch.testing.assert_close(last.mean, mean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(last.variance, variance, rtol=1e-4, atol=0)
    assert spread(torch.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert spread(torch.arange(3), 4).tolist() == [0, 1, 2]


def test_random_filters_are_standard_normal_and_come_from_the_generator():
    train = images(4, 3, 8, 8)
    one, same, other = (
        make("(2048)5c-2pmax", train, seed=seed).layers[0].weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    n = one.numel()  # within four standard errors
    assert abs(one.double().mean()) < 4 / math.sqrt(n)
    assert abs(one.double().var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(one.double().pow(4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_what_is_learned():
    train = images(4, 3, 8, 8)
    random = dict(make("(5)3c-2pmax-(4)3c", train).named_parameters())
    norms = [f"layers.{i}.{part}" for i in (0, 1) for part in ("scale", "bias")]
    assert sorted(random) == sorted([*norms, "head.weight", "head.bias"])
    learned = make("(5)3c-2pmax-(4)3c", train, learned=True)
    shapes = [tuple(each.shape) for each in learned.parameters() if each.dim() == 4]
    assert shapes == [(5, 3, 3, 3), (4, 5, 3, 3)]
    assert all(isinstance(layer, LearnedLayer) for layer in learned.layers)


def test_initial_weights_are_uniform_with_torchs_bounds():
    net = make("(64)5c-2pmax", images(4, 3, 8, 8), learned=True, classes=40)
    for weight, fan in ((net.layers[0].weight, 75), (net.head.weight, 64 * 16)):
        bound = fan**-0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(weight.double().std() / (bound / math.sqrt(3)) - 1) < 0.02


def test_learned_layers_are_torchs_own(generator):
    train = images(6, 3, 9, 8)
    net = make("(5)3c-2pmax-(4)5c-3pmax", train, learned=True, dropout=0.0).train()
    first, second = (layer.weight for layer in net.layers)
    y = net.standardize(train)
    for weight, window in ((first, 2), (second, 3)):
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
        y = F.max_pool2d(F.relu(F.batch_norm(y, None, None, training=True)), window)
    want = F.linear(y.flatten(1), net.head.weight, net.head.bias)
    torch.testing.assert_close(net(train), want, rtol=1e-4, atol=1e-5)


def test_average_pooling_and_the_head():
    train = images(6, 3, 8, 8)
    net = make("(5)3c-2pmax-2pave", train).eval()
    net.calibrate(train)
    y = net.layers(net.standardize(train))
    want = y.reshape(6, 5, 2, 2, 2, 2).mean((3, 5)).reshape(6, 20)
    torch.testing.assert_close(net.features(train), want)
    torch.testing.assert_close(net(train), want @ net.head.weight.T + net.head.bias)
    assert net(train).shape == (6, 3)


def test_dropout_acts_in_training_only():
    train = images(6, 3, 8, 8)
    net = make("(50)3c-2pmax", train, dropout=0.5)
    net.calibrate(train)
    seen = []
    net.head.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    features = net.features(train)
    net.eval()(train)
    assert torch.equal(seen[0], features)
    torch.manual_seed(0)
    net.train()(train)
    kept = seen[1] != 0
    torch.testing.assert_close(seen[1][kept], 2 * features[kept])
    share = (kept & (features != 0)).sum() / (features != 0).sum()
    assert 0.4 < share < 0.6


def test_standardize_by_hand():
    # Channel 1: 0, 10, 20, 30, mean 15 and deviation sqrt(125); channel 2 is 7 throughout.
    train = torch.tensor([[[[0, 10]], [[7, 7]]], [[[20, 30]], [[7, 7]]]], dtype=torch.uint8)
    standardize = Standardize(train)
    assert standardize.mean.flatten().tolist() == [15, 7]
    assert standardize.deviation[0].item() == pytest.approx(math.sqrt(125))
    y = standardize(train)
    assert y[1, 0, 0].tolist() == pytest.approx([5 / math.sqrt(125), 15 / math.sqrt(125)])
    assert not y[:, 1].any()
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_standardize_adds_up_parts_of_different_sizes():
    train = images(5003, 2, 3, 2)
    train[5000:] = 255
    want = train.double().std((0, 2, 3), correction=0)
    standardize = Standardize(train)
    torch.testing.assert_close(standardize.deviation.flatten().double(), want, rtol=1e-6, atol=0)
    mean = train.double().mean((0, 2, 3))
    torch.testing.assert_close(standardize.mean.flatten().double(), mean, rtol=1e-6, atol=0)


def test_bfloat16_under_autocast_stays_near_float32():
    train = images(30, 3, 8, 8)
    net = make("(20)3c-2pmax-(5)3c", train).eval()
    net.calibrate(train)
    want = net.features(train)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.standardize(train).dtype == torch.bfloat16
        found = net.features(train)
    assert found.dtype == torch.bfloat16
    assert 0 < (found - want).norm() / want.norm() < 0.02


def test_arguments_are_checked(refuses):
    train = images(4, 3, 8, 8)
    refuses(lambda: make("(5)3c", train.float()), "train", "uint8")
    refuses(lambda: make("(5)3c", train[0]), "train", "(N, C, H, W)")
    refuses(lambda: make("(5)3c", train, classes=1), "classes = 1")
    refuses(lambda: make("(5)3c", train, dropout=1.0), "dropout = 1.0")
    refuses(lambda: make("(5)3c", train, learned=1), "learned = 1")
    refuses(lambda: make("(5)3c-9pmax", train), "image = (3, 8, 8)")
