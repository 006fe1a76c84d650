"""Random small filter banks for the property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from invertnb import FilterBank


@st.composite
def banks(draw, dims=(1, 2), paddings=True, dtype=torch.float64):
    """A bank and a size that fits it: every stride, padding and boundary case."""
    d = draw(st.sampled_from(dims))
    K, M = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    l = draw(st.integers(1, 4 if d == 1 else 3))
    stride = draw(st.integers(1, 3))
    padding = draw(st.integers(0, l - 1)) if paddings else 0
    # At least one shift more than the first whose signal is not empty.
    least = max(1, -(-(2 * padding - l + 1) // stride) + 1)
    shifts = [draw(st.integers(least, least + 3)) for _ in range(d)]
    size = tuple((n - 1) * stride + l - 2 * padding for n in shifts)
    seed = draw(st.integers(0, 2**31))
    bank = FilterBank.gaussian(
        K, M, l, dims=d, stride=stride, padding=padding, dtype=dtype,
        generator=torch.Generator().manual_seed(seed),
    )
    return bank, size[0] if d == 1 else size


def axes(size) -> tuple[int, ...]:
    """A size as a tuple."""
    return (size,) if isinstance(size, int) else tuple(size)


def normal(*shape, generator, dtype=torch.float64):
    """A standard normal draw."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
