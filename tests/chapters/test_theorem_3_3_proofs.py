"""The chapter on Theorem 3.3: its proofs step by step, and the layers that attain its constants."""

import math

import pytest
import torch

from invertnb import FilterBank
from invertnb.chapters.theorem_3_3 import proofs, sharp, steps
from invertnb.chapters.theorem_3_3.layers import Codes, Layer
from invertnb.rip import exact_constant
from invertnb.theory import one_step as theory


def layer_of(seed, M=8, K=6):
    bank = FilterBank.gaussian(K, M, 3, generator=torch.Generator().manual_seed(seed))
    return Layer(bank.normalized(), 6)


def test_parts_are_their_definitions():
    layer = layer_of(1)
    z = layer.sample(2, 5, torch.Generator().manual_seed(2))
    found = proofs.parts(layer, z)
    for row in range(5):
        dense = layer.dense(z)[row]
        h = layer.gram @ dense
        best = layer.model(2).project(h.view(1, 6, 4)).code.flatten() != 0
        pi, Ev = dense != 0, h - dense
        union = (best | pi).nonzero().flatten()
        E = layer.gram - torch.eye(24, dtype=torch.float64)
        expected = (
            Ev[best & ~pi].norm(), Ev[pi & ~best].norm(), Ev[best & pi].norm(),
            dense[~best].norm(), (h * best - dense).norm(), h[best & ~pi].norm(), h[pi & ~best].norm(),
            torch.linalg.eigvalsh(E[union][:, union]).abs().max(),
        )  # fmt: skip
        for name, value in zip(found._fields, expected, strict=False):
            assert float(getattr(found, name)[row]) == pytest.approx(float(value), abs=1e-12), name


def test_largest_ratio_sees_a_violation_at_nothing():
    left, right = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])
    assert proofs.largest_ratio(left, right) == 0.5
    assert proofs.largest_ratio(torch.tensor([1.0, 1e-3]), right) == math.inf


def test_every_step_holds_on_random_layers():
    for seed in range(4):
        layer = layer_of(seed)
        z = layer.sample(2, 300, torch.Generator().manual_seed(seed))
        assert max(proofs.of_one_step(layer, z).values()) <= 1 + 1e-9
        quiet = layer_of(seed, M=200)
        delta = exact_constant(quiet.bank, quiet.model(2), 6, order=2)
        assert max(proofs.of_iterations(quiet, z, delta).values()) <= 1 + 1e-9


def test_the_iterates_are_those_of_algorithm_1():
    layer = layer_of(3, M=40)
    z = layer.sample(2, 6, torch.Generator().manual_seed(4))
    path = steps.iterate(layer, z, 1, False)
    assert torch.allclose(proofs.parts(layer, z).code / z.norm(), path[1])


@pytest.mark.parametrize("delta", [0.1, 0.4, 0.6])
def test_unit_rows_attain_the_golden_ratio_too(delta):
    layer, z = sharp.unit_rows(delta)
    assert torch.allclose(layer.gram.diagonal(), torch.ones(6, dtype=torch.float64))
    assert exact_constant(layer.bank, layer.model(4), layer.size, order=2) == pytest.approx(delta)
    step = proofs.of_one_step(layer, z)
    assert step["||z_hat - z|| <= phi d_T ||z||"] == pytest.approx(1, abs=1e-6)


def test_near_isometry_alone_does_not_bring_a_code_near():
    # delta_2k < 1, and the estimate is further from the code than zero: two atoms, k = 1.
    square = torch.tensor([[0.5, 0.5001], [0.5001, 1.5]], dtype=torch.float64)
    two = Layer(FilterBank(torch.linalg.cholesky(square).unsqueeze(2)), size=1)
    one = Codes(torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.float64))
    delta = exact_constant(two.bank, two.model(1), 1, order=2)
    code = float(proofs.parts(two, one).code)
    assert delta < 1 < code <= theory.estimation_golden(0.0, delta)
