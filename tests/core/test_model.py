"""M_k: projections against enumeration and loops, membership, and the law of its samples."""

from __future__ import annotations

import dataclasses
import math

import pytest
import reference
import torch
from banks import normal
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import ModelSparse


@st.composite
def cases(draw):
    """A model, integer codes full of ties, and the same in tuples."""
    dims = draw(st.integers(1, 2))
    K, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    block = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    counts = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    size = tuple(b * c for b, c in zip(block, counts, strict=True))
    total = K * math.prod(counts)
    k = draw(st.one_of(st.none(), st.integers(1, total)))
    model = ModelSparse(block[0] if dims == 1 else block, k)
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z = torch.randint(-3, 4, (batch, K, *size), generator=g).double()
    return model, z, block, counts


@given(cases())
def test_projection_is_the_nearest_point(case):
    model, z, block, counts = case
    total = z.shape[1] * math.prod(counts)
    k = model.k or total
    assume(math.comb(total, k) * math.prod(block) ** k <= 2000)  # supports to enumerate
    code = model.project(z).code
    assert model.contains(code).all()
    for sample, projected in zip(z, code, strict=True):
        # On a support the nearest point keeps z there: what is left is the rest of z.
        best = max(
            sum(float(sample[at]) ** 2 for at in support)
            for support in reference.supports(z.shape[1], tuple(z.shape[2:]), block, k)
        )
        assert float((sample - projected).square().sum()) == float(sample.square().sum()) - best


@given(cases(), st.sampled_from(["known", "fixed", "averaged", "given"]),
       st.sampled_from(["abs", "signed"]))
def test_every_switch_and_rule_against_loops(case, switches, by):
    model, z, block, counts = case
    shape = (*z.shape[:2], *counts)
    g = torch.Generator().manual_seed(3)
    given_switches = torch.randint(math.prod(block), shape, generator=g)
    result = model.project(z, given_switches if switches == "given" else switches, by)
    for b in range(len(z)):
        s = given_switches[b] if switches == "given" else switches
        code, places = reference.project(z[b], block, model.k, s, by)
        assert torch.equal(result.code[b], code)
        assert torch.equal(result.switches[b], places)


HAND = torch.tensor([[[1.0, -4.0, 2.0, 3.0], [0.0, 1.0, 2.0, -2.0]]])


@pytest.mark.parametrize(
    "k, switches, by, expected",
    [
        (1, "known", "abs", [[0, -4, 0, 0], [0, 0, 0, 0]]),
        (2, "known", "abs", [[0, -4, 0, 3], [0, 0, 0, 0]]),
        (3, "known", "abs", [[0, -4, 0, 3], [0, 0, 2, 0]]),
        (2, "known", "signed", [[0, 0, 0, 3], [0, 0, 2, 0]]),
        (2, "fixed", "abs", [[0, -4, 0, 3], [0, 0, 0, 0]]),
        (3, "fixed", "signed", [[0, 1, 0, 3], [0, 0, 0, 2]]),
        (3, "averaged", "abs", [[-2, -2, 1.5, 1.5], [0, 0, 1, 1]]),
        (None, "known", "signed", [[1, 0, 0, 3], [0, 1, 2, 0]]),
    ],
)
def test_signals_by_hand(k, switches, by, expected):
    assert ModelSparse(2, k).project(HAND, switches, by).code[0].tolist() == expected


def test_given_switches_place_the_maximum():
    switches = torch.tensor([[[0, 0], [1, 0]]])
    result = ModelSparse(2, 3).project(HAND, switches)
    assert result.code[0].tolist() == [[-4, 0, 3, 0], [0, 0, 2, 0]]
    assert torch.equal(result.switches, switches)


@pytest.mark.parametrize("block, center", [((2, 2), 3), ((3, 3), 4), ((2, 3), 4), ((1, 2), 1)])
def test_fixed_switches_sit_at_half_the_window(block, center):
    result = ModelSparse(block, None).project(torch.ones(1, 1, *block), "fixed")
    assert result.switches.flatten().tolist() == [center]
    assert result.code.flatten()[center] == 1 and result.code.sum() == 1


def test_windows_by_hand():
    z = torch.tensor([[[[1.0, 2.0, 0.0, 0.0], [-3.0, 0.0, 0.0, 5.0]]]])
    known = ModelSparse((2, 2), 2).project(z)
    assert known.code[0, 0].tolist() == [[0, 0, 0, 0], [-3, 0, 0, 5]]
    assert known.switches.tolist() == [[[[2, 3]]]]
    signed = ModelSparse((2, 2), 2).project(z, "fixed", "signed")
    assert signed.code[0, 0].tolist() == [[0, 0, 0, 0], [0, 2, 0, 5]]
    averaged = ModelSparse((2, 2), 1).project(z, "averaged")
    assert averaged.code[0, 0].tolist() == [[0, 0, 1.25, 1.25], [0, 0, 1.25, 1.25]]


def test_ties_go_to_the_lowest_index():
    z = torch.tensor([[[2.0, -2.0, -2.0, 2.0], [2.0, 0.0, 0.0, 0.0]]])
    result = ModelSparse(2, 2).project(z)
    assert result.code[0].tolist() == [[2, 0, -2, 0], [0, 0, 0, 0]]
    assert result.switches[0].tolist() == [[0, 0], [0, 0]]


