"""Inverting VGG: readings of one step, images, bounds, what is recorded, and the verdicts."""

from __future__ import annotations

import dataclasses
import math
import types

import pytest
import torch
from torch.testing import assert_close

from invertnb import FilterBank, networks, reconstruct
from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import activation, bounds, decoded, inputs, recordings, verdicts
from invertnb.chapters.inverting_vgg.activation import (
    ACTIVATIONS, FITTING, LEARNED, RANDOM, READINGS, STATED, Reading, Step,
)  # fmt: skip
from invertnb.networks import Decoder, load_decoder, open_images
from invertnb.notebook import record
from invertnb.theory import one_step


@pytest.fixture(scope="module")
def p():
    return chapter.Parameters(banks=2)


@pytest.fixture(scope="module")
def small(p):
    """The embedded network on three photographs of 64 x 64."""
    pictures = dataclasses.replace(open_images("embedded").first(3), side=64, resize=72)
    return inputs.gather(p.network(), pictures, p.banks, p.generator)


@pytest.fixture(scope="module")
def steps(small):
    return {
        pool: {
            LEARNED: activation.steps(f, small.learned[pool], pool),
            RANDOM: activation.steps(f, small.random[pool][0], pool),
        }
        for pool, f in small.f.items()
    }


@pytest.fixture(scope="module")
def images(small, p):
    return decoded.compute(small, p.generator)


# ---- inputs


def test_activations_and_switches_are_those_of_the_network(small):
    assert small.pools == ("pool(1)", "pool(2)", "pool(3)", "pool(4)")
    for pool in small.pools:
        assert torch.equal(small.f[pool], small.network.activations(small.pixels, [pool])[pool])
        assert torch.equal(small.switches[pool].long(), small.network.switches(small.pixels, pool))


def test_random_filters_have_the_shape_of_the_learned_ones_and_differ_by_draw(small):
    for pool, learned in small.learned.items():
        first, second = small.random[pool]
        assert first.weight.shape == learned.weight.shape and first.padding == learned.padding
        assert_close(first.weight.flatten(1).norm(dim=1), torch.ones(first.K))
        assert not torch.equal(first.weight, second.weight)


def test_a_network_that_ends_before_conv_2_1_is_refused(small, p, refuses):
    short = small.network.truncated("pool(1)")
    refuses(lambda: inputs.gather(short, small.pictures, 2, p.generator), "weights = ", "conv(2,1)")


def test_only_the_embedded_network_has_decoders(small, p, refuses):
    random = networks.gaussian(networks.VGG16, generator=p.generator(1), width=1 / 16)
    other = dataclasses.replace(small, network=random)
    assert small.decodable and not other.decodable
    assert decoded.compute(other, p.generator) is None
    refuses(other.decoder, "weights = ", "embedded")


