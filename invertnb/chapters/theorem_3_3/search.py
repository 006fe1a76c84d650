"""Searches for the codes and supports on which a lemma is as tight as can be found.

At toy size every support is tried; at larger ones the codes climb by random changes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb.chapters.theorem_3_3.layers import Codes, Layer, Step, one_step

OBJECTIVES = ("missed", "code", "signal")


class Worst(NamedTuple):
    """The largest errors that a search found, and the codes that have them."""

    missed: float
    code: float
    signal: float
    codes: Codes  # one for each of OBJECTIVES
    tried: int


def every_code(layer: Layer, angles: int) -> Codes:
    """All supports of M_2, on each the codes (cos a, sin a) for `angles` angles a in [0, pi)."""
    supports = torch.cat(list(layer.atoms(2).every_support()))
    angle = torch.arange(angles, dtype=torch.float64) * math.pi / angles
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    index = supports.repeat_interleave(angles, 0)
    return Codes(index, circle.repeat(len(supports), 1))


def exhaust(layer: Layer, angles: int) -> Worst:
    """The worst codes of M_2: every support, and the angle scanned."""
    z = every_code(layer, angles)
    return _worst(z, one_step(layer, z), len(z.index))


def _worst(z: Codes, step: Step, tried: int) -> Worst:
    values = [getattr(step, name) for name in OBJECTIVES]
    rows = torch.stack([value.argmax() for value in values])
    return Worst(*(float(value.max()) for value in values), z.take(rows), tried)


def climb(
    layer: Layer, starts: Codes, rounds: int, generator: torch.Generator
) -> Worst:
    """Hill climbing: a third of the codes for each objective; a change stays if it does not hurt.

    A change scales the values at random, moves an atom within its block, or replaces it by one of
    those that the code disturbs most.
    """
    z, batch = starts, len(starts.index)
    aim = torch.arange(batch, device=z.index.device) % len(OBJECTIVES)
    step = one_step(layer, z)
    score = _score(step, aim)
    for _ in range(rounds):
        trial = _changed(layer, z, generator)
        now = _score(one_step(layer, trial), aim)
        better = now >= score
        wide = better.unsqueeze(1)
        z = Codes(*(torch.where(wide, new, old) for new, old in zip(trial, z, strict=True)))
        score = torch.where(better, now, score)
    return _worst(z, one_step(layer, z), batch * (rounds + 1))


def _score(step: Step, aim: Tensor) -> Tensor:
    return torch.stack([getattr(step, name) for name in OBJECTIVES]).gather(0, aim.unsqueeze(0))[0]


def _changed(layer: Layer, z: Codes, generator: torch.Generator) -> Codes:
    (batch, k), device = z.index.shape, z.index.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(device)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    kind, spread = uniform(batch), 10 ** (2.5 * uniform(batch, 1) - 3)
    chosen = (uniform(batch) * k).long().unsqueeze(1)
    values = z.values + spread * noise(batch, k) * (z.values.abs() + 0.05)
    index = z.index
    # Move an atom within its block.
    place = (uniform(batch, 1) * layer.n).long()
    moved = index.scatter(1, chosen, index.gather(1, chosen) // layer.n * layer.n + place)
    # Or take an atom of a free block, among those where W W^T z is largest.
    free = layer.image(z).abs().view(batch, -1, layer.n).max(2)
    used = torch.zeros_like(free.values).scatter(1, index // layer.n, 1.0) > 0
    loud = torch.where(used, -1.0, free.values)
    pick = min(10, loud.shape[1] - k)
    if pick > 0:
        rank = (uniform(batch, 1) * pick).long()
        block = loud.topk(pick, dim=1).indices.gather(1, rank)
        atom = block * layer.n + free.indices.gather(1, block)
        replaced = index.scatter(1, chosen, atom)
    else:
        replaced = moved
    wide = kind.unsqueeze(1)
    index = torch.where(wide < 0.2, moved, torch.where(wide < 0.4, replaced, index))
    return Codes(index, values)


def starting_codes(
    layer: Layer, k: int, batch: int, witnesses: list[Tensor], generator: torch.Generator
) -> Codes:
    """Codes made to go wrong, and the witnesses of isometry constants cut down to M_k.

    Of all of them the `batch` with the largest errors, a third for each of OBJECTIVES.
    """
    parts = [layer.codes(code.to(layer.bank.weight), k) for code in witnesses]
    random = layer.sample(k, batch, generator)
    for small in range(1, k, max(1, k // 5)):
        parts.append(decoyed(layer, random, small))
    index, values = (torch.cat(part) for part in zip(*parts, random, strict=True))
    pool = Codes(index, torch.where(values == 0, 1e-3, values))
    step = one_step(layer, pool)
    each = -(-batch // len(OBJECTIVES))
    # Row i of the result belongs to the objective i modulo three, as in `climb`.
    best = [getattr(step, name).topk(each).indices for name in OBJECTIVES]
    return pool.take(torch.stack(best, 1).flatten()[:batch])


def decoyed(layer: Layer, starts: Codes, small: int) -> Codes:
    """Codes of which one step loses the `small` least entries to atoms that are not in use.

    The large entries are chosen so that they disturb 2 * small other blocks as much as a power
    iteration can make them. Of these the half that is disturbed most become decoys. In the other
    half stand the small entries, against the disturbance, just too small to win.
    """
    k = starts.index.shape[1]
    large = Codes(starts.index[:, small:], starts.values[:, small:])
    for _ in range(8):
        seen = outside(layer, large)
        back = outside(layer, layer.project(seen, min(2 * small, layer.bank.K - k)))
        large = layer.project(back, k - small)
        large = Codes(large.index, large.values / large.norm().unsqueeze(1))
    loud = layer.project(outside(layer, large), min(2 * small, layer.bank.K - k + small))
    decoys, least = loud.values[:, :small], loud.values[:, small:]
    missing = small - least.shape[1]
    if missing > 0:  # too few blocks: a decoy less
        least, decoys = loud.values[:, -small:], loud.values[:, : small - missing]
    size = least.abs() + 0.95 * decoys.abs().amin(1, keepdim=True)
    index = torch.cat([large.index, loud.index[:, -small:]], 1)
    return Codes(index, torch.cat([large.values, -least.sign() * size], 1))


def outside(layer: Layer, z: Codes) -> Tensor:
    """W W^T z in the blocks that z does not use, and zero in those that it does."""
    image = layer.image(z).view(len(z.index), -1, layer.n)
    used = torch.zeros_like(image[..., 0]).scatter(1, z.index // layer.n, 1.0)
    return torch.where(used.unsqueeze(2) > 0, 0.0, image).flatten(1)


def extreme_supports(layer: Layer, k: int, starts: Codes, sign: int, rounds: int = 15) -> Tensor:
    """Supports of M_k with a large (sign 1) or small (-1) eigenvalue, by power iteration."""
    z = starts
    for _ in range(rounds):
        image = sign * (layer.image(z) - layer.dense(z))
        size = image.gather(1, z.index).norm(dim=1, keepdim=True)
        # Half of the present code keeps the iteration from jumping to and fro.
        z = layer.project(image.scatter_add(1, z.index, 0.5 * size * z.values), k)
        z = Codes(z.index, z.values / z.norm().unsqueeze(1))
    return z.index


def opposite_supports(
    layer: Layer, k: int, starts: Codes, rounds: int = 12
) -> tuple[Tensor, Tensor]:
    """Pairs of disjoint supports of M_k whose rows see each other strongly, (batch, k) each.

    From a code on one support, take the best support of its image outside, and then back: power
    iteration for the largest singular value of W_Om W_Om'^T over both supports.
    """
    mine = starts
    for _ in range(rounds):
        seen = layer.image(mine).scatter(1, mine.index, 0.0)
        other = layer.project(seen, k)
        back = layer.image(other).scatter(1, other.index, 0.0)
        mine = layer.project(back, k)
        mine = Codes(mine.index, mine.values / mine.norm().unsqueeze(1))
    return mine.index, other.index
