"""lasso against coordinate descent on the dense W, by its optimality conditions and its own bound."""

from __future__ import annotations

import importlib
import math
from functools import partial

import cvxpy
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from banks import axes, banks, normal
from hypothesis import example, given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse, lasso
from invertnb.kernels import fista
from invertnb.kernels.active_rows import ActiveRows, Layout

# The package's attribute of this name is the function.
module = importlib.import_module("invertnb.lasso")
SOLVERS = ["working set", "fista"]


def bounds(x, bank, z, lam, support=None):
    """P, and D at the best feasible s (x - W^T z), in float64 and by the literal formulas."""
    exact, x, z = FilterBank(bank.weight.double(), bank.stride, bank.padding), x.double(), z.double()
    size = x.shape[2] if bank.dims == 1 else tuple(x.shape[2:])
    r = x - exact.synthesis(z, size)
    W_r = exact.analysis(r)
    W_r = W_r if support is None else torch.where(support, W_r, 0.0)
    x, r, z = x.flatten(1), r.flatten(1), z.flatten(1)
    scale = torch.minimum(lam / W_r.flatten(1).abs().amax(1), (x * r).sum(1) / r.square().sum(1))
    dual = x.square().sum(1) / 2 - (x - scale.unsqueeze(1) * r).square().sum(1) / 2
    return r.square().sum(1) / 2 + lam * z.abs().sum(1), dual


def coordinate_descent(W, x, lam, allowed, sweeps=2000):
    """1/2 ||x - W^T z||^2 + lam ||z||_1 at its minimum, for one sample, entry by entry."""
    on = allowed.flatten().numpy()
    W = W.numpy()[on]
    x = x.flatten().numpy()
    gram, b, z = W @ W.T, W @ x, np.zeros(len(W))
    for _ in range(sweeps):
        before = z.copy()
        for j in np.flatnonzero(np.diag(gram)):
            c = b[j] - gram[j] @ z + gram[j, j] * z[j]
            z[j] = np.sign(c) * max(abs(c) - lam, 0.0) / gram[j, j]
        if np.abs(z - before).max(initial=0) < 1e-14:
            break
    return ((x - z @ W) ** 2).sum() / 2 + lam * np.abs(z).sum()