@pytest.mark.parametrize("side, expected", [(32, 32), (47, 32), (500, 64), (3, 16)])
def test_photographs_are_shrunk_to_what_poolings_halve(small, side, expected):
    found = inputs.shrunk(small, side, 2)
    assert found.pixels.shape == (2, 3, expected, expected) and len(found.pictures) == 2
    assert found.f["pool(4)"].shape[2:] == (expected // 16, expected // 16)
    f = small.network.activations(found.pixels, ["pool(2)"])["pool(2)"]
    assert torch.equal(found.f["pool(2)"], f) and found.learned is small.learned
    # Area means: the mean color stays.
    if 64 % expected == 0:
        assert_close(found.pixels.mean((2, 3)), small.pixels[:2].mean((2, 3)))


# ---- activation


def test_how_many_windows_a_reading_keeps():
    # Table 2: c(5,1) 23.9, p(5) 13.1, c(2,1) 67.4 percent; a window has four entries.
    kept = {keep: activation.windows_kept(keep, "pool(4)", 1000) for keep in activation.KEEP}
    assert list(kept.values()) == [None, 956, 239, 524, 131]
    assert activation.windows_kept("c(i+1,1), of entries", "pool(1)", 1000) is None
    assert activation.windows_kept("c(i+1,1), of windows", "pool(1)", 1000) == 674


def test_one_step_by_hand_in_every_pooling():
    # W the identity on one channel, one window: h = f.
    bank = FilterBank(torch.ones(1, 1, 1, 1))
    f = torch.tensor([[[[3.0, -4.0], [0.0, 0.0]]]])
    found = activation.steps(f, bank, "pool(1)", [Reading(each, activation.EVERY) for each in ("abs", "signed", "rectified")])
    by = {reading.pooling: step for reading, step in found.items()}
    # -4 alone is kept, and scaled to -5: the error is |(3, 1)| / 5.
    assert_close(by["abs"].error, torch.tensor([math.sqrt(10) / 5], dtype=torch.float64))
    assert_close(by["abs"].kept, torch.tensor([0.8], dtype=torch.float64))
    assert_close(by["abs"].cosine, torch.tensor([0.8], dtype=torch.float64))
    assert_close(by["abs"].best, torch.tensor([0.6], dtype=torch.float64))
    # 3 alone is kept, and scaled to 5: |(-2, -4)| / 5.
    for each in ("signed", "rectified"):
        assert_close(by[each].error, torch.tensor([math.sqrt(20) / 5], dtype=torch.float64))
        assert_close(by[each].cosine, torch.tensor([0.6], dtype=torch.float64))


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_two_ratios_determine_the_error(steps, reading):
    for by_filters in steps.values():
        for by_reading in by_filters.values():
            step = by_reading[reading]
            assert_close(step.error.square(), 2 - 2 * step.cosine, atol=1e-4, rtol=0)


def test_readings_with_one_k_are_computed_once_and_right(small, steps):
    f, bank = small.f["pool(4)"], small.learned["pool(4)"]
    k = activation.windows_kept(FITTING.keep, "pool(4)", bank.K * 4)
    alone = reconstruct(f, bank, k, pooling="signed")
    assert_close(steps["pool(4)"][LEARNED][FITTING].error, activation.measure(f, alone).error)
    every = steps["pool(1)"][LEARNED]
    assert every[STATED] is every[Reading("abs", activation.EVERY)]
    assert steps["pool(4)"][LEARNED][STATED] is not steps["pool(4)"][LEARNED][Reading("abs", activation.EVERY)]


def test_the_misfit_to_table_3_and_the_order_of_readings():
    exact = {
        f"pool({i})": {m: activation.published("activation", m, f"pool({i})") for m in (LEARNED, RANDOM)}
        for i in range(1, 5)
    }
    assert activation.misfit(exact) == 0
    off = {pool: {m: value + 0.1 for m, value in each.items()} for pool, each in exact.items()}
    assert activation.misfit(off) == pytest.approx(0.1)

    def errors(shift):
        return Step(*(torch.tensor([value + shift]) for value in (1.0, 1.0, 1.0)))

    found = {"pool(1)": {LEARNED: {STATED: errors(0.5), FITTING: errors(0.0)}}}
    found["pool(1)"][RANDOM] = found["pool(1)"][LEARNED]
    assert [reading for _, reading in activation.ranked(found, (STATED, FITTING))] == [FITTING, STATED]


def test_random_activations_are_a_right_angle_away_unless_they_are_nonnegative(small, p):
    found = activation.chance(small.f["pool(2)"], p.generator(7))
    assert_close(found["Gaussian"], torch.full((3,), math.sqrt(2), dtype=torch.float64), atol=0.02, rtol=0)
    # A nonnegative f has a positive product with any nonnegative vector.
    assert (found["positive parts"] < 1.35).all() and (found["magnitudes"] < found["positive parts"]).all()


# ---- decoded


def test_the_positive_part_has_the_norm_of_the_whole():
    f_hat = torch.tensor([[[[3.0, -4.0]]], [[[-1.0, -2.0]]]])
    found = decoded.rectify(f_hat)
    assert_close(found[0].flatten(), torch.tensor([5.0, 0.0]))
    assert torch.equal(found[1], torch.zeros(1, 1, 2))


def test_identification_goes_by_correlation():
    g = torch.Generator().manual_seed(0)
    # Of contrasts so different that products alone would choose the strongest.
    targets = torch.randn(4, 3, 5, 5, generator=g) * torch.tensor([1.0, 50, 2, 1]).view(4, 1, 1, 1)
    assert decoded.identifies(0.1 * targets + 3, targets).all()
    swapped = targets[[1, 0, 2, 3]]
    assert decoded.identifies(swapped, targets).tolist() == [False, False, True, True]


def test_decoded_images_and_errors(small, images, p):
    decoder: Decoder = load_decoder("known")
    given = {"pool(1)": small.switches["pool(1)"]}
    found = images["pool(1)"]
    out = decoder(small.f["pool(1)"], "pool(1)", given)
    target = small.pixels - decoder.mean
    expected = (target - out).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    subtracted, added, true = (found.errors[decoded.TRUE, decoded.AS_IS][s] for s in decoded.SPACES)
    assert_close(subtracted.float(), expected)
    assert (added < subtracted).all() and (true == 0).all()
    assert_close(found.images[decoded.TRUE, decoded.AS_IS], out + decoder.mean)
    f_hat = decoded.signals(small, "pool(1)", p.generator)[LEARNED]
    rectified = decoder(decoded.rectify(f_hat), "pool(1)", given) + decoder.mean
    assert_close(found.images[LEARNED, decoded.RECTIFIED], rectified)
    for each in found.draws.values():
        assert len(each) == p.banks and each[0] != each[1]


def test_forms_and_spaces_are_ranked_by_their_distance_from_table_3(images):
    rows = decoded.ranked(images)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[1:] for row in rows} == {(f, s) for f in decoded.FORMS for s in decoded.SPACES}
    misfit, form, space = rows[0]
    means = decoded.means(images, form, space)
    gaps = [means[q][m] - activation.published("image", m, q) for q in means for m in activation.METHODS]
    assert misfit == pytest.approx(math.sqrt(sum(gap**2 for gap in gaps) / 12))


