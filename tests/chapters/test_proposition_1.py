"""Chapter 2: the identity, pooling, near pairs, and the law of the coherence of random filters."""

import math

import numpy as np
import pytest
import torch

from invertnb import FilterBank, ModelSparse, coherence
from invertnb.chapters.proposition_1 import coherence_law, random_filters
from invertnb.chapters import proposition_1 as chapter
from invertnb.chapters.proposition_1.coherence_law import CoherenceLaw
from invertnb.notebook.figures import Figure


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def basis():
    return chapter.orthonormal_bank(8, 4, generator=generator())


@pytest.fixture(scope="module")
def data():
    small = chapter.Parameters(signals=12, banks=2, draws=3, shift_filters=64)
    return chapter.compute(small)


# --- Proposition 1 ---


def test_stride_l_makes_an_orthonormal_basis(basis):
    W = basis.matrix(12)
    assert W.shape == (8 * 4 * 3, 8 * 12)
    assert torch.allclose(W.T @ W, torch.eye(96, dtype=W.dtype), atol=1e-12)


def test_pairs_reconstruct_any_input(basis):
    psi = chapter.with_negatives(basis)
    x = torch.randn(5, 8, 12, generator=generator(1), dtype=torch.float64)
    for scale in (1e-8, 1.0, 1e8):
        estimate = chapter.rectified(psi, scale * x)
        assert chapter.relative_error(scale * x, estimate).max() < 1e-14


def test_without_negatives_the_lost_part_is_the_negative_entries(basis):
    x = torch.randn(400, 8, 12, generator=generator(2), dtype=torch.float64)
    errors = chapter.relative_error(x, chapter.rectified(basis, x))
    lost = (-basis.analysis(x)).relu().flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert torch.allclose(errors, lost, atol=1e-12)
    sd = math.sqrt(3 / (4 * (96 + 2))) / (2 * math.sqrt(1 / 2))
    assert abs(errors.square().mean() - 0.5) < 4 * math.sqrt(3 / (4 * 98)) / 20
    assert errors.std() == pytest.approx(sd, rel=0.15)


@pytest.mark.parametrize("bias", [-0.5, 0.5, 1.5])
def test_bias_error_matches_a_large_sample(basis, bias):
    x = torch.randn(300, 8, 12, generator=generator(3), dtype=torch.float64)
    errors = chapter.relative_error(x, chapter.rectified(chapter.with_negatives(basis), x, bias))
    assert errors.square().mean().sqrt() == pytest.approx(chapter.bias_error(bias), rel=0.02)


def test_hypotheses_meet_their_predictions(data):
    found = data.hypotheses
    for name, error in found.errors.items():
        assert error.shape == (12,)
        assert float(error.mean()) == pytest.approx(found.predicted[name], rel=0.05, abs=1e-12)
    low, high = found.frame_bounds
    assert 0 < low < 1 < high


# --- Pooling ---


def test_a_block_by_hand():
    h = torch.tensor([[[3.0, -4.0, 1.0, -2.0]]])
    kept = [make(h, ModelSparse(4, None)).flatten().tolist() for make in chapter.CODES.values()]
    assert kept == [[3, -4, 0, 0], [0, -4, 0, 0], [3, 0, 0, 0]]
    assert chapter.keeps_both(h, 4).all() and chapter.keeps_both(h, 2).all()
    assert not chapter.keeps_both(h.abs(), 4).any() and not chapter.keeps_both(h, 1).any()


@pytest.mark.parametrize("n", [2, 4, 6])
def test_survival_of_both_signs(n):
    h = torch.randn(1, 20_000, n, generator=generator(4), dtype=torch.float64)
    share, theory = chapter.keeps_both(h, n).double().mean(), 1 - 2.0 ** (1 - n)
    assert abs(share - theory) < 4 * math.sqrt(theory * (1 - theory) / 20_000)


def test_pooled_errors(data):
    assert data.pooling.equal[None] == 0.0  # no identity ...
    assert data.pooling.equal[chapter.SPARSITY] > 0.7  # ... but nearly one at the paper's k
    errors = {key: float(value.mean()) for key, value in data.pooling.errors.items()}
    pairs, magnitude, signed = chapter.CODES
    k = chapter.SPARSITY
    assert errors[pairs, k] == pytest.approx(errors[magnitude, k], rel=0.03)
    assert 0.2 < errors[magnitude, k] < 0.4 and 0.6 < errors[signed, k] < 0.8
    assert errors[pairs, None] > 1.2 * errors[magnitude, None]


