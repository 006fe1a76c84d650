"""M_known in its parts: pool with switches, unpool, and both in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.keep import keep
from ...kernels.pool_switch import pool_switch
from ...kernels.unpool import unpool
from .frame import Task, compiled, name_of

# Activations of VGG-16 by layer: images, filters, side. The CPU gets a few images.
SIZES = {"cpu": [(2, 64, 224), (4, 256, 56), (8, 512, 28)],
         "cuda": [(64, 64, 224), (64, 256, 56), (64, 512, 28)]}  # fmt: skip
BLOCK = (2, 2)


def tasks(device: str) -> Iterator[Task]:
    """For each size, layout and dtype."""
    dtypes = (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,)
    for dtype in dtypes:
        for images, filters, side in SIZES[device]:
            for layout, word in ((torch.contiguous_format, ""), (torch.channels_last, ", channels last")):
                z = torch.randn(images, filters, side, side, generator=torch.Generator().manual_seed(0))
                z = z.to(device, dtype).contiguous(memory_format=layout)
                size = f"{images}x{filters}x{side}x{side}{word}"
                yield _keep(z, size)
                yield _pool(z, size)
                yield _unpool(z, size)


def exactly(one: object, other: object) -> None:
    """Bit for bit: a selection rounds nothing."""
    one, other = ((v,) if isinstance(v, Tensor) else v for v in (one, other))
    for a, b in zip(one, other, strict=True):
        wrong = int((a != b.to(a.dtype)).sum())
        assert not wrong, f"{wrong} of {a.numel()} entries"


def but_for_ties(one: Tensor, other: Tensor) -> str:
    """Bit for bit, but for entries kept beside an equal one of their block."""
    extra = one != other
    size = other.abs()
    best = F.max_pool2d(size, BLOCK).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert bool(((one == 0) & (size == best))[extra].all()), "they differ where there is no tie"
    return f"keeps {int(extra.sum())} ties more" if extra.any() else ""


def _literal(z: Tensor) -> tuple[Tensor, Tensor]:
    """The signed value at the place of the largest magnitude, and the place in the whole image."""
    pooled, flat = F.max_pool2d(z.abs(), BLOCK, return_indices=True)
    return z.flatten(2).gather(2, flat.flatten(2)).view_as(pooled), flat


def _literal_keep(z: Tensor) -> Tensor:
    return F.max_unpool2d(*_literal(z), BLOCK)


def _amax(z: Tensor) -> Tensor:
    """The largest by comparison with a maximum: one pass when compiled. Keeps every tied entry."""
    tiles = z.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    size = tiles.abs()
    return torch.where(size == size.amax((3, 5), keepdim=True), tiles, 0.0).flatten(4).flatten(2, 3)


def _keep(z: Tensor, size: str) -> Task:
    literal, amax = compiled(_literal_keep), compiled(_amax)
    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: _literal_keep(z),
        "eager, amax": lambda: _amax(z),
        "compiled": lambda: literal(z),
        "compiled, amax": lambda: amax(z),
        "ours": lambda: keep(z, BLOCK),
    }
    # Read once, written once.
    return Task("keep", size, name_of(z.dtype), ways, exactly, bytes=2 * z.numel() * z.element_size(),
                items=len(z), agree_of=dict.fromkeys(("eager, amax", "compiled, amax"), but_for_ties))  # fmt: skip


def _pool(z: Tensor, size: str) -> Task:
    corner = _corners(z)
    run = compiled(_literal)

    def place(result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Count inside the block, as we do: done for the check, not asked of the other ways."""
        values, flat = result
        if flat.dtype == torch.uint8:
            return values, flat
        offset = flat - corner
        return values, offset // z.shape[3] * 2 + offset % z.shape[3]

    ways = {"eager": lambda: _literal(z), "compiled": lambda: run(z), "ours": lambda: pool_switch(z, BLOCK)}
    moved = z.numel() * z.element_size() + z.numel() // 4 * (z.element_size() + 1)
    return Task("pool_switch", size, name_of(z.dtype), ways,
                lambda one, other: exactly(place(one), place(other)), bytes=moved, items=len(z))  # fmt: skip


def _unpool(z: Tensor, size: str) -> Task:
    values, switches = pool_switch(z, BLOCK)
    flat = (switches // 2).long() * z.shape[3] + switches % 2 + _corners(z)
    run = compiled(lambda values, flat: F.max_unpool2d(values, flat, BLOCK))
    ways = {
        "eager": lambda: F.max_unpool2d(values, flat, BLOCK),
        "compiled": lambda: run(values, flat),
        "ours": lambda: unpool(values, switches, BLOCK, trusted=True),
    }
    moved = z.numel() * z.element_size() + z.numel() // 4 * (z.element_size() + 1)
    return Task("unpool", size, name_of(z.dtype), ways, exactly, bytes=moved, items=len(z))


def _corners(z: Tensor) -> Tensor:
    """row * width + column of each block's first entry."""
    rows = torch.arange(0, z.shape[2], 2, device=z.device).unsqueeze(1) * z.shape[3]
    return rows + torch.arange(0, z.shape[3], 2, device=z.device)