# ---- bounds


def test_a_bound_is_none_vacuous_or_a_number():
    assert bounds.Bound(0.9, 0.3, 1.2).bound is None
    assert bounds.Bound(0.9, 0.3, 1.2).words == "hypothesis fails"
    vacuous = bounds.Bound(0.9, 0.3, 0.2)
    assert vacuous.delta == 0.3
    assert vacuous.bound == pytest.approx(5 * 0.3 / 0.7 * math.sqrt(1.3 / 0.7))
    assert vacuous.words == "vacuous, at least 2.9"
    small = bounds.Bound(0.2, 0.05, 0.0)
    assert small.bound < 1 and small.words == f"{small.bound:.2f}"
    assert one_step.as_stated(bounds.VACUOUS, bounds.VACUOUS) == pytest.approx(1)


def test_the_codes_of_the_photographs_bound_the_constant_from_below(small, steps, p):
    found = bounds.compute(small, steps, p.generator)
    for pool, by_filters in found.items():
        for name, bound in by_filters.items():
            ratio = steps[pool][name][STATED].ratio
            assert bound.own == pytest.approx(float((ratio**2 - 1).abs().max()))
            assert bound.error == pytest.approx(float(steps[pool][name][STATED].error.mean()))
        # A search finds codes that are farther off than those that the photographs happen to have.
        assert by_filters[RANDOM].found > by_filters[RANDOM].own


# ---- recordings


