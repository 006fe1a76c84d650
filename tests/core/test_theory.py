"""The theorems' bounds: by hand, by simulation, and each lemma on exact constants."""

from __future__ import annotations

import math
from itertools import product

import pytest
import reference
import torch
from banks import banks, normal
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse, iht
from invertnb.rip import Atoms, exact_constant
from invertnb.theory import lemmas, one_step
from invertnb.theory.model_rip import (
    EXPLICIT_C, Layer, deviation, explicit_weights, exponent, failure_bound, isometry_bound,
    laurent_massart, log_cap, log_supports, paper_failure, weights_needed,
)

FIGURE_2 = Layer(m=160, K=96, n=28)


# Theorem 3.1 and Corollary 3.2

@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("K, n, k", [(3, 3, 2), (2, 2, 2), (4, 1, 2), (1, 4, 1), (3, 2, 1)])
def test_log_supports(K, n, k, order):
    count = len(reference.sum_supports(K, (n,), (n,), k, order))
    assert_close(log_supports(Layer(7, K, n), k, order), math.log(count))


@given(st.floats(1e-3, 1e3), st.integers(1, 10**6), st.integers(1, 3))
def test_deviation_inverts_the_exponent(x, m, order):
    s = exponent(x, m, order)
    assert_close(deviation(s, m, order), x, rtol=1e-6, atol=1e-12)
    assert deviation(s, m, order) <= laurent_massart(s, m, order) * (1 + 1e-9)
    assert exponent(laurent_massart(s, m, order), m, order) >= s * (1 - 1e-9)


@pytest.mark.parametrize("m", [10**12, 10**18, 10**30])
def test_tiny_deviations(m):
    # x - log(1 + x) cancels here; it is x^2 / 2 but for the third order.
    x = deviation(10.0, m)
    assert_close(x, 2 * math.sqrt(10 / m), rtol=1e-4, atol=0.0)
    assert_close(exponent(x, m), 10.0, rtol=1e-9, atol=0.0)
    assert_close(exponent(1e-5, m), exponent(1e-5 * (1 + 1e-9), m), rtol=1e-8, atol=0.0)


def test_exponents_by_hand():
    assert_close(exponent(1.0, 10), 5 * (1 - math.log(2)))
    assert_close(exponent(1.0, 10, 2), 2.5 * (1 - math.log(2)))
    assert exponent(0.0, 10) == 0
    assert_close(laurent_massart(4.0, 16, 1), 2 * 0.5 + 2 * 0.25)
    assert_close(laurent_massart(2.0, 16, 2), 2 * 0.5 + 2 * 0.25)


