"""The chains of named layers, against torchvision's own networks and by hand."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from invertnb import ModelSparse, networks
from invertnb.networks import ALEXNET, VGG16, Network, Source
from invertnb.networks.architecture import PREPROCESSING, Architecture


def chain(architecture: Architecture, tensors: dict) -> Network:
    return Network(architecture, tensors, PREPROCESSING["torchvision"], Source("file", "test"))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_layers_are_those_of_the_papers_tables():
    assert len(VGG16.convolutions) == 13 and len(VGG16.layers) == 18
    assert VGG16.layers[:4] == ("conv(1,1)", "conv(1,2)", "pool(1)", "conv(2,1)")
    assert VGG16.published["conv(5,3)"] == "c(5,3)" and VGG16.published["pool(5)"] == "p(5)"
    assert list(ALEXNET.published.values()) == [
        "conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"
    ]  # fmt: skip
    assert tuple(ALEXNET.published) == ALEXNET.layers


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_a_full_network_computes_what_torchvisions_does(name, images, tmp_path):
    theirs = getattr(models, name)(weights=None).eval()
    features = {key: each for key, each in theirs.state_dict().items() if key.startswith("features")}
    torch.save(features, tmp_path / "weights.pth")
    ours = networks.load(name, tmp_path / "weights.pth")
    x = torch.nn.functional.interpolate(images, 96)
    prepared = PREPROCESSING["torchvision"](x)
    with torch.inference_mode():
        expected = theirs.features(prepared)
    last = ours.layers[-1]
    assert torch.equal(ours.activations(x, [last])[last], expected)


def test_each_activation_is_that_of_the_modules_up_to_there(narrow, images):
    ours = chain(VGG16, narrow)
    found = ours.activations(images)
    raw = ours.activations(images, rectified=False)
    x = ours.preprocessing(images)
    for name in VGG16.layers:
        if name.startswith("pool"):
            x = torch.nn.functional.max_pool2d(x, 2)
            assert torch.equal(found[name], x) and torch.equal(raw[name], x)
            continue
        torch.testing.assert_close(ours.before(images, name), x)
        x = torch.nn.functional.conv2d(x, narrow[f"{name}.weight"], narrow[f"{name}.bias"], padding=1)
        torch.testing.assert_close(raw[name], x)
        x = x.relu()
        torch.testing.assert_close(found[name], x)


def test_layers_go_by_both_names_and_nothing_is_computed_beyond_them(narrow, images):
    ours = chain(VGG16, narrow)
    ours._parts["conv(2,1)"] = None  # would fail if it were called
    assert list(ours.activations(images, ["p(1)", "c(1,1)"])) == ["pool(1)", "conv(1,1)"]


def test_a_truncated_network_ends_where_it_is_told(narrow, images):
    part = chain(VGG16, narrow).truncated("pool(2)")
    assert part.layers[-1] == "pool(2)" and len(part.layers) == 6
    assert list(part.activations(images))[-1] == "pool(2)"
    with pytest.raises(ValueError, match=r"layer = 'conv\(3,1\)': expected one of conv\(1,1\)"):
        part.filters("conv(3,1)")


def test_first_layers_alone_make_a_network_to_the_pooling_if_their_block_is_whole(narrow):
    first = {name: each for name, each in narrow.items() if name < "conv(2,2)"}
    assert chain(VGG16, first).layers[-1] == "conv(2,1)"
    both = {name: each for name, each in narrow.items() if name < "conv(3"}
    assert chain(VGG16, both).layers[-1] == "pool(2)"


def test_switches_unpool_to_the_maxima(narrow, images):
    ours = chain(VGG16, narrow)
    before = ours.before(images, "pool(1)")
    places = ours.switches(images, "pool(1)")
    code = ModelSparse((2, 2), None).project(before, places).code
    pooled = ours.activations(images, ["pool(1)"])["pool(1)"]
    assert torch.equal(torch.nn.functional.max_pool2d(code, 2), pooled)
    assert torch.equal((code != 0).sum((2, 3)), (pooled != 0).sum((2, 3)))


def test_switches_of_overlapping_windows_stand_inside_each_window(images):
    ours = networks.gaussian(ALEXNET, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(images, 96)
    before, places = ours.before(x, "pool1"), ours.switches(x, "pool1")
    windows = before.unfold(2, 3, 2).unfold(3, 3, 2).flatten(-2)
    assert places.min() >= 0 and places.max() == 8
    found = windows.gather(-1, places.unsqueeze(-1)).squeeze(-1)
    assert torch.equal(found, ours.activations(x, ["pool1"])["pool(1)"])


def test_a_bank_is_the_layer_with_unit_rows(narrow):
    ours = chain(VGG16, narrow)
    bank = ours.bank("c(2,2)")
    torch.testing.assert_close(bank.weight.flatten(1).norm(dim=1), torch.ones(4))
    assert (bank.padding, bank.stride) == (1, 1)
    assert torch.equal(ours.bank("c(2,2)", normalized=False).weight, narrow["conv(2,2).weight"])


@pytest.mark.parametrize("name", ["torchvision", "features", "caffe", "cifar10"])
def test_preprocessing_by_hand(name):
    rule = PREPROCESSING[name]
    pixel = torch.tensor([0.2, 0.5, 1.0]).view(1, 3, 1, 1)
    order = [2, 1, 0] if name == "caffe" else [0, 1, 2]
    scale = 255 if name == "caffe" else 1
    expected = [
        (scale * float(pixel[0, c]) - rule.mean[i]) / rule.std[i] for i, c in enumerate(order)
    ]
    torch.testing.assert_close(rule(pixel).flatten(), torch.tensor(expected))


def test_the_two_preprocessings_of_caffes_weights_agree():
    pixels = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    caffe, features = PREPROCESSING["caffe"](pixels), PREPROCESSING["features"](pixels)
    torch.testing.assert_close(features, caffe.flip(1), atol=0.7, rtol=0)  # of 255


def test_random_weights_have_hes_variance_and_follow_the_generator():
    draw = [networks.gaussian(VGG16, generator=torch.Generator().manual_seed(3), width=0.5) for _ in "ab"]
    weight, bias = draw[0].filters("conv(5,3)")
    assert weight.shape == (256, 256, 3, 3) and not bias.any()
    assert float(weight.var()) * 256 * 9 == pytest.approx(2, rel=0.01)
    assert torch.equal(weight, draw[1].filters("conv(5,3)")[0])
    assert draw[0].source.tier == "random" and not draw[0].source.real


def test_bad_networks_and_images_are_refused(narrow, images, refuses):
    missing = {name: each for name, each in narrow.items() if not name.startswith("conv(1,2)")}
    refuses(lambda: chain(VGG16, missing), "tensors", "conv(1,2) is missing")
    refuses(lambda: chain(VGG16, {}), "tensors", "conv(1,1) is missing")
    short = {name: each for name, each in narrow.items() if name != "conv(2,1).bias"}
    refuses(lambda: chain(VGG16, short), "conv(2,1).bias beside")
    wrong = narrow | {"conv(1,2).weight": torch.ones(3, 5, 3, 3)}
    refuses(lambda: chain(VGG16, wrong), "conv(1,2).weight", "(3, 5, 3, 3)", "(K, 2, 3, 3)")
    infinite = narrow | {"conv(1,2).bias": torch.full((3,), torch.inf)}
    refuses(lambda: chain(VGG16, infinite), "conv(1,2).bias", "finite")
    ours = chain(VGG16, narrow)
    refuses(lambda: ours.activations(255 * images), "images", "values from 0 to 1")
    refuses(lambda: ours.activations(images[:, :1]), "images", "(batch, 3, H, W)")
    refuses(lambda: ours.activations(images[..., :8, :8]), "images", "large enough for pool(4)")
    refuses(lambda: ours.activations(images, ["conv(6,1)"]), "layer", "conv(6,1)")
    refuses(lambda: ours.filters("pool(1)"), "pool(1)", "a convolution")
    refuses(lambda: ours.switches(images, "conv(1,1)"), "conv(1,1)", "a pooling")
    generator = torch.Generator()
    refuses(lambda: networks.gaussian(ALEXNET, generator=generator, width=0.5), "width", "0.5")
