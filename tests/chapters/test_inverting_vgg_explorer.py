"""The explorer of the chapter on inversion: its pictures and errors, each computed another way."""

import math

import matplotlib
import numpy as np
import pytest
import torch

from invertnb import networks, reconstruct
from invertnb.chapters.inverting_vgg import activation, explorers
from invertnb.chapters.inverting_vgg.explorers import (
    BRIGHTEST, MAP_SIDE, PANELS, PHOTOGRAPHS, POOLS, SEEN, SIDE, Study, error_map, shrink,
)  # fmt: skip
from invertnb.kernels.pool_switch import pool_switch
from invertnb.networks import load_decoder, open_images
from invertnb.notebook import NetworkParameters


@pytest.fixture(scope="module")
def study():
    return Study(NetworkParameters())


@pytest.fixture(scope="module")
def explorer():
    return explorers.explorer()


@pytest.fixture(scope="module")
def pixels():
    """The cat, found by the name of its file."""
    images = open_images()
    (path,) = (path for path in images.paths if path.stem == "chelsea")
    return networks.Images("embedded", "cat", (path,), side=SEEN, resize=8 * SEEN // 7).all()


def off(x, y):
    return float((x - y).double().norm() / x.double().norm())


def colour(level):
    return np.array(matplotlib.colormaps["magma"](level, bytes=True)[:3])


def test_every_photograph_is_there_and_every_setting_once(explorer):
    assert set(PHOTOGRAPHS.values()) < set(open_images().names)
    points = list(explorer.grid())
    assert len(points) == len(PHOTOGRAPHS) * len(POOLS) * 3 * 3 == 144


def test_a_view_has_four_pictures_and_the_errors_under_them(explorer, pixels):
    point = {"photograph": "cat", "layer": "pool(1)", "filters": "none", "switches": "fixed"}
    view = explorer.render(**point)
    assert tuple(view.picture) == PANELS and view.photograph
    *images, errors = view.picture.values()
    assert {each.shape for each in images} == {(SIDE, SIDE, 3)}
    assert errors.shape == (MAP_SIDE, MAP_SIDE, 3)
    assert np.array_equal(view.picture["original"], shrink(pixels[0]))
    assert list(view.values) == [
        "error of activations", "decoded", "reconstructed", "decoded + mean",
        "reconstructed + mean",
    ]  # fmt: skip
    seen = explorer.frame(**point)
    assert "(cat)" in seen.alt and "pool(1), switches: fixed" in seen.alt
    assert "filters: none" in seen.alt


def test_errors_are_those_of_the_two_images(explorer, study, pixels):
    decoder, given = load_decoder("known"), study.start("cat")
    mean = torch.tensor(decoder.preprocessing.mean).view(3, 1, 1)
    places = {"pool(1)": given.switches["pool(1)"], "pool(2)": given.switches["pool(2)"]}
    f, bank = given.f["pool(2)"], networks.load("vgg16").bank("conv(3,1)")
    windows = bank.K * (f.shape[2] // 2) * (f.shape[3] // 2)
    k = activation.windows_kept("c(i+1,1), of windows", "pool(2)", windows)
    f_hat = reconstruct(f, bank, k, pooling="signed").signal
    positive = f_hat.clamp(min=0)
    positive = positive * (f_hat.norm() / positive.norm())
    true, out = (decoder(each, "pool(2)", places) for each in (f, positive))
    expected = [
        off(f, f_hat), off(pixels - mean, true), off(pixels - mean, out),
        off(pixels, true + mean), off(pixels, out + mean),
    ]  # fmt: skip
    view = explorer.render(
        photograph="cat", layer="pool(2)", filters="learned", switches="known"
    )
    shown = [float(text) for text in view.values.values()]
    assert shown == pytest.approx(expected, abs=0.006)
    assert np.array_equal(view.picture["decoded"], shrink((true + mean)[0]))
    assert np.array_equal(view.picture["reconstructed"], shrink((out + mean)[0]))
    assert np.array_equal(view.picture["error map"], error_map(pixels[0], (out + mean)[0]))


def test_activations_and_switches_are_those_of_the_network(study, pixels):
    before = networks.load("vgg16").activations(pixels, ("conv(1,2)",))["conv(1,2)"]
    f, switches = pool_switch(before, (2, 2), "signed")
    given = study.start("cat")
    assert torch.allclose(given.f["pool(1)"], f, atol=1e-5)
    known = study.switches("cat", "pool(1)", "known")
    assert torch.equal(known["pool(1)"], given.switches["pool(1)"])
    assert (given.switches["pool(1)"] == switches).float().mean() > 0.999


def test_without_filters_there_is_noise_of_the_norm_of_f(study):
    f = study.start("cat").f["pool(1)"]
    noise, error = study.f_hat("cat", "pool(1)", "none")
    assert float(noise.norm()) == pytest.approx(float(f.norm()), rel=1e-5)
    assert (noise < 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert error == pytest.approx(math.sqrt(2), abs=0.01)


def test_random_filters_have_the_shape_of_the_learned_ones(study):
    given = study.start("cat")
    learned, random = given.learned["pool(1)"], given.random["pool(1)"][0]
    assert random.weight.shape == learned.weight.shape
    found, expected = (
        study.f_hat("cat", "pool(1)", "random")[0],
        activation.step(given.f["pool(1)"], random, activation.FITTING, "pool(1)").signal,
    )
    assert torch.equal(found, expected)


def test_switches_known_fixed_and_random(study):
    true = study.start("cat").switches
    known = study.switches("cat", "pool(2)", "known")
    drawn = study.switches("cat", "pool(2)", "random")
    assert list(known) == list(drawn) == ["pool(1)", "pool(2)"]
    for name, each in drawn.items():
        assert each.shape == true[name].shape and each.dtype == torch.uint8
        assert (each == true[name]).float().mean() == pytest.approx(0.25, abs=0.01)
        counts = torch.bincount(each.flatten().long()) / each.numel()
        assert counts.tolist() == pytest.approx([0.25] * 4, abs=0.01)
    again = study.switches("cat", "pool(2)", "random")
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    assert study.switches("cat", "pool(2)", "fixed") is None
    kinds = {kind: study.decoder(kind).switches for kind in explorers.SWITCHES}
    assert kinds == {"known": "known", "fixed": "fixed", "random": "known"}


def test_the_error_map_by_hand():
    grey, one = torch.full((3, 224, 224), 0.5), torch.ones(3, 224, 224)
    assert np.array_equal(error_map(grey, grey)[3, 3], colour(0.0))
    assert np.array_equal(error_map(one, grey)[0, 0], colour(0.5 / BRIGHTEST))
    # What overshoots is cut before it is compared, as it is in the picture.
    assert np.array_equal(error_map(one, 7 * one)[0, 0], colour(0.0))
    image = grey.clone()
    image[0] += 0.3
    level = 0.3 / math.sqrt(3) / BRIGHTEST
    gap = error_map(grey, image)[0, 0].astype(int) - colour(level).astype(int)
    assert np.abs(gap).max() <= 2


def test_pictures_are_cut_to_what_can_be_shown():
    image = torch.stack([torch.full((224, 224), level) for level in (-1.0, 0.2, 3.0)])
    small = shrink(image)
    assert small.shape == (SIDE, SIDE, 3) and small.dtype == np.uint8
    assert (small == np.array([0, 51, 255])).all()


def test_any_other_weights_leave_it_on_the_embedded_network_and_are_told():
    other = explorers.explorer(NetworkParameters(weights="IMAGENET1K_FEATURES"))
    assert other.caption.endswith("other weights have no decoders.")
    assert other.frame().values == explorers.explorer().frame().values
