"""Algorithm 1, NIHT and HTP: dense references, recovery, stopping, divergence, determinism."""

from __future__ import annotations

import warnings

import pytest
import reference
import torch
from banks import normal
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse, iht
from invertnb.iht import DIVERGED

FORMS = {
    "iht": dict(),
    "niht": dict(step="normalized"),
    "htp": dict(pursuit=True),
    "normalized htp": dict(step="normalized", pursuit=True),
}


def problem(k, batch=20, K=96, M=32, l=5, D=32, seed=0, unit=True, dtype=torch.float64):
    """Figure 2's setting: bank, model, codes z and signals W^T z."""
    g = torch.Generator().manual_seed(seed)
    bank = FilterBank.gaussian(K, M, l, generator=g, dtype=dtype)
    bank = bank.normalized() if unit else bank
    n = bank.code_size(D)
    model = ModelSparse(n, k)
    z = model.sample(batch, K, n, generator=g, dtype=dtype)
    return bank, model, z, bank.synthesis(z, D)


def relative(a, b):
    return (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)


def test_one_iteration_by_hand():
    # W = [[1, 0], [0.8, 0.6]] as two filters of length 1 on two channels; x = (1, 1), k = 1.
    weight = torch.tensor([[[1.0], [0.0]], [[0.8], [0.6]]], dtype=torch.float64)
    bank, model = FilterBank(weight), ModelSparse(1, 1)
    x = torch.ones(1, 2, 1, dtype=torch.float64)
    # W x = (1, 1.4): the second filter; residual x - 1.4 (0.8, 0.6) = (-0.12, 0.16).
    result = iht(x, bank, model, iterations=1)
    assert_close(result.code.flatten(), torch.tensor([0.0, 1.4], dtype=torch.float64))
    assert_close(float(result.residuals[1]), 0.2 / 2**0.5)
    assert result.support.flatten().tolist() == [False, True]
    # b = (1, 1.4) + W d = (-0.12, 1.4) with W d = (-0.12, 0): z_2 = z_1, it stops there.
    result = iht(x, bank, model, iterations=50)
    assert result.iterations.tolist() == [2] and not result.converged.any()
    assert_close(result.code.flatten(), torch.tensor([0.0, 1.4], dtype=torch.float64))


