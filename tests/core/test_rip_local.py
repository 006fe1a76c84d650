"""Local bounds on large layers against a dense W of toy ones, cropped rows and windows included."""

from __future__ import annotations

import math
from itertools import combinations, product

import pytest
import reference
import torch
from banks import axes, banks, normal
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse
from invertnb.rip import (
    Ends, LocalRows, exact_constant, gershgorin, local_gershgorin, local_rows, lower_bound,
    shift_coherence, spectral_bound, stripe_coherence, worst_code,
)
from invertnb.rip.atoms import Atoms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def layers(draw, stride=None):
    """A toy bank, a model with windows that divide the code, and the size."""
    bank, size = draw(banks())
    if stride is not None:
        assume(bank.stride == stride)
    n = axes(bank.code_size(size))
    block = tuple(draw(st.sampled_from(divisors(side))) for side in n)
    blocks = bank.K * math.prod(side // b for side, b in zip(n, block, strict=True))
    k = draw(st.one_of(st.none(), st.integers(1, min(blocks, 4))))
    bank = bank.normalized() if draw(st.booleans()) else bank
    return bank, ModelSparse(block[0] if bank.dims == 1 else block, k), size


def layer(K=3, M=2, l=3, n=6, block=2, k=None, dims=1, padding=1, seed=0, dtype=torch.float64):
    bank = FilterBank.gaussian(K, M, l, dims=dims, padding=padding, dtype=dtype,
                               generator=seeded(seed)).normalized()
    side = n + l - 1 - 2 * padding
    size = side if dims == 1 else (side, side)
    return bank, ModelSparse(block if dims == 1 else (block, block), k), size


def parts(bank, model, size):
    """W W^T, the position and filter of each row, and the window of each."""
    n = axes(bank.code_size(size))
    W = reference.dense(bank.weight, axes(size), bank.stride, bank.padding)
    at = list(product(range(bank.K), *map(range, n)))
    windows = [(i, *(a // b for a, b in zip(place, axes(model.block), strict=True)))
               for i, *place in at]
    return W @ W.T, at, windows


def in_stripe(one, other, l):
    return all(abs(a - b) < l for a, b in zip(one[1:], other[1:], strict=True))


def row_sums(bank, model, size, local):
    """The bound, row by row, window by window."""
    gram, at, windows = parts(bank, model, size)
    worst = 0.0
    for a in range(len(at)):
        best = {}
        for b in range(len(at)):
            if windows[b] != windows[a] and in_stripe(at[a], at[b], bank.l):
                best[windows[b]] = max(best.get(windows[b], 0.0), abs(float(gram[a, b])))
        others = sorted(best.values(), reverse=True)[: local if local is not None else len(best)]
        worst = max(worst, abs(float(gram[a, a]) - 1) + sum(others))
    return worst


def deviation(gram, support):
    return float((torch.linalg.eigvalsh(gram[support][:, support]) - 1).abs().max())


# Row sums


@given(layers(stride=1), st.sampled_from([0, 1, 2, 5, None]))
def test_row_sums_of_every_row(case, local):
    bank, model, size = case
    cap = local
    if model.k is not None:
        cap = model.k - 1 if local is None else min(local, model.k - 1)
    bound = local_gershgorin(bank, model, size, local)
    assert bound == pytest.approx(row_sums(bank, model, size, cap), rel=1e-12, abs=1e-12)


def test_row_sums_by_hand():
    # Two filters of two taps on three places with one zero on each side: four rows each. Only the
    # last rows lose their second tap, and only the first their first.
    weight = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]], dtype=torch.float64)
    bank, model = FilterBank(weight, padding=1), ModelSparse(2, None)
    rows = local_rows(bank, model, 3)
    # Filter 1 in front of the signal has no tap left: a deviation of 1, and no neighbors. The last
    # row of filter 0 has 0.6: 1 - 0.36, with filter 1 there 0.6, and with its own window's nobody.
    # Whole rows: filter 0 meets filter 1 in place by 0.6, one on by 0.8, itself one on by 0.48;
    # filter 1 meets filter 0 in place by 0.6, one before by 0.8.
    # The first row of filter 0: 1 - 0.64 = 0.36, and filter 1 one on 0.8 in the same window.
    assert rows.bound(0) == pytest.approx(1.0)
    assert rows.bound(1) == pytest.approx(0.64 + 0.6)
    # The last row of filter 0, and whole rows: 0.8 + 0.6 + 0.48 where the windows differ.
    assert rows.bound() == pytest.approx(row_sums(bank, model, 3, None))
    assert rows.bound() == pytest.approx(0.8 + 0.6 + 0.48)