# --- Near pairs ---


def test_pair_error_at_known_angles():
    assert chapter.pair_error(0.0) == 0.0
    assert chapter.pair_error(math.pi / 2) == pytest.approx(math.sqrt(3) / 2)
    assert chapter.pair_error(math.pi) == pytest.approx(1.0)  # partner w: 2 ReLU(h) - h = |h|
    theta = 1e-2
    expansion = theta**2 - theta**3 / (3 * math.pi)
    assert chapter.pair_error(theta) ** 2 == pytest.approx(expansion, rel=1e-4)


@pytest.mark.parametrize("degrees", [3, 30, 70, 120])
def test_near_pairs_follow_the_closed_form(degrees):
    theta = math.radians(degrees)
    basis = chapter.orthonormal_bank(32, 5, generator=generator(5))
    squares = []
    for seed in range(6):
        psi = chapter.nearly_paired(basis, theta, generator=generator(10 + seed))
        w, v = psi.weight.flatten(1).chunk(2)
        assert torch.allclose((w * v).sum(1), torch.tensor(-math.cos(theta), dtype=w.dtype))
        assert torch.allclose(v.norm(dim=1), torch.ones(len(v), dtype=w.dtype))
        x = torch.randn(40, 32, 20, generator=generator(20 + seed), dtype=torch.float64)
        error = chapter.relative_error(x, chapter.rectified(psi, x))
        assert (error <= chapter.pair_bound(psi)).all()
        squares.append(error.square().mean())
    assert math.sqrt(sum(squares) / 6) == pytest.approx(chapter.pair_error(theta), rel=0.03)


def test_pair_bound_by_hand():
    bank = FilterBank(torch.tensor([[[1.0]], [[-0.5]]], dtype=torch.float64))  # w = 1, v = -1/2
    assert chapter.pair_bound(bank) == pytest.approx(2.5 * 0.5)
    x = torch.tensor([[[-1.0]]], dtype=torch.float64)  # gives 1/4 of x back: error 3/4
    assert float(chapter.relative_error(x, chapter.rectified(bank, x))) == pytest.approx(0.75)


# --- Random filters ---


def test_extremes_agree_with_the_core():
    bank = FilterBank.gaussian(9, 2, 3, dims=2, generator=generator(6))
    products = random_filters.inner_products(bank)
    assert products.shape == (36,)
    zero = float(products.min()), float(products.max())
    shifted = random_filters.shifted_extremes(bank)
    every = min(zero[0], shifted[0]), max(zero[1], shifted[1])
    for shifts, (low, high) in {"zero": zero, "all": every}.items():
        assert high == pytest.approx(float(coherence(bank.weight, True, shifts)))
        assert max(high, -low) == pytest.approx(float(coherence(bank.weight, False, shifts)))


