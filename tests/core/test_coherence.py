"""Coherence in every reading, against the rows of a dense W."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from banks import normal
from hypothesis import given
from hypothesis import strategies as st

from invertnb import coherence


@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2),
    st.booleans(), st.sampled_from(["zero", "all"]), st.integers(0, 2**31),
)
def test_equals_the_dense_definition(dims, l, M, per_group, groups, signed, shifts, seed):
    K = per_group * groups
    if K == 1 and (l == 1 or shifts == "zero"):
        K, per_group = 2, 2
    weight = normal(K, M, *(l,) * dims, generator=torch.Generator().manual_seed(seed))
    expected = reference.coherence(weight, signed, shifts, groups)
    value = coherence(weight, signed, shifts, groups)
    assert value.shape == () and math.isclose(float(value), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_by_hand():
    # Unit filters (3, 4)/5 and (-4, -3)/5: -0.96 in place; shifted by one: 4 * -4 and 3 * -3.
    weight = torch.tensor([[[3.0, 4.0]], [[-4.0, -3.0]]], dtype=torch.float64)
    assert math.isclose(coherence(weight), 0.96)
    assert math.isclose(coherence(weight, signed=True), -0.96)
    assert math.isclose(coherence(weight, shifts="all"), 0.96)
    # Signed over all shifts: each filter with itself one place on, 12 / 25.
    assert math.isclose(coherence(weight, signed=True, shifts="all"), 0.48)
    # In groups of one the two never meet, however alike.
    assert coherence(weight, groups=2) == 0
    assert coherence(weight, signed=True, groups=2) == 0


@pytest.mark.parametrize("dims", [1, 2])
def test_a_pair_of_opposite_filters(dims, generator):
    weight = normal(6, 3, *(3,) * dims, generator=generator)
    weight[4] = -2.5 * weight[1]
    assert math.isclose(coherence(weight), 1.0)
    assert coherence(weight, signed=True) < 0.9


def test_scale_and_layout_do_not_matter(generator):
    weight = normal(6, 3, 3, 3, generator=generator)
    value = coherence(weight, shifts="all")
    factors = torch.rand(6, generator=generator).double() + 0.1
    assert math.isclose(coherence(weight * factors.view(-1, 1, 1, 1), shifts="all"), value)
    last = weight.contiguous(memory_format=torch.channels_last)
    assert math.isclose(coherence(last, shifts="all"), value)


def test_more_shifts_can_only_raise_it(generator):
    weight = normal(5, 1, 3, 3, generator=generator)
    assert coherence(weight, shifts="all") >= coherence(weight)
    ramp = torch.tensor([[[1.0, 1.0, 1.0]]])  # one filter: 2/3 with itself one place on
    assert math.isclose(coherence(ramp, shifts="all"), 2 / 3, rel_tol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_are_kept(dtype, generator, device):
    weight = normal(6, 3, 3, 3, generator=generator, dtype=dtype).to(device)
    for shifts in ("zero", "all"):
        value = coherence(weight, shifts=shifts)
        assert value.dtype == dtype and value.device.type == device


@pytest.mark.parametrize("shifts", ["zero", "all"])
def test_gradients(shifts, generator):
    weight = normal(4, 2, 3, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: coherence(w, shifts=shifts), weight)