@pytest.mark.parametrize("dims, block, size", [(1, 4, 7), (1, 8, 11), (2, (2, 2), (7, 9))])
@pytest.mark.parametrize("step", [1.0, 0.5])
def test_one_iteration_is_a_layer(dims, block, size, step, generator):
    # Algorithm 1 from z_0 = 0: z_1 = M(W x, k), convolution, pooling and unpooling.
    bank = FilterBank.gaussian(5, 3, 4, dims=dims, generator=generator)
    model = ModelSparse(block, 3)
    size = (size,) if dims == 1 else size
    x = normal(4, 3, *size, generator=generator)
    layer = model.project(step * bank.analysis(x)).code
    result = iht(x, bank, model, step=step, iterations=1)
    assert torch.equal(result.code, layer)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims, block, size, stride, padding", [
    (1, 6, 8, 1, 0), (1, 3, 13, 2, 0), (1, 4, 8, 1, 1), (2, (2, 2), (6, 8), 1, 0),
])
def test_iterates_equal_the_dense_reference(form, dims, block, size, stride, padding, generator):
    # Every second filter is close to its neighbour, so that supports change on the way.
    base = normal(3, 2, *(3,) * dims, generator=generator)
    near = base + 0.5 * normal(3, 2, *(3,) * dims, generator=generator)
    bank = FilterBank(torch.stack([base, near], 1).flatten(0, 1), stride, padding).normalized()
    axes = (size,) if dims == 1 else size
    n = bank.code_size(size)
    model = ModelSparse(block, 3)
    z = model.sample(6, 6, n, generator=generator)
    x = bank.synthesis(z, size) + 0.1 * normal(6, 2, *axes, generator=generator)
    W = reference.dense(bank.weight, axes, stride, padding)
    shape, tuple_block = z.shape[1:], (block,) if dims == 1 else block
    step = FORMS[form].get("step", 0.3)
    pursuit = FORMS[form].get("pursuit", False)
    for count in (1, 2, 6):
        result = iht(x, bank, model, step=step, pursuit=pursuit, iterations=count, tol=0.0)
        for b in range(len(x)):
            iterates = reference.hard_thresholding(
                W, x[b].flatten(), shape, tuple_block, 3, count, step, pursuit
            )
            assert_close(result.code[b].flatten(), iterates[-1], rtol=1e-8, atol=1e-8)
            for i in range(1, len(result.residuals)):
                left = (x[b].flatten() - W.T @ iterates[i]).norm() / x[b].norm()
                assert_close(result.residuals[i, b], left, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_exact_recovery_at_k_10(form):
    bank, model, z, x = problem(10)
    result = iht(x, bank, model, iterations=200, **FORMS[form])
    assert result.converged.all() and not result.diverged.any()
    assert relative(result.code, z).max() < 1e-5
    assert torch.equal(result.support, z != 0)
    assert model.contains(result.code).all()


@pytest.mark.parametrize("form", ["niht", "htp", "normalized htp"])
def test_exact_recovery_at_k_80(form):
    bank, model, z, x = problem(80, batch=10)
    result = iht(x, bank, model, iterations=300, **FORMS[form])
    assert relative(result.code, z).max() < 1e-4
    assert result.converged.all()


def test_step_1_breaks_down_at_larger_k():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rates = []
        for k in (10, 40, 80):
            bank, model, _, x = problem(k, batch=40)
            rates.append(float(iht(x, bank, model, iterations=200).converged.double().mean()))
    assert rates[0] == 1 and 0.05 < rates[1] < 0.8 and rates[2] == 0


@pytest.mark.parametrize("form", FORMS)
def test_recovery_on_images(form, generator):
    bank = FilterBank.gaussian(48, 16, 3, dims=2, padding=1, generator=generator).normalized()
    model = ModelSparse((2, 2), 12)
    z = model.sample(4, 48, 8, generator=generator)
    result = iht(bank.synthesis(z, 8), bank, model, iterations=200, **FORMS[form])
    assert result.converged.all() and relative(result.code, z).max() < 1e-5


def test_normalized_steps_never_raise_the_residual(generator):
    # Coherent filters: on a new support the plain line search overshoots.
    base = normal(1, 4, 4, generator=generator)
    weight = base + 0.35 * normal(24, 4, 4, generator=generator)
    bank = FilterBank(weight).normalized()
    model = ModelSparse(12, 6)
    x = bank.synthesis(model.sample(60, 24, 12, generator=generator), 15)
    residuals = iht(x, bank, model, step="normalized", iterations=60).residuals
    assert (residuals.diff(dim=0) <= 1e-9).all()


def test_normalized_step_does_not_depend_on_the_scale():
    bank, model, z, x = problem(10, batch=5)
    scaled = FilterBank(bank.weight * 1e3)
    one = iht(x, bank, model, step="normalized", iterations=5, tol=0.0)
    other = iht(x, scaled, model, step="normalized", iterations=5, tol=0.0)
    assert_close(one.residuals, other.residuals)
    assert_close(one.code, other.code * 1e3)


def test_pursuit_leaves_a_residual_orthogonal_to_its_support():
    bank, model, _, x = problem(30, batch=5)
    result = iht(x, bank, model, pursuit=True, iterations=1)
    gradient = bank.analysis(x - bank.synthesis(result.code, 32))
    assert gradient[result.support].abs().max() < 1e-12
    assert gradient[~result.support].abs().max() > 1e-2


@pytest.mark.parametrize("form", FORMS)
def test_samples_do_not_influence_each_other(form):
    bank, model, _, x = problem(20, batch=6, seed=3)
    together = iht(x, bank, model, iterations=60, **FORMS[form])
    for b in range(6):
        alone = iht(x[b : b + 1], bank, model, iterations=60, **FORMS[form])
        assert_close(alone.code[0], together.code[b], rtol=1e-9, atol=1e-9)
        assert alone.iterations[0] == together.iterations[b]


def test_stopping():
    bank, model, _, x = problem(10, batch=8)
    x = torch.cat([x, torch.zeros_like(x[:1])])
    result = iht(x, bank, model, iterations=100, tol=1e-3)
    rows, ran = result.residuals, result.iterations
    assert len(rows) == int(ran.max()) + 1 and len(ran.unique()) > 2
    assert rows[0].tolist() == [1.0] * 8 + [0.0]
    assert ran[8] == 0 and result.converged[8] and (result.code[8] == 0).all()
    for b in range(8):
        last = int(ran[b])
        assert (rows[:last, b] > 1e-3).all() and rows[last, b] <= 1e-3
        assert (rows[last:, b] == rows[last, b]).all()
    left = (x - bank.synthesis(result.code, 32)).flatten(1).norm(dim=1)
    assert_close(rows[-1, :8], left[:8] / x[:8].flatten(1).norm(dim=1))
    tight = iht(x, bank, model, iterations=3, tol=1e-3)
    assert len(tight.residuals) == 4 and not tight.converged[:8].any()
    assert tight.iterations.tolist() == [3] * 8 + [0]
    assert_close(tight.residuals, rows[:4])


def test_pursuit_stops_when_its_support_returns(generator):
    bank, model, _, x = problem(10, batch=8)
    x = x + 0.05 * normal(*x.shape, generator=generator)  # no code explains the noise
    result = iht(x, bank, model, pursuit=True, iterations=100)
    assert not result.converged.any() and result.iterations.max() < 30
    again = iht(x, bank, model, pursuit=True, iterations=int(result.iterations.max()) + 5, tol=0)
    assert torch.equal(result.code, again.code)


def test_divergence_is_flagged_and_returns_the_best_iterate():
    bank, model, _, x = problem(20)
    with pytest.warns(RuntimeWarning, match=r"20 of 20 samples diverged \(step = 5.0\)"):
        result = iht(x, bank, model, step=5.0, iterations=100)
    assert result.diverged.all() and not result.converged.any()
    assert torch.isfinite(result.code).all() and torch.isfinite(result.residuals).all()
    assert result.iterations.max() < 100
    left = (x - bank.synthesis(result.code, 32)).flatten(1).norm(dim=1)
    assert_close(result.residuals[-1], left / x.flatten(1).norm(dim=1))
    assert (result.residuals <= DIVERGED).all()
    assert (result.residuals[-1] <= result.residuals.amin(0) + 1e-12).all()


def test_a_step_that_overflows_is_flagged():
    bank, model, _, x = problem(20, batch=3)
    with pytest.warns(RuntimeWarning, match="3 of 3 samples diverged"):
        result = iht(x, bank, model, step=1e308)
    assert result.diverged.all() and (result.code == 0).all()


def test_diverged_samples_leave_the_others_alone():
    bank, model, _, x = problem(30, batch=40)
    with pytest.warns(RuntimeWarning, match="samples diverged") as caught:
        result = iht(x, bank, model, iterations=200)
    lost = int(result.diverged.sum())
    assert 0 < lost < 40 and f"{lost} of 40" in str(caught[0].message)
    good = ~result.diverged
    clean = iht(x[good], bank, model, iterations=200)
    assert_close(clean.code, result.code[good], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_determinism(form):
    bank, model, _, x = problem(20, batch=5)
    first, second = (iht(x, bank, model, iterations=30, **FORMS[form]) for _ in range(2))
    assert torch.equal(first.code, second.code)
    assert torch.equal(first.residuals, second.residuals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_dtype_and_device_are_kept(form, dtype, device):
    bank, model, z, x = problem(10, batch=5, dtype=dtype)
    bank, x = bank.to(device=device), x.to(device)
    result = iht(x, bank, model, iterations=100, tol=1e-5, **FORMS[form])
    assert result.code.dtype == result.residuals.dtype == dtype
    assert result.support.dtype == result.converged.dtype == result.diverged.dtype == torch.bool
    assert result.iterations.dtype == torch.int64
    for tensor in vars(result).values():
        assert tensor.device.type == device
    assert result.converged.all() and relative(result.code.cpu(), z).max() < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form, generator):
    bank = FilterBank.gaussian(4, 3, 2, generator=generator).normalized()
    model = ModelSparse(4, 2)
    x = bank.synthesis(model.sample(1, 4, 4, generator=generator), 5)
    x = (x + 0.1 * normal(*x.shape, generator=generator)).requires_grad_()
    weight = bank.weight.clone().requires_grad_()

    def decode(x, weight):
        return iht(x, FilterBank(weight), model, iterations=3, tol=0.0, **FORMS[form]).code

    assert torch.autograd.gradcheck(decode, (x, weight))


def test_a_run_that_is_on_its_way_out_is_flagged(generator):
    # k = 60 in the setting of Figure 2: step 1 fails, and five iterations do not reach the limit of 10.
    bank = FilterBank.gaussian(96, 32, 5, generator=generator).normalized()
    model = ModelSparse(28, 60)
    x = bank.synthesis(model.sample(20, 96, 28, generator=generator), 32)
    with pytest.warns(RuntimeWarning, match="samples diverged"):
        result = iht(x, bank, model, iterations=5)
    assert result.diverged[result.residuals[-1] > 1].all()
    assert 0 < int(result.diverged.sum()) and result.residuals[-1].max() <= 10
    # One iteration is a layer of a CNN, whatever its error.
    assert not iht(5 * x, bank, ModelSparse(28, None), iterations=1).diverged.any()
