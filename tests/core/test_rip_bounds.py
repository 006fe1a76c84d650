"""Enclosures of isometry constants: the search below, row sums and the certificate above."""

from __future__ import annotations

import math
import warnings

import pytest
import reference
import torch
from banks import axes, banks, normal
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse
from invertnb.rip import (
    Atoms, block_coherence, certificate, certify, exact_constant, gershgorin, lower_bound, rounding,
    search, semidefinite_bound,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def atoms_of(K, M=3, l=3, n=3, k=2, order=1, dims=1, stride=1, unit=True, seed=0, **options):
    """Atoms of a toy layer with one block a filter."""
    bank = FilterBank.gaussian(
        K, M, l, dims=dims, stride=stride, generator=seeded(seed), **options)
    side = (n - 1) * stride + l
    return Atoms(
        bank.normalized() if unit else bank, ModelSparse(n if dims == 1 else (n, n), k),
        side if dims == 1 else (side, side), order,
    )


def arguments(atoms: Atoms) -> dict:
    return {"bank": atoms.bank, "model": atoms.model, "size": atoms.size, "order": atoms.order}


def dense(atoms: Atoms) -> torch.Tensor:
    return reference.dense(atoms.bank.weight.cpu(), axes(atoms.size), atoms.bank.stride)


@st.composite
def toy_atoms(draw, most=3000):
    bank, size = draw(banks(paddings=False))
    n = bank.code_size(size)
    k, order = draw(st.integers(1, bank.K)), draw(st.integers(1, 3))
    bank = bank.normalized() if draw(st.booleans()) else bank
    atoms = Atoms(bank, ModelSparse(n, k), size, order)
    assume(atoms.supports() <= most)
    return atoms


def named(options: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in options.items())


# Layers whose semidefinite program is solved: pairs need none.
PROGRAMS = [
    dict(K=4, k=3), dict(K=4, k=2, order=2), dict(K=3, k=2, order=3), dict(K=5, k=4, l=2, n=2),
    dict(K=3, k=3, n=2, dims=2), dict(K=4, k=3, stride=2), dict(K=4, k=3, unit=False, order=2, n=2),
    dict(K=1, k=1, order=3), dict(K=6, M=30, k=4, n=2), dict(K=4, k=4, n=1, order=2),
]


@given(toy_atoms())
@example(atoms_of(1, k=1, order=3, n=2))
@example(atoms_of(2, l=1, k=2, order=2))
def test_enclosure(atoms):
    exact = exact_constant(**arguments(atoms))
    found = certify(**arguments(atoms), sdp=False, starts=4, generator=seeded())
    assert found.lower <= exact <= found.upper <= found.gershgorin * (1 + 1e-12)
    assert found.sdp is None
    z, model = found.code, Atoms(atoms.bank, atoms.model, atoms.size)
    assert z.shape == (1, atoms.bank.K, *atoms.n) and z.dtype == torch.float64
    assert_close(float(z.norm()), 1.0)
    per_filter = (z != 0).flatten(2).sum(2)
    assert per_filter.max() <= atoms.order and per_filter.sum() <= atoms.order * model.model.k
    attained = abs(float((dense(atoms).T @ z.flatten()).square().sum()) - 1)
    assert found.lower <= attained <= found.upper


@pytest.mark.parametrize("options", PROGRAMS, ids=named)
def test_enclosure_by_the_semidefinite_bound(options):
    atoms = atoms_of(**options)
    exact = exact_constant(**arguments(atoms))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the solver reaches its accuracy on each of these
        found = certify(**arguments(atoms), starts=8, generator=seeded())
    assert found.lower <= exact <= found.sdp
    assert found.upper == min(found.sdp, found.gershgorin)
    first, second = block_coherence(atoms)
    B = first + (atoms.per_block - 1) * second
    assert found.sdp <= float(torch.linalg.eigvalsh(B)[-1]) * (1 + 1e-9) + rounding(atoms)


def test_the_semidefinite_bound_is_the_programs_value():
    # All products c: u^T B u = c ((sum u)^2 - 1) <= c (entries - 1), which X = 1/K (all ones) attains.
    ones = torch.ones(8, 8, dtype=torch.float64)
    first = 0.3 * (ones - torch.eye(8))
    value = semidefinite_bound(certificate.BlockCoherence(first, 0 * ones), 1, 3)
    assert 0.6 <= value <= 0.6 * (1 + 2e-3)
    # Two slots of products .3 with all others' slots, their own twin's too: the same with 16 atoms.
    first, second = first, 0.3 * ones
    value = semidefinite_bound(certificate.BlockCoherence(first, second), 2, 3)
    assert 0.6 <= value <= 0.6 * (1 + 2e-3)


@pytest.mark.parametrize("branch", ["matrix", "convolution"])
@pytest.mark.parametrize("options", [
    dict(K=4, k=3), dict(K=4, k=2, order=2), dict(K=3, k=1, order=3), dict(K=2, n=2, l=2, dims=2),
    dict(K=4, k=2, stride=2, unit=False), dict(K=4, k=3, M=20, unit=False),
], ids=named)
def test_the_search_finds_the_worst_code(options, branch, monkeypatch):
    if branch == "convolution":
        monkeypatch.setattr(search, "DENSE_ATOMS", 0)
    atoms = atoms_of(**options)
    exact = exact_constant(**arguments(atoms))
    found = lower_bound(**arguments(atoms), starts=32, generator=seeded())
    assert exact - 1e-9 <= found.delta <= exact
    again = lower_bound(**arguments(atoms), starts=32, generator=seeded())
    assert torch.equal(found.code, again.code) and found.delta == again.delta


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_the_search_looks_both_ways(scale):
    atoms = atoms_of(4, k=2)
    scaled = Atoms(FilterBank(scale * atoms.bank.weight), atoms.model, atoms.size)
    found = lower_bound(**arguments(scaled), starts=8, generator=seeded())
    assert_close(found.delta, exact_constant(**arguments(scaled)))
    square = float((dense(scaled).T @ found.code.flatten()).square().sum())
    assert (square > 1) == (scale > 1)


@pytest.mark.parametrize("most", [4096, 0], ids=["matrix", "convolution"])
@pytest.mark.parametrize("dims, stride, n", [(1, 1, 4), (1, 2, 3), (2, 1, 2), (2, 2, 3), (1, 1, 1)])
def test_the_operator_of_the_search(dims, stride, n, most, generator, monkeypatch):
    monkeypatch.setattr(search, "DENSE_ATOMS", most)
    atoms = atoms_of(3, l=3, n=n, k=2, dims=dims, stride=stride)
    index = atoms.draw(5, generator)
    values = normal(*index.shape, generator=generator)
    W = dense(atoms)
    z = torch.zeros(5, atoms.count, dtype=torch.float64).scatter(1, index, values)
    image = search._deviation_operator(atoms)(index, values.float())
    assert image.dtype == torch.float32
    assert_close(image.double(), z @ W @ W.T - z, rtol=1e-4, atol=1e-5)
    assert torch.equal(atoms.table, Atoms(FilterBank(atoms.bank.weight, stride), atoms.model,
                                          atoms.size).table)  # the kept table is as it was


@pytest.mark.parametrize("options", [
    dict(K=4, k=1), dict(K=4, k=2), dict(K=4, k=1, order=2), dict(K=1, k=1, order=2),
    dict(K=1, k=1, n=2, order=3), dict(K=4, k=1, n=1, order=2), dict(K=2, k=2, n=1, order=3),
    dict(K=3, k=2, n=2, dims=2), dict(K=3, k=1, n=2, dims=2, order=2), dict(K=3, k=1, l=1, order=2),
    dict(K=4, k=2, stride=2), dict(K=2, k=1, l=4, stride=2, order=2, M=1),
], ids=named)
@pytest.mark.parametrize("unit", [True, False])
def test_pairs_are_exact(options, unit):
    for seed in range(4):
        atoms = atoms_of(**options, unit=unit, seed=seed)
        assert atoms.entries <= 2
        exact = exact_constant(**arguments(atoms))
        assert exact <= certificate.pairs(atoms) <= exact + 1e-11
    found = certify(**arguments(atoms), starts=1, generator=seeded())
    assert found.sdp is None and found.upper == certificate.pairs(atoms)


def test_coherence_and_row_sums_by_hand():
    # u = (1, 1)/sqrt 2 and v = (2, 0): <u, v> = sqrt 2 in place, and with v one place on; 0 one back.
    weight = torch.tensor([[[1.0, 1.0]], [[8**0.5, 0.0]]], dtype=torch.float64) / 2**0.5
    c = 2**0.5

    def toy(n, k, order):
        return Atoms(FilterBank(weight), ModelSparse(n, k), n + 1, order)

    first, second = block_coherence(toy(3, 2, 1))
    assert_close(first, torch.tensor([[0, c], [c, 3]], dtype=torch.float64))
    assert_close(second, torch.tensor([[0.5, c], [c, 0]], dtype=torch.float64))
    first, second = block_coherence(toy(1, 2, 1))  # one shift: nothing moves
    assert_close(second, torch.zeros(2, 2, dtype=torch.float64))
    # The row of v: its own deviation 3, then u once, twice, and nothing of its own filter's.
    for n, k, order, expected in [
        (3, 1, 1, 3), (3, 2, 1, 3 + c), (3, 1, 2, 3 + c), (3, 2, 2, 3 + 2 * c), (3, 2, 3, 3 + 2 * c),
        (1, 2, 3, 3 + c),
    ]:
        assert_close(gershgorin(toy(n, k, order)), float(expected))
    # u beside a filter that it never meets: half a twin on either side, none of which order 1 allows.
    apart = torch.zeros(2, 2, 2, dtype=torch.float64)
    apart[0, 0], apart[1, 1, 0] = weight[0, 0], 1.0
    for order, expected in [(1, 0.0), (2, 0.5), (3, 1.0)]:
        assert_close(gershgorin(Atoms(FilterBank(apart), ModelSparse(3, 2), 4, order)), expected)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", [2, 3])
def test_row_sums_over_all_supports(n, order):
    atoms = atoms_of(3, l=2, n=n, k=2, order=order, unit=False)
    W = dense(atoms)
    excess = (W @ W.T - torch.eye(len(W))).abs()
    most = max(
        float(excess[support][:, support].sum(1).max())
        for support in map(sorted, reference.sum_supports(3, (n,), (n,), 2, order))
    )
    if n == 3:  # an atom in the middle meets every shift
        assert_close(gershgorin(atoms), most)
    else:
        assert gershgorin(atoms) >= most


def slots(code: torch.Tensor, order: int) -> torch.Tensor:
    """Magnitudes of the blocks of codes (batch, K, n), by decreasing size: (batch, K, order)."""
    return code.abs().flatten(2).sort(dim=2, descending=True).values[..., :order]


def full(first, second, order):
    """first (x) I + second (x) (J - I), over (filter, slot)."""
    eye = torch.eye(order, dtype=torch.float64)
    return torch.kron(first, eye) + torch.kron(second, torch.ones_like(eye) - eye)


@given(toy_atoms(most=10**9), st.integers(0, 2**31))
def test_slots_dominate_every_code(atoms, seed):
    g = seeded(seed)
    index = atoms.draw(40, g)
    values = normal(*index.shape, generator=g)
    # Random codes, and the worst two of each support.
    vectors = torch.linalg.eigh(atoms.gram(index)).eigenvectors
    values = torch.cat([values, vectors[:, :, 0], vectors[:, :, -1]])
    z = torch.zeros(120, atoms.count, dtype=torch.float64).scatter(1, index.repeat(3, 1), values)
    W = dense(atoms)
    deviation = ((z @ W).square().sum(1) - z.square().sum(1)).abs()
    B = full(*block_coherence(atoms), atoms.per_block)
    u = slots(z.view(120, atoms.bank.K, *atoms.n), atoms.per_block).flatten(1)
    assert_close(u.norm(dim=1), z.norm(dim=1))
    assert (deviation <= (u @ B * u).sum(1) * (1 + 1e-12) + 1e-12).all()
    assert (u.sum(1) ** 2 <= atoms.entries * u.square().sum(1) + 1e-12).all()


@given(toy_atoms(), st.integers(0, 2**31), st.sampled_from([0.01, 0.3, 3.0]))
def test_any_multipliers_certify(atoms, seed, scale):
    first, second = block_coherence(atoms)
    order, entries, g = atoms.per_block, atoms.entries, seeded(seed)
    U, V = (scale * normal(*first.shape, generator=g) for _ in range(2))
    U, V = U + U.T, V + V.T
    bound = certificate._certificate(first, second, U, V, order, entries)
    whole = full(U, V, order)
    t = max(0.0, -float(whole.min()))
    expected = float(torch.linalg.eigvalsh(full(first, second, order) + whole)[-1]) + t * entries
    assert_close(bound, expected)
    assert bound >= exact_constant(**arguments(atoms)) - 1e-12


def trivial(coherence, order, entries):
    first, second = coherence
    return certificate._certificate(first, second, 0 * first, 0 * second, order, entries)


@pytest.mark.parametrize("options", [dict(K=5, k=3), dict(K=4, k=2, order=2)], ids=named)
def test_bad_multipliers_do_no_harm(options, monkeypatch):
    atoms = atoms_of(**options)
    coherence, rest = block_coherence(atoms), (atoms.per_block, atoms.entries)
    exact = exact_constant(**arguments(atoms))
    for size in (0.0, 1.0, 1e6):
        def solve(first, second, order, entries, size=size):
            U, V = (size * normal(*first.shape, generator=seeded(i)) for i in range(2))
            return U, V, True

        monkeypatch.setattr(certificate, "_solve", solve)
        bound = semidefinite_bound(coherence, *rest)
        assert exact - 1e-12 <= bound <= trivial(coherence, *rest) * (1 + 1e-12)


@pytest.mark.parametrize("failure", ["zeros", "solver error", "no dual", "not a number", "early"])
def test_a_failing_solver_warns_and_the_bound_holds(failure, monkeypatch):
    import cvxpy

    def fail(*args, **options):
        if failure == "solver error":
            raise cvxpy.SolverError("no answer")

    if failure == "zeros":
        monkeypatch.setattr(certificate, "_solve", lambda B, C, *rest: (0 * B, 0 * B, False))
    elif failure == "early":
        monkeypatch.setattr(certificate, "MOST_STEPS", 5)
    elif failure == "not a number":
        solve = cvxpy.Problem.solve

        def spoil(problem, **options):
            solve(problem, **options)
            dual = problem.constraints[0].dual_variables[0]
            dual.save_value(math.nan * dual.value)

        monkeypatch.setattr(cvxpy.Problem, "solve", spoil)
    else:
        monkeypatch.setattr(cvxpy.Problem, "solve", fail)
    atoms = atoms_of(4, k=2, order=2)
    with pytest.warns(RuntimeWarning, match="stopped early; the bound holds"):
        found = certify(**arguments(atoms), starts=4, generator=seeded())
    assert found.lower <= exact_constant(**arguments(atoms)) <= found.upper
    most = trivial(block_coherence(atoms), atoms.per_block, atoms.entries)
    assert found.sdp <= most * (1 + 1e-12) + rounding(atoms)


def test_orthonormal_rows_have_constant_zero(generator):
    rows = torch.linalg.qr(normal(6, 6, generator=generator)).Q
    for weight, small in ((torch.eye(6, dtype=torch.float64), 0.0), (rows, 1e-14)):
        atoms = Atoms(FilterBank(weight.unsqueeze(2)), ModelSparse(3, 3), 3, 2)
        assert exact_constant(**arguments(atoms)) <= small
        found = certify(**arguments(atoms), starts=4, generator=generator)
        assert found.lower == 0 and 0 <= found.upper <= small + 2 * rounding(atoms)


@pytest.mark.parametrize("order", [1, 2])
def test_dtype_and_device(order, device):
    small = atoms_of(4, k=3, order=order, dtype=torch.float32, device=device)
    large = Atoms(FilterBank(small.bank.weight.cpu().double()), small.model, small.size, order)
    found = certify(**arguments(small), sdp=order == 1, generator=seeded())
    exact = exact_constant(**arguments(large))
    assert found.code.dtype == torch.float64 and found.code.device.type == device
    assert found.lower <= exact <= found.upper and found.lower > 0.9 * exact
    assert_close(gershgorin(small), gershgorin(large))


def test_blocks_smaller_than_n_are_refused_before_the_search(monkeypatch):
    monkeypatch.setattr(certificate, "lower_bound", None)
    atoms = atoms_of(4, n=4)
    with pytest.raises(ValueError, match="block = 2"):
        certify(atoms.bank, ModelSparse(2, 2), atoms.size, generator=seeded())


def test_printed_as_an_interval():
    found = certificate.Isometry(0.12345, 0.98765, torch.zeros(1), 1.0, None)
    assert str(found) == "in [0.123, 0.988]"


def test_the_search_holds_at_any_scale(generator):
    bank = FilterBank.gaussian(5, 2, 3, generator=generator)
    for scale in (1e-12, 1e12):
        scaled = FilterBank(scale * bank.weight)
        found = lower_bound(scaled, ModelSparse(4, 2), 6, generator=generator).delta
        truth = exact_constant(scaled, ModelSparse(4, 2), 6)
        assert found == pytest.approx(truth, rel=1e-6)