def test_a_recording_of_a_network_that_ends_with_block_2(p, monkeypatch):
    narrow = networks.gaussian(networks.VGG16, generator=p.generator(3), width=1 / 16)
    short = narrow.truncated("pool(2)")
    pictures = dataclasses.replace(open_images("embedded").first(3), side=32, resize=36)
    fake = types.SimpleNamespace(
        network=lambda: short, pictures=lambda count: pictures, photographs=3, banks=2,
        device="cpu", generator=p.generator,
    )  # fmt: skip
    monkeypatch.setattr(recordings, "BATCH", 2)
    found = recordings.network(fake)
    layers = found.results["layers"]
    assert set(layers["pool(1)"]) == {LEARNED, RANDOM, "random 1"}
    assert set(layers["pool(2)"]) == {RANDOM, "random 1"}  # no conv(3,1)
    assert set(layers["pool(1)"][RANDOM]) == {str(each) for each in READINGS}
    assert set(layers["pool(1)"]["random 1"]) == {str(FITTING), str(STATED)}
    pixels = pictures.all()
    f = short.activations(pixels, ["pool(1)"])["pool(1)"]
    whole = activation.steps(f, short.bank("conv(2,1)"), "pool(1)", [FITTING])[FITTING]
    mean, sd = layers["pool(1)"][LEARNED][str(FITTING)]["error"]
    assert mean == pytest.approx(float(whole.error.mean()), rel=1e-3)
    assert sd == pytest.approx(float(whole.error.std()), rel=0.05, abs=1e-6)
    assert found.results["errors"]["pool(2)"][ACTIVATIONS][0] == pytest.approx(math.sqrt(2), abs=0.3)
    assert not found.results["real"] and found.results["images"] == 3


# ---- verdicts


def test_criteria_on_means():
    assert verdicts.much_better({"pool(1)": {LEARNED: 0.75, RANDOM: 0.7, ACTIVATIONS: 1.0}})
    assert not verdicts.much_better({"pool(1)": {LEARNED: 0.76, RANDOM: 0.7, ACTIVATIONS: 1.0}})
    assert not verdicts.much_better({"pool(1)": {LEARNED: 0.7, RANDOM: 0.76, ACTIVATIONS: 1.0}})
    assert verdicts.alike({"pool(1)": {LEARNED: 0.9, RANDOM: 0.85}})
    assert not verdicts.alike({"pool(1)": {LEARNED: 0.85, RANDOM: 0.9}})  # random ones are worse
    assert not verdicts.alike({"pool(1)": {LEARNED: 1.0, RANDOM: 0.85}})  # too far


def recorded(real=True, ratio=1.5):
    part = {"error": [0.9, 0.02], "ratio": [ratio, 0.1]}
    results = {
        "network": "real weights of blocks 1 and 2", "real": real, "images": 500,
        "layers": {"pool(1)": {m: {str(r): part for r in READINGS} for m in (LEARNED, RANDOM)}},
        "errors": {"pool(1)": {ACTIVATIONS: [1.414, 0.002]}},
    }  # fmt: skip
    about = {"inputs": {"weights": "w", "images": "i"}}
    return types.SimpleNamespace(results=results, about=about)


@pytest.fixture
def data(small, steps, images, p):
    made = types.SimpleNamespace(
        inputs=small, steps=steps, decoded=images, recorded={},
        draws={
            q: {
                r: [activation.steps(small.f[q], bank, q, [r])[r] for bank in small.random[q]]
                for r in (FITTING, STATED)
            }
            for q in small.pools
        },
        chance={q: [activation.chance(f, p.generator(1))] for q, f in small.f.items()},
        bounds=bounds.compute(small, steps, p.generator),
    )  # fmt: skip
    return made


def test_an_entry_of_table_3_waits_for_real_weights(data):
    alone = dict(verdicts.table3(data, "activation"))
    assert all(each["value"] is None and each["readings"] for each in alone.values())
    data.recorded = {"real": recorded()}
    found = dict(verdicts.table3(data, "activation"))
    assert found["table3.activation.learned.1"]["value"] == 0.9
    assert found["table3.activation.activations.1"]["value"] == 1.41
    assert found["table3.activation.learned.2"]["value"] is None
    data.recorded = {"narrow": recorded(real=False)}
    found = dict(verdicts.table3(data, "activation"))
    assert found["table3.activation.learned.1"]["value"] is None
    for name, each in {**alone, **dict(verdicts.table3(data, "image"))}.items():
        assert record(name, **each).verdict == "needs weights"


