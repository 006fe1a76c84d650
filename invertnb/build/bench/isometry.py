"""Model-RIP sampling at the size of Figure 2, and certificates of isometry constants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import FilterBank, ModelSparse, rip
from ...kernels.atom_norms import atom_norms
from ...kernels.draw_atoms import draw_atoms, draw_key
from ...kernels.gram import gram_on
from .frame import Task, close, compiled

# Figure 2 of the paper: K, M, l, D, k.
FILTERS, CHANNELS, LENGTH, SIGNAL, SPARSITY = 96, 32, 5, 32, 10
SHIFTS = SIGNAL - LENGTH + 1
SAMPLES = {"cpu": 2**12, "cuda": 2**20}
PART = 2**15  # samples of the literal forms at a time: their codes and rows are large

Three = tuple[Tensor, Tensor, Tensor]


def tasks(device: str) -> Iterator[Task]:
    """The ratios of given codes, the draws, both together; then the certificates."""
    yield _norms(device)
    yield _draws(device)
    yield _sampling(device)
    yield from _certificates(device)


def _layer(device: str) -> tuple[FilterBank, ModelSparse]:
    generator = torch.Generator().manual_seed(0)
    bank = FilterBank.gaussian(
        FILTERS, CHANNELS, LENGTH, generator=generator, dtype=torch.float32, device=device
    )
    return bank, ModelSparse(SHIFTS, SPARSITY)


def _size(device: str) -> str:
    return f"{SAMPLES[device]} codes, K={FILTERS} M={CHANNELS} l={LENGTH} D={SIGNAL} k={SPARSITY}"


def _task(kernel: str, device: str, ways: dict[str, Callable[[], object]], agree: Callable) -> Task:
    # No `bytes`: what has to be moved takes far less time than what has to be computed.
    return Task(kernel, _size(device), "float32", ways, agree, items=SAMPLES[device])


# The ratios of given codes on given supports.


def _by_dense(bank: FilterBank, index: Tensor, code: Tensor) -> Three:
    """The literal form: W as a matrix, codes with their zeros."""
    W = _matrix(bank)
    z = _dense(index, code)
    x = z @ W
    image = (x @ W.T).gather(1, index)
    return _ratios(code, x, image, _dense(index, image) @ W)


def _by_convolution(bank: FilterBank, index: Tensor, code: Tensor) -> Three:
    """W^T and W as the convolutions they are."""
    def synthesis(values: Tensor) -> Tensor:
        return F.conv_transpose1d(_dense(index, values).view(-1, FILTERS, SHIFTS), bank.weight)

    x = synthesis(code)
    image = F.conv1d(x, bank.weight).flatten(1).gather(1, index)
    return _ratios(code, x.flatten(1), image, synthesis(image).flatten(1))


def _by_rows(bank: FilterBank, index: Tensor, code: Tensor) -> Three:
    """The k rows of W that a support names, and no others."""
    W = _matrix(bank)
    x = F.embedding_bag(index, W, mode="sum", per_sample_weights=code)
    image = (W[index] @ x.unsqueeze(2)).squeeze(2)
    return _ratios(code, x, image, F.embedding_bag(index, W, mode="sum", per_sample_weights=image))


def _ratios(code: Tensor, x: Tensor, image: Tensor, again: Tensor) -> Three:
    length = code.norm(dim=1)
    return x.norm(dim=1) / length, image.norm(dim=1) / length, (x - again).norm(dim=1) / x.norm(dim=1)


def _by_table(table: Tensor, index: Tensor, code: Tensor) -> Three:
    """The correlations, read for all pairs of atoms: one sample after the other in memory."""
    filters = index // SHIFTS
    G = gram_on(table, filters, [index - filters * SHIFTS])
    image = (G * code.unsqueeze(1)).sum(2)
    gap = image - code
    square, length = (code * image).sum(1), code.square().sum(1)
    error = (gap * (G * gap.unsqueeze(1)).sum(2)).sum(1)
    return ((square / length).sqrt(), (image.square().sum(1) / length).sqrt(),
            (error / square).clamp(min=0).sqrt())  # fmt: skip


@functools.lru_cache(1)
def _matrix(bank: FilterBank) -> Tensor:
    return bank.matrix(SIGNAL)


def _dense(index: Tensor, values: Tensor) -> Tensor:
    return values.new_zeros(len(index), FILTERS * SHIFTS).scatter_(1, index, values)


def _in_parts(form: Callable[..., Three], bank: FilterBank, index: Tensor, code: Tensor) -> Three:
    parts = [form(bank, *some) for some in zip(index.split(PART), code.split(PART), strict=True)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _norms(device: str) -> Task:
    bank, model = _layer(device)
    table = bank.gram()
    atoms = rip.Atoms(bank, model, SIGNAL)
    key = draw_key(torch.Generator().manual_seed(1))
    index, code = atoms.draw_codes(key, 0, SAMPLES[device], dtype=torch.float32)
    given = index.contiguous(), code.contiguous()  # as all other ways read them
    fused = compiled(_by_table)
    ways = {
        "dense product": lambda: _in_parts(_by_dense, bank, *given),
        "convolutions": lambda: _in_parts(_by_convolution, bank, *given),
        "rows of W": lambda: _in_parts(_by_rows, bank, *given),
        "table, eager": lambda: _by_table(table, *given),
        "table, compiled": lambda: fused(table, *given),
        "ours": lambda: atom_norms(table, (SHIFTS,), index, code),
    }
    return _task("atom_norms", device, ways, close(1e-4))


# Draws of supports and values.


def _draw_literal(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The k largest of K random numbers name the filters."""
    device = generator.device
    filters = torch.rand(samples, FILTERS, generator=generator, device=device).topk(SPARSITY).indices
    return _placed(filters, generator)


