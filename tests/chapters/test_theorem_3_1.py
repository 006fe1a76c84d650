"""Chapter 5: its experiments against closed forms and against the definitions."""

import math

import pytest
import pywt
import torch
from matplotlib.figure import Figure

from invertnb import FilterBank, ModelSparse, rip
from invertnb.chapters import theorem_3_1 as chapter
from invertnb.chapters.theorem_3_1 import constants, dictionaries, rate, tails
from invertnb.theory import model_rip

G = torch.Generator


def gen(seed=0):
    return G().manual_seed(seed)


@pytest.fixture(scope="module")
def phases():
    return constants.phases(24, 3, 10, (1, 2, 4), (4, 32, 256), 0.01, 200, 0.5, gen(1))


@pytest.fixture(scope="module")
def sweeps():
    return rate.compute(24, 4, 2, 200, gen(2))


# One code


def covariance_by_loops(z, l):
    K, n = z.shape
    D = n + l - 1
    C = torch.zeros(D, D, dtype=torch.float64)
    for i in range(K):
        for d in range(D):
            for e in range(D):
                for u in range(l):
                    if 0 <= d - u < n and 0 <= e - u < n:
                        C[d, e] += z[i, d - u] * z[i, e - u]
    return C


def test_channel_covariance_is_its_definition():
    z = torch.randn(3, 4, generator=gen(), dtype=torch.float64)
    assert torch.allclose(tails.channel_covariance(z, 3), covariance_by_loops(z, 3))


def test_codes_are_unit_and_use_filters_as_named():
    codes = tails.codes(12, 9, 4, gen())
    most = [int((z != 0).sum(1).max()) for z in codes.values()]
    assert most == [1, 1, 1, 2, 2]
    assert [int((z != 0).sum()) for z in codes.values()] == [1, 4, 4, 2, 8]
    for z in codes.values():
        assert float(z.norm()) == pytest.approx(1)
        assert float(tails.channel_covariance(z, 3).trace()) == pytest.approx(3)


def test_samples_are_the_norms_of_dense_layers():
    z = tails.codes(4, 6, 2, gen())["2 filters at two shifts each"]
    found = tails.sample_squares(z, 3, 2, 50, gen(5))
    w = torch.randn(50, 2, 3, 2, generator=gen(5), dtype=torch.float64)  # the two filters in use
    for square, weight in zip(found, w, strict=True):
        bank = FilterBank(torch.cat([weight, torch.zeros(2, 3, 2, dtype=torch.float64)]) / math.sqrt(6))
        dense = z.flatten() @ bank.matrix(7)
        assert float(square) == pytest.approx(float(dense @ dense))


def test_small_chunks_still_make_all_the_draws(monkeypatch):
    z = tails.codes(4, 6, 2, gen())["one nonzero"]
    monkeypatch.setattr(tails, "CHUNK", 60)  # ten layers at a time
    found = tails.sample_squares(z, 3, 2, 35, gen(6))
    assert len(found) == 35 == len(found.unique())


@pytest.mark.parametrize("name", list(tails.codes(6, 8, 3, gen())))
def test_variance_in_closed_form(name):
    z, M, l, draws = tails.codes(6, 8, 3, gen())[name], 4, 3, 20_000
    exact = tails.variance(z, M, l)
    sampled = float(tails.sample_squares(z, M, l, draws, gen(7)).var())
    assert abs(sampled / exact - 1) < 8 / math.sqrt(draws) * 3
    order = int((z != 0).sum(1).max())
    assert exact <= 2 * order / (M * l) + 1e-12


def test_a_single_nonzero_of_random_signs_never_varies():
    z = tails.codes(4, 6, 2, gen())["one nonzero"]
    assert torch.allclose(tails.sample_squares(z, 3, 2, 30, gen(), signs=True), torch.ones(30).double())


