"""Coherence and errors: families by hand, the ratios that decide, criteria on made-up points."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from matplotlib.figure import Figure

from invertnb import FilterBank, coherence
from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import coherent, inputs
from invertnb.chapters.inverting_vgg.activation import FITTING, STATED, Step
from invertnb.chapters.inverting_vgg.coherent import READINGS, Coherent, Layer, Point
from invertnb.networks import open_images


def generator(stream=0):
    return torch.Generator().manual_seed(stream)


def bank(K=8, M=4, seed=0, padding=1):
    drawn = FilterBank.gaussian(K, M, 3, dims=2, padding=padding, generator=generator(seed))
    return drawn.to(dtype=torch.float64).normalized()


@pytest.fixture(scope="module")
def given():
    """The embedded network on two small crops."""
    p = chapter.Parameters(photographs=2)
    pictures = open_images(side=64, resize=64).first(2)
    return inputs.gather(p.network(), pictures, 2, p.generator)


@pytest.fixture(scope="module")
def found(given):
    return coherent.compute(given, generator)


# --- Families -------------------------------------------------------------------------------------


def test_decorrelated_filters_span_the_same_at_a_coherence_that_falls_to_zero():
    own = bank()
    members = dict(coherent.decorrelated(own))
    first, *_, last = members.values()
    assert torch.allclose(first.weight, own.weight, atol=1e-6)
    assert float(coherence(last.weight)) < 1e-6
    # The nearest orthonormal rows: the polar factor of W.
    rows, end = own.weight.flatten(1), last.weight.flatten(1)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    assert torch.allclose(end, vectors @ torch.diag(values**-0.5) @ vectors.T @ rows, atol=1e-6)
    both = torch.cat([rows, end])
    assert torch.linalg.matrix_rank(both, rtol=1e-6) == own.K
    for each in members.values():
        assert torch.allclose(each.weight.flatten(1).norm(dim=1), torch.ones(8).double())


def test_decorrelating_survives_equal_filters():
    weight = bank().weight.clone()
    weight[1] = weight[0]
    last = list(coherent.decorrelated(FilterBank(weight)))[-1][1]
    products = last.weight.flatten(1) @ last.weight.flatten(1).T
    assert torch.allclose(products[0, 1], torch.ones(()).double(), atol=1e-5)
    products[0, 1] = products[1, 0] = 0
    assert (products - torch.eye(8)).abs().max() < 1e-5


def test_mixtures_go_from_random_to_learned_filters():
    learned, random = bank(seed=1), bank(seed=2)
    members = dict(coherent.mixtures(learned, random))
    assert torch.allclose(members["0% learned"].weight, random.weight)
    assert torch.allclose(members["100% learned"].weight, learned.weight)
    half = random.weight + learned.weight
    norms = half.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(members["50% learned"].weight, half / norms)


def test_banks_of_families_have_the_padding_and_dtype_of_the_layer():
    made = coherent.like(FilterBank(bank().weight.float()), bank(padding=1))
    assert made.padding == 1 and made.weight.dtype == torch.float64


# --- The layers of the embedded network -----------------------------------------------------------


def test_a_layer_has_its_learned_filters_and_every_draw(given, found):
    for pool, layer in found.layers.items():
        assert layer.learned.coherence == float(coherence(given.learned[pool].weight))
        drawn = [float(coherence(each.weight)) for each in given.random[pool]]
        assert [each.coherence for each in layer.random] == drawn
        assert set(layer.learned.steps) == set(READINGS)
    assert tuple(found.families) == ("pool(3)", "pool(4)")
    assert not found.real and found.photographs == 2


def test_the_ends_of_the_families_are_the_layers_own_filters(found):
    # Maps of pool(3) and pool(4) are smaller here than what either is cut to.
    for pool, families in found.families.items():
        own, random = found.layers[pool].learned, found.layers[pool].random
        pairs = [(families["decorrelated"][0]["0% decorrelated"], own)]
        for members, drawn in zip(families["mixtures"], random, strict=True):
            pairs += [(members["0% learned"], drawn), (members["100% learned"], own)]
        for point, other in pairs:
            assert point.coherence == pytest.approx(other.coherence, abs=1e-5)
            assert torch.allclose(
                point.steps[FITTING].error, other.steps[FITTING].error, atol=1e-3
            )


def test_every_draw_of_blends_has_filters_of_its_own(found):
    for families in found.families.values():
        ends = [tuple(members.values()) for members in families["blends"]]
        assert len(ends) == coherent.DRAWS
        for end in (0, -1):
            assert len({members[end].coherence for members in ends}) == coherent.DRAWS


def test_families_are_of_a_few_photographs(given, found):
    many = dataclasses.replace(given, f={pool: f.repeat(3, 1, 1, 1) for pool, f in given.f.items()})
    few = coherent.compute(many, generator)
    for pool, families in few.families.items():
        for family, drawn in families.items():
            for members, of_two in zip(drawn, found.families[pool][family], strict=True):
                for name, point in members.items():
                    error = point.steps[FITTING].error
                    assert len(error) == coherent.FEW
                    assert torch.allclose(error[:2], of_two[name].steps[FITTING].error, atol=1e-3)


def test_kept_and_ratio_decide_the_error(found):
    for point in coherent.every(found):
        for step in point.steps.values():
            assert torch.allclose(step.error, (2 - 2 * step.kept / step.ratio).sqrt(), atol=1e-4)


def test_gaps_of_the_logarithms_add_up(found):
    for layer in found.layers.values():
        kept, ratio = coherent.gap(layer)
        logs = [each.steps[FITTING].cosine.log().mean() for each in layer.random]
        apart = layer.learned.steps[FITTING].cosine.log().mean() - torch.stack(logs).mean()
        assert kept - ratio == pytest.approx(float(apart), abs=1e-6)


def test_the_figure_shows_every_bank_twice(found):
    drawn = coherent.draw(found)
    assert isinstance(drawn, Figure) and len(drawn.axes) == 2
    for ax in drawn.axes:
        marked = [line for line in ax.lines if line.get_marker() in ("o", "s", "D")]
        shown = sum(len(line.get_xdata()) for line in marked)
        assert shown == len(coherent.every(found))


# --- Criteria -------------------------------------------------------------------------------------


def step(error, kept=1.0, ratio=2.0, n=10):
    rows = [torch.as_tensor(each, dtype=torch.float64).expand(n) for each in (error, kept, ratio)]
    return Step(*rows)


def point(mu, error, kept=1.0, ratio=2.0, n=10):
    return Point(mu, {reading: step(error, kept, ratio, n) for reading in READINGS})


def layer(learned=(0.6, 1.0), random=((0.1, 0.9), (0.2, 0.8)), n=10):
    return Layer(point(*learned, n=n), tuple(point(*each, n=n) for each in random))


def judged(*layers, families=None, real=False, n=10):
    names = {f"pool({i})": each for i, each in enumerate(layers, start=1)}
    return Coherent(names, families or {}, real, "words", "label", n)


def test_ranks_by_hand():
    points = [point(0.1, 0.5), point(0.2, 0.7), point(0.3, 0.6), point(0.4, 0.8)]
    assert coherent.rank(points) == pytest.approx(0.8)
    assert coherent.explained(points, "coherence") == pytest.approx(0.8)
    assert math.isnan(coherent.rank(points[:2]))
    kept = [point(0.1, 0.9, kept=1.0), point(0.9, 0.8, kept=2.0), point(0.3, 0.7, kept=3.0)]
    assert coherent.explained(kept, "kept") == pytest.approx(-1)
    assert coherent.rank(kept, "kept") == pytest.approx(0.5)


def test_the_less_coherent_filters_are_compared_by_photograph():
    errors = torch.tensor([1.0] * 9 + [0.8])
    assert layer(learned=(0.6, errors)).better() == 9  # the mean of both draws is 0.85
    assert coherent.within(judged(layer(learned=(0.6, errors))))
    fewer = torch.tensor([1.0] * 8 + [0.8] * 2)
    assert not coherent.within(judged(layer(), layer(learned=(0.6, fewer))))


def test_where_learned_filters_are_the_less_coherent_they_must_be_better():
    assert layer(learned=(0.05, 1.0)).better() == 0
    assert layer(learned=(0.05, 0.7)).better() == 10
    # Less coherent than one draw, and not than both on average.
    assert layer(learned=(0.16, 0.7)).better() == 0


def test_across_layers_a_rank_correlation_decides():
    up = [layer(learned=(mu, 0.5 + mu)) for mu in (0.1, 0.2, 0.3)]
    assert coherent.across(judged(*up)) is True
    assert coherent.across(judged(*up[:2], layer(learned=(0.05, 0.9)))) is False
    assert coherent.across(judged(*up[:2])) is None


def test_a_pair_of_equal_filters_is_harmless_where_the_error_stays():
    before = point(0.1, 0.9)
    assert coherent.harmless({"0": before, "1": point(1.0, 0.95)})
    assert not coherent.harmless({"0": before, "1": point(1.0, 1.1)})
    assert not coherent.harmless({"0": before, "1": point(0.5, 0.9)})


def test_the_value_needs_a_real_network():
    layers = [layer(learned=(mu, 1 + mu)) for mu in (0.5, 0.6, 0.7, 0.8)]
    families = {
        "pool(3)": {
            "blends": [{str(mu): point(mu, 1 - mu) for mu in (0.1, 0.2, 0.3)}],
            "twins": [{"0": point(0.1, 0.9), "1": point(1.0, 0.9)}],
        }
    }
    stand_in = coherent.verdict(judged(*layers, families=families))
    assert stand_in["value"] is None and "label" in stand_in["note"]
    assert list(stand_in["readings"].values()) == [True] * 4 + [False, False]
    assert coherent.verdict(judged(*layers, real=True))["value"] is True
    worse = layer(learned=(0.9, 0.1))
    assert coherent.verdict(judged(*layers[:3], worse, real=True))["value"] is False
    # A few layers of a real network are readings, and two have no rank correlation.
    few = coherent.verdict(judged(*layers[:2], real=True))
    assert few["value"] is None and list(few["readings"].values()) == [True, True]


def test_the_value_is_of_the_reading_as_stated():
    def layers(stated, fitting):
        return [
            Layer(Point(mu, {STATED: step(stated * mu), FITTING: step(fitting * mu)}), (random,))
            for mu in (0.5, 0.6, 0.7, 0.8)
            for random in [point(0.1, 0.0)]
        ]

    holds = coherent.verdict(judged(*layers(1, -1), real=True))
    assert holds["value"] is True and str(STATED) in holds["note"]
    by_reading = {str(reading): set() for reading in READINGS}
    for name, each in holds["readings"].items():
        [by_reading[own].add(each) for own in by_reading if name.endswith(own)]
    assert by_reading == {str(STATED): {True}, str(FITTING): {False}}
    assert coherent.verdict(judged(*layers(-1, 1), real=True))["value"] is False


def test_a_family_holds_where_it_does_for_every_draw():
    up = {str(mu): point(mu, mu) for mu in (0.1, 0.2, 0.3)}
    down = {str(mu): point(mu, 1 - mu) for mu in (0.1, 0.2, 0.3)}
    assert coherent.ranks([up, down]) == pytest.approx([1, -1])
    worse = {"0": point(0.1, 0.9), "1": point(1.0, 1.2)}
    same = {"0": point(0.1, 0.9), "1": point(1.0, 0.9)}
    for drawn, twins, expected in (
        ([up, up], [same, same], [True, False]), ([up, down], [same, worse], [False, True]),
    ):  # fmt: skip
        families = {"pool(3)": {"mixtures": drawn, "twins": twins}}
        found = coherent.verdict(judged(families=families))["readings"]
        assert [each for name, each in found.items() if "conv(4,1)" in name] == expected


def test_growth_is_of_the_last_member_over_the_first():
    drawn = [
        {"a": point(0.1, 1.0, kept=1.0), "b": point(0.2, 1.0, kept=9.0), "c": point(0.3, 1.0, last)}
        for last in (2.0, 0.5)
    ]
    assert coherent.growth(drawn, "kept") == [2.0, 0.5]
    assert coherent.growth(drawn, "ratio") == [1.0, 1.0]


def test_the_papers_own_numbers():
    found = coherent.paper()
    assert found["learned"]["pool(4)"] == (0.4099, 1.051)
    assert found["learned, one place on"]["pool(1)"] == (0.734, 0.895)
    assert found["random"]["pool(2)"] == (0.1099, 0.926)