@given(layers(stride=1))
def test_no_code_exceeds_the_bounds(case):
    bank, model, size = case
    gram, at, windows = parts(bank, model, size)
    rows = local_rows(bank, model, size)
    slack, spectral = 1e-12, spectral_bound(bank, size)
    some = list(combinations(range(len(at)), min(3, len(at), model.k or 3)))
    draw = torch.randperm(len(some), generator=seeded())[:200].tolist()
    for support in [some[i] for i in draw]:
        if len({windows[a] for a in support}) < len(support):
            continue
        others = max(sum(in_stripe(at[a], at[b], bank.l) for b in support) - 1 for a in support)
        worst = deviation(gram, list(support))
        assert worst <= rows.bound(others) + slack and worst <= spectral + slack
    z = model.sample(5, bank.K, bank.code_size(size), generator=seeded())
    for code in z:
        worst = deviation(gram, code.flatten().nonzero().squeeze(1))
        assert worst <= rows.bound() + slack and worst <= spectral + slack


def test_every_support_of_a_small_layer():
    bank, model, size = layer(K=2, n=4, k=3)
    gram, at, _ = parts(bank, model, size)
    tried = 0
    for k in (1, 2, 3):
        bound = local_gershgorin(bank, ModelSparse(2, k), size)
        for support in reference.supports(bank.K, (4,), (2,), k):
            assert deviation(gram, [at.index(a) for a in support]) <= bound
            tried += 1
    assert tried == 4 * 2 + 6 * 4 + 4 * 8


@given(layers(stride=1))
def test_the_curve(case):
    bank, model, size = case
    rows = local_rows(bank, model, size)
    assert rows.curve.dtype == torch.float64 and (rows.curve.diff() > 0).all()
    most = len(rows.curve) - 1
    assert rows.bound() == rows.bound(most) == rows.bound(most + 7) == float(rows.curve[-1])
    if model.k is not None:
        assert most <= model.k - 1
        assert torch.equal(
            rows.curve, local_rows(bank, ModelSparse(model.block, None), size).curve[: model.k])
    for level in (0.3, 1.0, 3.0, 1e6):
        largest = rows.largest(level)
        if largest is None:
            assert rows.bound(0) >= level
        else:
            assert rows.bound(largest) < level
            assert largest == most or rows.bound(largest + 1) >= level


def test_levels_by_hand():
    rows = LocalRows(torch.tensor([0.2, 0.5, 1.0, 1.3], dtype=torch.float64))
    assert [rows.largest(level) for level in (0.2, 0.3, 1.0, 1.1, 9.0)] == [None, 0, 1, 2, 3]
    assert [rows.bound(t) for t in (0, 2, 3, 50, None)] == [0.2, 1.0, 1.3, 1.3, 1.3]


def test_one_window_a_filter_is_the_model_gershgorin():
    bank, _, _ = layer(K=5, l=2, padding=0)
    for k in (1, 2, 4):
        atoms = Atoms(bank, ModelSparse(3, k), 4)
        assert_close(local_gershgorin(bank, ModelSparse(3, k), 4), gershgorin(atoms),
                     rtol=0, atol=1e-12)


# Coherences


def mu_of(bank, side):
    """Loops over the rows of W at a size."""
    size = side if bank.dims == 1 else (side, side)
    gram, at, _ = parts(bank, ModelSparse(1 if bank.dims == 1 else (1, 1), None), size)
    mu = torch.zeros((2 * bank.l - 1,) * bank.dims, dtype=torch.float64)
    for a, b in product(range(len(at)), repeat=2):
        if a != b and in_stripe(at[a], at[b], bank.l):
            place = tuple(bank.l - 1 + q - p for p, q in zip(at[a][1:], at[b][1:], strict=True))
            mu[place] = max(mu[place], abs(gram[a, b]))
    return mu


