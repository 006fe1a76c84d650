"""Blocks and selections against their definitions, ties included; the kernels are in tests/kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertnb.kernels.pooling import cells, uncells
from invertnb.kernels.selection import largest


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
