"""Tasks of the benchmark: every way checked against the first, then timed in interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .. import BuildError

ROUNDS = 7
SHORT = 0.3  # seconds


class Unavailable(Exception):
    """A way that cannot run here, and why: no compiler, a package that is not installed."""


@dataclass(frozen=True)
class Task:
    """One computation at one size, and the ways to do it.

    Args:
        kernel: the kernel or function it is about, as "keep".
        size: the size in words, as "2x64x224x224".
        dtype: "float32", "bfloat16" ...
        ways: what to time, by name, in order; the first is the literal form, which the others are
            checked against and their ratios refer to. A way may raise `Unavailable`.
        agree: called with the first way's result and another's; raises AssertionError, saying how
            far they are apart, or returns a word for the table.
        agree_of: the same for single ways that are held to another standard.
        bytes: the least that has to be moved, inputs read once and outputs written once.
        operations: the least arithmetic, where that is the limit.
        items: samples or images in it, for the time of one.
        rounds: how often each way is timed.
    """

    kernel: str
    size: str
    dtype: str
    ways: Mapping[str, Callable[[], object]]
    agree: Callable[[object, object], str | None]
    bytes: float | None = None
    operations: float | None = None
    items: int = 1
    rounds: int = field(default=ROUNDS, kw_only=True)
    agree_of: Mapping[str, Callable[[object, object], str | None]] = field(default_factory=dict, kw_only=True)

    @property
    def name(self) -> str:
        """Kernel, size and dtype in a line."""
        return f"{self.kernel} {self.size} {self.dtype}"


class Timing(NamedTuple):
    """One way to do a task: seconds (median, and the quantiles 0.2 and 0.8).

    `ratio` is how many times faster than the task's first way; `percent` is of the ceiling, copy
    bandwidth or matrix rate measured in the same run. With a `note` in place of `seconds` the way
    did not run.
    """

    task: Task
    way: str
    seconds: float | None
    low: float | None
    high: float | None
    ratio: float | None
    percent: float | None
    note: str


class Ceiling(NamedTuple):
    """What the device can do, measured: bytes a second copied, operations a second in a matmul."""

    copy: float
    matrix: Mapping[str, float]


def measure_ceiling(device: str, side: int | None = None) -> Ceiling:
    """The copy bandwidth (read and write counted) and the matrix rate of each dtype."""
    cuda = device == "cuda"
    side = side or (8192 if cuda else 2048)
    source = torch.empty(2**28 if cuda else 2**24, device=device).normal_()
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    copy = moved / statistics.median(_rounds({"": lambda: target.copy_(source)}, device, 7)[""])
    rates, before = {}, torch.backends.cuda.matmul.allow_tf32
    for dtype in (torch.float32, torch.bfloat16):
        # By TF32 where convolutions may use it, so that they are held to the rate they could have.
        torch.backends.cuda.matmul.allow_tf32 = cuda and torch.backends.cudnn.allow_tf32
        a = torch.randn(side, side, device=device, dtype=dtype)
        seconds = statistics.median(_rounds({"": lambda: a @ a}, device, 3)[""])
        rates[name_of(dtype)] = 2 * side**3 / seconds
    torch.backends.cuda.matmul.allow_tf32 = before
    return Ceiling(copy, rates)


def time_task(task: Task, device: str, ceiling: Ceiling | None = None) -> Iterator[Timing]:
    """Check, then time.

    Raises:
        BuildError: two ways of the task disagree.
    """
    # Each task compiles for its own sizes; those of all tasks would pass the compiler's limit.
    torch.compiler.reset()
    ready, notes, first = {}, {}, None
    for name, run in task.ways.items():
        try:
            result = run()
        except Unavailable as missing:
            notes[name] = f"not run: {missing}"
            continue
        if first is None:
            first = result
        else:
            try:
                notes[name] = task.agree_of.get(name, task.agree)(first, result) or ""
            except AssertionError as apart:
                raise BuildError(f"{task.name}: {name} disagrees with the first way: {apart}") from apart
        ready[name] = run
    times = _rounds(ready, device, task.rounds)
    base = statistics.median(times[next(iter(ready))])
    for name in task.ways:
        if name not in times:
            yield Timing(task, name, None, None, None, None, None, notes[name])
            continue
        low, seconds, high = _quantiles(times[name])
        yield Timing(task, name, seconds, low, high, base / seconds,
                     _percent(task, seconds, ceiling), notes.get(name, ""))  # fmt: skip


def _percent(task: Task, seconds: float, ceiling: Ceiling | None) -> float | None:
    if ceiling is None:
        return None
    if task.bytes:
        return 100 * task.bytes / seconds / ceiling.copy
    if task.operations and task.dtype in ceiling.matrix:
        return 100 * task.operations / seconds / ceiling.matrix[task.dtype]
    return None


def _rounds(ways: Mapping[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; on a CPU the ways take turns, so that a noisy moment hits them all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()  # compiled, tuned and cached before the clock starts
    if device == "cuda":
        for name, run in ways.items():
            times[name] = _cuda_times(run)
        return times
    for _ in range(rounds):
        for name, run in ways.items():
            seconds = _seconds(run)
            # A way pays for what the one before left in the caches and of its threads: once more.
            times[name].append(_seconds(run) if seconds < SHORT else seconds)
    return times


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cuda_times(run: Callable[[], object]) -> list[float]:
    """Seconds by events on the stream, the L2 cache emptied before each."""
    from triton.testing import do_bench

    return [ms / 1000 for ms in do_bench(run, warmup=50, rep=200, return_mode="all")]


def _quantiles(times: list[float]) -> tuple[float, float, float]:
    values = torch.tensor(times, dtype=torch.float64)
    return tuple(values.quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)).tolist())


def name_of(dtype: torch.dtype) -> str:
    """A dtype without its "torch."."""
    return str(dtype).removeprefix("torch.")


def close(rtol: float) -> Callable[[object, object], None]:
    """An `agree` for tensors, or tuples of them, by relative Frobenius error."""

    def agree(one: object, other: object) -> None:
        one, other = ((v,) if isinstance(v, Tensor) else v for v in (one, other))
        for a, b in zip(one, other, strict=True):
            a, b = a.double(), b.double()
            error = float((a - b).norm() / a.norm().clamp(min=1e-300))
            assert error <= rtol, f"relative error {error:.1e}, allowed {rtol:.1e}"

    return agree


def compiled(function: Callable) -> Callable:
    """`torch.compile` with static shapes; `Unavailable` where no compiler is found."""
    run = torch.compile(function, dynamic=False, fullgraph=True)

    def call(*arguments: object) -> object:
        try:
            return run(*arguments)
        except Exception as failure:
            if "No working C++ compiler" in str(failure):
                raise Unavailable("torch.compile finds no C++ compiler") from failure
            raise

    return call
