"""Coherence: the largest correlation of two filters over all their shifts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ... import FilterBank, coherence
from .frame import Task, close, name_of

# Filters, channels, side: conv(5, 1) of VGG-16 on a GPU, a smaller bank on the CPU.
SIZES = {"cpu": (128, 128, 3), "cuda": (512, 512, 3)}


def tasks(device: str) -> Iterator[Task]:
    """One size; the convolution is a library's and needs no kernel of ours."""
    K, M, l = SIZES[device]
    bank = FilterBank.gaussian(K, M, l, dims=2, generator=torch.Generator().manual_seed(0),
                               dtype=torch.float32, device=device).normalized()  # fmt: skip
    w = bank.weight

    def literal() -> Tensor:
        """W W^T of all shifted filters, one dense product a shift."""
        best = torch.zeros((), device=device)
        for down in range(1 - l, l):
            for right in range(1 - l, l):
                a = w[..., max(0, down) : l + min(0, down), max(0, right) : l + min(0, right)]
                b = w[..., max(0, -down) : l + min(0, -down), max(0, -right) : l + min(0, -right)]
                products = a.flatten(1) @ b.flatten(1).T
                if down == right == 0:
                    products.fill_diagonal_(0)
                best = torch.maximum(best, products.abs().max())
        return best

    ways = {
        "a product a shift": literal,
        "ours, conv2d(w, w)": lambda: coherence(w, shifts="all"),
    }
    yield Task("coherence", f"{K}x{M}x{l}x{l}", name_of(w.dtype), ways, close(1e-4),
               operations=2.0 * K * K * M * l**4)  # fmt: skip
