"""Inverting VGG: down to pixels without a decoder, against networks that can be undone by hand."""

import dataclasses
import math

import pytest
import torch

from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import downward, inputs
from invertnb.chapters.inverting_vgg.downward import BOUNDED, DECODER, ONE, SEVERAL, TRUE, UNTRAINED
from invertnb.networks import VGG16, Network, Source
from invertnb.networks.architecture import PREPROCESSING, Preprocessing

P = chapter.Parameters()
PLAIN = Preprocessing("plain", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chain(convolutions, filters=4, bias=0.1, preprocessing=PREPROCESSING["cifar10"], seed=7):
    """Random filters."""
    draw, tensors, channels = generator(seed), {}, 3
    for name in VGG16.convolutions[:convolutions]:
        weight = torch.randn(filters, channels, 3, 3, generator=draw) / math.sqrt(4.5 * channels)
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = torch.full((filters,), bias)
        channels = filters
    return Network(VGG16, tensors, preprocessing, Source("random", "small"))


def copies(bias=0.0, convolutions=5):
    """Every convolution copies its three channels and adds a bias."""
    delta = torch.zeros(3, 3, 3, 3)
    for i in range(3):
        delta[i, i, 1, 1] = 1
    tensors = {}
    for name in VGG16.convolutions[:convolutions]:
        tensors |= {f"{name}.weight": delta, f"{name}.bias": torch.full((3,), bias)}
    return Network(VGG16, tensors, PLAIN, Source("random", "copies"))


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(1, 3, 16, 16, generator=generator(1)) * 0.9 + 0.1


@pytest.fixture(scope="module")
def embedded():
    """One photograph at 32 pixels."""
    pictures = dataclasses.replace(P.pictures(1), side=32, resize=36)
    return inputs.gather(P.network(), pictures, 2, P.generator)


@pytest.fixture(scope="module")
def computed(embedded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downward, "SIDE", 32)
        return downward.compute(embedded, P.generator)


@pytest.mark.parametrize("bias", [0.0, 0.25])
@pytest.mark.parametrize("mode", list(downward.MODES))
def test_copies_come_back_where_the_switches_stand(pixels, bias, mode):
    network = copies(bias)
    f, switches = inputs.pooled(network, pixels, ("pool(1)", "pool(2)"))
    assert torch.allclose(f["pool(2)"].amax((2, 3)), pixels.amax((2, 3)) + 4 * bias)
    back = downward.down(network, f["pool(1)"], "pool(1)", switches, *downward.MODES[mode])
    largest = torch.nn.functional.max_pool2d(pixels, 2).repeat_interleave(2, 2)
    seen = pixels == largest.repeat_interleave(2, 3)
    assert torch.allclose(back[seen], pixels[seen], atol=1e-5 if mode == ONE else 1e-2)
    # Of the other places of a window conv(1,2) passes on a zero, which bounds take for something
    # that ReLU cut off: at most -bias in the image.
    rest = torch.full_like(back[~seen], -bias if mode == BOUNDED else 0.0)
    assert torch.allclose(back[~seen], rest, atol=1e-2)
    low = downward.down(network, f["pool(2)"], "pool(2)", switches, *downward.MODES[mode])
    found = torch.isclose(low, pixels, atol=1e-2) & (low > 0.05)
    assert int(found.sum()) >= pixels.numel() // 16


def test_the_first_step_is_the_transposed_one_at_its_best_length():
    network = chain(2, bias=0.3)
    x = torch.rand(2, 4, 6, 6, generator=generator(2))
    bank, bias = network.bank("conv(1,2)", normalized=False), network.filters("conv(1,2)")[1]
    h = (bank.analysis(x) + bias.view(-1, 1, 1)).relu()
    at = h > 0
    back = bank.synthesis(torch.where(at, h - bias.view(-1, 1, 1), 0.0), (6, 6))
    found = downward.step_back(network, "conv(1,2)", h, 1)
    assert (found >= 0).all()
    ratio = found[found > 0] / back[found > 0]
    for i in range(2):
        there = torch.where(at[i], bank.analysis(back)[i], 0.0)
        wanted = torch.where(at[i], h[i] - bias.view(-1, 1, 1), 0.0)
        best = float((there * wanted).sum() / there.square().sum())
        each = (found[i] / back[i])[found[i] > 0]
        assert torch.allclose(each, torch.full_like(each, best), rtol=1e-4)
    assert len(ratio.unique()) > 1  # a length for each image


def test_more_steps_undo_a_layer_that_cut_nothing_off():
    # More filters than channels and a large bias: f is the only solution.
    network = chain(2, filters=12, bias=20.0)
    x = torch.rand(1, 12, 6, 6, generator=generator(3))
    tall = chain(1, filters=30, bias=20.0)
    image = torch.randn(1, 3, 6, 6, generator=generator(4))
    h = tall.bank("conv(1,1)", normalized=False).analysis(image) + 20
    errors = [
        float((downward.step_back(tall, "conv(1,1)", h, steps) - image).norm() / image.norm())
        for steps in (1, 5, 40)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3
    # An image may be negative; what a layer takes may not.
    h = network.bank("conv(1,2)", normalized=False).analysis(-x) + 20
    assert (downward.step_back(network, "conv(1,2)", h, 3) >= 0).all()


def test_bounds_hold_better_where_they_are_asked_for():
    network = chain(2, filters=8, bias=-0.2)
    x = torch.rand(1, 8, 8, 8, generator=generator(5))
    bank, bias = network.bank("conv(1,2)", normalized=False), network.filters("conv(1,2)")[1]
    h = (bank.analysis(x) + bias.view(-1, 1, 1)).relu()
    most, cut = torch.zeros_like(h), h == 0
    free, bound = (downward.step_back(network, "conv(1,2)", h, 60, each) for each in (None, most))
    over_free, over_bound = (
        float((bank.analysis(f) + bias.view(-1, 1, 1)).clamp(min=0)[cut].norm())
        for f in (free, bound)
    )
    assert over_bound < 0.5 * over_free
    assert float((bound - x).norm()) < float((free - x).norm())
    # The true f violates nothing: with a bound above all, bounds change nothing.
    loose = downward.step_back(network, "conv(1,2)", h, 5, torch.full_like(h, 1e6))
    assert torch.allclose(loose, downward.step_back(network, "conv(1,2)", h, 5), atol=1e-6)


def test_unpooled_bounds_a_window_by_its_largest():
    h = torch.tensor([[[[5.0, 7.0]]]])
    places = torch.tensor([[[[3, 0]]]])
    at, most = downward.unpooled(h, places)
    assert at[0, 0].tolist() == [[0, 0, 7, 0], [0, 5, 0, 0]]
    assert most[0, 0].tolist() == [[5, 5, 7, 7], [5, 5, 7, 7]]


@pytest.mark.parametrize("name", ["cifar10", "caffe", "features"])
def test_pixels_of_a_prepared_image(pixels, name):
    network = chain(2, preprocessing=PREPROCESSING[name])
    less = downward.as_pixels(network, PREPROCESSING[name](pixels))
    assert torch.allclose(less + downward.average(network), pixels, atol=1e-5)


def test_no_step_is_refused(pixels):
    network = copies()
    f, switches = inputs.pooled(network, pixels, ("pool(1)",))
    with pytest.raises(ValueError, match="steps = 0: expected an integer of at least 1"):
        downward.down(network, f["pool(1)"], "pool(1)", switches, 0)


def test_cosines_of_layers_that_copy(pixels):
    found = downward.layer_cosines(copies(), pixels, ("pool(1)",))
    assert list(found) == ["conv(1,1)", "conv(1,2)"]
    assert found["conv(1,1)"][ONE] == pytest.approx(1)
    # Of the input of conv(1,2) the pooling shows the largest of each window.
    kept = torch.nn.functional.max_pool2d(pixels, 2).norm() / pixels.norm()
    assert found["conv(1,2)"][ONE] == pytest.approx(float(kept), rel=1e-5)


def test_errors_by_hand():
    pixels = torch.tensor([0.8, 0.5, 0.5]).view(1, 3, 1, 1)
    mean = torch.full((3, 1, 1), 0.5)
    given = torch.tensor([0.1, 0.1, 0.0]).view(1, 3, 1, 1)
    found = downward.Downward(pixels, mean, {TRUE: {"pool(1)": {ONE: given}}}, {})
    less, sine, added = found.errors(TRUE, "pool(1)", ONE)
    assert less == pytest.approx(math.sqrt(0.05) / 0.3)
    assert sine == pytest.approx(math.sqrt(0.5))
    assert added == pytest.approx(math.sqrt(0.05 / 1.14))
    assert found.best(TRUE, "pool(1)", ONE).flatten().tolist() == pytest.approx([0.65, 0.65, 0.5])


def test_compute_on_the_embedded_network(embedded, computed):
    assert computed.pixels.shape == (1, 3, 32, 32)
    pools = [f"pool({i})" for i in range(1, 5)]
    assert {start: list(each) for start, each in computed.images.items()} == {
        start: pools for start in (TRUE, downward.RECONSTRUCTED, UNTRAINED)
    }
    for pool in pools:
        assert set(computed.images[TRUE][pool]) == {*downward.MODES, DECODER}
        assert computed.errors(TRUE, pool, DECODER)[0] < computed.errors(TRUE, pool, BOUNDED)[0]
    assert computed.cosine(TRUE, "pool(1)", SEVERAL) > computed.cosine(TRUE, "pool(1)", ONE) + 0.2
    one, two = (computed.images[start]["pool(1)"][ONE] for start in (TRUE, downward.RECONSTRUCTED))
    assert not torch.allclose(one, two)
    assert list(computed.layers["learned"]) == list(VGG16.convolutions[:10])
    assert computed.layers["learned"] != computed.layers["random"]
    grid = downward.draw_downward(computed)
    assert len(grid.axes) == 4 * 6 and grid.axes[5].get_title() == "decoder"


def test_a_network_without_decoders_and_with_one_pooling():
    pictures = dataclasses.replace(P.pictures(1), side=32, resize=36)
    short = inputs.gather(chain(3), pictures, 2, P.generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downward, "SIDE", 16)
        found = downward.compute(short, P.generator)
    assert list(found.images[TRUE]) == ["pool(1)"]
    assert DECODER not in found.images[TRUE]["pool(1)"]
    assert len(downward.draw_downward(found).axes) == 5
    untrained = downward.twin(short.network, generator())
    assert untrained.filters("conv(1,1)")[0].shape == (4, 3, 3, 3)
    assert untrained.preprocessing is short.network.preprocessing


def test_recording_agrees_with_the_page(monkeypatch):
    monkeypatch.setattr(downward, "SIDE", 16)
    network, pixels = chain(4), torch.rand(2, 3, 16, 16, generator=generator(9))
    found = downward.without_decoder(network, pixels, ("pool(1)", "pool(2)"))
    assert list(found) == ["pool(1)", "pool(2)"]
    f, switches = inputs.pooled(network, pixels, ("pool(1)",))
    images = downward.descend(network, f, switches, [SEVERAL])
    errors = []
    for i in range(2):
        page = downward.Downward(
            pixels[i : i + 1], downward.average(network),
            {TRUE: {"pool(1)": {SEVERAL: images["pool(1)"][SEVERAL][i : i + 1]}}}, {},
        )  # fmt: skip
        errors.append(page.errors(TRUE, "pool(1)", SEVERAL))
    for kind, place in (("error", 0), ("best", 1)):
        mean, sd = found["pool(1)"][SEVERAL][kind]
        assert mean == pytest.approx((errors[0][place] + errors[1][place]) / 2, rel=0.01)
        assert sd == pytest.approx(abs(errors[0][place] - errors[1][place]) / 2**0.5, rel=0.05)
    alone = downward.without_decoder(network, pixels[:1], ("pool(1)",))["pool(1)"][SEVERAL]["best"]
    assert alone == [pytest.approx(errors[0][1], rel=0.01), 0]
    kept = downward.recording(chapter.Parameters(photographs=2))
    assert kept.label == "downward-vgg16-embedded-2"
    assert list(kept.results["downward"]["random"]) == [f"pool({i})" for i in range(1, 5)]
