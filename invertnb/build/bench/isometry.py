"""Speed by ratios in one run, each figure after a check that both ways give the same numbers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .. import FilterBank, ModelSparse, rip
from . import BuildError

# Figure 2 of the paper: K, M, l, D, k.
FILTERS, CHANNELS, LENGTH, SIGNAL, SPARSITY = 96, 32, 5, 32, 10
SAMPLES, ROUNDS = 10_000, 5


@dataclass(frozen=True)
class Timing:
    """One way to do a task: seconds (median), and how many times faster than the task's first way."""

    task: str
    way: str
    seconds: float
    ratio: float


def run(device: str = "cpu") -> Iterator[Timing]:
    """All tasks, in order.

    Raises:
        BuildError: two ways of one task disagree.
    """
    yield from _ratios(device)
    yield from _certificates(device)


def _layer(device: str) -> tuple[FilterBank, ModelSparse]:
    generator = torch.Generator().manual_seed(0)
    bank = FilterBank.gaussian(FILTERS, CHANNELS, LENGTH, generator=generator, device=device)
    return bank, ModelSparse(SIGNAL - LENGTH + 1, SPARSITY)


def _ratios(device: str) -> Iterator[Timing]:
    """The ratios of Figures 2(a) and 2(b, on the support) for random codes, draws included."""
    task = f"{SAMPLES} ratios of Figure 2"
    bank, model = _layer(device)
    atoms = rip.Atoms(bank, model, SIGNAL)
    W = bank.matrix(SIGNAL)

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        index = atoms.draw(SAMPLES, generator)
        values = torch.rand(SAMPLES, atoms.entries, generator=generator, dtype=torch.float64)
        z = torch.zeros(SAMPLES, atoms.count, dtype=torch.float64, device=device)
        return z.scatter_(1, index, (2 * values - 1).to(device))

    def dense() -> tuple[torch.Tensor, torch.Tensor]:
        z = draw()
        x = z @ W
        length = z.norm(dim=1)
        return x.norm(dim=1) / length, ((x @ W.T) * (z != 0)).norm(dim=1) / length

    def table() -> rip.Ratios:
        generator = torch.Generator().manual_seed(1)
        return rip.sample_ratios(bank, model, SIGNAL, SAMPLES, generator=generator)

    for one, other in zip(dense(), table(), strict=True):
        if not torch.allclose(one, other, rtol=1e-10):
            raise BuildError(f"{task}: the two ways differ by {float((one - other).abs().max()):.1e}")
    first = _seconds(dense, device, rounds=2)
    yield Timing(task, "dense product", first, 1.0)
    second = _seconds(table, device)
    yield Timing(task, "table of correlations", second, first / second)


def _certificates(device: str) -> Iterator[Timing]:
    """Upper bounds for delta_k and delta_2k; checked against the code that attains the lower one."""
    bank, model = _layer(device)
    for order, name in ((1, "delta_k"), (2, "delta_2k")):
        atoms = rip.Atoms(bank, model, SIGNAL, order)
        generator = torch.Generator().manual_seed(2)
        lower = rip.lower_bound(bank, model, SIGNAL, order=order, generator=generator).delta
        first = None
        for way, bound in (
            ("Gershgorin", lambda: rip.gershgorin(atoms)),
            ("semidefinite", lambda: rip.semidefinite_bound(
                rip.block_coherence(atoms), atoms.per_block, atoms.entries)),
        ):  # fmt: skip
            value = bound()
            if value < lower:
                raise BuildError(f"certificate of {name}, {way}: {value} is below a code's {lower}")
            seconds = _seconds(bound, device, rounds=3)
            first = first or seconds
            yield Timing(f"certificate of {name} <= {value:.2f}", way, seconds, first / seconds)


def _seconds(work: Callable[[], object], device: str, rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