def test_tails_of_a_hand_counted_sample():
    squares = torch.tensor([0.5, 0.9, 1.0, 1.25, 2.0], dtype=torch.float64)
    x = torch.tensor([0.05, 0.25, 0.5, 1.0, 1.5], dtype=torch.float64)
    assert tails.share_beyond(squares, x).tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_bounds_of_the_tail_are_ordered():
    x, m = torch.linspace(0.05, 3, 60, dtype=torch.float64), 12
    exact, one = tails.chi_square_tail(x, m), tails.chernoff_tail(x, m)
    assert (exact <= one).all()
    assert (one <= tails.chernoff_tail(x, m, 2)).all()
    # Equation (4) with l = D is a true bound too, and a longer signal only weakens it.
    same, longer = tails.paper_tail(x, 4, 3, 3), tails.paper_tail(x, 4, 3, 30)
    assert (exact <= same).all() and (same <= longer).all()


# M l against M l^2 / D


def test_sweeps_hold_still_what_they_say():
    fixed = [M * l for l, M, _ in rate.SWEEPS["M l fixed"]]
    other = [M * l**2 / D for l, M, D in rate.SWEEPS["M l^2 / D fixed"]]
    assert len(set(fixed)) == 1 and len(set(other)) == 1
    spans = [M * l**2 / D for l, M, D in rate.SWEEPS["M l fixed"]]
    assert max(spans) / min(spans) >= 30


def test_points_enclose_and_the_fit_separates(sweeps):
    for points in sweeps.values():
        for point in points:
            assert (point.lower <= point.upper).all() and (point.typical <= point.upper).all()
    a, b = rate.exponents(sweeps, "upper").unbind(1)
    assert ((a + 0.5).abs() < 0.15).all() and (b.abs() < 0.1).all()


def test_exponents_recover_a_known_law():
    def point(l, M, D):
        value = torch.tensor([3.0 * (M * l) ** -0.5 * (l / D) ** -0.25], dtype=torch.float64)
        return rate.Point(l, M, D, value, value, value)

    sweeps = {name: [point(*size) for size in sizes] for name, sizes in rate.SWEEPS.items()}
    found = rate.exponents(sweeps, "typical")
    assert torch.allclose(found, torch.tensor([[-0.5, -0.25]], dtype=torch.float64), atol=1e-9)


# Constants


def test_toy_rows_enclose_the_exact_constant():
    rows = constants.toy(500, gen(3))
    assert len(rows) == 5
    for row in rows:
        assert row.ratios <= row.exact + 1e-9 and row.supports <= row.exact + 1e-9
        assert row.interval.lower <= row.exact + 1e-9 <= row.interval.upper + 1e-6
    assert "exact" in constants.table(rows) and len(constants.table(rows).splitlines()) == 6


def test_figure_2_rows_are_of_the_layers_named():
    rows = constants.figure_2(K=20, M=6, l=3, D=10, k=4, seeds=2, samples=200, generator=gen(4))
    assert [row.name for row in rows] == ["layer 0"] * 2 + ["layer 1"] * 2 + ["layer 1, unit rows"] * 2
    assert [row.order for row in rows] == [1, 2] * 3
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert one.interval.lower <= two.interval.upper


def test_phases_agree_with_each_other(phases):
    assert (phases.lower <= phases.upper + 1e-9).all()
    assert (phases.sampled <= phases.upper + 1e-9).all()
    for row, k in enumerate(phases.ks):
        for column, M in enumerate(phases.Ms):
            bound = model_rip.isometry_bound(model_rip.Layer(3 * M, 24, 8), k, 0.01)
            assert float(phases.theorem[row, column]) == pytest.approx(bound)
    verdicts = constants.verdicts(phases, 0.5)
    assert torch.equal(verdicts == 0, phases.lower > 0.5)
    assert torch.equal(verdicts == 2, phases.upper <= 0.5)


# Wavelets and cosines


@pytest.mark.parametrize(
    "bank",
    [dictionaries.wavelet_packets("haar", 3), dictionaries.wavelet_packets("db3", 2),
     dictionaries.local_cosines(4), dictionaries.local_cosines(7)],
)  # fmt: skip
def test_critically_sampled_banks_are_orthonormal(bank):
    D = bank.l + 4 * bank.stride
    W = bank.matrix(D)
    assert torch.allclose(W @ W.T, torch.eye(len(W), dtype=torch.float64), atol=1e-10)
    interval = rip.certify(bank, ModelSparse(5, 2), D, generator=gen())
    assert interval.upper < 1e-9


