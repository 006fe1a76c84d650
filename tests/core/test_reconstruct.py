"""reconstruct: one step by hand and against a dense W, and each of the other ways back."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from banks import axes, normal
from torch.testing import assert_close

from invertnb import (
    FilterBank, ModelSparse, iht, random_activations, reconstruct, recover, relative_error,
)  # fmt: skip


def problem(dims=2, padding=1, dtype=torch.float64, K=8, M=3, D=6, stride=1):
    g = torch.Generator().manual_seed(3)
    bank = FilterBank.gaussian(K, M, 3, dims=dims, padding=padding, generator=g).normalized()
    f = normal(2, M, *(D,) * dims, generator=g).abs()
    return f.to(dtype), bank.to(dtype=dtype)


def test_by_hand():
    # W = the identity on one channel. Blocks of two of (3, -4, 1, 2, -5, 0.5).
    bank = FilterBank(torch.tensor([[[1.0]]], dtype=torch.float64))
    f = torch.tensor([[[3.0, -4, 1, 2, -5, 0.5]]], dtype=torch.float64)

    def code(**how):
        return reconstruct(f, bank, block=2, match=False, **how).signal.flatten().tolist()

    assert code() == [0, -4, 0, 2, -5, 0]
    assert code(k=2) == [0, -4, 0, 0, -5, 0]
    assert code(pooling="signed") == [3, 0, 0, 2, 0, 0.5]
    assert code(pooling="signed", k=1) == [3, 0, 0, 0, 0, 0]
    assert code(pooling="rectified") == [3, 0, 0, 2, 0, 0.5]
    assert code(switches="fixed") == [0, -4, 0, 2, 0, -5]
    assert code(switches="averaged") == [-2, -2, 1, 1, -2.5, -2.5]
    at = torch.tensor([[[0, 0, 1]]])
    assert code(switches=at) == [-4, 0, 2, 0, 0, -5]
    assert code(method="transpose") == f.flatten().tolist()
    found = reconstruct(f, bank, 1, block=2)
    assert_close(found.scale, torch.tensor([f.norm() / 5]).double())
    assert_close(found.signal.flatten()[4], -f.norm())


def test_rectified_and_signed_differ_where_all_of_a_block_is_negative():
    bank = FilterBank(torch.tensor([[[1.0]]], dtype=torch.float64))
    f = torch.tensor([[[-3.0, -1, 2, 1]]], dtype=torch.float64)
    kept = {p: reconstruct(f, bank, block=2, pooling=p).code.flatten().tolist()
            for p in ("signed", "rectified")}  # fmt: skip
    assert kept == {"signed": [0, -1, 2, 0], "rectified": [0, 0, 2, 0]}


@pytest.mark.parametrize("dims, padding", [(1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("k", [None, 5])
def test_a_step_against_a_dense_matrix(dims, padding, k):
    f, bank = problem(dims, padding)
    W = reference.dense(bank.weight, axes(f.shape[2] if dims == 1 else tuple(f.shape[2:])), 1, padding)
    found = reconstruct(f, bank, k, block=2 if dims == 1 else (2, 2))
    for i in range(len(f)):
        h = (W @ f[i].flatten()).view(found.code.shape[1:])
        z = reference.project(h, (2,) * dims, h.numel() if k is None else k)[0]
        back = W.T @ z.flatten()
        back = back * f[i].norm() / back.norm()
        assert_close(found.signal[i].flatten(), back)
        error = (back - f[i].flatten()).norm() / f[i].norm()
        assert_close(relative_error(f, found.signal)[i], error)
    assert_close(found.signal.flatten(1).norm(dim=1), f.flatten(1).norm(dim=1))


@pytest.mark.parametrize("pooling", ["abs", "signed", "rectified"])
def test_what_no_block_covers_is_left_out(pooling):
    f, bank = problem(D=7)
    code = reconstruct(f, bank, pooling=pooling).code
    h = bank.analysis(f)
    assert (code[:, :, 6] == 0).all() and (code[..., 6] == 0).all()
    inside = h[:, :, :6, :6].clamp(min=0) if pooling == "rectified" else h[:, :, :6, :6]
    by = "abs" if pooling == "abs" else "signed"
    assert torch.equal(code[:, :, :6, :6], ModelSparse((2, 2), None).project(inside, by=by).code)


def test_several_iterations_are_iht_with_the_normalized_step():
    f, bank = problem()
    found = reconstruct(f, bank, 20, iterations=4)
    expected = iht(f, bank, ModelSparse((2, 2), 20), step="normalized", iterations=4, tol=0.0)
    assert torch.equal(found.code, expected.code)
    assert_close(found.signal, bank.synthesis(found.code, (6, 6)) * found.scale.view(-1, 1, 1, 1))
    # The first iterate is the step itself, but for its length, which matching takes away.
    one = reconstruct(f, bank, 20).signal
    first = iht(f, bank, ModelSparse((2, 2), 20), step="normalized", iterations=1, tol=0.0).code
    back = bank.synthesis(first, (6, 6))
    back = back * (f.flatten(1).norm(dim=1) / back.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    assert_close(one, back)


def test_recover_is_algorithm_2():
    f, bank = problem()
    lam = 0.2 * float(bank.analysis(f).abs().max())
    found = reconstruct(f, bank, 30, method="recover", lam=lam, tol=1e-6, match=False)
    expected = recover(f, bank, ModelSparse((2, 2), 30), lam, tol=1e-6)
    assert torch.equal(found.code, expected.code)
    assert_close(relative_error(f, found.signal), expected.residual)


@pytest.mark.parametrize("dims", [1, 2])
def test_least_squares_gives_f_back_where_the_rows_span(dims):
    f, bank = problem(dims)  # K n >= M D
    found = reconstruct(f, bank, method="least squares", block=2 if dims == 1 else (2, 2), tol=1e-12)
    assert float(relative_error(f, found.signal).max()) < 1e-9


def test_least_squares_where_they_do_not_is_a_projection():
    # One filter, three channels: of f only what lies in the row space can come back.
    f, bank = problem(K=1, M=3)
    found = reconstruct(f, bank, method="least squares", tol=1e-12, match=False)
    W = reference.dense(bank.weight, axes((6, 6)), 1, 1)
    inside = torch.linalg.pinv(W) @ W
    assert_close(found.signal.flatten(1), f.flatten(1) @ inside.T, rtol=1e-6, atol=1e-8)
    assert float(relative_error(f, found.signal).min()) > 0.5


def test_random_activations():
    f = problem(D=24)[0]
    draw = random_activations(f, torch.Generator().manual_seed(0))
    again = random_activations(f.float(), torch.Generator().manual_seed(0))
    assert_close(draw.float(), again)
    assert_close(draw.flatten(1).norm(dim=1), f.flatten(1).norm(dim=1))
    # |f - g|^2 = 2 |f|^2 (1 - cos), and cos is about 1 / sqrt(1728).
    assert float((relative_error(f, draw) - math.sqrt(2)).abs().max()) < 4 / math.sqrt(2 * 1728)


def test_zeros_stay_zero():
    _, bank = problem()
    f = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    for method in ("iht", "transpose", "least squares"):
        found = reconstruct(f, bank, method=method)
        assert not found.signal.any() and found.scale.tolist() == [1.0]
    assert relative_error(f, f).tolist() == [0.0]
    assert relative_error(f, f + 1).tolist() == [math.inf]


def test_float32_agrees():
    f, bank = problem()
    exact = reconstruct(f, bank, 20)
    single = reconstruct(f.float(), bank.to(dtype=torch.float32), 20)
    assert single.signal.dtype == torch.float32
    assert_close(single.signal.double(), exact.signal, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"method": "magic"}, ("method = 'magic'", "least squares")),
        ({"pooling": "mean"}, ("pooling = 'mean'", "rectified")),
        ({"iterations": 0}, ("iterations = 0",)),
        ({"iterations": 2, "pooling": "signed"}, ("'signed'", "single step")),
        ({"iterations": 2, "switches": "fixed"}, ("'fixed'", "single step")),
        ({"method": "transpose", "iterations": 2}, ("iterations = 2", "'transpose'")),
        ({"method": "transpose", "k": 3}, ("k = 3", "None")),
        ({"method": "recover"}, ("lam = None", "a level")),
        ({"lam": 0.1}, ("lam = 0.1", "no other")),
        ({"k": 10**6}, ("k = 1000000", "blocks")),
        ({"block": 2}, ("block = 2", "2-D")),
        ({"match": 1}, ("match = 1",)),
        ({"f": torch.full((1, 3, 6, 6), torch.nan, dtype=torch.float64)}, ("x =",)),
    ],
)
def test_bad_input_is_named(refuses, change, parts):
    f, bank = problem()
    arguments = {"f": f, "bank": bank} | change
    refuses(lambda: reconstruct(**arguments), *parts)


def test_errors_of_different_shapes_are_refused(refuses):
    f, _ = problem()
    refuses(lambda: relative_error(f, f[:, :1]), "f_hat", "(2, 3, 6, 6)")
