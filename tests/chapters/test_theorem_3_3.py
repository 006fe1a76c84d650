"""The chapter on Theorem 3.3: shortcuts against convolutions, searches against brute force."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from invertnb import FilterBank, iht, least_squares
from invertnb.chapters import theorem_3_3 as chapter
from invertnb.chapters.theorem_3_3 import bite, lemmas, search, sharp, steps
from invertnb.chapters.theorem_3_3.layers import Codes, Layer, down, folded, interval, one_step, up
from invertnb.rip import certify, exact_constant
from invertnb.theory import lemmas as inequalities, one_step as theory

SMALL = chapter.Parameters(codes=20, supports=60, climbers=9, rounds=5, toys=1)


@pytest.fixture(scope="module")
def data():
    return chapter.compute(SMALL)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_layer(seed=0, K=12, M=6, l=3, D=8):
    return Layer(FilterBank.gaussian(K, M, l, generator=generator(seed)).normalized(), D)


def as_code(layer, codes):
    return layer.dense(codes).view(len(codes.index), layer.bank.K, layer.n)


# --- One step without signals -------------------------------------------------------------------


def test_products_of_rows_stand_for_the_layer():
    layer = small_layer()
    W = layer.bank.matrix(layer.size)
    assert torch.allclose(layer.gram, W @ W.T)
    z = layer.sample(3, 7, generator(1))
    x = layer.bank.synthesis(as_code(layer, z), layer.size)
    assert torch.allclose(layer.length(z), x.flatten(1).norm(dim=1))
    assert torch.allclose(layer.image(z), layer.bank.analysis(x).flatten(1))
    assert layer.model(3).contains(as_code(layer, z)).all()


@pytest.mark.parametrize(("place", "switches"), [(None, "known"), (3, "fixed")])
def test_one_step_is_that_of_the_convolutions(place, switches):
    layer = small_layer()
    z = layer.sample(4, 30, generator(2))
    step = one_step(layer, z, place)
    expected = inequalities.one_iteration(
        as_code(layer, z), layer.bank, layer.model(4), layer.size, switches
    )
    for name in search.OBJECTIVES:
        assert torch.allclose(getattr(step, name), getattr(expected, name)), name


def test_a_twice_given_atom_counts_with_its_sum():
    layer = small_layer()
    twice = Codes(torch.tensor([[5, 5, 9]]), torch.tensor([[1.0, -0.25, 2.0]], dtype=torch.float64))
    once = Codes(torch.tensor([[5, 9]]), torch.tensor([[0.75, 2.0]], dtype=torch.float64))
    assert torch.allclose(layer.length(twice), layer.length(once))


def test_folding_keeps_all_products():
    bank = FilterBank.gaussian(8, 100, 5, generator=generator(3))
    less = folded(bank)
    assert less.M == 40 and less.l == 5
    assert torch.allclose(less.gram(), bank.gram(), atol=1e-12)
    few = FilterBank.gaussian(8, 40, 5, generator=generator(3))
    assert folded(few) is few


def test_intervals_are_rounded_outwards():
    assert (down(0.339), up(0.331)) == ("0.33", "0.34")
    assert (up(2e-12), up(0.2), down(0.2)) == ("0.00", "0.20", "0.20")
    assert interval(0.123, 0.456) == "[0.12, 0.46]"


# --- Searches -----------------------------------------------------------------------------------


def test_exhaustion_finds_what_brute_force_finds():
    layer = small_layer(4, K=3, M=2, l=2, D=3)
    worst = search.exhaust(layer, 24)
    W, n, best = layer.bank.matrix(3), layer.n, 0.0
    for a in range(3 * n):
        for b in range(a + 1, 3 * n):
            if a // n == b // n:
                continue
            for angle in range(24):
                z = torch.zeros(3 * n, dtype=torch.float64)
                z[a], z[b] = math.cos(angle * math.pi / 24), math.sin(angle * math.pi / 24)
                code = layer.model(2).project((W @ W.T @ z).view(1, 3, n)).code.flatten()
                best = max(best, float((code - z).norm()))
    assert worst.code == pytest.approx(best)
    again = inequalities.one_iteration(
        as_code(layer, worst.codes), layer.bank, layer.model(2), 3
    )
    for row, name in enumerate(search.OBJECTIVES):
        assert float(getattr(again, name)[row]) == pytest.approx(getattr(worst, name))


def test_climbing_never_loses_and_stays_in_the_model():
    layer = small_layer(5, K=20, M=10)
    starts = layer.sample(4, 30, generator(6))
    before = search.climb(layer, starts, 0, generator(7))
    after = search.climb(layer, starts, 60, generator(7))
    assert layer.model(4).contains(as_code(layer, after.codes)).all()
    for name in search.OBJECTIVES:
        assert getattr(after, name) >= getattr(before, name) - 1e-12
    assert after.code > 1.1 * before.code


def test_decoys_beat_random_codes():
    layer = bite.layer(SMALL, 2048)
    random = layer.sample(10, 50, generator(8))
    for small in (1, 4, 9):
        made = search.decoyed(layer, random, small)
        assert layer.model(10).contains(as_code(layer, made)).all()
    made = search.decoyed(layer, random, 4)
    assert one_step(layer, made).code.max() > 1.5 * one_step(layer, random).code.max()


def test_opposite_supports_are_disjoint_and_loud():
    layer = small_layer(9, K=20, M=10)
    starts = layer.sample(3, 40, generator(10))
    mine, other = search.opposite_supports(layer, 3, starts)
    assert not (mine.unsqueeze(2) == other.unsqueeze(1)).any()
    random = starts.index, layer.atoms(3).draw(40, generator(11))
    found, usual = (
        inequalities.lemma_b2(layer.atoms(3), *pair, 1.0).left for pair in ((mine, other), random)
    )
    assert found.mean() > usual.mean()


def test_extreme_supports_beat_random_ones():
    layer = small_layer(12, K=20, M=10)
    starts = layer.sample(3, 60, generator(13))
    random = layer.atoms(3).eigenvalues(starts.index)
    high = layer.atoms(3).eigenvalues(search.extreme_supports(layer, 3, starts, 1))[:, -1]
    low = layer.atoms(3).eigenvalues(search.extreme_supports(layer, 3, starts, -1))[:, 0]
    assert high.max() >= random.max() and low.min() <= random.min()


# --- The golden ratio ---------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.05, 0.3, 0.6])
def test_golden_ratio_is_attained(delta):
    layer = sharp.layer(delta)
    assert exact_constant(layer.bank, layer.model(2), 1, order=2) == pytest.approx(delta)
    step = sharp.attained(delta)
    assert float(step.code) == pytest.approx(theory.PHI * delta, rel=1e-6)
    assert float(step.signal) <= theory.golden(delta, delta)
    missed = float(sharp.attained(delta, 1.0, 1.0).missed)
    assert missed == pytest.approx(math.sqrt(2) * delta, rel=1e-6)


def test_golden_ratio_is_attained_up_to_its_inverse_only():
    assert sharp.limit() == pytest.approx(1 / theory.PHI)
    assert float(sharp.attained(0.7).code) < theory.PHI * 0.7 - 0.1


# --- Lemmas -------------------------------------------------------------------------------------


def test_every_inequality_holds_and_ours_are_tighter(data):
    for study in [*data.toys, *data.full.values()]:
        rows = {row.name: row for row in study.rows}
        assert len(rows) == 12
        for row in rows.values():
            assert row.holds is not False, (study.channels, row)
        for lemma in ("B.3", "B.4", "3.3"):
            stated, ours = rows[f"{lemma} (stated)"], rows[f"{lemma} (ours)"]
            assert stated.left == ours.left
            assert stated.most is None or ours.most < stated.most


def test_b1_is_attained_on_toy_layers(data):
    for study in data.toys:
        rows = {row.name: row for row in study.rows}
        tight = max(rows["B.1 (6)"].left - 1, rows["B.1 (7)"].left)
        assert tight == pytest.approx(study.delta_k[0])


def test_b1_brackets_its_witness_at_full_size(data):
    for study in data.full.values():
        rows = {row.name: row for row in study.rows}
        low, high = study.delta_k
        tight = max(rows["B.1 (6)"].left - 1, rows["B.1 (7)"].left)
        assert low - 1e-9 <= tight <= high


def test_rows_that_say_nothing_are_shown_so(data):
    text = lemmas.table(data.full[chapter.CHANNELS])
    assert text.count("says nothing") == 6
    row = lemmas.Row("x", 0.5, 0.25, 1.0)
    assert row.holds and row.tightness == (0.5, 1.0)
    assert lemmas.Row("x", 0.5, None, None).holds is None
    assert lemmas.Row("x", 1.1, 1.0, 1.0).holds is False


# --- Figure 2's size and the grid of M ----------------------------------------------------------


def test_hypothesis_fails_at_figure_2s_size_and_samples_do_not_see_it(data):
    bank = bite.bank(SMALL, chapter.CHANNELS)
    for order, gap in data.gaps.items():
        code = gap.certified.code
        assert (code != 0).sum() <= 10 * order and (code != 0).sum(2).max() <= order
        square = float(bank.synthesis(code, 32).square().sum() / code.square().sum())
        assert abs(square - 1) >= gap.certified.lower > 1
        assert gap.codes.max() < 0.3 and gap.supports.max() < 0.8


def test_some_code_is_worse_than_zero_at_figure_2s_size(data):
    layer, study = bite.layer(SMALL, chapter.CHANNELS), data.full[chapter.CHANNELS]
    z = as_code(layer, study.worst.codes)[2:]
    assert float(inequalities.one_iteration(z, layer.bank, layer.model(10), 32).signal) > 1


def test_crossings_against_certificates_made_again(data):
    for (k, name), found in data.crossings.items():
        bound = theory.BOUNDS[name]
        assert found.certified in bite.GRID
        if found.by == "rows":
            layer = Layer(bite.bank(SMALL, found.certified))
            delta_k, delta_2k = (
                certify(layer.bank, layer.model(k), 32, order=order, sdp=False, starts=1,
                        generator=generator()).gershgorin
                for order in (1, 2)
            )  # fmt: skip
            assert bound(min(delta_k, delta_2k), delta_2k) < 1
        if found.vacuous is None:
            continue
        assert found.vacuous < found.certified
        if k > 1:  # by the codes that prove it, and by convolution
            deltas = []
            for order in (1, 2):
                code = bite.searched(SMALL, found.vacuous, k, order).code
                square = bite.bank(SMALL, found.vacuous).synthesis(code, 32).square().sum()
                deltas.append(abs(float(square / code.square().sum()) - 1))
            assert deltas[1] >= 1 or bound(min(deltas), deltas[1]) >= 1
            next_up = bite.GRID[bite.GRID.index(found.vacuous) + 1]
            assert next_up == found.certified or not bite.proved_vacuous(SMALL, next_up, k, bound)


def test_crossing_by_the_program(data):
    found = data.crossings[10, "golden ratio (ours)"]
    assert found.by == "program"
    bank = bite.bank(SMALL, found.certified)
    model = Layer(bank).model(10)
    again = certify(bank, model, 32, order=2, starts=1, generator=generator())
    delta_k = certify(bank, model, 32, sdp=False, starts=1, generator=generator()).upper
    assert theory.golden(delta_k, again.sdp) < 1 <= theory.golden(delta_k, again.gershgorin)


def test_bounds_bite_in_the_order_of_their_strength(data):
    for k in bite.SPARSITIES:
        at = [data.crossings[k, name].certified for name in theory.BOUNDS]
        assert at == sorted(at, reverse=True)
    for name in theory.BOUNDS:
        at = [data.crossings[k, name].certified for k in bite.SPARSITIES]
        assert at == sorted(at)


def test_verdicts_in_words():
    bound = theory.as_stated
    assert bite.verdict(bite.value(bound, 0.1, 0.1), lambda: True) == "0.62"
    assert bite.verdict(math.inf, lambda: True) == "vacuous"
    assert bite.verdict(bite.value(bound, 0.2, 0.2), lambda: False) == "not certified"
    assert bite.value(bound, 0.5, 1.0) == math.inf


# --- Beside the theorem -------------------------------------------------------------------------


def test_fixed_switches_break_a_certified_bound(data):
    upper = bite.ends(SMALL, steps.CERTIFIED, 10)[1]
    stated = theory.as_stated(upper, upper)
    assert stated < 1
    assert (data.switches.fixed > stated).all()
    assert torch.allclose(data.switches.known, data.switches.best_support)
    assert data.switches.known.max() < theory.golden(upper, upper)


@pytest.mark.parametrize("pursuit", [False, True])
def test_iterations_are_those_of_iht(pursuit):
    layer = small_layer(14, K=20, M=40)
    z = layer.sample(3, 12, generator(15))
    x = layer.bank.synthesis(as_code(layer, z), layer.size)
    path = steps.iterate(layer, z, 3, pursuit)
    assert (path[0] == 1).all()
    for i in (1, 3):
        code = iht(x, layer.bank, layer.model(3), pursuit=pursuit, iterations=i, tol=0.0).code
        error = (code.flatten(1) - layer.dense(z)).norm(dim=1) / z.norm()
        assert torch.allclose(path[i], error, atol=1e-9)


def test_contraction_by_hand():
    path = torch.tensor([[1.0, 1.0], [0.5, 0.1], [0.3, 1e-12], [0.03, 1e-16]], dtype=torch.float64)
    assert torch.allclose(steps.contraction(path), torch.tensor([0.6, 0.1]).double())


def test_contraction_stays_below_the_guarantee(data):
    for M, measured in data.contraction.items():
        upper = data.full[M].delta_2k[1]
        assert 0 < measured["IHT"] < theory.iht_rate(upper) < 1
        assert 0 < measured["HTP"] < theory.htp_rate(upper) < 1


def test_least_squares_on_a_support():
    layer = small_layer(16)
    z = layer.sample(3, 9, generator(17))
    index = layer.atoms(3).draw(9, generator(18))
    x = layer.bank.synthesis(as_code(layer, z), layer.size)
    mask = torch.zeros_like(layer.dense(z), dtype=torch.bool).scatter(1, index, True)
    expected = least_squares(x, layer.bank, mask.view(9, 12, -1)).flatten(1)
    assert torch.allclose(layer.dense(steps.on_support(layer, z, index)), expected)


def test_baselines(data):
    for M, found in data.baselines.items():
        assert found.all_of_h.max() < 1e-10, M
        assert (found.least_squares <= found.one_step + 1e-12).all()


# --- Figures, explorers, parameters -------------------------------------------------------------


def test_figures(data):
    for fig in (chapter.draw(data), chapter.draw_gap(data.gaps), chapter.draw_bite(data.intervals)):
        assert isinstance(fig, Figure)
        assert fig._repr_png_().startswith(b"\x89PNG")


def test_explorer_answers_everywhere():
    explorer = chapter.explorer(SMALL)
    views = {tuple(point.values()): explorer.render(**point).values for point in explorer.grid()}
    assert len(views) == 20
    for (M, k), values in views.items():
        low, high = map(float, values["delta_2k in"].strip("[]").split(", "))
        assert low <= high
        for name in theory.BOUNDS:
            if values[name] not in ("vacuous", "not certified"):
                assert float(values["largest error seen"]) <= float(values[name]) < 1.01
        if k == 1:
            assert values["largest error seen"] == "0.000"
    assert views[32, 10]["golden ratio (ours)"] == "vacuous"
    assert views[8192, 1]["as stated"] not in ("vacuous", "not certified")


def test_bound_explorer_answers_everywhere():
    explorer = chapter.bound_explorer()
    views = {tuple(point.values()): explorer.render(**point).values for point in explorer.grid()}
    assert len(views) == 8
    assert views[0.2, 0.1]["as stated"] == "vacuous"
    assert views[0.1, 0.1]["as stated"] == "0.61 at best, 1 or more at worst"
    assert views[0.1, 0.0]["golden ratio (ours)"] == "0.18"
    assert views[0.1, 0.1]["golden ratio (ours)"] == "0.18 to 0.40"


def test_same_seed_same_numbers():
    first, second = (lemmas.toy(SMALL, 32) for _ in range(2))
    assert first.worst[:3] == second.worst[:3] and first.delta_2k == second.delta_2k
    other = lemmas.toy(chapter.Parameters(seed=1), 32)
    assert other.delta_2k != first.delta_2k


@pytest.mark.parametrize(
    ("name", "values"), [("codes", {"codes": 2}), ("rounds", {"rounds": 0}), ("toys", {"toys": 0})]
)
def test_bad_parameters_are_refused_by_name(name, values):
    with pytest.raises(ValueError, match=rf"^{name}="):
        chapter.Parameters(**values)


def test_paper_profile_is_valid():
    assert chapter.Parameters(**chapter.PAPER).codes > chapter.Parameters().codes