@pytest.mark.parametrize("dims, l, padding", [(1, 3, 0), (1, 3, 2), (1, 4, 1), (2, 2, 1), (2, 3, 1)])
def test_shift_coherence(dims, l, padding):
    bank = FilterBank.gaussian(3, 2, l, dims=dims, padding=padding, generator=seeded(4))
    mu = shift_coherence(bank)
    assert_close(mu, mu_of(bank, 2 * l))
    assert_close(mu, mu.flip(tuple(range(dims))))
    if padding == 0:
        products = bank.gram().abs()
        center = (l - 1,) * dims
        products[(range(3), range(3), *center)] = 0
        assert_close(mu, products.amax((0, 1)))


def test_shift_coherence_by_hand():
    bank = FilterBank(torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]], dtype=torch.float64))
    # In place 3 - 2; one on: 2 * 1 of filter 0 with itself, 2 * 3 with filter 1.
    assert shift_coherence(bank).tolist() == [6.0, 1.0, 6.0]
    # The rows at the border keep one tap: then 1 * 3 in place, or 2 * 1.
    assert shift_coherence(FilterBank(bank.weight, padding=1)).tolist() == [6.0, 3.0, 6.0]
    alone = FilterBank(torch.ones(1, 1, 1, dtype=torch.float64))
    assert shift_coherence(alone).tolist() == [0.0]


@given(layers(stride=1), st.sampled_from([0.05, 0.3, 1.0]))
def test_stripe_coherence(case, density):
    bank, model, size = case
    n = axes(bank.code_size(size))
    g = seeded(1)
    code = normal(3, bank.K, *n, generator=g)
    code = torch.where(torch.rand(code.shape, generator=g) < density, code, 0.0)
    code[0] = 0
    gram, at, _ = parts(bank, model, size)
    # mu over the rows that this size has.
    mu = {}
    for a, b in product(range(len(at)), repeat=2):
        if a != b:
            shift = tuple(q - p for p, q in zip(at[a][1:], at[b][1:], strict=True))
            mu[shift] = max(mu.get(shift, 0.0), abs(float(gram[a, b])))
    found = stripe_coherence(code, bank)
    assert found.dtype == torch.float64 and found[0] == 0
    for b in range(3):
        support = code[b].flatten().nonzero().squeeze(1).tolist()
        sums = [
            sum(mu[tuple(q - p for p, q in zip(at[i][1:], at[j][1:], strict=True))]
                for j in support if j != i)
            for i in support
        ]
        assert float(found[b]) == pytest.approx(max(sums, default=0.0), rel=1e-9, abs=1e-12)
        if support:
            diagonal = float((gram.diagonal() - 1).abs().max())
            assert deviation(gram, support) <= diagonal + float(found[b]) + 1e-12


# The whole spectrum, and the search


@given(layers())
def test_spectral_bound(case):
    bank, _, size = case
    top = float(torch.linalg.eigvalsh(parts(*case)[0])[-1])
    assert_close(spectral_bound(bank, size), max(top - 1, 1.0), rtol=1e-9, atol=1e-9)
    assert spectral_bound(bank, size) >= max(top - 1, 1.0) * (1 - 1e-14)


@given(layers())
def test_worst_code_is_attained(case):
    bank, model, size = case
    found = worst_code(bank, model, size, starts=2, steps=10, generator=seeded())
    gram, _, _ = parts(bank, model, size)
    for ratio, witness, sign in ((found.smallest, found.least, 1), (found.largest, found.most, -1)):
        code = witness.code
        assert code.dtype == torch.float64 and code.shape == (1, bank.K, *axes(bank.code_size(size)))
        assert model.contains(code).all() and float(code.norm()) == pytest.approx(1)
        z = code.flatten()
        attained = float(z @ gram @ z)
        assert attained == pytest.approx(ratio, rel=1e-9, abs=1e-9)
        assert sign * (ratio - attained) >= -1e-15
        assert 0 <= witness.delta <= abs(attained - 1) + 1e-15
        assert witness.delta <= spectral_bound(bank, size)
        if bank.stride == 1:
            assert witness.delta <= local_gershgorin(bank, model, size)
    assert found.smallest <= found.largest + 1e-9


