"""FilterBank against the dense definition, its adjoint, Gram table and gradients."""

from __future__ import annotations

import dataclasses
import math

import pytest
import reference
import torch
from banks import axes, banks, normal
from hypothesis import given
from torch.testing import assert_close

from invertnb import FilterBank, adjoint_test


def test_matrix_by_hand():
    # Section 2.2 with M = 2, l = 2, t = 2, D = 4: n = 2 shifts, written out.
    weight = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    W = FilterBank(weight, stride=2).matrix(4)
    expected = [
        [1, 2, 0, 0, 3, 4, 0, 0],
        [0, 0, 1, 2, 0, 0, 3, 4],
        [5, 6, 0, 0, 7, 8, 0, 0],
        [0, 0, 5, 6, 0, 0, 7, 8],
    ]
    assert W.tolist() == expected


def test_analysis_correlates_and_does_not_flip():
    bank = FilterBank(torch.tensor([[[1.0, 10.0, 100.0]]]))
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert bank.analysis(x).tolist() == [[[321.0, 432.0]]]
    z = torch.tensor([[[1.0, 2.0]]])
    assert bank.synthesis(z, 4).tolist() == [[[1.0, 12.0, 120.0, 200.0]]]


def test_padding_crops_the_rows_at_the_boundary():
    bank = FilterBank(torch.tensor([[[1.0, 2.0, 3.0]]]), padding=1)
    assert bank.matrix(3).tolist() == [[2, 3, 0], [1, 2, 3], [0, 1, 2]]


@given(banks())
def test_dense_equality(case):
    bank, size = case
    g = torch.Generator().manual_seed(1)
    W = reference.dense(bank.weight, axes(size), bank.stride, bank.padding)
    assert_close(bank.matrix(size), W, rtol=0, atol=0)
    x = normal(2, bank.M, *axes(size), generator=g)
    code = bank.analysis(x)
    assert code.shape == (2, bank.K, *axes(bank.code_size(size)))
    assert_close(code.flatten(1), x.flatten(1) @ W.T, rtol=1e-12, atol=1e-12)
    z = normal(*code.shape, generator=g)
    back = bank.synthesis(z, size)
    assert back.shape == x.shape
    assert_close(back.flatten(1), z.flatten(1) @ W, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_dense_equality_in_float32(dims, stride, generator):
    bank = FilterBank.gaussian(
        3, 2, 3, dims=dims, stride=stride, padding=1, generator=generator, dtype=torch.float32
    )
    size = (7,) * dims
    W = reference.dense(bank.weight, size, stride, 1).float()
    x = normal(2, 2, *size, generator=generator, dtype=torch.float32)
    assert_close(bank.analysis(x).flatten(1), x.flatten(1) @ W.T, rtol=1e-5, atol=1e-6)
    z = normal(*bank.analysis(x).shape, generator=generator, dtype=torch.float32)
    back = bank.synthesis(z, 7)
    assert_close(back.flatten(1), z.flatten(1) @ W, rtol=1e-5, atol=1e-6)


@given(banks())
def test_adjoint(case):
    bank, size = case
    assert adjoint_test(bank, size, generator=torch.Generator().manual_seed(2)) < 1e-11


def test_adjoint_in_float32(generator):
    bank = FilterBank.gaussian(8, 4, 3, dims=2, generator=generator, dtype=torch.float32)
    assert adjoint_test(bank, 16, generator=generator) < 1e-5


@pytest.mark.parametrize("flaw", ["scaled", "shifted", "one sample", "not a number"])
def test_adjoint_test_finds_a_wrong_adjoint(flaw, generator):
    class Flawed:
        K, M = 3, 2
        bank = FilterBank.gaussian(3, 2, 3, generator=generator)
        code_size = bank.code_size
        analysis = bank.analysis

        def synthesis(self, z, size):
            back = self.bank.synthesis(z, size)
            if flaw == "scaled":
                return 1.01 * back
            if flaw == "shifted":
                return back.roll(1, -1)
            if flaw == "not a number":
                return back * torch.nan
            back[-1] *= 2
            return back

    assert not adjoint_test(Flawed(), 9, generator=generator, trials=10) <= 1e-4


def test_adjoint_is_relative_to_the_scale(generator):
    bank = FilterBank.gaussian(3, 2, 3, generator=generator)
    large = FilterBank(bank.weight * 1e9)
    assert adjoint_test(large, 12, generator=generator) < 1e-11


@given(banks(paddings=False))
def test_gram_holds_every_entry_of_the_dense_gram(case):
    bank, size = case
    W = reference.dense(bank.weight, axes(size), bank.stride)
    n = axes(bank.code_size(size))
    dense = (W @ W.T).view(bank.K, *n, bank.K, *n)
    table = bank.gram()
    R = (bank.l - 1) // bank.stride
    assert table.shape == (bank.K, bank.K, *(2 * R + 1,) * bank.dims)
    for p in torch.cartesian_prod(*map(torch.arange, n)).view(-1, bank.dims).tolist():
        for q in torch.cartesian_prod(*map(torch.arange, n)).view(-1, bank.dims).tolist():
            shift = [b - a for a, b in zip(p, q, strict=True)]
            block = dense[(slice(None), *p, slice(None), *q)]
            if max(map(abs, shift)) <= R:
                entry = table[(slice(None), slice(None), *(R + s for s in shift))]
                assert_close(entry, block, rtol=1e-12, atol=1e-12)
            else:
                assert (block == 0).all()


def test_gram_by_hand():
    bank = FilterBank(torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]]))
    # <row (0, p), row (1, p + 1)>: filter 1 one place to the right, so 2 * 3.
    assert bank.gram()[0, 1].tolist() == [5.0, 13.0, 6.0]
    assert bank.gram()[1, 0].tolist() == [6.0, 13.0, 5.0]


