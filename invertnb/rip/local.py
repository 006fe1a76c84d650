"""Isometry of large layers with pooling windows: bounds from local counts, and codes below them.

Nothing here holds a table over the code or lists supports, so k may be in the tens of thousands and
padding may crop rows. A row overlaps only its stripe: the rows of all filters within l - 1 shifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank, Size
from invertnb.rip.search import Witness

EPS = torch.finfo(torch.float64).eps
# Of the power steps of `worst_code`, by turns over the starts: s over the mean of the squared rows,
# and c over the largest ratio that was found.
SHIFTS, CURVATURES = (0.0, 0.5), (1.0, 2 / 3)


class _Place(NamedTuple):
    """What tells the rows of one filter apart along an axis."""

    lead: int  # taps that are cropped before the signal,
    trail: int  # and behind it
    offset: int  # place in the window
    low: int  # the shifts low..high from here are rows that overlap this one
    high: int


def _axes(size: Size) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def _stride_one(bank: FilterBank) -> FilterBank:
    """The bank in float64 and without a gradient."""
    if check.instance("bank", bank, FilterBank).stride != 1:
        check.fail("stride", bank.stride, "1: rows are compared at all shifts")
    return FilterBank(bank.weight.detach().double(), 1, bank.padding)


def _tap_products(bank: FilterBank) -> Tensor:
    """Sums over channels of w_i[u] w_j[v], (taps u, K, taps v, K), the taps in row-major order."""
    taps = bank.weight.flatten(2).permute(2, 0, 1)
    rows = taps.reshape(-1, bank.M)
    return (rows @ rows.T).view(len(taps), bank.K, len(taps), bank.K)


def _products(
    bank: FilterBank, taps: Tensor, crop: tuple[tuple[int, int], ...]
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Shifts s with the products <row (i, a), row (j, a + s)>, (K, K), for rows (i, a) cropped so.

    With d = a + u - padding the entry of row (i, a) at d is w_i[u], that of row (j, a + s) is
    w_j[u - s]. A place d outside the signal is cropped from both rows, so their product is the sum
    over the taps u of i that are left: those of the masked w_i with the whole of w_j.
    """
    l = bank.l
    for shift in product(range(1 - l, l), repeat=bank.dims):
        left = [range(max(lead, s), min(l - trail, l + s))
                for (lead, trail), s in zip(crop, shift, strict=True)]
        parts = [
            taps[_flat(u, l), :, _flat([one - s for one, s in zip(u, shift, strict=True)], l)]
            for u in product(*left)
        ]
        if parts:
            yield shift, sum(parts[1:], parts[0].clone())


def _flat(tap: Sequence[int], l: int) -> int:
    return tap[0] if len(tap) == 1 else tap[0] * l + tap[1]


def shift_coherence(bank: FilterBank) -> Tensor:
    """mu_s, the largest ``|<row of i, row of j shifted by s>|`` over filters, i != j for s = 0.

    The rows are those of the bank as given, not scaled to unit norm; with padding the cropped ones
    count, too, of a signal long enough for all pairs of rows to occur. Without padding mu_s is the
    maximum over i and j of the magnitudes of `FilterBank.gram`. After Papyan, Sulam and
    Elad (2017, shifted coherence).

    Returns:
        float64 (2l-1,) or (2l-1, 2l-1), the shift s at l - 1 + s.

    Raises:
        ValueError: no FilterBank, or one with a stride.
    """
    exact = _stride_one(bank)
    return _shift_coherence(exact, (2 * (exact.padding + exact.l) - 1,) * exact.dims)


def _shift_coherence(exact: FilterBank, n: tuple[int, ...]) -> Tensor:
    mu = exact.weight.new_zeros((2 * exact.l - 1,) * exact.dims)
    taps, places = _tap_products(exact), [_places(exact, side, 1) for side in n]
    occur = [{(p[:2], s) for p in axis for s in range(p.low, p.high + 1)} for axis in places]
    for crop in product(*({p[:2] for p in axis} for axis in places)):
        for shift, products in _products(exact, taps, crop):
            pairs = zip(crop, shift, strict=True)
            if not all(pair in axis for pair, axis in zip(pairs, occur, strict=True)):
                continue
            size = products.abs()
            if not any(shift):
                size.fill_diagonal_(0.0)
            at = tuple(exact.l - 1 + s for s in shift)
            mu[at] = torch.maximum(mu[at], size.max())
    return mu


