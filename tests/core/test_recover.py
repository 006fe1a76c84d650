"""recover: Algorithm 2 by hand, by the optimality conditions on a dense W, and on planted codes."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from banks import axes, normal
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse, lasso, recover


def problem(dims=1, padding=0, dtype=torch.float64, batch=3, K=12, M=6, n=8, k=10, noise=0.02):
    """A bank, a model of windows of 2, x = W^T z plus noise for a z of the model, and that z."""
    g = torch.Generator().manual_seed(2)
    bank = FilterBank.gaussian(K, M, 3, dims=dims, padding=padding, generator=g).normalized()
    model = ModelSparse(2 if dims == 1 else (2, 2), k)
    z = model.sample(batch, K, n if dims == 1 else (n, n), generator=g)
    z = torch.where(z == 0, 0.0, z + z.sign())  # magnitudes from 1 to 2
    x = bank.synthesis(z, n + 2 - 2 * padding)
    x = x + noise * normal(*x.shape, generator=g)
    return x.to(dtype), bank.to(dtype=dtype), model, z.to(dtype)


@pytest.mark.parametrize("solver", ["auto", "working set", "fista"])
def test_by_hand(solver):
    # Orthonormal rows: a soft threshold at lam, two blocks of three with one survivor each, of
    # which k = 1 the larger; then the soft threshold of x there, not of z_model: 3 - 1 once.
    bank = FilterBank(torch.tensor([[[1.0]]], dtype=torch.float64))
    x = torch.tensor([[[3.0, -2.5, 0.5, 1.5, 0.2, -2.0]]], dtype=torch.float64)
    found = recover(x, bank, ModelSparse(3, 1), 1.0, tol=1e-12, solver=solver)
    assert_close(found.initial.code, torch.tensor([[[2.0, -1.5, 0, 0.5, 0, -1.0]]]).double())
    assert found.support.tolist() == [[[True, False, False, False, False, False]]]
    assert_close(found.code, torch.tensor([[[2.0, 0, 0, 0, 0, 0]]]).double())
    assert_close(found.residual, ((x - found.code).norm() / x.norm()).view(1))
    both = recover(x, bank, ModelSparse(3, None), 1.0, tol=1e-12, solver=solver)
    assert_close(both.code, torch.tensor([[[2.0, 0, 0, 0, 0, -1.0]]]).double())


@pytest.mark.parametrize("dims, padding", [(1, 0), (1, 2), (2, 0), (2, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps(dims, padding, dtype):
    x, bank, model, _ = problem(dims, padding, dtype)
    lam = 0.1 * float(bank.analysis(x).abs().max())
    found = recover(x, bank, model, lam, tol=1e-4)
    expected = [reference.project(z, (2,) * dims, model.k)[0] != 0 for z in found.initial.code]
    assert torch.equal(found.support, torch.stack(expected))
    assert (found.code[~found.support] == 0).all() and model.contains(found.code).all()
    assert found.support.flatten(1).sum(1).tolist() == [10] * 3
    assert found.final.code is found.code and found.final.converged.all()
    assert found.code.dtype == found.residual.dtype == dtype
    size = x.shape[2] if dims == 1 else tuple(x.shape[2:])
    W = reference.dense(bank.weight, axes(size), 1, padding)
    rest = x.flatten(1).double() - found.code.flatten(1).double() @ W
    assert_close(found.residual.double(), rest.norm(dim=1) / x.flatten(1).double().norm(dim=1),
                 rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dims, padding", [(1, 2), (2, 1)])
def test_step_3_is_optimal_on_the_support(dims, padding):
    x, bank, model, _ = problem(dims, padding)
    model = ModelSparse(model.block, 4)
    lam = 0.2 * bank.analysis(x).flatten(1).abs().amax(1)
    found = recover(x, bank, model, lam, tol=1e-11, iterations=20_000)
    W = reference.dense(bank.weight, tuple(x.shape[2:]), 1, padding)
    code, support = found.code.flatten(1), found.support.flatten(1)
    correlations = (x.flatten(1) - code @ W) @ W.T
    for b in range(len(x)):
        on = code[b] != 0
        assert (correlations[b][support[b]].abs() <= lam[b] * (1 + 1e-5)).all()
        assert_close(correlations[b][on], lam[b] * code[b][on].sign(), rtol=1e-5, atol=0)
        # Outside, where step 1 had other atoms, something would still pay: the support is a cut.
        assert correlations[b][~support[b]].abs().max() > lam[b]


@pytest.mark.parametrize("dims, padding", [(1, 1), (2, 1)])
def test_a_planted_code_is_found(dims, padding):
    x, bank, model, z = problem(dims, padding, K=10, M=16, noise=0.0)
    found = recover(x, bank, model, 1e-3, tol=1e-8, iterations=20_000)
    assert torch.equal(found.support, z != 0)
    assert_close(found.code, z, rtol=0, atol=6e-3)  # lam over the squared norm of cropped rows
    assert (found.residual < 2e-3).all()


def test_a_level_for_each_sample():
    x, bank, model, _ = problem()
    lam = torch.tensor([0.1, 0.3, 0.8]).double() * bank.analysis(x).flatten(1).abs().amax(1)
    whole = recover(x, bank, model, lam)
    for b in range(3):
        alone = recover(x[b : b + 1], bank, model, float(lam[b]))
        assert torch.equal(alone.support[0], whole.support[b])
        assert_close(alone.code[0], whole.code[b], rtol=1e-6, atol=1e-9)


def test_fewer_than_k_are_not_filled_up():
    x, bank, model, _ = problem()
    x[1] = 0
    top = bank.analysis(x).flatten(1).abs().amax(1).clamp(min=1.0)
    found = recover(x, bank, model, 0.9 * top)
    counts = found.support.flatten(1).sum(1)
    assert counts[1] == 0 and ((0 < counts[[0, 2]]) & (counts[[0, 2]] < model.k)).all()
    assert ((found.initial.code != 0) | ~found.support).all()
    assert found.residual[1] == 0 and (found.code[1] == 0).all()


def test_auto_is_fista_then_what_lasso_takes():
    x, bank, model, _ = problem()
    found = recover(x, bank, model, 0.5)
    first = lasso(x, bank, 0.5, solver="fista")
    assert torch.equal(found.initial.code, first.code)
    assert torch.equal(found.code, lasso(x, bank, 0.5, found.support).code)
    assert not recover(x.requires_grad_(), bank, model, 0.5).residual.requires_grad


def test_iterations_and_tol_reach_both_steps():
    x, bank, model, _ = problem()
    with pytest.warns(RuntimeWarning, match="ran out of 2 iterations") as caught:
        found = recover(x, bank, model, 0.05, tol=1e-9, iterations=2)
    assert len(caught) == 2 and found.initial.iterations.tolist() == [2] * 3
    assert found.final.iterations.tolist() == [2] * 3


def test_on_this_device(device):
    x, bank, model, _ = problem(2, 1, torch.float32)
    found = recover(x.to(device), bank.to(device), model, 0.1)
    assert found.code.device.type == found.support.device.type == device
    assert model.contains(found.code).all()


X, BANK, MODEL, _ = problem(batch=1)
CASES = {
    "x: nan": (lambda: recover(X * math.nan, BANK, MODEL, 1.0), "x = ", "finite"),
    "x: shape": (lambda: recover(X[0], BANK, MODEL, 1.0), "x = ", "(batch, 6, D)"),
    "x: dtype": (lambda: recover(X.float(), BANK, MODEL, 1.0), "x = float32", "float64"),
    "bank": (lambda: recover(X, BANK.weight, MODEL, 1.0), "bank = ", "a FilterBank"),
    "model": (lambda: recover(X, BANK, 10, 1.0), "model = 10", "a ModelSparse"),
    "model: axes": (lambda: recover(X, BANK, ModelSparse((2, 2), 1), 1.0), "model = ", "1-D"),
    "block": (lambda: recover(X, BANK, ModelSparse(3, 1), 1.0), "block = 3", "a divisor"),
    "k": (lambda: recover(X, BANK, ModelSparse(2, 49), 1.0), "k = 49", "the 48 blocks"),
    "lam": (lambda: recover(X, BANK, MODEL, 0.0), "lam = 0.0", "above 0"),
    "lam: shape": (lambda: recover(X, BANK, MODEL, torch.ones(2).double()), "lam = ", "shape (1)"),
    "tol": (lambda: recover(X, BANK, MODEL, 1.0, tol=0.0), "tol = 0.0", "above 0"),
    "iterations": (lambda: recover(X, BANK, MODEL, 1.0, iterations=0), "iterations = 0", "at least"),
    "solver": (lambda: recover(X, BANK, MODEL, 1.0, solver="omp"), "solver = 'omp'", "'fista'"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])