def test_gaussian_has_the_scaling_of_theorem_3_1(generator):
    bank = FilterBank.gaussian(400, 10, 5, generator=generator)
    assert bank.weight.dtype == torch.float64 and bank.weight.shape == (400, 10, 5)
    # Variance 1/(l M): 20000 entries know it to 1 %, their mean to 0.001.
    assert math.isclose(bank.weight.var().item() * 50, 1, abs_tol=0.05)
    assert abs(bank.weight.mean().item()) < 0.005
    image = FilterBank.gaussian(100, 10, 5, dims=2, generator=generator)
    assert math.isclose(image.weight.var().item() * 250, 1, abs_tol=0.05)


def test_gaussian_draws_do_not_depend_on_the_dtype():
    draws = [
        FilterBank.gaussian(3, 2, 4, generator=torch.Generator().manual_seed(5), dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    ]
    assert torch.equal(draws[0].weight, draws[1].weight.float())


def test_normalized_rows(generator):
    bank = FilterBank.gaussian(4, 3, 3, dims=2, stride=2, padding=1, generator=generator)
    unit = bank.normalized()
    assert_close(unit.weight.flatten(1).norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert (unit.stride, unit.padding) == (2, 1)
    scale = bank.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert_close(unit.weight * scale, bank.weight)


def test_attributes_and_immutability(generator):
    bank = FilterBank.gaussian(4, 3, 5, dims=2, stride=2, padding=1, generator=generator)
    assert (bank.K, bank.M, bank.l, bank.dims) == (4, 3, 5, 2)
    assert bank.code_size(7) == (3, 3) and bank.code_size((7, 9)) == (3, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bank.stride = 3
    assert bank.to(dtype=torch.float32).weight.dtype == torch.float32
    assert bank.to(device="cpu").stride == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [1, 2])
def test_dtype_and_device_are_kept(dtype, dims, generator, device):
    bank = FilterBank.gaussian(
        3, 2, 3, dims=dims, generator=generator, dtype=dtype, device=device
    )
    x = normal(2, 2, *(6,) * dims, generator=generator, dtype=dtype).to(device)
    code = bank.analysis(x)
    outcomes = [code, bank.synthesis(code, 6), bank.matrix(6), bank.gram()]
    for outcome in [*outcomes, bank.normalized().weight]:
        assert outcome.dtype == dtype and outcome.device.type == device


@pytest.mark.parametrize("dims", [1, 2])
def test_gradients(dims, generator):
    weight = normal(2, 2, *(2,) * dims, generator=generator).requires_grad_()
    x = normal(1, 2, *(4,) * dims, generator=generator).requires_grad_()
    z = normal(1, 2, *(3,) * dims, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, v: FilterBank(w).analysis(v), (weight, x))
    assert torch.autograd.gradcheck(lambda w, v: FilterBank(w).synthesis(v, 4), (weight, z))
    assert torch.autograd.gradcheck(lambda w: FilterBank(w).normalized().gram(), weight)
