"""Down to pixels without a decoder: the transposed step, layer after layer (footnote 3).

From the output of pool(i) down: unpool with the known switches, take off what a bias added, and
step back through each convolution with W^T, or with a few steps of least squares, which a layer
with at least as many entries as its input allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invertnb import FilterBank
from invertnb.chapters.inverting_vgg.activation import WINDOW
from invertnb.kernels.unpool import unpool
from invertnb.networks import VGG16, Network


def down(
    network: Network, h: Tensor, pool: str, switches: Mapping[str, Tensor], steps: int = 1
) -> Tensor:
    """An estimate of the prepared image from the output of pool(i), (batch, 3, H, W).

    Args:
        h: that output, (batch, K, n1, n2), true or reconstructed.
        switches: of pool(1) to pool(i).
        steps: iterations of the nonnegative least-squares fit of each convolution; the first is the
            transposed step W^T h at its best length.
    """
    for block in range(int(pool[5]), 0, -1):
        h = unpool(h, switches[f"pool({block})"].to(torch.uint8), WINDOW)
        for j in range(len(VGG16.blocks[block - 1]), 0, -1):
            name = f"conv({block},{j})"
            first = (block, j) == (1, 1)
            h = _input(h, network.bank(name, normalized=False), network.filters(name)[1], steps, not first)
    return h


def _input(h: Tensor, bank: FilterBank, bias: Tensor, steps: int, nonnegative: bool) -> Tensor:
    """f >= 0 with W f + b near h where h > 0, by projected gradients with exact line searches.

    Where h = 0 the convolution gave something below zero that ReLU cut off, or another entry of the
    window was larger: nothing is asked for there.
    """
    at = (h > 0).to(h.dtype)
    wanted = at * (h - bias.view(-1, 1, 1))
    f = torch.zeros_like(bank._synthesis(wanted))
    for _ in range(steps):
        gradient = bank._synthesis(wanted - at * bank._analysis(f))
        along = at * bank._analysis(gradient)
        length = gradient.flatten(1).square().sum(1) / along.flatten(1).square().sum(1).clamp(min=1e-30)
        f = f + length.view(-1, 1, 1, 1) * gradient
        if nonnegative:
            f = f.clamp(min=0)
    return f
