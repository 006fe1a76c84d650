"""The chapter on sparsity and coherence: counts against loops, criteria on made-up layers."""

import json
import math

import numpy as np
import pytest
import torch

from invertnb import coherence, networks
from invertnb.chapters.sparsity import activity, banks, matching, rows
from invertnb.chapters.sparsity.activity import Activity
from invertnb.chapters.sparsity.measured import Measured


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layer(percent=40.0, needed=30.0, windows=(40.0, 10.0, 20.0, 20.0, 10.0)):
    errors = tuple(float(x) for x in np.linspace(1, 0, len(activity.SHARES)))
    lost = 0.5 if windows else None
    return Activity(percent, 1.0, 39.0, 41.0, errors, needed, windows, lost)


# --- Outputs of layers --------------------------------------------------------------------------


def test_errors_of_the_largest_entries_by_hand():
    h = torch.randn(2000, generator=generator()).relu().numpy()
    errors, needed = activity.kept_errors(h[h != 0], len(h))
    ordered = np.sort(h)[::-1].astype(float)
    for share, error in zip(activity.SHARES, errors, strict=True):
        left = ordered[round(share * len(h)) :]
        assert error == pytest.approx(math.sqrt((left**2).sum() / (ordered**2).sum()), abs=1e-7)
    kept = round(needed * (h != 0).sum())
    energy = (ordered[:kept] ** 2).sum() / (ordered**2).sum()
    fewer = (ordered[: kept - 1] ** 2).sum() / (ordered**2).sum()
    assert fewer < activity.ENERGY <= energy


def test_a_layer_without_nonzeros_has_no_error():
    errors, needed = activity.kept_errors(np.zeros(0, np.float32), 100)
    assert not errors.any() and needed == 0


def test_windows_by_loops():
    h = torch.randn(2, 3, 6, 4, generator=generator(1)).relu()
    counts, lost = torch.zeros(2, 5, dtype=torch.float64), []
    for b in range(2):
        left = 0.0
        for k in range(3):
            for i in range(0, 6, 2):
                for j in range(0, 4, 2):
                    window = h[b, k, i : i + 2, j : j + 2].flatten()
                    counts[b, int((window != 0).sum())] += 1 / 18
                    left += float((window**2).sum() - window.max() ** 2)
        lost.append(math.sqrt(left / float((h[b] ** 2).sum())))
    assert torch.allclose(activity.window_counts(h), counts)
    assert activity.one_per_window(h).tolist() == pytest.approx(lost, rel=1e-5)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
def test_the_bound_on_crowded_windows_is_below_the_truth_and_attained(density):
    h = (torch.rand(1, 8, 64, 64, generator=generator(2)) < density).float()
    counts = activity.window_counts(h)[0]
    p, q = float(h.mean()), float(1 - counts[0])
    crowded = float(counts[2:].sum() / counts[1:].sum())
    assert activity.crowded_at_least(p, q) <= crowded + 1e-6
    assert q == pytest.approx(activity.independent(density), abs=0.02)
    mean = float((counts * torch.arange(5)).sum() / counts[1:].sum())
    assert activity.per_window(p, q) == pytest.approx(mean, rel=1e-5)
    # Windows with one or four nonzeros attain it: here one half of each.
    assert activity.crowded_at_least(2.5 / 4 * q, q) == pytest.approx(0.5)


def test_the_share_of_a_rectified_gaussian_by_quadrature():
    x = np.linspace(0, 12, 1_200_001)
    density = np.exp(-x * x / 2)
    above = np.cumsum((x * x * density)[::-1])[::-1]
    t = int(np.searchsorted(-above, -activity.ENERGY * above[0]))
    assert density[t:].sum() / density.sum() == pytest.approx(activity.HALF_NORMAL, abs=1e-4)


