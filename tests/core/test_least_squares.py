"""least_squares against torch.linalg.lstsq on the dense columns, on both of its paths."""

from __future__ import annotations

import importlib

import pytest
import torch
from banks import axes, banks, normal
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import FilterBank, ModelSparse, least_squares

# The package's attribute of this name is the function.
module = importlib.import_module("invertnb.least_squares")


def dense_solution(x, bank, support, size):
    """One sample at a time, from the columns of W^T on the support; least norm if dependent."""
    W = bank.matrix(size)
    code = torch.zeros(len(x), W.shape[0], dtype=x.dtype)
    for b in range(len(x)):
        on = support[b].flatten().nonzero().squeeze(1)
        if len(on):
            columns = W.T[:, on]
            answer = torch.linalg.lstsq(columns, x[b].view(-1, 1), driver="gelsd").solution
            code[b, on] = answer.squeeze(1)
    return code.view(support.shape)


@given(banks(), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_equals_dense_least_squares(case, density):
    # Padding, strides, empty and full supports, and more columns than equations.
    bank, size = case
    g = torch.Generator().manual_seed(4)
    x = normal(3, bank.M, *axes(size), generator=g)
    shape = (3, bank.K, *axes(bank.code_size(size)))
    support = torch.rand(shape, generator=g) < density
    code = least_squares(x, bank, support)
    assert code.shape == shape and (code[~support] == 0).all()
    expected = dense_solution(x, bank, support, size)
    gap = bank.synthesis(code, size) - bank.synthesis(expected, size)
    assert gap.abs().max() < 1e-7
    gradient = bank.analysis(x - bank.synthesis(code, size))[support]
    assert gradient.numel() == 0 or gradient.abs().max() < 1e-7


@pytest.mark.parametrize("limit", [512, 0], ids=["cholesky", "conjugate gradients"])
@pytest.mark.parametrize("dims, stride", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_both_paths(limit, dims, stride, generator, monkeypatch):
    monkeypatch.setattr(module, "DENSE_SUPPORT", limit)
    bank = FilterBank.gaussian(12, 6, 3, dims=dims, stride=stride, generator=generator)
    x = normal(5, 6, *(9,) * dims, generator=generator)
    n = bank.code_size(9)
    # Supports of different sizes in one batch.
    support = torch.rand(5, 12, *axes(n), generator=generator) < 0.1 * torch.arange(5).view(
        5, 1, *(1,) * dims) / dims
    code = least_squares(x, bank, support)
    assert_close(code, dense_solution(x, bank, support, 9), rtol=1e-8, atol=1e-9)


def test_small_pieces_give_the_same(generator, monkeypatch):
    bank = FilterBank.gaussian(12, 6, 3, generator=generator)
    support = ModelSparse(7, 5).sample(9, 12, 7, generator=generator) != 0
    x = normal(9, 6, 9, generator=generator)
    whole = least_squares(x, bank, support)
    monkeypatch.setattr(module, "DENSE_ENTRIES", 60)  # two samples at a time
    assert_close(least_squares(x, bank, support), whole)


def test_dependent_columns_give_the_solution_of_least_norm(generator):
    weight = normal(3, 2, 4, generator=generator)
    weight[1] = -2 * weight[0]
    bank = FilterBank(weight)
    x = normal(2, 2, 8, generator=generator)
    support = torch.zeros(2, 3, 5, dtype=torch.bool)
    support[:, 0, 2] = support[:, 1, 2] = support[0, 2, 4] = True
    code = least_squares(x, bank, support)
    assert_close(code[:, 1, 2], -2 * code[:, 0, 2])
    assert_close(code, dense_solution(x, bank, support, 8), rtol=1e-8, atol=1e-9)


def test_by_hand():
    # Columns (1, 1, 0) and (0, 1, 1); x = (1, 0, 0): normal equations [[2, 1], [1, 2]] z = (1, 0).
    bank = FilterBank(torch.tensor([[[1.0, 1.0]]], dtype=torch.float64))
    x = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)
    code = least_squares(x, bank, torch.ones(1, 1, 2, dtype=torch.bool))
    assert_close(code.flatten(), torch.tensor([2 / 3, -1 / 3], dtype=torch.float64))


def test_the_oracle_recovers_the_code(generator):
    bank = FilterBank.gaussian(96, 32, 5, generator=generator, dtype=torch.float32)
    z = ModelSparse(28, 80).sample(4, 96, 28, generator=generator, dtype=torch.float32)
    code = least_squares(bank.synthesis(z, 32), bank, z != 0)
    assert code.dtype == torch.float32
    assert_close(code, z, rtol=1e-3, atol=1e-4)


def test_unfinished_conjugate_gradients_warn(generator):
    bank = FilterBank.gaussian(12, 6, 3, padding=1, generator=generator)
    x = normal(2, 6, 9, generator=generator)
    support = torch.ones(2, 12, 9, dtype=torch.bool)
    with pytest.warns(RuntimeWarning, match="2 of 2 samples stopped after 3"):
        module._conjugate_gradients(x, bank, support, bank.analysis(x), limit=3)


def test_device_is_kept(device, generator):
    bank = FilterBank.gaussian(6, 3, 3, generator=generator, device=device)
    support = ModelSparse(7, 4).sample(2, 6, 7, generator=generator, device=device) != 0
    code = least_squares(normal(2, 3, 9, generator=generator).to(device), bank, support)
    assert code.device.type == device


@pytest.mark.parametrize("padding", [0, 1])
def test_gradients(padding, generator):
    bank = FilterBank.gaussian(4, 3, 2, padding=padding, generator=generator)
    x = normal(1, 3, 5, generator=generator).requires_grad_()
    support = ModelSparse(2, 3).sample(1, 4, 4 + 2 * padding, generator=generator) != 0
    assert torch.autograd.gradcheck(lambda v: least_squares(v, bank, support), x)