def test_errors_of_random_filters_are_over_draws(data):
    found = recorded()
    by_draw = found.results["layers"]["pool(1)"]
    by_draw["random 1"] = {str(r): {"error": [0.8, 0.02], "ratio": [1.5, 0.1]} for r in READINGS}
    data.recorded = {"real": found}
    entry = dict(verdicts.table3(data, "activation"))["table3.activation.random.1"]
    assert entry["value"] == pytest.approx(0.85)
    assert entry["spread"] == pytest.approx(0.07)  # 0.1 / sqrt(2), to one digit
    live = next(value for name, value in entry["readings"].items() if str(FITTING) in name)
    means = [float(step.error.mean()) for step in data.draws["pool(1)"][FITTING]]
    assert live[0] == pytest.approx(sum(means) / 2, abs=1e-3)


def test_image_space_has_no_value_without_the_papers_decoder(data):
    found = dict(verdicts.table3(data, "image"))
    assert len(found) == 12 and all(each["value"] is None for each in found.values())
    data.decoded = None
    assert not any(each["readings"] for _, each in verdicts.table3(data, "image"))
    assert verdicts.figures45(data, ("pool(4)",))["value"] is None


def test_claims_about_all_layers_do_not_take_one_layer_for_all(data):
    data.recorded = {"real": recorded()}
    for found in (verdicts.baseline(data), verdicts.comparable(data)):
        assert found["value"] is None
        assert any("pool(1) alone" in name for name in found["readings"])


def test_one_real_layer_can_refute_the_bound_and_none_can_prove_it(data):
    assert verdicts.bound(data)["value"] is None
    data.recorded = {"real": recorded(ratio=1.5)}
    assert verdicts.bound(data)["value"] is False
    data.recorded = {"real": recorded(ratio=1.06)}  # delta 0.12: a bound of 0.8, below the error
    assert verdicts.bound(data)["value"] is False
    tight = recorded(ratio=1.06)
    tight.results["layers"]["pool(1)"][RANDOM][str(STATED)] = {"error": [0.5, 0.1], "ratio": [1.06, 0.1]}
    data.recorded = {"real": tight}
    assert verdicts.bound(data)["value"] is None
    assert not any(verdicts.bound(data)["readings"].values())


def test_better_counts_photographs(images):
    found = images["pool(1)"]
    own, other = (found.errors[m, decoded.RECTIFIED][decoded.SPACES[0]] for m in (LEARNED, ACTIVATIONS))
    share = verdicts.better(found, LEARNED, decoded.RECTIFIED)
    assert share == float((own < other).double().mean()) == 1.0


def test_one_photograph_is_not_recognized_among_one(data):
    data.inputs = types.SimpleNamespace(**{**vars(data.inputs), "pixels": data.inputs.pixels[:1]})
    found = verdicts.figures45(data, ("pool(4)",))
    assert found["value"] is None and "readings" not in found


def test_four_real_layers_give_claims_about_all_layers_their_value(data):
    source = dataclasses.replace(
        data.inputs.network.source, tier="torchvision", weights="x", real=True
    )
    network = types.SimpleNamespace(
        source=source, layers=data.inputs.network.layers,
        architecture=data.inputs.network.architecture,
    )  # fmt: skip

    data.inputs = types.SimpleNamespace(network=network, pixels=data.inputs.pixels)
    for found in (verdicts.baseline(data), verdicts.comparable(data)):
        assert isinstance(found["value"], bool)
        assert not any(str(STATED) in name for name in found["readings"])
    entry = dict(verdicts.table3(data, "activation"))["table3.activation.learned.4"]
    error = data.steps["pool(4)"][LEARNED][STATED].error
    assert entry["value"] == pytest.approx(float(error.mean()), abs=1e-3)


def test_speed_is_recorded_for_every_method(small, monkeypatch):
    monkeypatch.setattr(chapter, "gather", lambda p: small)
    found = recordings.speed(chapter.Parameters())
    assert set(found.results["seconds"]) == set(activation.METHODS)
    total = sum(found.results["seconds"].values())
    rate = found.results["images per second, all layers and methods"]
    assert rate == pytest.approx(3 / total, rel=0.01) and found.label == "speed-cpu"