def test_activities_over_batches_are_those_of_each_image(tmp_path):
    from PIL import Image

    for i in range(activity.BATCH + 1):
        pixels = torch.randint(256, (32, 32, 3), generator=generator(i), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    images = networks.open_images(tmp_path, side=32, resize=32)
    network = networks.gaussian(networks.VGG16, generator=generator(), width=1 / 16)
    found = activity.activities(network, images)
    for name, h in network.activations(images.all()).items():
        percent = 100 * (h != 0).double().flatten(1).mean(1)
        each = found[name]
        assert each.percent == pytest.approx(float(percent.mean()), abs=1e-6)
        assert each.sd == pytest.approx(float(percent.std()), abs=1e-6)
        ends = float(percent.min()), float(percent.max())
        assert (each.low, each.high) == pytest.approx(ends, abs=1e-6)
        assert bool(each.windows) == (name in activity.pooled(network))
    for conv, pool in activity.pooled(network).items():
        # What is pooled to a nonzero is a window that was not empty.
        assert 100 - found[conv].windows[0] == pytest.approx(found[pool].percent, abs=1e-6)


def test_maps_show_the_share_of_active_channels():
    network = networks.gaussian(networks.VGG16, generator=generator(), width=1 / 16)
    pixels = torch.rand(5, 3, 64, 64, generator=generator(3))
    maps = activity.active_maps(network, pixels, ["conv(1,1)", "conv(4,1)"])
    h = network.activations(pixels, ["conv(1,1)", "conv(4,1)"])
    assert maps["conv(1,1)"].shape == (5, activity.MAP, activity.MAP)
    assert torch.allclose(maps["conv(4,1)"], (h["conv(4,1)"] > 0).float().mean(1))


@pytest.mark.parametrize(
    ("change", "sparse", "compressible"),
    [
        ({}, True, True),
        ({"windows": (40.0, 35.0, 15.0, 5.0, 5.0)}, False, True),
        ({"needed": 46.0}, True, False),
    ],
)
def test_compressible_asks_for_every_layer(change, sparse, compressible):
    layers = {
        "conv(1,1)": layer(windows=()),
        "conv(1,2)": layer(**change),
        "pool(1)": layer(needed=99.0, windows=()),
    }
    assert activity.compressible(layers) == {"not exactly sparse": sparse, "compressible": compressible}


def test_nothing_measured_is_not_compressible():
    assert not any(activity.compressible({}).values())


# --- Filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", banks.READINGS)
def test_a_bank_has_the_coherence_of_the_library(reading):
    weight = torch.randn(9, 4, 3, 3, generator=generator(4))
    bank = banks.examine(weight, generator(), draws=1, all_shifts=True)
    sign, _, shifts = reading.partition(", ")
    expected = coherence(weight.double(), signed=sign == "signed", shifts="all" if shifts else "zero")
    assert bank.coherence(reading) == pytest.approx(float(expected), abs=1e-6)


def test_all_shifts_are_left_out_where_they_are_not_wanted():
    bank = banks.examine(torch.randn(5, 2, 3, 3), generator(), draws=1, all_shifts=False)
    assert bank.coherence("absolute, all shifts") is None


def test_partners_by_loops():
    w = torch.randn(6, 2, 3, 3, generator=generator(5))
    negative, positive = banks.partners(banks.cosines(w))
    unit = w.flatten(1) / w.flatten(1).norm(dim=1, keepdim=True)
    for i in range(6):
        others = [float(unit[i] @ unit[j]) for j in range(6) if j != i]
        assert float(negative[i]) == pytest.approx(min(others), abs=1e-6)
        assert float(positive[i]) == pytest.approx(max(others), abs=1e-6)


def test_pairs_are_found_where_they_are_and_not_in_random_filters():
    half = torch.randn(16, 8, 3, 3, generator=generator(6))
    paired = banks.examine(
        torch.cat([half, -half + 0.1 * torch.randn(16, 8, 3, 3, generator=generator(7))]),
        generator(8), draws=5, all_shifts=False,
    )  # fmt: skip
    random = banks.examine(
        torch.randn(32, 8, 3, 3, generator=generator(9)), generator(8), draws=5, all_shifts=False
    )
    assert paired.median < -0.98
    assert banks.in_pairs({"a": paired}) and banks.in_pairs({"a": paired}, "mixed")
    assert banks.near_pairs({"a": paired}) and not banks.near_pairs({"a": random})
    assert not banks.in_pairs({"a": paired, "b": random})


def test_filters_that_crowd_are_no_pairs_against_mixtures():
    few = torch.randn(3, 72, generator=generator(10))  # three directions for 64 filters
    crowd = (torch.randn(64, 3, generator=generator(11)) @ few).view(64, 8, 3, 3)
    bank = banks.examine(crowd, generator(12), draws=9, all_shifts=False)
    assert banks.in_pairs({"a": bank}) and not banks.in_pairs({"a": bank}, "mixed")


def test_what_is_recorded_comes_back():
    weight = torch.randn(5, 2, 3, 3, generator=generator(13))
    bank = banks.examine(weight, generator(), draws=2, all_shifts=True)
    bare = banks.examine(weight, generator(), draws=1, all_shifts=False)
    layers = {"conv(1,1)": layer(), "conv(1,2)": layer(windows=())}
    given = Measured(
        "file x.npz", "file", True, "3 images", layers, {"conv(1,1)": bank, "conv(1,2)": bare}
    )
    again = Measured.of(json.loads(json.dumps(given.results())))
    found = again.banks["conv(1,1)"]
    assert found.negative == pytest.approx(bank.negative, abs=1e-6)
    assert found.shifts == pytest.approx(bank.shifts, abs=1e-6)
    assert again.banks["conv(1,2)"].shifts is None
    assert again.layers["conv(1,2)"].windows == () and again.layers["conv(1,2)"].lost is None
    assert again.layers["conv(1,1)"].errors == pytest.approx(layer().errors, abs=1e-6)
    assert (again.source, again.tier, again.real) == ("file x.npz", "file", True)
    assert Measured.of(json.loads(json.dumps(again.results()))) == again


def test_the_blocks_of_a_network_in_words():
    def blocks(*names):
        return Measured("x", "file", True, "y", {name: layer() for name in names}, {}).blocks

    assert blocks("conv(1,1)", "pool(1)") == "block 1"
    assert blocks("conv(1,1)", "conv(2,1)") == "blocks 1 and 2"
    assert blocks("conv(3,1)", "conv(1,1)", "conv(2,2)") == "blocks 1, 2 and 3"


# --- A row out of place -------------------------------------------------------------------------


LAYERS = [f"conv{i}" for i in range(8)]
TRUE = dict(zip(LAYERS, (0.9231, 0.8127, 0.7311, 0.6613, 0.5219, 0.4477, 0.4101, 0.3339), strict=True))


def test_a_displaced_row_is_found_with_its_odds():
    row = dict(zip(LAYERS, [*list(TRUE.values())[1:], 0.5], strict=True))
    measured = {name: TRUE[name] + 3e-5 for name in LAYERS[:5]}  # agrees when rounded
    values = {"signed": measured, "absolute": {n: v + 0.01 for n, v in measured.items()}}
    tried = matching.match(row, LAYERS, values)
    best = tried[0]
    assert (best.reading, best.displacement, best.compared) == ("signed", 1, 4)
    assert best.matched == tuple((LAYERS[i + 1], LAYERS[i]) for i in range(4))
    assert all(not each.matched for each in tried[1:])
    assert matching.odds(best, tried, row) < 1e-10
    assert matching.odds(tried[-1], tried, row) == 1  # no match at all is no surprise


def test_agreement_in_three_digits_is_no_match():
    measured = {name: value + 2e-4 for name, value in TRUE.items()}
    assert not any(each.matched for each in matching.match(TRUE, LAYERS, {"signed": measured}))


def test_odds_of_one_match_are_the_number_of_comparisons_times_its_chance():
    row = TRUE
    tried = [matching.Matching("signed", 0, 8, (("conv0", "conv0"),)), matching.Matching("a", 1, 7, ())]
    chance = matching.DIGIT / (0.9231 - 0.3339)
    assert matching.odds(tried[0], tried, row) == pytest.approx(15 * chance, rel=0.01)


def test_repetitions_in_a_row():
    assert matching.repeated({"a": 1.0, "b": 2.0, "c": 2.0, "d": 1.0}) == [("b", "c")]


# --- Random rows --------------------------------------------------------------------------------


def test_groups_are_not_compared_with_each_other():
    size = rows.Size(8, 2, 3, 2)
    ends = rows.extremes(size, generator(14), all_shifts=True)
    weight = torch.randn(8, 2, 3, 3, generator=generator(14), dtype=torch.float64)
    for place, shifts in enumerate(rows.SHIFTS):
        for sign in rows.SIGNS:
            expected = coherence(weight, signed=sign == "signed", shifts=shifts, groups=2)
            found = float(rows._coherence(ends[place : place + 1], sign))
            assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("sign", rows.SIGNS)
def test_the_law_with_groups_is_that_of_draws(groups, sign):
    size, g = rows.Size(24, 6, 3, groups), generator(15)
    ends = torch.stack([rows.extremes(size, g, False)[0] for _ in range(300)])
    draws, law = rows._coherence(ends, sign), rows.law(size, sign)
    assert law.pairs == 24 * (24 // groups - 1) // 2
    assert float(draws.mean()) == pytest.approx(law.mean, abs=4 * law.sd / math.sqrt(300))


def test_rows_come_in_every_reading(monkeypatch):
    small = {"2012": {"conv1": rows.Size(6, 3, 3), "conv2": rows.Size(8, 4, 3, 2)},
             "torchvision": {"conv1": rows.Size(4, 3, 3), "conv2": rows.Size(6, 4, 3)}}  # fmt: skip
    monkeypatch.setattr(rows, "NETWORKS", small)
    found = rows.draw_rows(generator(16), 3, all_shifts=True)
    assert len(found) == 12 and next(iter(found)) == "absolute, AlexNet of 2012, in groups, in place"
    for row in found.values():
        assert all(len(each) == 3 for each in row.samples.values())
    for start in ("absolute", "signed"):
        name = f"{start}, AlexNet of 2012, in groups, "
        place, shifted = found[name + "in place"].samples, found[name + "all shifts"].samples
        assert all((place[n] <= shifted[n]).all() for n in place)
    assert len(rows.draw_rows(generator(16), 3)) == 6
