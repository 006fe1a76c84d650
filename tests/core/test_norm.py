"""The spectral norm: never below the truth, at most 1 % above it, on every path."""

from __future__ import annotations

import math

import pytest
import torch
from banks import banks
from hypothesis import given

from invertnb import FilterBank, operators
from invertnb.kernels.lanczos import largest_ritz_value, steps_needed


def true_norm(bank: FilterBank, size) -> float:
    return float(torch.linalg.svdvals(bank.matrix(size).double())[0])


@given(banks())
def test_exact_path(case):
    bank, size = case
    truth = true_norm(bank, size)
    assert truth * (1 - 1e-14) <= bank.norm(size) <= truth * (1 + 1e-9)


CASES = {
    "figure 2": dict(K=96, M=32, l=5, size=32),
    "more columns than rows": dict(K=8, M=32, l=5, size=64),
    "stride": dict(K=16, M=4, l=6, size=150, stride=2),
    "padding": dict(K=16, M=8, l=5, size=90, padding=3),
    "image": dict(K=6, M=4, l=3, size=(13, 16), padding=1, dims=2),
    "image, stride": dict(K=12, M=4, l=3, size=(21, 17), stride=2, dims=2),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_lanczos_path(name, seed, monkeypatch):
    monkeypatch.setattr(operators, "EXACT_SIDE", 0)
    case = dict(CASES[name])
    size = case.pop("size")
    bank = FilterBank.gaussian(**case, generator=torch.Generator().manual_seed(seed))
    truth = true_norm(bank, size)
    assert truth <= bank.norm(size) <= 1.01 * truth


def test_lanczos_path_without_the_fourier_bound(monkeypatch):
    monkeypatch.setattr(operators, "EXACT_SIDE", 0)
    monkeypatch.setattr(FilterBank, "_fourier_bound", lambda bank, size: math.inf)
    # A long signal: the spectrum crowds at its top, and the Ritz value stays short of it.
    bank = FilterBank(torch.tensor([[[1.0, 1.0]]], dtype=torch.float64))
    truth = 2 * math.cos(math.pi / (2 * 4000))  # W W^T is tridiagonal with 1, 2, 1
    assert truth <= bank.norm(4000) <= 1.01 * truth


def test_float32_filters_are_measured_in_float64(monkeypatch, generator):
    monkeypatch.setattr(operators, "EXACT_SIDE", 0)
    bank = FilterBank.gaussian(20, 10, 5, generator=generator, dtype=torch.float32)
    truth = true_norm(bank, 60)
    assert truth <= bank.norm(60) <= 1.01 * truth


@given(banks())
def test_fourier_bound_is_never_below(case):
    bank, size = case
    sides = (size,) if isinstance(size, int) else size
    assert bank._fourier_bound(sides) >= true_norm(bank, size) * (1 - 1e-14)


def test_fourier_bound_caps_the_norm():
    bank = FilterBank(torch.tensor([[[1.0, 1.0]]], dtype=torch.float64))
    assert math.isclose(bank._fourier_bound((4096,)), 2.0, rel_tol=1e-9)
    # sqrt(theta / (1 - gap)) alone would exceed 2, which no shift-invariant sum of 1 + 1 can.
    assert bank.norm(4096) <= 2.0 + 1e-9


def test_norm_is_deterministic(generator):
    bank = FilterBank.gaussian(16, 8, 5, dims=2, generator=generator, dtype=torch.float32)
    torch.manual_seed(1)
    first = bank.norm(24)
    torch.manual_seed(2)
    assert bank.norm(24) == first


def test_steps_follow_the_probability_bound():
    k = steps_needed(10_000, 0.0195, 1e-8)
    assert 1.648 * 100 * math.exp(-math.sqrt(0.0195) * (2 * k - 1)) <= 1e-8
    assert 1.648 * 100 * math.exp(-math.sqrt(0.0195) * (2 * k - 3)) > 1e-8


def test_lanczos_on_known_spectra():
    spectrum = torch.tensor([0.5, 1.0, 1.5, 4.0], dtype=torch.float64)
    start = torch.ones(4, dtype=torch.float64)
    assert math.isclose(largest_ritz_value(lambda v: spectrum * v, start, 4), 4.0)
    # Two steps: the larger eigenvalue of the projection onto the first two Krylov vectors.
    basis, _ = torch.linalg.qr(torch.stack([start, spectrum * start], 1))
    ritz = torch.linalg.eigvalsh(basis.T @ torch.diag(spectrum) @ basis)[-1]
    assert math.isclose(largest_ritz_value(lambda v: spectrum * v, start, 2), float(ritz))
    # An eigenvector as the start ends the process at once.
    calls = []
    value = largest_ritz_value(lambda v: calls.append(1) or 3.0 * v, start, 50)
    assert math.isclose(value, 3.0) and len(calls) <= 2