@pytest.mark.parametrize("order", [1, 2])
def test_the_tail_of_one_code(order):
    # One code, 4000 draws of its filter, at one place or at two neighbors.
    m = 12
    bank = FilterBank.gaussian(4000, m // 2, 2, generator=torch.Generator().manual_seed(3))
    z = torch.zeros(4, dtype=torch.float64)
    z[[1, 2][:order]] = 1 / math.sqrt(order)
    rows = [FilterBank(w.unsqueeze(0)).synthesis(z.view(1, 1, -1), 5) for w in bank.weight]
    squares = torch.cat(rows).flatten(1).square().sum(1)
    for x in (0.3, 0.6, 1.0):
        share = float(((squares - 1).abs() >= x).double().mean())
        assert share <= 2 * math.exp(-exponent(x, m, order))


@pytest.mark.parametrize("dimension", [2, 3, 5, 20])
def test_log_cap_by_simulation(dimension, generator):
    cosine = normal(100_000, dimension, generator=generator)
    cosine = cosine[:, 0].abs() / cosine.norm(dim=1)
    for theta in (0.4, 0.7, 1.2):
        p = math.exp(log_cap(theta, dimension))
        share = float((cosine >= math.cos(theta)).double().mean())
        assert abs(share - p) <= 4.5 * math.sqrt(p * (1 - p) / 1e5) + 1e-12


@given(st.floats(1e-3, math.pi / 2))
def test_log_cap_by_formula(theta):
    assert log_cap(theta, 1) == 0
    assert_close(math.exp(log_cap(theta, 2)), 2 * theta / math.pi)
    assert_close(math.exp(log_cap(theta, 3)), 1 - math.cos(theta), rtol=1e-9, atol=1e-12)


def test_log_cap_of_tiny_shares(monkeypatch):
    # Without the incomplete beta function only its leading factor is left, which is a little less.
    cases = list(product([0.05, 0.3, 0.7], [2, 3, 10, 60]))
    exact = [log_cap(*case) for case in cases]
    monkeypatch.setattr("invertnb.theory.model_rip.betainc", lambda *_: 0.0)
    for (theta, dimension), value in zip(cases, exact, strict=True):
        below = log_cap(theta, dimension)
        # The series left out is at most 1 / (1 - sin^2).
        assert value + 2 * math.log(math.cos(theta)) - 1e-12 <= below <= value
    monkeypatch.undo()
    # Shares beyond float64, with no jump where the branch changes.
    values = [log_cap(0.3, dimension) for dimension in range(500, 620)]
    steps = [a - b for a, b in zip(values[:-1], values[1:], strict=True)]
    assert values[-1] < -700 < values[0] and min(steps) > 0
    assert max(steps) - min(steps) < -2 * math.log(math.cos(0.3)) + 0.01


LAYERS = [(FIGURE_2, 10), (Layer(400, 12, 5), 2), (Layer(60, 8, 1), 1), (Layer(5000, 3, 200), 3)]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("layer, k", LAYERS)
def test_bounds_invert_each_other(layer, k, order):
    for eps in (0.9, 0.05, 1e-9):
        delta = isometry_bound(layer, k, eps, order)
        assert_close(failure_bound(layer, k, delta, order), eps, rtol=1e-4, atol=0.0)
        assert weights_needed(layer, k, delta, eps, order) in range(layer.m - 1, layer.m + 2)
        assert isometry_bound(layer._replace(m=2 * layer.m), k, eps, order) < delta
    for delta in (0.05, 0.5, 2.0):
        m = weights_needed(layer, k, delta, 0.05, order)
        assert isometry_bound(layer._replace(m=m), k, 0.05, order) <= delta * (1 + 1e-6)
        assert isometry_bound(layer._replace(m=m - 1), k, 0.05, order) > delta * (1 - 1e-6)
    assert failure_bound(layer._replace(m=1), k, 0.01, order) == 1


@pytest.mark.parametrize("order", [1, 2])
def test_bounds_are_monotone(order):
    layer, k = Layer(400, 12, 5), 2
    delta = isometry_bound(layer, k, 0.05, order)
    for larger in (layer._replace(K=13), layer._replace(n=6), layer._replace(m=399)):
        assert isometry_bound(larger, k, 0.05, order) > delta
        assert failure_bound(larger, k, 1.0, order) > failure_bound(layer, k, 1.0, order)
    assert isometry_bound(layer, k + 1, 0.05, order) > delta
    assert isometry_bound(layer, k, 0.04, order) > delta
    assert isometry_bound(layer, k, 0.05, order + 1) > delta
    assert weights_needed(layer, k, 0.3, 0.05, order) > weights_needed(layer, k, 0.4, 0.05, order)
    assert failure_bound(layer, k, 1.1, order) < failure_bound(layer, k, 1.0, order) < 1


def test_one_code_alone_needs_no_cap():
    # k = 1: supports of one atom, 8 of them, and each has one code up to scale.
    layer = Layer(60, 8, 1)
    s = math.log(2 / 0.05) + math.log(8)
    assert_close(isometry_bound(layer, 1, 0.05), deviation(s, 60))
    assert_close(failure_bound(layer, 1, 0.9), 16 * math.exp(-exponent(0.9, 60)))
    assert weights_needed(layer, 1, 0.9, 0.05) == math.ceil(s / exponent(0.9, 1))


def test_two_codes_by_hand():
    # k = 2 over two filters of two shifts: 4 supports, caps on circles, the best angle by scanning.
    layer, eps = Layer(100, 2, 2), 0.1
    scan = [
        deviation(math.log(2 / eps * 4 / (2 * theta / math.pi)), 100) / math.cos(2 * theta)
        for theta in (i / 10_000 for i in range(1, 7800))
    ]
    assert_close(isometry_bound(layer, 2, eps), min(scan), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("order", [1, 2])
def test_the_explicit_constants_suffice(order):
    least = math.inf
    for K, n, k in product([1, 2, 3, 4, 8, 30, 200], [1, 2, 3, 4, 20, 500], [1, 2, 3, 5, 30, 200]):
        if k > K or K * n < 4:
            continue
        for delta, eps in product([1e-3, 0.3, 1.0], [1 - 1e-9, 0.5, 1e-6]):
            layer = Layer(1, K, n)
            enough = explicit_weights(layer, k, delta, eps, order)
            least = min(least, enough / weights_needed(layer, k, delta, eps, order))
    assert 1 <= least


def test_explicit_weights_by_hand():
    value = explicit_weights(Layer(1, 5, 4), 3, 0.5, math.exp(-2))
    assert_close(value, 60 * 4 * (3 * math.log(20) + 2))
    value = explicit_weights(Layer(1, 5, 4), 3, 0.5, math.exp(-2), order=2)
    assert_close(value, EXPLICIT_C[2] * 4 * (3 * math.log(20) + 2))
    assert EXPLICIT_C[1] == 60 and EXPLICIT_C[2] <= 240


@pytest.mark.parametrize("order, m, eps", [(1, 24, 0.3), (1, 60, 0.05), (2, 60, 0.3)])
def test_the_isometry_bound_holds(order, m, eps, generator):
    model, fails, size = ModelSparse(3, 2), 0, 5
    bound = isometry_bound(Layer(m, 4, 3), 2, eps, order)
    for _ in range(100):
        bank = FilterBank.gaussian(4, m // 3, 3, generator=generator)
        fails += exact_constant(bank, model, size, order=order) > bound
    assert fails <= 100 * eps


def test_the_paper_s_failure_by_hand():
    sizes = dict(l=5, M=32, D=32, K=96, n=28, k=10)
    value = paper_failure(0.5, **{**sizes, "M": 3200, "D": 25}, C=1.0)  # M l^2 / D = 3200
    assert_close(math.log(value), 10 * math.log(96 * 28) - 3200 / 4)
    assert_close(math.log(paper_failure(0.5, **{**sizes, "M": 3200, "D": 25}, C=2.0)),
                 10 * math.log(96 * 28) - 400)
    assert paper_failure(0.5, **sizes, C=1.0) == 1  # it says nothing at the size of Figure 2


# Theorem 3.3

def test_one_step_by_hand():
    step = one_step
    assert_close(step.identification(0.2, 0.3), 2 * 0.3 / 0.8)
    assert_close(step.identification_tight(0.2, 0.3), 0.3 * 2**0.5)
    assert_close(step.estimation(0.2, 0.3), 5 * 0.3 / 0.8)
    assert_close(step.estimation_penultimate(0.2, 0.3), 1.3 * 2 * 0.3 / 0.8 + 0.2)
    assert_close(step.estimation_golden(0.2, 0.3), 0.3 * (1 + 5**0.5) / 2)
    assert_close(step.as_stated(0.2, 0.3), 1.875 * (1.3 / 0.7) ** 0.5)
    assert_close(step.penultimate(0.2, 0.3), 1.175 * (1.3 / 0.7) ** 0.5)
    assert_close(step.golden(0.2, 0.3), 0.3 * (1 + 5**0.5) / 2 * (1.3 / 0.8) ** 0.5)
    assert all(bound(0.0, 0.0) == 0 for bound in step.BOUNDS.values())


@pytest.mark.parametrize("name, expected", [
    ("as stated", 0.1471), ("last line but one", 0.2027), ("golden ratio (ours)", 0.4031)])
def test_thresholds(name, expected):
    bound = one_step.BOUNDS[name]
    delta = one_step.threshold(bound)
    assert abs(delta - expected) < 5e-5
    assert bound(delta - 1e-6, delta - 1e-6) < 1 < bound(delta + 1e-6, delta + 1e-6)


@given(st.floats(0, 0.999), st.floats(0, 1))
def test_ordering_of_the_bounds(delta_2k, share):
    delta_k = share * delta_2k
    stated, penultimate, golden = (
        one_step.BOUNDS[name](delta_k, delta_2k)
        for name in ("as stated", "last line but one", "golden ratio (ours)"))
    assert golden <= penultimate * (1 + 1e-12) and penultimate <= stated * (1 + 1e-12)
    assert one_step.identification_tight(delta_k, delta_2k) <= one_step.identification(
        delta_k, delta_2k)


def test_rates_of_the_iterations():
    assert_close(one_step.iht_rate(0.1), 0.1 * 3**0.5 * (1 + 5**0.5) / 2)
    assert_close(one_step.htp_rate(0.6), 6**0.5 * 0.6 / 0.8)
    assert one_step.iht_rate(0.3567) < 1 < one_step.iht_rate(0.3569)
    assert_close(one_step.htp_rate(7**-0.5), 1.0)


# The lemmas of appendices A and B

@given(banks(dims=(1,), paddings=False))
def test_the_expected_gram_is_the_identity(case):
    bank, size = case
    expected = lemmas.expected_gram(bank.K, bank.M, bank.l, size, bank.stride)
    assert torch.equal(expected, torch.eye(len(expected), dtype=torch.float64))
    z = normal(4, bank.K, bank.code_size(size), generator=torch.Generator().manual_seed(1))
    assert lemmas.lemma_a1(z, expected).holds(1e-9)
    assert not lemmas.lemma_a1(z, 1.01 * expected).holds(1e-9)


def test_the_expected_gram_by_simulation(generator):
    draws = 3000
    total = torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(draws):
        W = reference.dense(FilterBank.gaussian(2, 2, 2, generator=generator).weight, (5,))
        total += W @ W.T / draws
    # An entry has a variance of at most 2 / Ml a draw.
    gap = total - lemmas.expected_gram(2, 2, 2, 5)
    assert gap.abs().max() <= 4.5 * math.sqrt(2 / 4 / draws)


def certified_layer(seed: int, M: int = 40, K: int = 4, n: int = 3, k: int = 2):
    """A bank, its model and size, and its exact delta_k and delta_2k, below 1."""
    bank = FilterBank.gaussian(K, M, 3, generator=torch.Generator().manual_seed(seed))
    model, size = ModelSparse(n, k), n + 2
    deltas = [exact_constant(bank, model, size, order=order) for order in (1, 2)]
    assert deltas[0] <= deltas[1] < 1
    return bank, model, size, *deltas


def scanned_codes(atoms: Atoms, angles: int = 24) -> torch.Tensor:
    """Codes on every support of two atoms, at angles that go round half of the circle."""
    index = torch.cat(list(atoms.every_support()))
    turn = math.pi / angles * torch.arange(angles, dtype=torch.float64)
    pair = torch.stack([turn.cos(), turn.sin()], dim=1).repeat(len(index), 1)
    z = torch.zeros(len(pair), atoms.count, dtype=torch.float64)
    z.scatter_(1, index.repeat_interleave(angles, 0), pair)
    return z.view(-1, atoms.bank.K, *atoms.n)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_lemmas_hold_at_exact_constants(seed):
    bank, model, size, delta_k, delta_2k = certified_layer(seed)
    atoms = Atoms(bank, model, size)
    index = torch.cat(list(atoms.every_support()))
    for name, inequality in lemmas.lemma_b1(atoms, index, delta_k).items():
        assert inequality.holds(), name
        assert len(inequality.left) == len(index)
    # delta_k is attained on one side: at the largest eigenvalue (5), (6), or at the least (7).
    attained = lemmas.lemma_b1(atoms, index, delta_k)
    upper = float(atoms.eigenvalues(index).max()) - 1 > delta_k - 1e-12
    for name in ("(5)", "(6)") if upper else ("(7)",):
        assert_close(attained[name].tightness, 1.0)
    first, second = (
        index.repeat_interleave(len(index), 0), index.repeat(len(index), 1))  # all pairs
    b2 = lemmas.lemma_b2(atoms, first, second, delta_2k)
    assert b2.holds() and 0.3 < b2.tightness <= 1 + 1e-12
    random = model.sample(500, bank.K, atoms.n[0], generator=torch.Generator().manual_seed(seed))
    step = lemmas.one_iteration(torch.cat([scanned_codes(atoms), random]), bank, model, size)
    for lemma in (lemmas.lemma_b3, lemmas.lemma_b4, lemmas.theorem_3_3):
        stated, tight = (lemma(step, delta_k, delta_2k, tight=tight) for tight in (False, True))
        assert stated.holds() and tight.holds()
        assert stated.tightness <= tight.tightness <= 1 + 1e-12
    assert step.code.max() > 0.3 * delta_2k


def test_lemma_b1_is_attained_from_above():
    # Rows that agree up to 0.8: eigenvalues 1.8 and 0.2; scaled by 1.1, the upper one decides.
    weight = torch.tensor([[[1.0], [0.0]], [[0.8], [0.6]]], dtype=torch.float64) * 1.1**0.5
    atoms = Atoms(FilterBank(weight), ModelSparse(1, 2), 1)
    delta = exact_constant(atoms.bank, atoms.model, 1)
    assert_close(delta, 1.1 * 1.8 - 1)
    found = lemmas.lemma_b1(atoms, torch.tensor([[0, 1]]), delta)
    assert_close(found["(5)"].tightness, 1.0)
    assert_close(found["(6)"].tightness, 1.0)
    assert found["(7)"].tightness < 1
    assert_close(found["(5)"].left, torch.tensor([1.98**0.5], dtype=torch.float64))
    assert_close(found["(7)"].right, torch.tensor([0.22], dtype=torch.float64))
    assert not lemmas.lemma_b1(atoms, torch.tensor([[0, 1]]), 0.9)["(5)"].holds()


def test_lemma_b2_by_hand():
    # Three rows of one shift; Om = {0, 1}, the other support {1, 2}: only row 2 lies outside.
    weight = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]], [[0.6], [0.8]]], dtype=torch.float64)
    atoms = Atoms(FilterBank(weight), ModelSparse(1, 2), 1)
    index = torch.tensor([[0, 1]]), torch.tensor([[1, 2]])
    found = lemmas.lemma_b2(atoms, *index, 0.9)
    assert_close(found.left, torch.tensor([1.0], dtype=torch.float64))  # norm of (0.6, 0.8)
    assert found.right.tolist() == [0.9] and not found.holds()


