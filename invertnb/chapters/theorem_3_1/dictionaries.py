"""Wavelets and localized Fourier bases as filter banks, critically sampled and at stride 1."""

from __future__ import annotations

import math

import pywt
import torch
from torch import Tensor

from invertnb import FilterBank, check


def _filters(name: str) -> tuple[Tensor, Tensor]:
    """Low and high pass of an orthogonal wavelet."""
    if name not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(name).orthogonal:
        check.fail("name", name, "an orthogonal wavelet of PyWavelets, such as 'haar' or 'db4'")
    wavelet = pywt.Wavelet(name)
    return tuple(torch.tensor(taps, dtype=torch.float64) for taps in (wavelet.rec_lo, wavelet.rec_hi))


def _after(outer: Tensor, inner: Tensor, spacing: int) -> Tensor:
    """The filter of `outer`, then, at every `spacing`-th place, `inner`."""
    spread = torch.zeros((len(inner) - 1) * spacing + 1, dtype=torch.float64)
    spread[::spacing] = inner
    return torch.nn.functional.conv1d(
        outer.view(1, 1, -1), spread.flip(0).view(1, 1, -1), padding=len(spread) - 1
    ).flatten()


def _bank(filters: list[Tensor], stride: int) -> FilterBank:
    """One channel; shorter filters are filled up with zeros to the length of the longest."""
    longest = max(map(len, filters))
    rows = [torch.nn.functional.pad(taps, (0, longest - len(taps))) for taps in filters]
    return FilterBank(torch.stack(rows).unsqueeze(1), stride)


def wavelet_packets(name: str, levels: int) -> FilterBank:
    """The 2^levels packet filters of an orthogonal wavelet, at stride 2^levels: orthonormal rows."""
    check.integer("levels", levels, 1)
    filters = [torch.ones(1, dtype=torch.float64)]
    for level in range(levels):
        filters = [_after(f, taps, 2**level) for f in filters for taps in _filters(name)]
    return _bank(filters, 2**levels)


def wavelets(name: str, levels: int) -> FilterBank:
    """The wavelets of each level and the last scaling function at stride 1 (undecimated)."""
    check.integer("levels", levels, 1)
    low, high = _filters(name)
    scaling, filters = torch.ones(1, dtype=torch.float64), []
    for level in range(levels):
        filters.append(_after(scaling, high, 2**level))
        scaling = _after(scaling, low, 2**level)
    return _bank([*filters, scaling], 1)


def local_cosines(size: int, stride: int | None = None) -> FilterBank:
    """Cosines of `size` frequencies under sine windows of twice that length (the MDCT).

    Orthonormal at the default stride, `size`; Princen, Johnson and Bradley 1987.
    """
    check.integer("size", size, 1)
    place = torch.arange(2 * size, dtype=torch.float64) + 0.5
    frequency = (torch.arange(size, dtype=torch.float64) + 0.5).unsqueeze(1)
    window = (math.pi * place / (2 * size)).sin()
    rows = math.sqrt(2 / size) * window * (math.pi / size * (place + size / 2) * frequency).cos()
    return FilterBank(rows.unsqueeze(1), size if stride is None else stride)