def stripe_coherence(code: Tensor, bank: FilterBank) -> Tensor:
    """The stripe coherence of each code: max over its atoms of sum_s (others at shift s) mu_s.

    The others are the nonzeros of all filters at shift s from the atom (Papyan, Sulam and Elad
    2017, "Working locally thinking globally"). No row sum of ``|W_S W_S^T|`` off the diagonal is
    larger, S the support of the code; so ``||W_S W_S^T - I||`` is at most this plus the largest
    ``| ||row||^2 - 1 |`` (Gershgorin), cropped rows included.

    Args:
        code: (batch, K, n) or (batch, K, n1, n2).
        bank: filters with stride 1.

    Returns:
        float64 (batch,); 0 for a code of at most one atom.

    Raises:
        ValueError: a code that is no code of this bank, or a bank with a stride.
    """
    exact = _stride_one(bank)
    axes = ("n",) if exact.dims == 1 else ("n1", "n2")
    check.array("code", code, ("batch", exact.K, *axes), like=("weight", bank.weight))
    mu = _shift_coherence(exact, tuple(code.shape[2:]))
    counts = (code != 0).sum(1, keepdim=True).double()
    convolve = F.conv1d if exact.dims == 1 else F.conv2d
    center = mu.flatten()[mu.numel() // 2]
    sums = convolve(counts, mu[None, None], padding=exact.l - 1) - center  # an atom is no other
    return sums.where(counts > 0, 0.0).flatten(1).amax(1).clamp(min=0.0)


@dataclass(frozen=True, eq=False)
class LocalRows:
    """Row sums of ``|W_S W_S^T - I|`` by the number of others in a stripe.

    Attributes:
        curve: float64 (T + 1,), increasing: curve[t] is no less than ``| ||W^T z||^2 - 1 |`` for
            any unit code z with at most one nonzero in a window, k in all, and t others in the
            stripe of each; T is the most that these windows and k allow.
    """

    curve: Tensor

    def bound(self, local: int | None = None) -> float:
        """The bound for at most `local` others in each stripe; None for as many as can be."""
        most = len(self.curve) - 1
        local = most if local is None else check.integer("local", local, 0)
        return float(self.curve[min(local, most)])

    def largest(self, level: float) -> int | None:
        """The largest number of others with a bound below this level; None: not even 0 has one."""
        check.real("level", level, 0.0, strict=True)
        below = int((self.curve < level).sum())
        return below - 1 if below else None


def local_rows(bank: FilterBank, model: ModelSparse, size: Size) -> LocalRows:
    """Gershgorin's bound for codes with pooling windows, for all numbers of others in a stripe.

    In the row of an atom stand its own deviation ``| ||row||^2 - 1 |`` and, of each other window
    that its stripe meets, one product at most: the largest to a row in the window. The t largest
    of these are summed, and the maximum taken over all rows of W: every filter, every place in the
    window and every crop at the border, none of them approximated.

    Args:
        bank: filters with stride 1, in any scaling, with or without padding.
        model: the windows; k, unless None, caps the others at k - 1.
        size: signal size D or (H, W).

    Raises:
        ValueError: arguments that do not fit together, or a bank with a stride.
    """
    exact = _stride_one(bank)
    n, block = _fit(exact, model, size)
    places = [_places(exact, *pair) for pair in zip(n, block, strict=True)]
    taps, curves = _tap_products(exact), []
    for crop in product(*({place[:2] for place in axis} for axis in places)):
        products = dict(_products(exact, taps, crop))
        deviation = (products[(0,) * exact.dims].diagonal() - 1).abs()
        sizes = {shift: part.abs() for shift, part in products.items()}
        alike = [[p for p in axis if p[:2] == cut] for axis, cut in zip(places, crop, strict=True)]
        for place in product(*alike):
            best = _window_maxima(sizes, place, block).sort(dim=1, descending=True).values
            sums = torch.cat([deviation.unsqueeze(1), best], dim=1).cumsum(1)
            curves.append(sums.amax(0))
    longest = max(map(len, curves))
    padded = [F.pad(c, (0, longest - len(c)), value=float(c[-1])) for c in curves]
    curve = torch.stack(padded).amax(0)
    curve = curve[: model.k] if model.k is not None else curve
    terms = 2 * (exact.weight[0].numel() + longest) * torch.arange(1, len(curve) + 1)
    largest = float(exact.weight.flatten(1).square().sum(1).max())
    return LocalRows(curve + (EPS * max(largest, 1.0) * terms.to(curve)))


def _fit(
    bank: FilterBank, model: ModelSparse, size: Size
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The code's size and the window, by axis; checks that they fit."""
    check.instance("model", model, ModelSparse)
    if model.dims != bank.dims:
        check.fail("model", model, f"a ModelSparse over {bank.dims}-D codes")
    n = _axes(bank.code_size(size))
    model._blocks(bank.K, n)
    return n, _axes(model.block)


def _places(bank: FilterBank, n: int, window: int) -> list[_Place]:
    """The kinds of rows along an axis, without those whose neighbors another kind has, too."""
    reach, found = bank.l - 1, set()
    for a in range(n):
        lead, trail = max(bank.padding - a, 0), max(a - (n - 1 - bank.padding), 0)
        low, high = max(-reach, -a), min(reach, n - 1 - a)
        found.add(_Place(lead, trail, a % window, low, high))
    return [
        one for one in sorted(found)
        if not any(one != other and one[:3] == other[:3]
                   and other.low <= one.low and one.high <= other.high for other in found)
    ]


def _window_maxima(sizes: dict, place: tuple[_Place, ...], block: tuple[int, ...]) -> Tensor:
    """The largest product of a row of each filter to a row in each other window, (K, K windows)."""
    best: dict[tuple[int, ...], Tensor] = {}
    for shift, size in sizes.items():
        if all(p.low <= s <= p.high for p, s in zip(place, shift, strict=True)):
            window = tuple((p.offset + s) // side
                           for p, s, side in zip(place, shift, block, strict=True))
            best[window] = torch.maximum(best[window], size) if window in best else size
    own = (0,) * len(block)
    best[own] = best[own].clone().fill_diagonal_(0.0)  # the atom itself has its own window
    return torch.cat(list(best.values()), dim=1)


def local_gershgorin(
    bank: FilterBank, model: ModelSparse, size: Size, local: int | None = None
) -> float:
    """No less than ``| ||W^T z||^2 / ||z||^2 - 1 |`` for all z with `local` others in a stripe.

    z has at most one nonzero in each window of the model, k in all, and in the stripe of each at
    most `local` others (None: as many as the windows allow). For many values of `local` take
    `local_rows`, of which this is one. Arguments and errors as there.
    """
    return local_rows(bank, model, size).bound(local)


def spectral_bound(bank: FilterBank, size: Size) -> float:
    """No less than ``| ||W^T z||^2 / ||z||^2 - 1 |`` for any code z: max(``||W||^2`` - 1, 1).

    The ratio lies between 0 and ``||W||^2``, taken from `FilterBank.norm`: in small layers exact;
    in large ones the bound fails with probability 1e-8 over the random start of a Lanczos process.
    Errors as there.
    """
    return max(check.instance("bank", bank, FilterBank).norm(size) ** 2 - 1, 1.0)


class Ends(NamedTuple):
    """Codes of the model at both ends of ``||W^T z||^2 / ||z||^2``.

    smallest, largest: `least.code` has at most, `most.code` at least this ratio, rounding counted;
    the two witnesses are as `lower_bound` gives them.
    """

    smallest: float
    largest: float
    least: Witness
    most: Witness


def worst_code(
    bank: FilterBank, model: ModelSparse, size: Size, *, starts: int = 8, steps: int = 60,
    generator: torch.Generator,
) -> Ends:
    """Codes of the model whose ratio ``||W^T z||^2 / ||z||^2`` is far from 1, either way.

    Truncated power iteration (Yuan and Zhang 2013) as in `lower_bound`, by convolutions and without
    a table: for the largest ratio on W W^T - s I, for the smallest on c I - W W^T, c being the
    largest found. Every other start takes a larger s or a smaller c, which goes further in a step
    but may not climb; the best code on the way is kept. The search is in float32 and may miss the
    ends; what it finds is evaluated in float64.

    Args:
        bank: filters in any scaling, with any stride and padding.
        model: M_k; k may be None.
        size: signal size D or (H, W).
        starts: random codes to start from at each end, besides one on the longest or shortest rows.
        steps: projections in each.
        generator: a CPU generator.

    Raises:
        ValueError: arguments that do not fit together or are out of range.
    """
    check.instance("bank", bank, FilterBank)
    n, _ = _fit(bank, model, size)
    check.integer("starts", starts, 1)
    check.integer("steps", steps, 1)
    check.generator("generator", generator)
    exact = FilterBank(bank.weight.detach().double(), bank.stride, bank.padding)
    # float32 could not hold the squares of filters far longer or shorter than 1.
    longest = exact.weight.flatten(1).norm(dim=1).max().clamp(min=torch.finfo(torch.float32).tiny)
    fast = FilterBank((exact.weight / longest).float(), bank.stride, bank.padding)
    signal = torch.ones(1, bank.M, *_axes(check.extent("size", size, bank.dims))).to(fast.weight)
    squares = FilterBank(fast.weight.square(), bank.stride, bank.padding)._analysis(signal)
    noise = torch.randn(starts + 1, bank.K, *n, generator=generator).to(squares)
    found, top = {}, 1.0
    for sign in (1, -1):
        first = noise.clone()
        first[0] = (2 + sign * squares[0]) * noise[0].sign()
        if sign > 0:
            shift = -torch.tensor(SHIFTS).to(first) * squares.mean()
        else:
            shift = torch.tensor(CURVATURES).to(first) * top
        shift = shift.repeat(starts)[: starts + 1].view(-1, *(1,) * (first.dim() - 1))
        code = _climb(fast, model, first, sign, shift, steps).double()
        ratio, slack = _ratio(exact, code)
        top = ratio / float(longest) ** 2 if sign > 0 else top
        found[sign] = Witness(max(abs(ratio - 1) - slack, 0.0), code / code.norm()), ratio, slack
    (most, largest, above), (least, smallest, below) = found[1], found[-1]
    return Ends(smallest + below, max(largest - above, 0.0), least, most)


def _climb(
    bank: FilterBank, model: ModelSparse, start: Tensor, sign: int, shift: Tensor, steps: int
) -> Tensor:
    """The best code on the way of the power iteration on shift I + sign W W^T, (1, K, n...)."""
    best, edge, z = start, -math.inf, _unit(model._nearest(start), start)
    for step in range(steps + 1):
        y = bank._synthesis(z)
        ratio = sign * y.flatten(1).square().sum(1)
        leader = int(ratio.argmax())
        if float(ratio[leader]) > edge:
            best, edge = z[leader : leader + 1].clone(), float(ratio[leader])
        if step < steps:
            z = _unit(model._nearest(sign * bank._analysis(y) + shift * z), z)
    return best


def _unit(z: Tensor, otherwise: Tensor) -> Tensor:
    """z at unit norm, sample by sample; another code where z is zero."""
    norm = z.flatten(1).norm(dim=1).view(-1, *(1,) * (z.dim() - 1))
    return torch.where(norm > 0, z / norm.clamp(min=torch.finfo(z.dtype).tiny), otherwise)


def _ratio(exact: FilterBank, code: Tensor) -> tuple[float, float]:
    """``||W^T code||^2 / ||code||^2``, and more than rounding can have added or taken."""
    y, square = exact._synthesis(code), code.square().sum()
    # A sum of m terms is off by less than m u times the sum of their magnitudes.
    size = FilterBank(exact.weight.abs(), exact.stride, exact.padding)._synthesis(code.abs())
    terms = exact.weight[:, 0].numel() + y.numel() + code.numel()
    ratio, most = y.square().sum() / square, size.square().sum() / square
    return float(ratio), float(4 * terms * EPS * most)