@pytest.mark.parametrize("dims", [1, 2])
def test_one_iteration_is_the_definition(dims, generator):
    bank = FilterBank.gaussian(4, 5, 2, dims=dims, generator=generator)
    n = (3,) * dims
    model = ModelSparse(3 if dims == 1 else n, 2)
    z = model.sample(6, 4, 3 if dims == 1 else n, generator=generator)
    W = reference.dense(bank.weight, (4,) * dims)
    step = lemmas.one_iteration(z, bank, model, 4 if dims == 1 else (4, 4))
    for b in range(6):
        flat = z[b].flatten()
        code = reference.project((W @ (W.T @ flat)).view(4, *n), n, 2)[0].flatten()
        assert_close(step.missed[b], flat[code == 0].norm() / flat.norm())
        assert_close(step.code[b], (code - flat).norm() / flat.norm())
        assert_close(step.signal[b], (W.T @ (code - flat)).norm() / (W.T @ flat).norm())


def test_inequalities():
    def inequality(left, right):
        return lemmas.Inequality(*(torch.tensor(side, dtype=torch.float64) for side in (left, right)))

    assert inequality([1.0, 2.0], [1.0, 4.0]).holds()
    assert inequality([1.0, 2.0], [2.0, 4.0]).tightness == 0.5
    assert inequality([0.0], [0.0]).tightness == 1
    assert not inequality([1.0, 2.1], [1.0, 2.0]).holds()
    assert inequality([2.1], [2.0]).holds(slack=0.2)
    assert not inequality([math.nan], [1.0]).holds()
    assert not inequality([1.0], [math.nan]).holds()


