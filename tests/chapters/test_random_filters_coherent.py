"""Coherence against accuracy: measures by hand, recorded runs, and training that moves it."""

import math

import pytest
import torch

from invertnb import coherence
from invertnb.chapters.random_filters import coherent, inputs
from invertnb.chapters.random_filters.coherent import Coherent, Live, Trained
from invertnb.networks import open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.training import build
from invertnb.notebook import Recorded, load_recorded

ONE, TWO = "(64)3c-2pmax-4pave", "(64)3c-2pmax-(64)5c-2pmax-2pave"


def run(mu, test, architecture=ONE, study="grid", learned=True, rate=0.1, seed=0):
    return Trained(study, architecture, learned, rate, seed, test, tuple(mu))


@pytest.fixture(scope="module")
def data():
    return coherent.fewer(open_labelled("digits", limit=(400, 100)))


def test_shapes_by_hand():
    assert coherent.shapes(parse("(64)3c-2pmax-(8)5c"), 3) == [(64, 27), (8, 1600)]


@pytest.mark.parametrize(("K", "d", "bound"), [(2, 1, 1.0), (3, 2, 0.5), (4, 4, 0.0), (3, 9, 0.0)])
def test_the_welch_bound(K, d, bound):
    assert coherent.welch(K, d) == pytest.approx(bound)


def test_the_welch_bound_is_attained():
    """Three unit vectors at 120 degrees: nothing is less coherent in the plane."""
    angles = torch.arange(3) * 2 * math.pi / 3
    star = torch.stack([angles.cos(), angles.sin()], 1)[..., None]
    assert float(coherence(star)) == pytest.approx(coherent.welch(3, 2), abs=1e-6)


def test_coherence_in_units_of_random_filters(generator):
    mean = torch.stack([coherence(torch.randn(64, 27, 1, generator=generator)) for _ in range(60)])
    each = run((0.8,), 0.5)
    assert each.ratio == pytest.approx(0.8 / float(mean.mean()), rel=0.03)
    assert each.levels[0] > 0.99 and run((0.5,), 0.5).levels[0] < 0.01
    two = run((0.8, 0.2), 0.5, TWO)
    first, second = (law.mean for law in two.laws)
    assert (two.laws[1].K, two.laws[1].d) == (64, 64 * 25)
    assert two.ratio == pytest.approx((0.8 / first + 0.2 / second) / 2)
    values = [measure(two) for measure in coherent.MEASURES.values()]
    assert values == pytest.approx([0.8, 0.5, two.ratio])


def test_rank_correlations_by_hand():
    assert coherent.rank([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)), with d = 0, 1, -1, 0.
    assert coherent.rank([(1, 1), (2, 9), (5, 4), (6, 20)]) == pytest.approx(0.8)
    assert coherent.rank([(1, 1), (2, 2)]) is None
    assert coherent.rank([(1, 1), (1, 2), (1, 3)]) is None
    assert set(coherent.ranks([]).values()) == {None}


def test_pairs_of_equal_depth_and_width():
    runs = [
        run((0.7,), 0.5), run((0.5,), 0.6, "(64)5c-2pmax-4pave"),  # less coherent, better
        run((0.6,), 0.4, "(64)7c-2pmax-4pave"),  # worse than both, between them
        run((0.5,), 0.9, "(256)5c-2pmax-4pave"), run((0.5,), 0.9, study="tuning"),  # no partners
        run((0.9, 0.4), 0.7, TWO), run((0.9, 0.2), 0.7, TWO), run((0.9, 0.3), 0.8, TWO),
    ]  # fmt: skip
    assert coherent.better(runs, "layer 1") == (2, 3)
    # Means of 0.65, 0.55 and 0.6: the last is better than both; equal accuracies do not count.
    assert coherent.better(runs, "mean of layers") == (2 + 1, 3 + 2)


def test_the_claim_needs_every_correlation():
    assert coherent.supported([-0.5, -1.0])
    assert not coherent.supported([-0.6, -0.4])
    assert not coherent.supported([-0.6, None]) and not coherent.supported([])