def _draw_floyd(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Floyd's algorithm with a draw of torch for each filter."""
    chosen = torch.empty(SPARSITY, samples, dtype=torch.int64, device=generator.device)
    for i, last in enumerate(range(FILTERS - SPARSITY, FILTERS)):
        draw = torch.randint(last + 1, (samples,), generator=generator, device=generator.device)
        chosen[i] = torch.where((chosen[:i] == draw).any(0), last, draw)
    return _placed(chosen.T, generator)


def _placed(filters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    settings = {"generator": generator, "device": generator.device}
    places = torch.randint(SHIFTS, filters.shape, **settings)
    return filters * SHIFTS + places, 2 * torch.rand(filters.shape, **settings) - 1


def _draws(device: str) -> Task:
    samples, generator = SAMPLES[device], torch.Generator(device).manual_seed(3)
    keys = torch.Generator().manual_seed(3)
    blocks = torch.arange(FILTERS * SHIFTS, device=device).view(FILTERS, SHIFTS)
    ways = {
        "rand + topk": lambda: _draw_literal(samples, generator),
        "Floyd loop": lambda: _draw_floyd(samples, generator),
        "ours": lambda: draw_atoms(
            blocks, samples, entries=SPARSITY, key=draw_key(keys), dtype=torch.float32),
    }  # fmt: skip
    return _task("draw_atoms", device, ways, _both_are_draws)


def _both_are_draws(one: object, other: object) -> None:
    """Draws differ, but not in what they have to be."""
    for index, values in (one, other):
        samples = len(index)
        assert index.shape == values.shape == (samples, SPARSITY), f"shape {tuple(index.shape)}"
        filters = (index // SHIFTS).sort(1).values
        assert bool((filters.diff(dim=1) > 0).all()), "two atoms of one filter"
        counts = index.flatten().bincount(minlength=FILTERS * SHIFTS).double()
        assert len(counts) == FILTERS * SHIFTS, f"atom {len(counts) - 1}"
        share = SPARSITY / len(counts)
        worst = float((counts - samples * share).abs().max() / (samples * share * (1 - share)) ** 0.5)
        # Rare atoms of few samples are Poisson, whose tails are longer than the normal ones.
        assert worst < (6 if samples * share > 100 else 10), f"an atom off by {worst:.1f} sigma"
        mean = float(values.double().mean()) * (3 * values.numel()) ** 0.5
        assert abs(mean) < 6 and float(values.abs().max()) <= 1, f"values off by {mean:.1f} sigma"


# Both together.


def _sampling(device: str) -> Task:
    samples, generator = SAMPLES[device], torch.Generator(device).manual_seed(4)
    seeded = torch.Generator().manual_seed(4)
    bank, model = _layer(device)
    table = bank.gram()
    ways = {
        "rand + topk, dense product": lambda: _in_parts(
            _by_dense, bank, *_draw_literal(samples, generator)),
        "Floyd loop, table": lambda: _by_table(table, *_draw_floyd(samples, generator)),
        "ours": lambda: tuple(rip.sample_ratios(
            bank, model, SIGNAL, samples, dtype=torch.float32, generator=seeded)),
    }  # fmt: skip
    return _task("model-RIP sampling", device, ways, _same_means)


def _same_means(one: object, other: object) -> str:
    """Means of the three ratios, apart by no more than chance."""
    for a, b in zip(one, other, strict=True):
        a, b = a.double(), b.double()
        gap = float((a.mean() - b.mean()).abs() / (a.var() / len(a) + b.var() / len(b)).sqrt())
        assert gap < 6, f"a mean off by {gap:.1f} sigma"
    return "means " + ", ".join(f"{float(ratio.mean()):.3f}" for ratio in other)


# Upper bounds for isometry constants.


def _certificates(device: str) -> Iterator[Task]:
    bank, model = _layer(device)
    for order, name in ((1, "delta_k"), (2, "delta_2k")):
        atoms = rip.Atoms(bank, model, SIGNAL, order)
        generator = torch.Generator().manual_seed(2)
        lower = rip.lower_bound(bank, model, SIGNAL, order=order, generator=generator).delta
        ways = {
            "Gershgorin": lambda atoms=atoms: rip.gershgorin(atoms),
            "semidefinite": lambda atoms=atoms: rip.semidefinite_bound(
                rip.block_coherence(atoms), atoms.per_block, atoms.entries),
        }  # fmt: skip
        size = f"{name}, K={FILTERS} n={SHIFTS} k={SPARSITY}"
        yield Task("certificate", size, "float64", ways, _above(lower, name), rounds=3)


def _above(lower: float, name: str) -> Callable[[object, object], str]:
    """No certificate may be below a code that attains the lower bound."""

    def agree(one: object, other: object) -> str:
        for value in (one, other):
            assert value >= lower, f"{value} is below a code's {lower}"
        return f"{name} <= {other:.2f}"

    return agree