def test_packets_are_those_of_the_library():
    # The library's synthesis of one coefficient is the filter, somewhere in the signal.
    bank = dictionaries.wavelet_packets("db2", 2)
    for row, path in zip(bank.weight[:, 0], ("aa", "ad", "da", "dd"), strict=True):
        tree = pywt.WaveletPacket(None, "db2", mode="zero")
        tree[path] = [0.0] * 6 + [1.0] + [0.0] * 6
        signal = torch.tensor(tree.reconstruct(update=False), dtype=torch.float64)
        windows = signal.unfold(0, len(row), 1)
        assert float((windows - row).abs().amax(1).min()) < 1e-10, path
        assert float(signal.norm()) == pytest.approx(1)


def test_undecimated_wavelets_are_unit_and_band_pass():
    bank = dictionaries.wavelets("db2", 3)
    assert bank.K == 4 and bank.stride == 1
    rows = bank.weight[:, 0]
    assert torch.allclose(rows.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert (rows[:3].sum(1).abs() < 1e-10).all() and float(rows[3].sum()) == pytest.approx(2**1.5)


@pytest.mark.parametrize("name", ["bior2.2", "morl", "none"])
def test_a_wavelet_that_is_not_orthogonal_is_refused(name):
    with pytest.raises(ValueError, match=rf"name = '{name}'.*orthogonal"):
        dictionaries.wavelets(name, 2)


# Chapter


def test_bad_sizes_are_refused_by_name():
    for name, values in (("k", {"k": 97}), ("l", {"l": 32}), ("draws", {"draws": 1})):
        with pytest.raises(ValueError, match=rf"^{name}="):
            chapter.Parameters(**values)


def test_paper_profile_is_larger():
    p, paper = chapter.Parameters(), chapter.Parameters(**chapter.PAPER)
    assert paper.draws > p.draws and paper.layers > p.layers and paper.samples > p.samples


def test_figures(phases, sweeps):
    sampled = tails.compute(K=8, M=3, l=3, D=10, k=3, draws=200, generator=gen())
    for fig in (tails.draw(sampled), rate.draw(sweeps), constants.draw_phases(phases, 0.3)):
        assert isinstance(fig, Figure)
        assert fig._repr_png_().startswith(b"\x89PNG")


def test_phase_explorer_counts_cells(phases):
    data = chapter.Data(None, {}, [], [], phases)
    explorer = chapter.explorer(data)
    yes = []
    for point in explorer.grid():
        values = explorer.render(**point).values
        delta = point["delta"]
        yes.append(int(values["certified yes"].split()[0]))
        assert yes[-1] == int((phases.upper <= delta).sum())
        assert values["certified no"] == int((phases.lower > delta).sum())
        misled = (phases.sampled <= delta) & (phases.lower > delta)
        assert values["sample says yes, a code says no"] == int(misled.sum())
    assert yes == sorted(yes)


def test_sizes_explorer_says_what_the_theory_says():
    explorer = chapter.sizes_explorer()
    point = {"M": 2048, "k": 2, "l": 5, "K": 96, "D": 32, "eps": 0.01}
    view = explorer.render(**point)
    bound = model_rip.isometry_bound(model_rip.Layer(2048 * 5, 96, 28), 2, 0.01)
    assert view.values["our bound on δ_k"] == f"{bound:.3f}"
    assert view.values["M l² / D, the paper's quantity"] == "1.6e+03"
    small = explorer.render(**{**point, "M": 32, "k": 20}).values
    assert small["our bound on δ_k"].startswith("1 or more")
    # The map: black cross, and the darkest region to the right of the lighter one.
    assert view.picture.shape == (chapter.MAP_HEIGHT, chapter.MAP_WIDTH, 3)
    assert tuple(view.picture[-2, 44]) == chapter.SHADES["here"]
    top = [tuple(pixel) for pixel in view.picture[0]]
    regions = [chapter.SHADES[name] for name in ("nothing", "rip", "bites")]
    assert [regions.index(pixel) for pixel in top] == sorted(regions.index(pixel) for pixel in top)
    assert set(top) == set(regions)
