"""What the switches carry: values, places and scores by hand, verdicts on made-up scores."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import inputs, what_where
from invertnb.chapters.inverting_vgg.what_where import (
    GAUSSIAN, KNOWN, MEAN, PLACES, POSITIVE, SHUFFLED, TRAINED, VALUES, Score,
)  # fmt: skip
from invertnb.networks import open_images

MEAN_COLOUR = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)


def generator(stream=0):
    return torch.Generator().manual_seed(stream)


@pytest.fixture(scope="module")
def given():
    """The embedded network on two small crops."""
    p = chapter.Parameters(photographs=2)
    pictures = open_images(side=32, resize=32).first(2)
    return inputs.gather(p.network(), pictures, 2, p.generator)


@pytest.fixture(scope="module")
def found(given):
    return what_where.compute(given, generator)


# --- Values and places ----------------------------------------------------------------------------


def test_values_lose_what_their_names_say():
    f = torch.rand(2, 3, 4, 4, generator=generator(1)).relu()
    kept = {kind: what_where.values(f, kind, generator(2)) for kind in VALUES}
    assert torch.equal(kept[KNOWN], f)
    shuffled = kept[SHUFFLED]
    assert not torch.equal(shuffled, f)
    assert torch.equal(shuffled.flatten(2).sort(2).values, f.flatten(2).sort(2).values)
    assert torch.allclose(kept[MEAN], f.mean((2, 3), keepdim=True).expand_as(f))
    assert torch.allclose(kept[GAUSSIAN].flatten(1).norm(dim=1), f.flatten(1).norm(dim=1))
    assert (kept[GAUSSIAN] < 0).any() and torch.equal(kept[POSITIVE], kept[GAUSSIAN].abs())


def test_channels_and_images_are_shuffled_each_in_its_own_order():
    f = torch.arange(16.0).view(1, 1, 4, 4).expand(2, 2, 4, 4)
    orders = what_where.values(f, SHUFFLED, generator(3)).flatten(2).flatten(0, 1)
    assert len(orders.unique(dim=0)) == 4


def test_places_are_the_switches_or_uniform_or_the_last_of_a_window():
    switches = {"pool(1)": torch.zeros(4, 8, 16, 16, dtype=torch.uint8)}
    known, random, fixed = (
        what_where.places(switches, kind, generator(4))["pool(1)"] for kind in PLACES
    )
    assert torch.equal(known, switches["pool(1)"])
    assert (fixed == 3).all()
    share = torch.bincount(random.flatten().long(), minlength=4) / random.numel()
    assert (share - 0.25).abs().max() < 0.02 and random.dtype == torch.uint8


# --- Scores ---------------------------------------------------------------------------------------


def test_correlation_is_blind_to_colour_contrast_and_brightness():
    target = torch.rand(3, 3, 8, 8, generator=generator(5), dtype=torch.float64)
    cast = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64).view(3, 1, 1)
    table = what_where.correlations(0.1 * target + cast, target)
    assert torch.allclose(table.diagonal(), torch.ones(3, dtype=torch.float64))
    rows = (target - target.mean((2, 3), keepdim=True)).flatten(1)
    assert torch.allclose(what_where.correlations(target, target), torch.corrcoef(rows))
    flat = torch.ones_like(target) * cast
    assert what_where.correlations(flat, target).abs().max() == 0


def test_a_score_by_hand():
    # Two photographs of one structure each, +-a around a mean colour of zero or of 0.1.
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    stripes = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    target = torch.stack([pattern.expand(3, 2, 2), stripes.expand(3, 2, 2) + 0.1])
    mean = torch.full((3, 1, 1), 2.0)
    found = what_where.score(target, torch.stack([0.5 * target[0], target[0]]), mean)
    assert torch.allclose(found.error, torch.tensor([0.5, math.sqrt(2.01 / 1.01)]).double())
    added = [math.sqrt(0.25 / 5), math.sqrt(2.01 / (1 + 2.1**2))]
    assert torch.allclose(found.added, torch.tensor(added).double())
    assert torch.allclose(found.own, torch.tensor([1.0, 0.0]).double())
    # The best contrast removes the first error; nothing but the mean colour helps the second.
    rest = torch.tensor([0.0, math.sqrt(1 / 1.01)])
    assert torch.allclose(found.fitted, rest.double(), atol=1e-6)
    assert found.hits.tolist() == [True, False] and found.identified == 1
    # More like the second photograph than the first image is, and still more like the first.
    both = target[0] + 0.2 * (target[1] - 0.1)
    assert what_where.score(target, torch.stack([target[0], both]), mean).hits.tolist() == [
        True, False
    ]  # fmt: skip


def test_the_fitted_error_is_that_of_least_squares():
    target = torch.rand(2, 3, 8, 8, generator=generator(6)) - 0.4
    out = 0.2 * target + 0.3 * torch.rand(2, 3, 8, 8, generator=generator(7))
    found = what_where.score(target, out, MEAN_COLOUR)
    for i in range(2):
        channels = torch.eye(3).repeat_interleave(64, 0)
        columns = torch.cat([out[i].reshape(-1, 1), channels], 1).double()
        wanted = target[i].reshape(-1, 1).double()
        rest = wanted - columns @ torch.linalg.lstsq(columns, wanted).solution
        assert float(found.fitted[i]) == pytest.approx(float(rest.norm() / wanted.norm()), rel=1e-5)


def test_a_negative_contrast_earns_nothing():
    target = torch.rand(2, 3, 8, 8, generator=generator(6)) - 0.4
    found = what_where.score(target, -target, MEAN_COLOUR)
    assert torch.allclose(found.own, torch.full((2,), -1.0).double())
    assert torch.allclose(found.fitted, what_where.colour_error(target))


def test_bits_by_hand():
    each = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    switches = {
        "pool(1)": each.expand(1, 8, 2, 2),
        "pool(2)": torch.zeros(1, 32, 1, 1, dtype=torch.uint8),
    }
    f = {pool: each.float() for pool, each in switches.items()}
    first, second = what_where.bits(f, switches).values()
    # Eight channels on a quarter of the pixels; 32 on a sixteenth, whose switches are all alike.
    assert first == pytest.approx((2, 4, 4))
    assert second == pytest.approx((2, 8, 4))


# --- The layers of the embedded network -----------------------------------------------------------


def test_every_combination_is_decoded(given, found):
    assert tuple(found.layers) == given.pools
    for each in found.layers.values():
        assert set(each.scores) == {(what, where) for what in VALUES for where in PLACES}
        assert set(each.trained) == set(TRAINED)


def test_known_values_at_known_switches_are_the_decoder_itself(given, found):
    small = inputs.shrunk(given, what_where.SIDE, what_where.PHOTOGRAPHS)
    pixels, f, switches = small.pixels, small.f, small.switches
    decoder = given.decoder()
    own = {name: switches[name] for name in ("pool(1)", "pool(2)")}
    out = decoder(f["pool(2)"], "pool(2)", own)
    layer = found.layers["pool(2)"]
    assert torch.equal(layer.images[KNOWN, "known"], out + decoder.mean)
    error = (out - (pixels - decoder.mean)).flatten(1).norm(dim=1)
    error = error / (pixels - decoder.mean).flatten(1).norm(dim=1)
    assert torch.allclose(layer.scores[KNOWN, "known"].error, error.double(), rtol=1e-5)
    # Both ways of two photographs: the values of one, the switches of the other.
    mixed = decoder(f["pool(2)"], "pool(2)", {name: each.flip(0) for name, each in own.items()})
    table = what_where.correlations(mixed, pixels)
    assert torch.allclose(layer.swapped.what, table.diagonal())
    assert torch.allclose(layer.swapped.where, torch.stack([table[0, 1], table[1, 0]]))


def test_a_layer_draws_every_combination_once(given):
    first, again = (what_where.compute(given, generator) for _ in range(2))
    for key, score in first.layers["pool(1)"].scores.items():
        assert torch.equal(score.error, again.layers["pool(1)"].scores[key].error)


def test_without_decoders_nothing_but_bits_is_said(given):
    class Other(inputs.Inputs):
        decodable = False

    bare = Other(**vars(given))
    found = what_where.compute(bare, generator)
    assert not found.layers and tuple(found.bits) == given.pools
    for verdict in what_where.verdicts(found).values():
        assert verdict["value"] is None and not verdict["readings"]
    assert isinstance(what_where.draw(found), Figure)


def test_the_figure_has_a_picture_for_each_combination(found):
    assert len(what_where.draw(found).axes) == 3 * (1 + len(PLACES))


# --- Criteria -------------------------------------------------------------------------------------


def score(error=0.3, hits=10, n=10):
    numbers = torch.full((n,), error, dtype=torch.float64)
    return Score(numbers, numbers, numbers, numbers, torch.arange(n) < hits)


def layer(gaussian=(10, 1), shuffled=10, trained=(0.6, 0.5), where=10, n=10):
    scores = {(what, place): score(n=n) for what in VALUES for place in PLACES}
    scores[GAUSSIAN, "known"] = score(hits=gaussian[0], n=n)
    scores[GAUSSIAN, "random"] = score(hits=gaussian[1], n=n)
    scores[POSITIVE, "random"] = score(hits=0, n=n)
    scores[SHUFFLED, "known"] = score(hits=shuffled, n=n)
    without = {kind: score(error=each, n=n) for kind, each in zip(TRAINED, trained, strict=True)}
    swapped = what_where.Swapped(torch.full((n,), 0.5), (torch.arange(n) < where).double())
    return what_where.Layer(scores, without, swapped, {})


@pytest.mark.parametrize(
    ("gaussian", "seen"), [((10, 1), True), ((9, 8), True), ((8, 1), False), ((10, 9), False)]
)
def test_a_glimpse_needs_the_known_switches_and_nothing_else(gaussian, seen):
    made = layer(gaussian=gaussian)
    assert what_where.glimpse(made) is seen
    assert what_where.glimpse(made, POSITIVE)


@pytest.mark.parametrize(
    ("change", "held"),
    [({}, True), ({"shuffled": 8}, False), ({"trained": (0.6, 0.39)}, False),
     ({"trained": (0.41, 0.9)}, True), ({"trained": (0.2, 0.9)}, False)],
)  # fmt: skip
def test_considerable_needs_both_parts_and_the_better_decoder(change, held):
    assert what_where.considerable(layer(**change)) is held


def test_who_wins_where_values_and_switches_disagree():
    words = [what_where.matters_more(layer(where=where)) for where in (10, 9, 5, 1, 0)]
    assert words == ["where", "where", "both", "what", "what"]


def test_verdicts_leave_the_value_open_and_put_the_last_layer_first():
    pixels = torch.zeros(10, 3, 16, 16)
    layers = {"pool(1)": layer(gaussian=(0, 0), shuffled=0), "pool(2)": layer()}
    found = what_where.WhatWhere(pixels, torch.ones(10), layers, {}, "words", "label")
    verdicts = what_where.verdicts(found)
    assert set(verdicts) == {"figure4.e", "conclusion.switches"}
    for each in verdicts.values():
        assert each["value"] is None and "label" in each["note"]
    names = [name.split(", ")[1:] for name in verdicts["figure4.e"]["readings"]]
    assert names[:2] == [["pool(2)"], ["pool(1)"]] and [each[0] for each in names[2:]] == [
        "pool(2)", "pool(1)"
    ]  # fmt: skip
    assert list(verdicts["figure4.e"]["readings"].values()) == [True, False, True, True]
    assert list(verdicts["conclusion.switches"]["readings"].values()) == [False, True]
    # One photograph cannot be told from others.
    layers = {"pool(1)": layer(n=1)}
    alone = what_where.WhatWhere(pixels[:1], torch.ones(1), layers, {}, "words", "label")
    assert not any(each["readings"] for each in what_where.verdicts(alone).values())