def problem(dims=1, padding=0, stride=1, batch=3, dtype=torch.float64, K=12, M=6, n=8, seed=3):
    """A bank of few channels, x = W^T z of a sparse z plus noise, and max |W x|."""
    g = torch.Generator().manual_seed(seed)
    bank = FilterBank.gaussian(K, M, 3, dims=dims, stride=stride, padding=padding, generator=g)
    z = normal(batch, K, *(n,) * dims, generator=g)
    z = torch.where(torch.rand(z.shape, generator=g) < 0.1, z, 0.0)
    x = bank.synthesis(z, (n - 1) * stride + 3 - 2 * padding)
    x = (x + 0.02 * normal(*x.shape, generator=g)).to(dtype)
    bank = bank.to(dtype=dtype)
    return x, bank, float(bank.analysis(x).abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
@given(banks(), st.sampled_from([None, 0.0, 0.5]), st.sampled_from([0.02, 0.2, 0.7]))
@example((FilterBank(torch.ones(2, 1, 1, dtype=torch.float64)), 3), None, 0.2)  # equal rows
def test_equals_coordinate_descent(solver, case, density, fraction):
    bank, size = case
    g = torch.Generator().manual_seed(4)
    x = normal(2, bank.M, *axes(size), generator=g)
    W_x = bank.analysis(x)
    lam = max(fraction * float(W_x.abs().max()), 1e-3)
    support = None if density is None else torch.rand(W_x.shape, generator=g) < density
    result = lasso(x, bank, lam, support, tol=1e-7, solver=solver, iterations=20_000)
    assert result.converged.all() and result.code.shape == W_x.shape
    allowed = torch.ones_like(W_x, dtype=torch.bool) if support is None else support
    assert (result.code[~allowed] == 0).all()
    found, _ = bounds(x, bank, result.code, lam)
    W = bank.matrix(size)
    for b in range(2):
        best = coordinate_descent(W, x[b], lam, allowed[b])
        assert (1 - 1e-9) * best <= found[b] <= (1 + float(result.gap[b]) + 1e-12) * best


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype, slack", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("tol", [0.3, 1e-3])
@pytest.mark.parametrize("dims, padding, stride", [(1, 0, 1), (2, 1, 1), (2, 2, 2)])
def test_the_gap_is_that_of_the_code(dims, padding, stride, tol, dtype, slack, solver):
    x, bank, top = problem(dims, padding, stride, dtype=dtype)
    support = torch.rand(bank.analysis(x).shape, generator=torch.Generator().manual_seed(5)) < 0.6
    for where in (None, support):
        result = lasso(x, bank, 0.1 * top, where, tol=tol, solver=solver)
        primal, dual = bounds(x, bank, result.code, 0.1 * top, where)
        assert_close(result.gap.double(), (primal - dual) / dual, rtol=1e-3, atol=slack)
        assert (result.gap <= tol).all() and result.converged.all()
        assert result.gap.dtype == result.code.dtype == dtype


@pytest.mark.parametrize("solver", SOLVERS)
def test_optimality_conditions(solver):
    x, bank, top = problem(2, 1)
    lam = 0.1 * top
    code = lasso(x, bank, lam, tol=1e-11, solver=solver, iterations=20_000).code
    W_r = bank.analysis(x - bank.synthesis(code, tuple(x.shape[2:])))
    assert W_r.abs().max() <= lam * (1 + 1e-7)
    on = code.abs() > 1e-6
    assert on.any(dim=(1, 2, 3)).all()
    assert_close(W_r[on], lam * code[on].sign(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_a_general_solver(solver, generator):
    bank = FilterBank.gaussian(4, 2, 3, generator=generator)
    x = normal(1, 2, 7, generator=generator)
    z = cvxpy.Variable(20)
    W = bank.matrix(7).numpy()
    cost = cvxpy.sum_squares(x.flatten().numpy() - W.T @ z) / 2 + 0.3 * cvxpy.norm1(z)
    best = cvxpy.Problem(cvxpy.Minimize(cost)).solve(solver=cvxpy.SCS, eps=1e-9)
    result = lasso(x, bank, 0.3, tol=1e-9, solver=solver)
    assert_close(float(bounds(x, bank, result.code, 0.3)[0]), best, rtol=1e-6, atol=0)
    assert_close(result.code.flatten(), torch.from_numpy(z.value), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_by_hand(solver):
    # Orthonormal rows: the minimizer is the soft threshold of W x, and 1/2 is in front of the square.
    bank = FilterBank(torch.tensor([[[1.0]]], dtype=torch.float64))
    x = torch.tensor([[[3.0, -0.5, -2.0, 1.0]]], dtype=torch.float64)
    result = lasso(x, bank, 1.0, tol=1e-12, solver=solver)
    assert_close(result.code, torch.tensor([[[2.0, 0.0, -1.0, 0.0]]], dtype=torch.float64))
    # The paper's form without 1/2, lambda = 2: ||r||^2 + 2 ||z||_1 is smallest there, too.
    paper = [float((x - z).square().sum() + 2 * z.abs().sum()) for z in (result.code, 1.01 * result.code)]
    assert paper[0] == pytest.approx(3.25 + 6) and paper[0] < paper[1]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_the_largest_correlation_on_the_code_is_zero(dtype, solver):
    x, bank, _ = problem(dtype=dtype)
    top = bank.analysis(x).flatten(1).abs().amax(1)
    result = lasso(x, bank, top, solver=solver)
    assert (result.code == 0).all() and (result.gap == 0).all() and (result.iterations == 0).all()
    assert result.converged.all() and result.iterations.dtype == torch.int64
    below = lasso(x, bank, top * 0.98, tol=1e-6, solver=solver)
    assert (below.code != 0).flatten(1).any(1).all() and (below.iterations > 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_to_find(solver):
    x, bank, top = problem()
    x[1] = 0
    support = torch.ones_like(bank.analysis(x), dtype=torch.bool)
    support[2] = False
    result = lasso(x, bank, 0.1 * top, support, solver=solver)
    assert (result.code[1:] == 0).all() and (result.gap[1:] == 0).all() and result.converged.all()
    assert (result.code[0] != 0).any() and result.iterations.tolist()[1:] == [0, 0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dims, padding", [(1, 0), (2, 1)])
def test_samples_do_not_know_of_each_other(dims, padding, solver, monkeypatch):
    x, bank, top = problem(dims, padding, batch=6)
    # Scales, levels and supports apart: samples are done at different times.
    x = x * torch.tensor([1, 10.0, 0, 1e-3, 1, 1]).view(-1, *(1,) * (dims + 1))
    lam = top * torch.tensor([0.1, 1, 0.1, 1e-4, 0.5, 0.02], dtype=torch.float64)
    support = torch.rand(bank.analysis(x).shape, generator=torch.Generator().manual_seed(1)) < 0.7
    whole = lasso(x, bank, lam, support, tol=1e-4, solver=solver)
    assert len(set(whole.iterations.tolist())) > 2
    for b in range(6):
        alone = lasso(x[b : b + 1], bank, lam[b : b + 1], support[b : b + 1], tol=1e-4, solver=solver)
        assert alone.iterations == whole.iterations[b]
        assert_close(alone.code[0], whole.code[b], rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(module, "CHUNK", 1)  # one sample at a time
    assert_close(lasso(x, bank, lam, support, tol=1e-4, solver=solver).code, whole.code)


@pytest.mark.parametrize("solver", SOLVERS)
def test_scales(solver):
    # Filters times a and lam times a: the code is divided by a, in as many iterations.
    x, bank, top = problem()
    plain = lasso(x, bank, 0.1 * top, solver=solver)
    large = lasso(x, FilterBank(bank.weight * 512), 0.1 * top * 512, solver=solver)
    assert torch.equal(large.iterations, plain.iterations)
    assert_close(large.code * 512, plain.code, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_dependent_rows(solver, generator):
    weight = normal(6, 2, 3, generator=generator)
    weight[1], weight[2], weight[3] = -weight[0], weight[0], 0
    bank = FilterBank(weight, padding=1)
    x = normal(2, 2, 9, generator=generator)
    result = lasso(x, bank, 0.1, tol=1e-6, solver=solver)
    primal, dual = bounds(x, bank, result.code, 0.1)
    assert result.converged.all() and (primal - dual <= 2e-6 * dual).all()


def test_two_layouts_of_x():
    x, bank, top = problem(2, 1, dtype=torch.float32)
    last = x.contiguous(memory_format=torch.channels_last)
    assert_close(lasso(last, bank, 0.1 * top).code, lasso(x, bank, 0.1 * top).code)


@pytest.mark.parametrize("solver", SOLVERS)
def test_iterations_run_out(solver):
    x, bank, top = problem(2)
    with pytest.warns(RuntimeWarning, match="3 of 3 samples ran out of 2 iterations") as caught:
        result = lasso(x, bank, 0.01 * top, tol=1e-9, iterations=2, solver=solver)
    assert result.iterations.tolist() == [2, 2, 2] and not result.converged.any()
    primal, dual = bounds(x, bank, result.code, 0.01 * top)
    assert_close(result.gap, (primal - dual) / dual)
    assert f"{float(result.gap.max()):.1e} (tol = 1e-09)" in str(caught[0].message)


@pytest.mark.parametrize("solver", SOLVERS)
def test_history(solver):
    x, bank, top = problem(2, batch=2)
    lam = 0.1 * top
    result = lasso(x, bank, lam, trace=True, solver=solver)
    seconds, rows = result.history
    assert seconds.dtype == rows.dtype == torch.float64
    assert rows.shape == (len(seconds), 2) and len(seconds) >= int(result.iterations.max()) + 1
    assert (seconds.diff() > 0).all() and seconds[0] == 0
    assert_close(rows[0], x.flatten(1).square().sum(1) / 2)
    assert_close(rows[-1], bounds(x, bank, result.code, lam)[0], rtol=1e-3, atol=0)
    assert (rows[-1] < 0.9 * rows[0]).all() and lasso(x, bank, lam, solver=solver).history is None
    if solver == "working set":
        assert_close(rows[-1], bounds(x, bank, result.code, lam)[0])
        assert (rows.diff(dim=0) <= 0.01 * rows[0]).all()


@given(banks(), st.sampled_from([0.02, 0.2]))
def test_the_working_set_never_raises_the_objective(case, fraction):
    # Few rows, and most of them alike: where steps past a change of sign do harm.
    bank, size = case
    x = normal(2, bank.M, *axes(size), generator=torch.Generator().manual_seed(8))
    lam = max(fraction * float(bank.analysis(x).abs().max()), 1e-3)
    result = lasso(x, bank, lam, tol=1e-7, trace=True)
    rows = result.history.objective
    assert (rows.diff(dim=0) <= 1e-12 * rows[0]).all()
    assert result.converged.all()


@pytest.mark.parametrize("name, value", [("ROUNDS", 1), ("MOST", 3), ("RISE", 0.0)])
def test_fista_takes_over_what_stalls(name, value, monkeypatch):
    x, bank, top = problem(2)
    expected = bounds(x, bank, lasso(x, bank, 0.1 * top, tol=1e-8).code, 0.1 * top)[0]
    monkeypatch.setattr(module, name, value)
    result = lasso(x, bank, 0.1 * top, tol=1e-8)
    assert result.converged.all()
    assert_close(bounds(x, bank, result.code, 0.1 * top)[0], expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("solver, limit", [("working set", 150), ("fista", 300)])
@pytest.mark.parametrize("dims, padding", [(1, 0), (2, 1)])
def test_conjugate_gradients_and_restarts_pay(dims, padding, solver, limit):
    # 108, 111, 210 and 210; steepest descent takes 742 and 423, FISTA without restarts 980 and 720.
    x, bank, top = problem(dims, padding, K=24)
    assert lasso(x, bank, 0.05 * top, tol=1e-6, solver=solver).iterations.max() <= limit


# What the two solvers are made of


@given(banks(), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1, 3]))
def test_products_with_some_rows(case, density, batch):
    bank, size = case
    g = torch.Generator().manual_seed(7)
    x = normal(batch, bank.M, *axes(size), generator=g)
    layout = Layout(bank.weight, bank.stride, bank.padding, x)
    W_x = bank.analysis(x)
    flat = layout.flatten(W_x)
    assert_close(layout.analysis(layout.x), flat)
    index = (torch.rand(flat.shape, generator=g) < density).flatten().nonzero().squeeze(1)
    rows = ActiveRows(layout, index)
    assert_close(rows.analysis(layout.x), flat.flatten()[index])
    u = normal(len(index), generator=g)
    places = torch.zeros_like(flat).flatten().index_copy(0, index, u)
    z = places.view(batch, *layout.n, bank.K).movedim(-1, 1).reshape(W_x.shape)
    image = rows.synthesis(u).movedim(-1, 1).reshape(x.shape)
    assert_close(image, bank.synthesis(z, size))
    assert_close(rows.dot(u, u), z.flatten(1).square().sum(1))
    assert_close(rows.largest(u), z.flatten(1).abs().amax(1))


def fista_parts(weight, x, curvature):
    lam = torch.full_like(x[:, 0, 0, 0], 0.5)
    z = torch.zeros_like(F.conv2d(x, weight, padding=1))
    run = partial(fista.iterate, x=x, lam=lam, support=z == 0,
                  analysis=lambda r: F.conv2d(r, weight, padding=1),
                  synthesis=lambda z: F.conv_transpose2d(z, weight, padding=1))  # fmt: skip
    return run, fista.State.start(z, x, torch.full_like(lam, curvature))


def test_a_burst_is_its_iterations(generator):
    weight, x = normal(8, 3, 3, 3, generator=generator), normal(2, 3, 6, 6, generator=generator)
    run, state = fista_parts(weight, x, curvature=40.0)
    whole = run(state, count=12)
    for _ in range(12):
        state = run(state, count=1)
    for one, other in zip(whole, state, strict=True):
        assert_close(one, other)
    # The estimate was too small at first. It was met, and did not pass ||W||^2.
    exact = FilterBank(weight, padding=1).norm(6) ** 2
    assert ((state.curvature > 40.0) & (state.curvature <= exact)).all()
    assert (state.objective < fista.energy(x) / 2).all()


def fake_parts():
    fresh = partial(torch.empty, dtype=torch.float64, device="cuda")
    return fista_parts(fresh(8, 3, 3, 3), fresh(2, 3, 6, 6), curvature=1.0)


def test_a_burst_asks_the_device_for_no_number():
    # Fake tensors have no values: reading one would raise, as it would break a capture.
    with FakeTensorMode():
        run, state = fake_parts()
        after = run(state, count=3)
    assert after.z.is_cuda and after.z.shape == state.z.shape


@pytest.mark.skipif(torch.cuda.is_available(), reason="a capture works here")
def test_without_a_capture_the_function_itself_runs(generator):
    weight, x = normal(8, 3, 3, 3, generator=generator), normal(2, 3, 6, 6, generator=generator)
    run, state = fista_parts(weight, x, curvature=40.0)
    assert fista.captured(run, state) is run
    with FakeTensorMode():
        run, state = fake_parts()
        assert fista.captured(partial(run, count=2), state).func is run.func


def test_on_this_device(device):
    x, bank, top = problem(2, 1, dtype=torch.float32)
    x, bank = x.to(device), bank.to(device)
    result = lasso(x, bank, 0.1 * top)
    assert result.code.device.type == result.gap.device.type == device
    assert result.converged.all()


def test_no_gradient_is_recorded():
    x, bank, top = problem()
    result = lasso(x.requires_grad_(), bank, 0.1 * top)
    assert not result.code.requires_grad and not result.gap.requires_grad


X, BANK, _ = problem(batch=1)
W_X = BANK.analysis(X)
CASES = {
    "x: nan": (lambda: lasso(X * math.nan, BANK, 1.0), "x = ", "finite", "nan"),
    "x: inf": (lambda: lasso(X / 0, BANK, 1.0), "x = ", "finite"),
    "x: shape": (lambda: lasso(X[0], BANK, 1.0), "x = ", "(batch, 6, D)"),
    "x: channels": (lambda: lasso(X[:, :5], BANK, 1.0), "x = ", "(batch, 6, D)"),
    "x: dtype": (lambda: lasso(X.float(), BANK, 1.0), "x = float32", "float64 on cpu"),
    "x: device": (lambda: lasso(X.to("meta"), BANK, 1.0), "on meta", "float64 on cpu"),
    "bank": (lambda: lasso(X, BANK.weight, 1.0), "bank = ", "a FilterBank"),
    "lam: zero": (lambda: lasso(X, BANK, 0), "lam = 0", "above 0"),
    "lam: negative": (lambda: lasso(X, BANK, -1.0), "lam = -1.0", "above 0"),
    "lam: nan": (lambda: lasso(X, BANK, math.nan), "lam = nan", "finite"),
    "lam: word": (lambda: lasso(X, BANK, "max"), "lam = 'max'", "a finite number"),
    "lam: shape": (lambda: lasso(X, BANK, W_X[0, 0, :2].abs()), "lam = ", "shape (1)"),
    "lam: dtype": (lambda: lasso(X, BANK, torch.ones(1)), "lam = float32", "float64"),
    "lam: a sample's": (lambda: lasso(X, BANK, torch.zeros(1).double()), "lam = ", "positive", "0.0"),
    "support: dtype": (lambda: lasso(X, BANK, 1.0, W_X), "support = float64", "bool"),
    "support: shape": (lambda: lasso(X, BANK, 1.0, W_X[..., 1:] > 0), "support = bool", "(1, 12, 8)"),
    "tol: zero": (lambda: lasso(X, BANK, 1.0, tol=0.0), "tol = 0.0", "above 0"),
    "tol: nan": (lambda: lasso(X, BANK, 1.0, tol=math.nan), "tol = nan", "finite"),
    "trace": (lambda: lasso(X, BANK, 1.0, trace=1), "trace = 1", "True or False"),
    "iterations": (lambda: lasso(X, BANK, 1.0, iterations=0), "iterations = 0", "at least 1"),
    "iterations: float": (lambda: lasso(X, BANK, 1.0, iterations=1.5), "iterations = 1.5", "integer"),
    "solver": (lambda: lasso(X, BANK, 1.0, solver="admm"), "solver = 'admm'", "'working set'"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])


def test_steps_1_and_3_of_algorithm_2():
    # The support that the model keeps of the first code is that of the last.
    x, bank, top = problem(2, 1)
    first = lasso(x, bank, 0.1 * top).code
    kept = ModelSparse((2, 2), 20).project(first).code != 0
    last = lasso(x, bank, 0.1 * top, kept).code
    assert (last[~kept] == 0).all() and ModelSparse((2, 2), 20).contains(last).all()