def test_the_law_in_three_dimensions_is_elementary():
    # For d = 3 the inner product is uniform on [-1, 1] (Archimedes).
    signed, absolute = CoherenceLaw(5, 3, True), CoherenceLaw(5, 3, False)
    assert signed.pairs == 10
    for t in (0.2, 0.5, 0.9):
        assert float(signed.probability(t)) == pytest.approx(math.exp(-5 * (1 - t)))
        assert float(absolute.probability(t)) == pytest.approx(math.exp(-10 * (1 - t)))
        assert signed.log_density(t) == pytest.approx(math.log(5) - 5 * (1 - t))
        assert float(absolute.quantile(math.exp(-10 * (1 - t)))) == pytest.approx(t, abs=1e-4)
    assert signed.mean == pytest.approx(1 - (1 - math.exp(-5)) / 5, rel=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_draws_follow_the_law(signed):
    drawn = random_filters.draw_filters(64, 3, [generator(7)] * 400, all_shifts=False)
    law = drawn.law("signed" if signed else "absolute")
    mu = drawn.coherence("signed" if signed else "absolute")
    assert coherence_law.distance(law.probability(mu.numpy())) < 1.95 / 20  # one in a thousand
    assert abs(mu.mean() - law.mean) < 4 * law.sd / 20
    assert mu.std() == pytest.approx(law.sd, rel=0.15)


def test_layers_of_one_size_share_their_draws(data):
    assert len(data.filters) == 13 and data.filters["(5,1)"] is data.filters["(4,2)"]
    for bank in data.filters.values():
        assert bank.place.shape == (3, 2) and (bank.shifts is not None) == (bank.K <= 64)
        assert (bank.coherence("absolute") >= bank.coherence("signed")).all()
        for reading in random_filters.READINGS:
            law = bank.law(reading)
            assert (abs(bank.coherence(reading) - law.mean) < 6 * law.sd).all()
        if bank.shifts is not None:
            assert (bank.coherence("signed", "all") >= bank.coherence("signed")).all()


def test_the_published_row_is_odd_in_the_absolute_reading_only(data):
    tests = {
        reading: random_filters.row_tests(data.filters, reading, generator(8))
        for reading in random_filters.READINGS
    }
    assert tests["absolute"]["scores, law"] < 0.005 < 0.2 < tests["signed"]["scores, law"]
    assert 0.05 < tests["absolute"]["deviations, law"] < tests["signed"]["deviations, law"]
    row = list(random_filters.published().values())
    laws = [[bank.law(r) for bank in data.filters.values()] for r in ("signed", "absolute")]
    ratio = coherence_law.log10_likelihood_ratio(row, *laws)
    assert 2.5 < ratio < 3.5
    assert coherence_law.log10_likelihood_ratio(row, *laws[::-1]) == pytest.approx(-ratio)


def test_row_tests_are_calibrated():
    laws = [CoherenceLaw(64, d, True) for d in (27, 576)] * 3
    levels = np.random.default_rng(0).random((400, 6))
    rows = [[float(law.quantile(q)) for law, q in zip(laws, row)] for row in levels]
    values = np.array([coherence_law.score_test(row, laws) for row in rows])
    assert coherence_law.distance(values) < 1.95 / 20
    deviations = [coherence_law.deviation_test(row, laws, generator(9)) for row in rows[:24]]
    assert coherence_law.distance(np.array(deviations)) < 1.95 / math.sqrt(24)
    medians = [float(law.quantile(0.5)) for law in laws]
    far = [law.mean + 8 * law.sd for law in laws]
    assert coherence_law.score_test(medians, laws) > 0.999
    assert coherence_law.deviation_test(far, laws, generator(9)) == 0.0


def test_resampling_ignores_units_and_sees_outliers():
    samples = [torch.randn(30, generator=generator(30 + i), dtype=torch.float64) for i in range(4)]
    row = [0.5, -0.3, 1.0, 0.1]
    p = coherence_law.resampling_test(row, samples, generator(11))
    scaled = coherence_law.resampling_test(
        [7 + 3 * x for x in row], [7 + 3 * s for s in samples], generator(11)
    )
    assert p == scaled and p > 0.2
    assert coherence_law.resampling_test([9.0] * 4, samples, generator(11)) == 0.0


def test_distance_by_hand():
    assert coherence_law.distance(np.array([0.5])) == 0.5
    assert coherence_law.distance(np.array([0.9, 0.1])) == pytest.approx(0.4)


@pytest.mark.parametrize("arguments", [(1, 9, True), (4, 2, True), (4, 9, 1)])
def test_a_law_needs_filters_and_dimensions(arguments):
    with pytest.raises(ValueError):
        CoherenceLaw(*arguments)


# --- Figures and explorers ---


def test_figures(data):
    for draw in (chapter.draw_rectifiers, chapter.draw_pooling, chapter.draw):
        assert isinstance(draw(data), Figure)
    assert isinstance(random_filters.draw_coherence(data.filters), Figure)


def test_every_frame_of_the_explorers(data):
    near = chapter.explorer(data)
    errors = []
    for point in near.grid():
        values = near.render(**point).values
        errors.append(values["relative error of this signal"])
        assert errors[-1] <= values["bound for every signal"] + 1e-12
        assert errors[-1] == pytest.approx(values["predicted"], rel=0.12, abs=1e-12)
    assert len(errors) == 12 and errors == sorted(errors)
    filters = chapter.coherence_explorer(data)
    for point in filters.grid():
        values = filters.render(**point).values
        bank = data.filters[point["layer"]]
        assert values["largest"] == float(bank.place[0, 1])
        assert 0 < values["absolute: probability of a value below the paper's"] < 1
        assert values["paper"] == random_filters.published()[point["layer"]]