@pytest.mark.parametrize("dims", [1, 2])
def test_the_golden_ratio_inequality(dims, generator):
    # || P(b) - z || <= phi || (b - z) on the two supports ||, for every z in M_k and every b.
    n = (4,) * dims
    model = ModelSparse(4 if dims == 1 else (2, 2), 2)
    z = model.sample(4000, 3, 4 if dims == 1 else n, generator=generator)
    noise = normal(*z.shape, generator=generator)
    b = z + noise * torch.rand(4000, generator=generator).double().view(-1, *(1,) * (dims + 1))
    code = model.project(b).code
    on = (code != 0) | (z != 0)
    right = torch.where(on, b - z, 0.0).flatten(1).norm(dim=1)
    left = (code - z).flatten(1).norm(dim=1)
    assert (left <= one_step.PHI * right + 1e-12).all() and (left / right).max() > 1.3
    # Attained: z = 1 at one place, where b = 1 / phi; as much at another.
    z, b = torch.zeros(2, 1, 2, 4, dtype=torch.float64)
    z[0, 0, 0] = 1
    b[0, 0, 0], b[0, 1, 0] = 1 / one_step.PHI - 1e-12, 1 / one_step.PHI
    code = ModelSparse(4, 1).project(b).code
    assert_close(float((code - z).norm() / (b - z).norm()), one_step.PHI)


@pytest.mark.parametrize("pursuit", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_iterations_contract_at_their_rate(seed, pursuit):
    bank, model, size, _, delta_2k = certified_layer(seed, M=150)
    rate = (one_step.htp_rate if pursuit else one_step.iht_rate)(delta_2k)
    assert 0.2 < rate < 1
    z = scanned_codes(Atoms(bank, model, size))
    x = bank.synthesis(z, size)
    errors = [z.flatten(1).norm(dim=1)]
    for iterations in (1, 2, 3, 4):
        code = iht(x, bank, model, iterations=iterations, tol=0.0, pursuit=pursuit).code
        errors.append((code - z).flatten(1).norm(dim=1))
    for before, after in zip(errors[:-1], errors[1:], strict=True):
        assert (after <= rate * before + 1e-12).all()
    assert (errors[1] > 0.01).any()
