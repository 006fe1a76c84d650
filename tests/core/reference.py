"""The definitions, in plain Python loops and dense float64 matrices, written apart from the core.

Slow on purpose: nothing here convolves, pools or sorts with torch.
"""

from __future__ import annotations

from itertools import combinations, product

import torch
from torch import Tensor


def dense(weight: Tensor, size: tuple[int, ...], stride: int = 1, padding: int = 0) -> Tensor:
    """W of section 2.2, entry by entry: row (i, j) holds filter i shifted by j * stride."""
    K, M, *filter_shape = weight.shape
    counts = [(side + 2 * padding - l) // stride + 1
              for side, l in zip(size, filter_shape, strict=True)]
    rows = []
    for i in range(K):
        for shift in product(*map(range, counts)):
            row = [0.0] * (M * _product(size))
            for m in range(M):
                for tap in product(*map(range, filter_shape)):
                    at = [j * stride + u - padding for j, u in zip(shift, tap, strict=True)]
                    if all(0 <= a < side for a, side in zip(at, size, strict=True)):
                        column = m
                        for a, side in zip(at, size, strict=True):
                            column = column * side + a
                        row[column] = float(weight[(i, m, *tap)])
            rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def coherence(weight: Tensor, signed: bool, shifts: str, groups: int) -> float:
    """The largest inner product of two distinct unit rows, over a W that holds every overlap."""
    K, per_group, *filter_shape = weight.shape
    full = torch.zeros(K, per_group * groups, *filter_shape, dtype=torch.float64)
    for i in range(K):
        group = i // (K // groups)
        full[i, group * per_group : (group + 1) * per_group] = weight[i]
    size = tuple(l if shifts == "zero" else 2 * l - 1 for l in filter_shape)
    rows = dense(full, size)
    best = -2.0
    for a, b in combinations(range(len(rows)), 2):
        value = float(rows[a] @ rows[b] / (rows[a].norm() * rows[b].norm()))
        best = max(best, value if signed else abs(value))
    return best


def blocks(size: tuple[int, ...], block: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """The blocks of one filter's code, each the list of its positions, in row-major order."""
    corners = product(*(range(0, side, step) for side, step in zip(size, block, strict=True)))
    return [
        [tuple(c + o for c, o in zip(corner, offset, strict=True))
         for offset in product(*map(range, block))]
        for corner in corners
    ]


def project(
    z: Tensor, block: tuple[int, ...], k: int | None, switches: object = "known", by: str = "abs"
) -> tuple[Tensor, Tensor]:
    """Block-sparsify(upsample(max-pool(z), s), k) for one sample (K, ...): code and switches."""
    K, *size = z.shape
    cells = [[(i, *at) for at in cell] for i in range(K) for cell in blocks(tuple(size), block)]
    values, places = [], []
    for cell in cells:
        best = 0
        for index in range(1, len(cell)):
            have, new = float(z[cell[best]]), float(z[cell[index]])
            if (abs(new) > abs(have)) if by == "abs" else (new > have):
                best = index
        values.append(float(z[cell[best]]))
        places.append(best)
    order = sorted(range(len(cells)), key=lambda c: (-abs(values[c]), c))
    kept = set(order if k is None else order[:k])
    if isinstance(switches, Tensor):
        places = switches.flatten().tolist()
    elif switches == "fixed":
        center = 0
        for length in block:
            center = center * length + length // 2
        places = [center] * len(cells)
    code = torch.zeros_like(z)
    for c in kept:
        if isinstance(switches, str) and switches == "averaged":
            for at in cells[c]:
                code[at] = values[c] / len(cells[c])
        else:
            code[cells[c][places[c]]] = values[c]
    if isinstance(switches, str) and switches == "averaged":
        places = [-1] * len(cells)
    shape = [K, *(side // length for side, length in zip(size, block, strict=True))]
    return code, torch.tensor(places).view(shape)


def supports(K: int, size: tuple[int, ...], block: tuple[int, ...], k: int):
    """Every support of M_k with k entries, as lists of index tuples."""
    cells = [[(i, *at) for at in cell] for i in range(K) for cell in blocks(size, block)]
    for chosen in combinations(cells, k):
        yield from product(*chosen)


def sum_supports(
    K: int, size: tuple[int, ...], block: tuple[int, ...], k: int, order: int
) -> set[frozenset[int]]:
    """The maximal supports of sums of `order` members of M_k: unions of their supports, flat."""
    def flat(index: tuple[int, ...]) -> int:
        place = 0
        for at, side in zip(index, (K, *size), strict=True):
            place = place * side + at
        return place

    single = {frozenset(map(flat, support)) for support in supports(K, size, block, k)}
    unions = single
    for _ in range(order - 1):
        unions = {one | other for one in unions for other in single}
    most = max(map(len, unions))
    return {union for union in unions if len(union) == most}


def isometry_constant(W: Tensor, chosen: set[frozenset[int]]) -> float:
    """The largest deviation from 1 of a squared singular value of the rows of W on a support."""
    worst = 0.0
    for support in chosen:
        squares = torch.linalg.svdvals(W[sorted(support)]).square()
        if len(support) > W.shape[1]:  # then some code on it is mapped to zero
            squares = torch.cat([squares, torch.zeros(1, dtype=torch.float64)])
        worst = max(worst, float((squares - 1).abs().max()))
    return worst


def hard_thresholding(
    W: Tensor, x: Tensor, shape: tuple[int, ...], block: tuple[int, ...], k: int, iterations: int,
    step: float | str = 1.0, pursuit: bool = False,
) -> list[Tensor]:
    """Algorithm 1, NIHT (Blumensath and Davies 2010) or HTP (Foucart 2011) on a dense W, one x.

    Returns the flat iterates z_0, z_1, ...
    """
    def best(b: Tensor) -> Tensor:
        return project(b.view(shape), block, k)[0].flatten()

    iterates = [torch.zeros(W.shape[0], dtype=torch.float64)]
    for _ in range(iterations):
        z = iterates[-1]
        g = W @ (x - W.T @ z)
        support = z != 0
        if pursuit or not support.any():
            support = best(g) != 0
        length = step
        if step == "normalized":
            inside = torch.where(support, g, 0.0)
            length = float(inside @ inside) / float((W.T @ inside).square().sum())
        new = best(z + length * g)
        if step == "normalized" and not pursuit:
            while not torch.equal(new != 0, support):
                move = new - z
                if length <= 0.99 * float(move @ move) / float((W.T @ move).square().sum()):
                    break
                length /= 2 * 0.99
                new = best(z + length * g)
        if pursuit:
            on = (new != 0).nonzero().squeeze(1)
            solution = torch.linalg.lstsq(W.T[:, on], x.unsqueeze(1)).solution
            new = torch.zeros_like(z)
            new[on] = solution.squeeze(1)
        iterates.append(new)
    return iterates


def _product(values) -> int:
    total = 1
    for value in values:
        total *= value
    return total
