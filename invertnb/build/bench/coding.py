"""Convolutional l1 coding: `lasso` against plain FISTA and other libraries, and the step between convolutions.

Every way is timed to a relative suboptimality of 1e-3. FISTA and the libraries are given ``||W||``,
and the number of iterations that takes them there: they check nothing. `lasso` runs until its own duality
gap proves 1e-3, or ("to the same objective") for as many iterations as it needs to get there.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import FilterBank, lasso
from ...kernels.fista_step import fista_step, fista_step_naive, fista_step_torch
from . import peers
from .frame import Task, Unavailable, close, compiled

# K, M, l and the side of the image; "same" padding, as in VGG.
SIZES = ((64, 3, 5, 64), (64, 64, 3, 16), (256, 256, 3, 16), (512, 512, 3, 14))
LEVELS = (0.03, 0.1, 0.3)  # lam, by max |W x|
EXPLICIT = ((64, 64, 3, 16), 0.1)  # where W is small enough to be written down: 1 GB
DENSITY, NOISE, TOL, MOST = 0.02, 0.01, 1e-3, 2**12
BATCH = {"cpu": 1, "cuda": 32}
STEP_SHAPES = {"cpu": (8, 64, 56, 56), "cuda": (64, 256, 56, 56)}


def tasks(device: str) -> Iterator[Task]:
    """The codes of one image (a batch on a GPU) at four sizes and three levels; the step; recovery."""
    for size in SIZES:
        for level in LEVELS:
            yield _coding(size, level, device)
    yield _step(device)
    yield from peers.recovery(device)


class _Problem:
    """x = W^T z of a sparse z plus noise, Gaussian filters of norm 1, and the least objective."""

    def __init__(self, size: tuple[int, int, int, int], level: float, device: str) -> None:
        K, M, l, side = size
        g = torch.Generator().manual_seed(0)
        exact = FilterBank.gaussian(K, M, l, dims=2, padding=l // 2, generator=g).normalized()
        z = torch.randn(BATCH[device], K, side, side, generator=g, dtype=torch.float64)
        z = torch.where(torch.rand(z.shape, generator=g) < DENSITY, z, 0.0)
        x = exact.synthesis(z, side)
        x = x + NOISE * x.std() * torch.randn(x.shape, generator=g, dtype=torch.float64)
        self.exact, self.x64 = exact.to(device), x.to(device)
        self.bank, self.x = exact.to(device, torch.float32), x.to(device, torch.float32)
        self.lam = level * float(self.bank.analysis(self.x).abs().max())

    @functools.cached_property
    def least(self) -> Tensor:
        """The objective at its minimum, by sample, to 1e-6."""
        return self.objective(lasso(self.x64, self.exact, self.lam, tol=1e-6, iterations=100_000).code)

    @functools.cached_property
    def length(self) -> float:
        """1 / ||W||^2."""
        return 1 / self.bank.norm(self.x.shape[-1]) ** 2

    @functools.cached_property
    def matrix(self) -> Tensor:
        """W itself, for those who need it."""
        return self.bank.matrix(self.x.shape[-1])

    def objective(self, code: Tensor) -> Tensor:
        """In float64."""
        code = code.to(self.x64)
        r = (self.x64 - self.exact.synthesis(code, self.x.shape[-1])).flatten(1)
        return r.square().sum(1) / 2 + self.lam * code.flatten(1).abs().sum(1)

    def reached(self, code: Tensor) -> bool:
        """Whether all samples are within TOL of the least objective."""
        return bool((self.objective(code) <= (1 + TOL) * self.least).all())

    def agree(self, _first: object, code: object) -> str:
        """For the frame: every way gets there, none by another objective."""
        excess = float((self.objective(code) / self.least - 1).max())
        assert -1e-5 <= excess <= TOL, f"suboptimality {excess:.1e}"
        return f"suboptimality {excess:.0e}"


def _coding(size: tuple[int, int, int, int], level: float, device: str) -> Task:
    K, M, l, side = size
    problem = functools.cache(lambda: _Problem(size, level, device))
    ways = {
        "FISTA with restart": _repeated(_fista, problem),
        "channels last": _repeated(functools.partial(_fista, last=True), problem),
        "lasso": lambda: lasso(problem().x, problem().bank, problem().lam, tol=TOL).code,
        "lasso, to the same objective": _repeated(_lasso, problem),
    }
    if device == "cpu":
        ways["PyLops"] = _repeated(peers.pylops_fista, problem)
        ways["SCICO"] = _repeated(peers.scico_pgm, problem)
        if (size, level) == EXPLICIT:
            ways["scikit-learn"] = _repeated(peers.sklearn_lasso, problem)
    name = f"{K}x{M} l={l}, {side}x{side}, lam {level}"
    return Task("lasso", name, "float32", ways, lambda a, b: problem().agree(a, b), items=BATCH[device])


def _repeated(
    way: Callable[[_Problem, int], Tensor], problem: Callable[[], _Problem]
) -> Callable[[], Tensor]:
    """The way with as many iterations as it needs, which the first call finds out by bisection."""

    @functools.cache
    def needed() -> int:
        few, many = 0, 1
        while not problem().reached(way(problem(), many)):
            few, many = many, 2 * many
            if many > MOST:
                raise Unavailable(f"not within {TOL} of the least objective in {MOST} iterations")
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if problem().reached(way(problem(), middle)) else (middle, many)
        return many

    return lambda: way(problem(), needed())


def _fista(problem: _Problem, iterations: int, last: bool = False) -> Tensor:
    """FISTA with the gradient restart of O'Donoghue and Candes, as one would write it."""
    x, weight, padding = problem.x, problem.bank.weight, problem.bank.padding
    if last:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    length, level = problem.length, problem.lam * problem.length
    z = y = torch.zeros_like(F.conv2d(x, weight, padding=padding))
    t = 1.0
    for _ in range(iterations):
        r = x - F.conv_transpose2d(y, weight, padding=padding)
        new = F.softshrink(y.add(F.conv2d(r, weight, padding=padding), alpha=length), level)
        if torch.dot((y - new).flatten(), (new - z).flatten()) > 0:
            t = 1.0
        after = (1 + math.sqrt(1 + 4 * t * t)) / 2
        y = torch.lerp(z, new, 1 + (t - 1) / after)
        z, t = new, after
    return z


def _lasso(problem: _Problem, iterations: int) -> Tensor:
    with warnings.catch_warnings():  # running out of iterations is the point
        warnings.simplefilter("ignore", RuntimeWarning)
        return lasso(problem.x, problem.bank, problem.lam, tol=TOL, iterations=iterations).code


def _step(device: str) -> Task:
    shape = STEP_SHAPES[device]
    g = torch.Generator().manual_seed(0)
    codes = [torch.randn(shape, generator=g).to(device) for _ in range(3)]
    numbers = [torch.full(shape[:1], value, device=device) for value in (0.25, 0.1, 0.7)]
    forms = {"literal": fista_step_naive, "five operations": fista_step_torch,
             "compiled": compiled(fista_step_torch), "fista_step": fista_step}  # fmt: skip
    return Task(
        "fista_step", "x".join(map(str, shape)), "float32",
        {name: functools.partial(form, *codes, *numbers) for name, form in forms.items()},
        close(1e-5), bytes=5 * codes[0].numel() * 4, items=shape[0],
    )  # fmt: skip
