"""Pooling, unpooling and selection against their definitions, ties included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertnb.kernels.pooling import (
    cells, pool_switch, pool_switch_naive, uncells, unpool, unpool_naive,
)
from invertnb.kernels.selection import largest

BLOCKS = [(2, 2), (3, 2), (1, 3), (2, 1), (6, 12), (1, 1)]


def with_ties(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=g).to(dtype)


@pytest.mark.parametrize("by", ["abs", "signed"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_image_pooling_equals_its_definition(by, block, channels, layout, device):
    z = with_ties(3, channels, 6, 12).to(device).contiguous(memory_format=layout)
    values, switches = pool_switch(z, block, by)
    expected = pool_switch_naive(z, block, by)
    assert torch.equal(values, expected[0]) and torch.equal(switches, expected[1])
    assert torch.equal(unpool(values, switches, block), unpool_naive(*expected, block))


@pytest.mark.parametrize("block", [1, 2, 3, 12])
def test_signal_unpooling_equals_its_definition(block, device):
    values, switches = pool_switch(with_ties(3, 4, 12).to(device), block)
    assert torch.equal(unpool(values, switches, block), unpool_naive(values, switches, block))


def test_pooling_by_hand():
    z = torch.tensor([[[[1.0, -3.0, 0.0, 2.0], [2.0, 3.0, -2.0, 1.0]]]])
    values, switches = pool_switch(z, (2, 2), "abs")
    assert values.tolist() == [[[[-3.0, 2.0]]]]  # |-3| = |3|: the lower index wins
    assert switches.tolist() == [[[[1, 1]]]]
    values, switches = pool_switch(z, (2, 2), "signed")
    assert values.tolist() == [[[[3.0, 2.0]]]] and switches.tolist() == [[[[3, 1]]]]


@pytest.mark.parametrize("shape, block", [((2, 3, 12), 4), ((2, 3, 4, 6), (2, 3))])
def test_cells_and_back(shape, block):
    z = torch.arange(2 * 3 * 12 * (2 if len(shape) == 4 else 1)).view(shape)
    entries = cells(z, block)
    assert torch.equal(uncells(entries, block), z)
    if len(shape) == 4:
        assert entries[0, 0, 0, 0].tolist() == [0, 1, 2, 6, 7, 8]
        assert entries[0, 0, 1, 0].tolist() == [12, 13, 14, 18, 19, 20]
    else:
        assert entries[0, 0, 1].tolist() == [4, 5, 6, 7]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_largest_takes_the_first_of_equals(values, data):
    k = data.draw(st.integers(1, len(values)))
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    mask = largest(torch.tensor([values], dtype=torch.float64), k)
    assert sorted(order[:k]) == mask[0].nonzero().flatten().tolist()


def test_largest_by_hand():
    values = torch.tensor([[1.0, -2.0, 2.0, 0.5, -2.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    assert largest(values, 2).int().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