@pytest.mark.parametrize("options", [
    dict(k=2), dict(k=3, padding=2), dict(K=2, n=2, k=2, dims=2), dict(n=4, k=None)])
def test_worst_code_is_near_the_end(options):
    bank, model, size = layer(**options)
    gram, at, _ = parts(bank, model, size)
    n, block = axes(bank.code_size(size)), axes(model.block)
    blocks = bank.K * math.prod(a // b for a, b in zip(n, block, strict=True))
    least, most = math.inf, 0.0
    for support in reference.supports(bank.K, n, block, model.k or blocks):
        index = [at.index(a) for a in support]
        values = torch.linalg.eigvalsh(gram[index][:, index])
        least, most = min(least, float(values[0])), max(most, float(values[-1]))
    found = worst_code(bank, model, size, starts=16, steps=100, generator=seeded())
    assert least - 1e-9 <= found.smallest <= least + 0.02
    assert most * 0.98 <= found.largest <= most + 1e-9


def test_the_search_goes_past_samples_of_a_padded_layer():
    bank, model, size = layer(K=24, M=24, dims=2, n=8, k=90)
    z = model.sample(200, 24, (8, 8), generator=seeded())
    ratios = bank.synthesis(z, size).flatten(1).square().sum(1) / z.flatten(1).square().sum(1)
    found = worst_code(bank, model, size, starts=4, steps=30, generator=seeded())
    # 0.13 and 2.60 against 0.77 and 1.04.
    assert found.smallest < 0.5 * ratios.min() and found.largest > 1.5 * ratios.max()
    again = worst_code(bank, model, size, starts=4, steps=30, generator=seeded())
    assert torch.equal(found.least.code, again.least.code) and found.largest == again.largest
    assert isinstance(found, Ends)
    more = worst_code(bank, model, size, starts=4, steps=60, generator=seeded())
    assert more.smallest <= found.smallest and more.largest >= found.largest


def test_worst_code_against_the_search_by_tables():
    bank, _, _ = layer(K=8, M=3, padding=0)
    model, n = ModelSparse(6, 3), 8
    found = worst_code(bank, model, n, starts=32, generator=seeded())
    exact = exact_constant(bank, model, n)
    assert max(found.least.delta, found.most.delta) <= exact + 1e-12
    assert max(found.least.delta, found.most.delta) >= 0.9 * lower_bound(
        bank, model, n, generator=seeded()).delta


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_any_scale(scale):
    bank, model, size = layer(k=3)
    plain = worst_code(bank, model, size, generator=seeded())
    scaled = FilterBank(scale * bank.weight, padding=1)
    found = worst_code(scaled, model, size, generator=seeded())
    assert found.largest == pytest.approx(scale**2 * plain.largest, rel=1e-4)
    assert found.smallest == pytest.approx(scale**2 * plain.smallest, rel=1e-4)
    assert local_gershgorin(scaled, model, size) >= max(found.largest - 1, 1 - found.smallest)


def test_equal_and_zero_rows():
    weight = torch.ones(3, 1, 1, dtype=torch.float64)
    weight[2] = 0
    bank = FilterBank(weight)
    found = worst_code(bank, ModelSparse(2, None), 4, generator=seeded())
    assert found.largest == pytest.approx(2) and found.smallest == pytest.approx(0, abs=1e-9)
    assert local_gershgorin(bank, ModelSparse(2, None), 4) == pytest.approx(1.0)
    none = worst_code(FilterBank(0 * weight), ModelSparse(2, 2), 4, generator=seeded())
    assert none.largest == none.smallest == 0 and none.least.delta == 1
    one = FilterBank(torch.eye(3, dtype=torch.float64).unsqueeze(2))
    found = worst_code(one, ModelSparse(2, 2), 4, generator=seeded())
    assert found.most.delta == 0 and found.largest == pytest.approx(1)


def test_float32_banks_and_this_device(device):
    bank, model, size = layer(dims=2, k=8, dtype=torch.float32)
    exact = bank.to(dtype=torch.float64)
    bank = bank.to(device)
    assert_close(local_rows(bank, model, size).curve.cpu(), local_rows(exact, model, size).curve)
    found = worst_code(bank, model, size, generator=seeded())
    gram, _, _ = parts(exact, model, size)
    z = found.most.code.cpu().flatten()
    assert found.most.code.device.type == device
    assert float(z @ gram @ z) == pytest.approx(found.largest, rel=1e-9)
    code = model.sample(2, 3, (6, 6), generator=seeded())
    assert_close(stripe_coherence(code.float().to(device), bank).cpu(), stripe_coherence(code, exact))


BANK, MODEL, SIZE = layer(k=4)
TWO, STRIDE = FilterBank(torch.ones(2, 1, 3, 3)), FilterBank(torch.ones(2, 1, 3), stride=2)
CODE = torch.zeros(1, 3, 6, dtype=torch.float64)
OPTIONS = {"generator": seeded()}
CASES = {
    "rows: bank": (lambda: local_rows(BANK.weight, MODEL, SIZE), "bank = ", "a FilterBank"),
    "rows: stride": (lambda: local_rows(STRIDE, MODEL, 7), "stride = 2", "1: rows"),
    "rows: model": (lambda: local_rows(BANK, 4, SIZE), "model = 4", "a ModelSparse"),
    "rows: axes": (lambda: local_rows(TWO, MODEL, 8), "model = ", "2-D codes"),
    "rows: block": (lambda: local_rows(BANK, ModelSparse(4, 1), SIZE), "block = 4", "a divisor"),
    "rows: k": (lambda: local_rows(BANK, ModelSparse(2, 10), SIZE), "k = 10", "the 9 blocks"),
    "rows: size": (lambda: local_rows(BANK, MODEL, 0), "size = 0", "at least 1"),
    "local": (lambda: local_gershgorin(BANK, MODEL, SIZE, -1), "local = -1", "at least 0"),
    "local: float": (lambda: local_gershgorin(BANK, MODEL, SIZE, 2.0), "local = 2.0", "integer"),
    "level": (lambda: local_rows(BANK, MODEL, SIZE).largest(0), "level = 0", "above 0"),
    "level: nan": (lambda: local_rows(BANK, MODEL, SIZE).largest(math.nan), "level = nan", "finite"),
    "mu: bank": (lambda: shift_coherence(BANK.weight), "bank = ", "a FilterBank"),
    "mu: stride": (lambda: shift_coherence(STRIDE), "stride = 2", "1: rows"),
    "stripe: stride": (lambda: stripe_coherence(CODE, STRIDE), "stride = 2", "1: rows"),
    "stripe: code": (lambda: stripe_coherence(CODE[0], BANK), "code = ", "(batch, 3, n)"),
    "stripe: nan": (lambda: stripe_coherence(CODE * math.nan, BANK), "code = ", "finite"),
    "stripe: dtype": (lambda: stripe_coherence(CODE.float(), BANK), "code = float32", "float64"),
    "spectral": (lambda: spectral_bound(BANK.weight, SIZE), "bank = ", "a FilterBank"),
    "spectral: size": (lambda: spectral_bound(BANK, 0), "size = 0", "at least 1"),
    "worst: bank": (lambda: worst_code(1, MODEL, SIZE, **OPTIONS), "bank = 1", "a FilterBank"),
    "worst: axes": (lambda: worst_code(TWO, MODEL, 8, **OPTIONS), "model = ", "2-D codes"),
    "worst: starts": (lambda: worst_code(BANK, MODEL, SIZE, starts=0, **OPTIONS), "starts = 0", "at"),
    "worst: steps": (lambda: worst_code(BANK, MODEL, SIZE, steps=0, **OPTIONS), "steps = 0", "at"),
    "worst: generator": (lambda: worst_code(BANK, MODEL, SIZE, generator=3), "generator = 3", "CPU"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])
