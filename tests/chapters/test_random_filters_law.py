"""Chapter "Random filters can classify": numbers of filters and the classifier's training: 7 s."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from invertnb.chapters import random_filters as chapter
from invertnb.chapters.random_filters import (
    law, law_figures, law_fits, recordings, recordings_closed,
)  # fmt: skip
from invertnb.chapters.random_filters.inputs import Inputs
from invertnb.chapters.random_filters.law_fits import LAWS, Curve, fit, judge
from invertnb.networks import open_labelled
from invertnb.networks.ridge import ridge
from invertnb.networks.training import Recipe
from invertnb.notebook import Recorded

FILTERS = tuple(2**i for i in range(10))
TEXT = "(8)3c-2pmax-2pave"


def generator(stream: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(stream)


# Laws


@pytest.mark.parametrize("plateau, exponent", [(0.2, 0.25), (0.0, 0.4), (0.1, 0.5)])
def test_a_law_is_found_again(plateau, exponent):
    K = np.array(FILTERS, dtype=float)
    found = fit("plateau", FILTERS, plateau + 0.5 * K**-exponent)
    assert found.plateau == pytest.approx(plateau, abs=0.01)
    assert found.factor == pytest.approx(0.5, abs=0.01)
    assert found.exponent == pytest.approx(exponent, abs=0.005)
    assert found([4**20]) == pytest.approx([plateau + 0.5 * 4 ** (-20 * exponent)], abs=0.01)


def test_an_error_does_not_fall_below_zero():
    """The best plateau for a curve that bends down is negative: 0 is taken."""
    errors = np.array([0.9, 0.7, 0.45, 0.15])
    found = fit("plateau", FILTERS[:4], errors)
    power = fit("power", FILTERS[:4], errors)
    assert found.plateau == power.plateau == 0
    assert found == dataclasses.replace(power, name="plateau")
    assert fit("root", FILTERS[:4], errors).factor == pytest.approx(
        sum(errors * np.array([1, 2, 4, 8]) ** -0.5) / sum(1 / np.array([1, 2, 4, 8]))
    )


def test_other_laws_by_hand():
    log = fit("logarithm", (1, 2, 4, 8), np.array([0.8, 0.7, 0.6, 0.5]))
    assert log.factor == pytest.approx(0.1) and log([16, 32]) == pytest.approx([0.4, 0.3])
    root = fit("root", (1, 4, 16), np.array([0.7, 0.45, 0.325]))
    assert (root.plateau, root.factor) == pytest.approx((0.2, 0.5)) and root.exponent == 0.5
    with pytest.raises(ValueError, match="three numbers at least"):
        fit("power", (1, 2), np.array([0.5, 0.4]))
    with pytest.raises(ValueError, match="name = 'line': expected one of 'plateau'"):
        fit("line", (1, 2, 4), np.ones(3))


def test_laws_are_judged_by_what_they_were_not_fitted_to():
    K = np.array(FILTERS, dtype=float)
    draws = 0.1 + 0.6 * K**-0.4 + np.array([[0.01], [-0.01]])
    draws[:, -2:] += 0.05  # which no law of the smaller ones can know
    found = judge(Curve(FILTERS, draws, 1000), 2, generator())
    assert list(found) == list(LAWS)
    assert found["plateau"].predicted == pytest.approx(0.1 + 0.6 * K[-2:] ** -0.4, abs=2e-3)
    assert found["plateau"].missed == pytest.approx(0.05, abs=2e-3)
    assert found["plateau"].known([512]) == pytest.approx(found["plateau"].predicted[1:])
    low, high = found["plateau"].interval
    assert (low < found["plateau"].predicted).all() and (found["plateau"].predicted < high).all()
    assert np.isnan(found["logarithm"].exponents).all() and found["root"].exponents == (0.5, 0.5)
    with pytest.raises(ValueError, match="held = 8: expected an integer from 1 to 7"):
        judge(Curve(FILTERS, draws, 1000), 8, generator())


def test_the_interval_comes_from_the_draws(monkeypatch):
    """It is as wide as a mean over draws is uncertain: 256 draws against two of the same spread."""
    monkeypatch.setattr(law_fits, "RESAMPLED", 30)
    K = np.array(FILTERS, dtype=float)
    two = 0.1 + 0.6 * K**-0.4 + 0.02 * np.array([[1.0], [-1.0]])
    many = np.tile(two, (128, 1))
    wide, small = (judge(Curve(FILTERS, each, 1000), 2, generator()) for each in (two, many))
    ratio = np.diff(wide["root"].interval, axis=0) / np.diff(small["root"].interval, axis=0)
    assert Curve(FILTERS, two, 1000).deviation == pytest.approx(0.02 * 2**0.5)
    assert ratio == pytest.approx(np.full((1, 2), 255**0.5), rel=0.01)


# The kernel


def test_the_error_of_a_kernel_matrix_by_hand():
    """One filter: kernels 4 A and 0 of two draws, A = [[1, -1], [-1, 1]] / 2, mean 2 A."""
    seen = torch.zeros(2, 2, 1)
    seen[0, :, 0] = torch.tensor([1.0, 1 + 8**0.5])
    assert law.kernel_error(seen, 1, [1]) == pytest.approx(4 / 2**0.5 / 2)


def test_the_kernel_of_independent_filters_comes_nearer_as_a_root():
    seen = torch.randn(6, 40, 256, generator=generator()).square()
    found = law.kernel_error(seen, 256, FILTERS[:9])
    assert np.polyfit(np.log(FILTERS[:9]), np.log(found), 1)[0] == pytest.approx(-0.5, abs=0.08)


# The whole part, live


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs(open_labelled("digits", limit=(400, 100)), range(2), 4, "cpu", {})


@pytest.fixture(scope="module")
def found(inputs) -> law.Law:
    return law.compute(inputs, generator)


def test_networks_fit_the_page(inputs):
    assert str(law.network(inputs)) == "(32)3c-2pmax-2pave"
    assert str(law.network(dataclasses.replace(inputs, width=300))) == "(512)3c-2pmax-2pave"
    large = dataclasses.replace(inputs.data, train=torch.zeros(400, 3, 32, 32, dtype=torch.uint8),
                                test=torch.zeros(100, 3, 32, 32, dtype=torch.uint8))  # fmt: skip
    large = dataclasses.replace(inputs, data=large, width=64)
    assert str(law.network(large)) == "(64)5c-2pmax-4pave"


def test_errors_are_those_of_ridge_on_the_images(inputs, found):
    """Of the second draw, from the network itself."""
    data, (learn, hold) = inputs.data, inputs.split()
    sets, net = law.features(inputs, law.network(inputs), generator(law.LAW + 1))
    fits = ridge(
        net, found.curves["live"].filters, law.DECAYS, dtype=torch.float32,
        train=(data.train[learn], data.train_labels[learn]),
        validation=(data.train[hold], data.train_labels[hold]), test=(data.test, data.test_labels),
    )  # fmt: skip
    errors = [1 - each.test for each in fits]
    assert found.curves["live"].errors[1] == pytest.approx(errors, abs=0.02)
    assert found.curves["live"].filters == (1, 2, 4, 8, 16, 32)
    assert found.curves["live"].errors.shape == (2, 6)


def test_softmax_beside_ridge(found):
    compared = found.compared["live"]
    assert list(compared.trained) == list(law.EPOCHS) and compared.filters == 32
    for epochs in law.EPOCHS:
        for base, dropout in law.RATES:
            best = compared.best(epochs, base, dropout)
            rates = [
                each for each in compared.trained[epochs]
                if (each.setting.base, each.setting.dropout) == (base, dropout)
            ]  # fmt: skip
            assert best.validation == max(each.validation for each in rates)
            assert len(rates) == len(law.RATES[base, dropout])
    with pytest.raises(ValueError, match=r"\('whitened', 0.5, 3\): expected a training"):
        compared.best(3, "whitened", 0.5)
    # The features' mean has most of their energy, and bounds the rate.
    assert compared.condition.share > 0.5
    assert compared.condition.stable("centered", 10) > 3 * compared.condition.stable("plain", 10)
    # Sixty epochs at a rate go as far as thirty at twice the rate.
    assert compared.learned(1.0, 60) == compared.learned(2.0, 30) > compared.learned(1.0, 30)


def test_the_rate_of_a_recipe_in_our_units(found):
    """The gradient of scaled weights is that of the weights by the root of the variance."""
    compared = found.compared["live"]
    P, variance = compared.condition.places[-1], compared.condition.variance
    assert P == 128
    assert compared.used(Recipe(rate=0.3, head=64.0)) == pytest.approx(0.15 * variance)
    assert compared.used(Recipe(rate=0.3, head=1000.0)) == pytest.approx(0.3 * variance)


# What is recorded


@pytest.fixture
def small(monkeypatch, tmp_path) -> chapter.Parameters:
    """Two small networks on few digits, in place of Table 5 on CIFAR-10."""
    data = open_labelled("digits", limit=(400, 100))
    monkeypatch.setattr(recordings_closed, "open_labelled", lambda source: data)
    recipe = dataclasses.replace(
        recordings_closed.RANDOM, validation=100, batch=100, dtype="float32"
    )
    for name, value in {
        "RANDOM": recipe, "TABLE5": {"random": (TEXT,)}, "CLOSED": (((1, 4, 8), (0, 1)),),
        "FROZEN": (TEXT,), "FILTERS": (4, 8), "EPOCHS": (1, 2), "DECAYS": (0.01, 1.0), "PLACES": 9,
        "RATES": {key: rates[:1] for key, rates in law.RATES.items()},
    }.items():  # fmt: skip
        monkeypatch.setattr(recordings_closed, name, value)
    return chapter.Parameters(data="digits", runs=str(tmp_path))


def test_recorded_ridge_is_made_once_and_collected(small, monkeypatch):
    recording = recordings.closed(small)
    folder = Path(small.runs) / "closed"
    names = [f"8x3c-2pmax-2pave-seed{seed}" for seed in (0, 1)]
    assert list(recording.results["runs"]) == names and recording.results["asked"] == 2
    (folder / f"{names[1]}.json").unlink()
    made = []
    monkeypatch.setattr(recordings_closed, "build", lambda *of: made.append(of[1].seed) or 1 / 0)
    with pytest.raises(ZeroDivisionError):  # only the missing one is asked for
        recordings.closed(small)
    assert made == [1] and sorted(each.name for each in folder.iterdir()) == [f"{names[0]}.json"]
    fewer = recordings.closed(dataclasses.replace(small, missing=False))
    assert list(fewer.results["runs"]) == names[:1]
    curve = law.closed_curve(recording.results)
    assert curve.filters == (1, 4, 8) and curve.errors.shape == (2, 3)
    first = recording.results["runs"][names[0]]["fits"]
    assert curve.errors[0].tolist() == [1 - each["test"] for each in first]


def test_runs_on_other_images_do_not_mix(small):
    recordings.closed(small)
    path = Path(small.runs) / "closed" / "8x3c-2pmax-2pave-seed1.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"data": {"label": "others", "sha256": "0"}}))
    with pytest.raises(ValueError, match="seed1: expected data .*, but found 0"):
        recordings.closed(small)
    with pytest.raises(ValueError, match="expected runs on one set of images"):
        recordings.closed(dataclasses.replace(small, missing=False))
    with pytest.raises(ValueError, match="expected a folder with finished runs in frozen"):
        recordings.frozen(dataclasses.replace(small, missing=False))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANDOM", Recipe(learned=False, validation=100, batch=100)), ("DECAYS", (0.02, 1.0)),
        ("CLOSED", (((1, 8), (0, 1)),)),
    ],
)  # fmt: skip
def test_results_asked_for_otherwise_are_refused(small, monkeypatch, name, value):
    recordings.closed(small)
    monkeypatch.setattr(recordings_closed, name, value)
    for missing in (True, False):
        with pytest.raises(ValueError, match="8x3c-2pmax-2pave-seed0: expected .*, but found"):
            recordings.closed(dataclasses.replace(small, missing=missing))


def test_results_that_do_not_say_what_was_asked_are_checked_by_what_they_show(small, monkeypatch):
    first = recordings.closed(small)
    path = Path(small.runs) / "closed" / "8x3c-2pmax-2pave-seed1.json"
    older = {name: each for name, each in json.loads(path.read_text()).items() if name != "asked"}
    path.write_text(json.dumps(older))
    only = dataclasses.replace(small, missing=False)
    assert recordings.closed(only) == recordings.closed(small) == first
    for change, told in (
        ({"seed": 5}, "seed 1, but found 5"), ({"dtype": "float32"}, "dtype bfloat16, but found"),
        ({"fits": older["fits"][1:]}, r"filters \[1, 4, 8\], but found \[4, 8\]"),
        ({"fits": [each | {"decay": 0.5} for each in older["fits"]]}, "decays .*: 0.5"),
    ):  # fmt: skip
        path.write_text(json.dumps(older | change))
        with pytest.raises(ValueError, match=f"seed1: expected {told}"):
            recordings.closed(only)


def test_recorded_softmax_is_read_again(small, found, monkeypatch):
    recording = recordings.frozen(small)
    closed = recordings.closed(small)
    label = {each.label: Recorded(each.label, {}, json.loads(json.dumps(each.results)))
             for each in (recording, closed)}  # fmt: skip
    compared, ridges, few, dropped = law.recorded(label)
    assert list(compared) == list(ridges) == list(few) == list(dropped) == [TEXT]
    ours = compared[TEXT]
    assert ours.filters == 8 and list(ours.trained) == [1, 2]
    made = [(each.setting.base, each.setting.dropout) for each in ours.trained[2]]
    assert made == list(law.RATES)
    run = recording.results["runs"]["8x3c-2pmax-2pave-epochs2"]["trained"][0]
    assert ours.best(2, "plain").test == run["test"]
    assert ours.condition.places[-1] == 32 and ours.condition.places[0] == 1
    assert len(ours.condition.places) == len(ours.condition.eigenvalues) < 10
    assert set(ridges[TEXT]) == {1, 4, 8} and set(few[TEXT]) == {4, 8}
    assert law.recorded({}) == ({}, {}, {}, {})
    assert list(dropped[TEXT]) == [0.2, 0.5]
    run = recording.results["runs"]["8x3c-2pmax-2pave-dropout"]
    assert run["decay"][1] == pytest.approx(1 / (1 - ours.condition.share), rel=0.01)
    # Other rates are no longer these results, also of a file that says its settings alone.
    path = Path(small.runs) / "frozen" / "8x3c-2pmax-2pave-epochs1.json"
    older = {name: each for name, each in json.loads(path.read_text()).items() if name != "asked"}
    path.write_text(json.dumps(older))
    assert recordings.frozen(small) == recording
    with monkeypatch.context() as patched:
        patched.setattr(recordings_closed, "RATES", dict(list(law.RATES.items())[:1]))
        with pytest.raises(ValueError, match="epochs1: expected settings"):
            recordings.frozen(dataclasses.replace(small, missing=False))
    # The figures take it.
    curve = Curve(FILTERS, np.ones((2, 10)) / np.arange(1, 11), 100)
    both = dataclasses.replace(
        found, compared={**found.compared, TEXT: ours},
        curves={**found.curves, "recorded": curve},
        judged={**found.judged, "recorded": judge(curve, 2, generator())},
    )
    for draw in (law_figures.draw_law, law_figures.draw_trained):
        assert len(draw(both).axes) >= 2


def test_moments_of_few_classes_are_those_of_the_first_images(small, monkeypatch):
    data = recordings_closed.open_labelled("digits")
    order = data.train_labels.argsort(stable=True)  # class by class, as a tree is read
    monkeypatch.setattr(recordings_closed, "CALIBRATION", 60)
    net = recordings_closed.build(
        recordings_closed.parse(TEXT), recordings_closed.RANDOM, data.train, 10
    )
    recordings_closed.few_classes(net, data.train[order])
    few, layer = net.layers[0].mean.clone(), net.layers[0]
    layer.calibrate(net.standardize(data.train[order][:60]))
    torch.testing.assert_close(few, layer.mean)
    layer.calibrate(net.standardize(data.train))
    assert (few - layer.mean).abs().max() > 0.05