def test_contains():
    z = torch.zeros(5, 2, 4)
    z[1, 0, 0] = z[1, 1, 3] = 1.0  # two blocks
    z[2, 0, 0] = z[2, 0, 1] = 1.0  # two in one block
    z[3, 0, 0] = z[3, 0, 2] = z[3, 1, 0] = 1.0  # three blocks
    z[4, 0, 0], z[4, 0, 1] = 1.0, -1.0  # two in one block that cancel
    assert ModelSparse(2, 2).contains(z).tolist() == [True, True, False, False, False]
    assert ModelSparse(2, None).contains(z).tolist() == [True, True, False, True, False]
    assert ModelSparse(4, 2).contains(z).tolist() == [True, True, False, False, False]
    image = torch.zeros(2, 1, 2, 4)
    image[0, 0, 0, 1] = image[0, 0, 1, 2] = 1.0  # neighbors in different windows
    image[1, 0, 0, 0] = image[1, 0, 1, 1] = 1.0  # opposite corners of one window
    assert ModelSparse((2, 2), 2).contains(image).tolist() == [True, False]


@given(cases())
def test_projection_is_idempotent(case):
    model, z, _, _ = case
    once = model.project(z).code
    assert torch.equal(model.project(once).code, once)


def test_sample_supports_are_uniform(generator):
    # 6 blocks of 2, of which 2 are drawn: each entry with probability 1/6, each pair 1/15.
    z = ModelSparse(2, 2).sample(30_000, 3, 4, generator=generator)
    assert ((z != 0).flatten(1).sum(1) == 2).all()
    frequency = (z != 0).double().mean(0)
    spread = math.sqrt(1 / 6 * 5 / 6 / 30_000)
    assert (frequency - 1 / 6).abs().max() < 5 * spread
    chosen = (z.unflatten(2, (2, 2)) != 0).any(-1).flatten(1).double()
    pairs = (chosen.T @ chosen / 30_000).triu(1)
    pairs = pairs[pairs > 0]
    assert len(pairs) == 15
    assert (pairs - 1 / 15).abs().max() < 5 * math.sqrt(1 / 15 * 14 / 15 / 30_000)


def test_sample_values(generator):
    z = ModelSparse(4, 8).sample(5_000, 8, 4, generator=generator)
    values = z[z != 0]
    assert values.abs().max() <= 1 and values.max() > 0.999 and values.min() < -0.999
    assert abs(values.mean()) < 0.015 and abs(values.square().mean() - 1 / 3) < 0.008
    z = ModelSparse(4, 8).sample(5_000, 8, 4, generator=generator, values="gaussian")
    values = z[z != 0]
    assert abs(values.square().mean() - 1) < 0.035 and values.abs().max() > 3


@given(st.integers(1, 6), st.sampled_from([((2, 3), (4, 6)), ((2, 2), (2, 6)), (3, 6), (6, 6)]))
def test_samples_are_members(k, shape):
    block, size = shape
    model = ModelSparse(block, None if k == 6 else min(k, 2))
    z = model.sample(3, 2, size, generator=torch.Generator().manual_seed(k))
    assert model.contains(z).all()
    assert z.shape == (3, 2, *(size if isinstance(size, tuple) else (size,)))


def test_equal_seeds_give_equal_samples_in_every_dtype():
    draws = [
        ModelSparse((2, 2), 3).sample(
            4, 2, 4, generator=torch.Generator().manual_seed(9), dtype=dtype
        )
        for dtype in (torch.float64, torch.float64, torch.float32)
    ]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0].float(), draws[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block, shape", [(3, (2, 3, 6)), ((2, 2), (2, 3, 4, 4))])
def test_dtype_and_device_are_kept(dtype, block, shape, generator, device):
    model = ModelSparse(block, 2)
    z = normal(*shape, generator=generator, dtype=dtype).to(device)
    for switches in ("known", "fixed", "averaged"):
        code, places = model.project(z, switches)
        assert (code.dtype, code.device.type, code.shape) == (dtype, device, z.shape)
        assert (places.dtype, places.device.type) == (torch.int64, device)
    sample = model.sample(2, 3, shape[2:] if len(shape) == 4 else 6, generator=generator,
                          dtype=dtype, device=device)
    assert (sample.dtype, sample.device.type) == (dtype, device)


@pytest.mark.parametrize("switches", ["known", "fixed", "averaged"])
@pytest.mark.parametrize("block, shape", [(3, (1, 3, 6)), ((2, 2), (1, 2, 4, 4))])
def test_gradients(switches, block, shape, generator):
    z = normal(*shape, generator=generator).requires_grad_()
    model = ModelSparse(block, 2)
    assert torch.autograd.gradcheck(lambda v: model.project(v, switches).code, z)


def test_projection_does_not_change_its_argument(generator):
    z = normal(2, 3, 4, 4, generator=generator)
    before = z.clone()
    ModelSparse((2, 2), 3).project(z)
    assert_close(z, before, rtol=0, atol=0)


def test_model_is_a_value():
    assert ModelSparse([2, 2], 3) == ModelSparse((2, 2), 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelSparse(2, 3).k = 4