def test_recorded_runs_are_read_and_random_filters_follow_the_law():
    runs = coherent.recorded(load_recorded("random_filters"))
    found = Coherent(tuple(runs), "", "", (), ())
    assert {each.study for each in runs} == set(coherent.STUDIES)
    assert sum(len(found.learned(depth=depth)) for depth in (1, 2, 3)) == len(found.learned())
    assert all(each.learned and each.width == 256 for each in found.learned(width=256))
    levels = [level for each in runs if not each.learned for level in each.levels]
    assert 0.001 < min(levels) and max(levels) < 0.999
    assert min(level for each in found.learned() for level in each.levels) > 0.9


def test_recordings_that_are_missing_or_stale(refuses):
    assert coherent.recorded({}) == []
    entry = {"architecture": ONE, "recipe": {"learned": True, "rate": 0.1, "seed": 0}, "test": 0.5}
    for results, word in (
        ({}, "runs"), ({"runs": {"a": entry}}, "'coherence'"), ({"runs": []}, "'values'"),
        ({"runs": {"a": entry | {"coherence": [0.5, 0.5]}}}, "one for each layer"),
    ):  # fmt: skip
        refuses(lambda r=results: coherent.recorded({"grid": Recorded("grid", {}, r)}), word)
    good = {"runs": {"a": entry | {"coherence": [0.5]}}}
    assert coherent.recorded({"grid": Recorded("grid", {}, good)}) == [run((0.5,), 0.5)]


def test_small_images_stay_and_large_ones_are_averaged(data):
    assert data.train.shape == (400, 1, 8, 8)
    large = data.train.repeat_interleave(4, 2).repeat_interleave(4, 3)
    large[..., ::2] = 0  # columns of 0 and of twice the mean
    fields = {"train": large, "test": large, "test_labels": data.train_labels}
    small = coherent.fewer(type(data)(**{**vars(data), **fields}))
    assert small.train.shape == (400, 1, 16, 16) and "2 x 2" in small.what
    expected = (data.train.float() / 2).round().repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(small.train.float(), expected) and torch.equal(small.test, small.train)


def test_training_starts_from_the_filters_that_are_measured(data):
    """A rate of nearly 0 leaves the coherences where they were, a large one raises them."""
    net = parse("(8)3c-2pmax-(8)3c-2pmax")
    still, moved = coherent.train(net, data, [1], rates=(1e-9, 0.5), epochs=2)
    start = build(net, coherent.recipe(data, 0.5, 1), data.train, 10)
    assert still.start == moved.start
    assert still.start == tuple(float(coherence(each.weight.detach())) for each in start.layers)
    assert still.end == pytest.approx(still.start, abs=1e-4)
    assert moved.end[1] > moved.start[1] + 0.1
    assert (still.rate, moved.rate, moved.seed) == (1e-9, 0.5, 1)


def test_everything_without_recordings_and_its_picture(data, monkeypatch):
    monkeypatch.setattr(
        coherent, "train",
        lambda net, data, seeds, device: tuple(
            Live(rate, seed, (0.5, 0.1), (0.6, rate), 0.5)
            for rate in coherent.RATES for seed in seeds
        ),
    )  # fmt: skip
    given = inputs.Inputs(data, range(2), 8, "cpu", {})
    found = coherent.compute(given, lambda stream: torch.Generator().manual_seed(stream))
    assert found.runs == () and found.learned() == [] and len(found.live) == 6
    assert found.architecture == "(8)3c-2pmax-(8)3c-2pmax"
    assert [each.shape for each in found.random] == [(coherent.DRAWS,)] * 2
    assert found.random[0].mean() > found.random[1].mean()  # 9 entries and 72
    left, right = coherent.draw(found).axes
    marks = [line for line in right.lines if line.get_label().startswith("rate")]
    assert [list(line.get_xdata()) for line in marks] == [[rate] * 2 for rate in coherent.RATES]
