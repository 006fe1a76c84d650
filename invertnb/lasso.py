"""Sparse codes by l1: the minimization of steps 1 and 3 of Algorithm 2, convolutional LASSO."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.active_rows import ActiveRows, Layout
from invertnb.kernels.active_set import conjugate_gradients
from invertnb.kernels.fista import State, captured, energy, first_curvature, iterate
from invertnb.operators import FilterBank

SOLVERS = ("auto", "working set", "fista")
# A round of the working set takes in correlations above this many standard deviations, as StOMP
# does (Donoho, Tsaig, Drori, Starck 2012): small rounds first while lam is below the noise.
DEVIATIONS = 2.0
# A round is solved until no row in the set violates optimality by more than LOOSE lam, or TENTH of
# the violation outside, and at last by TIGHT tol: the gap is about that violation.
LOOSE, TENTH, TIGHT = 0.3, 0.03, 0.7
# So many iterations in a round, or rounds, or an objective times RISE, are a stall: FISTA takes over.
MOST, ROUNDS, RISE = 500, 60, 1.01
# Iterations of FISTA between two looks at the gap: each look waits for the device.
BURST = 10
# Numbers in the patches of the samples that the working set takes together.
CHUNK = 2**22


class History(NamedTuple):
    """Seconds (T,) and objectives (T, batch) after each iteration, float64; row 0 is z = 0.

    A sample that is done keeps its value. The time that recording takes is left out.
    """

    seconds: Tensor
    objective: Tensor


@dataclass(frozen=True, eq=False)
class LassoResult:
    """What `lasso` found.

    Attributes:
        code: (batch, K, n) or (batch, K, n1, n2).
        gap: (batch,), the relative duality gap of `code`, (P - D) / D at a feasible dual point: the
            objective exceeds the least possible one by at most this factor.
        iterations: int64 (batch,), iterations each sample ran.
        converged: bool (batch,), the gap came down to tol.
        history: seconds and objectives by iteration, with trace=True.
    """

    code: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor
    history: History | None = None


def lasso(
    x: Tensor, bank: FilterBank, lam: float | Tensor, support: Tensor | None = None,
    tol: float = 1e-3, trace: bool = False, iterations: int = 2000, solver: str = "auto",
) -> LassoResult:
    """The minimizer of 1/2 ``||x - W^T z||^2`` + lam ``||z||_1`` over codes z, for each sample.

    Algorithm 2 of the paper has no 1/2: its lambda is twice this lam. A sample is done when its
    relative duality gap, at the residual scaled into the dual's feasible set, is at most tol.

    On a CPU a working set of rows of W is solved by conjugate gradients that respect signs and
    drop what a short proximal step would, with sparse products; then all of W is correlated with
    the residual, which gives the gap and the rows that enter. On CUDA, and where the working set
    stalls, FISTA (Beck and Teboulle 2009) with restarts (O'Donoghue and Candes 2015) on the whole
    code. No spectral norm is needed: curvature is measured along the steps taken.

    Args:
        x: signals (batch, M, D) or (batch, M, H, W).
        bank: the filters W.
        lam: a positive number, or one for each sample, (batch,). From max ``|W x|`` on the
            minimizer is zero, and so is the code.
        support: bool mask of the code's shape; z is sought among codes that vanish outside.
        tol: the relative duality gap to reach, positive.
        trace: True records the history.
        iterations: the most iterations of a sample, at least 1.
        solver: "working set", "fista", or "auto": by device.

    Returns:
        A `LassoResult`; no gradient is recorded.

    Raises:
        ValueError: arguments that do not fit together or are out of range, NaN or infinite x.

    Warns:
        RuntimeWarning: samples ran out of iterations, with their number and the largest gap.
    """
    with torch.no_grad():
        first = check.instance("bank", bank, FilterBank).analysis(x)
        lam = _per_sample("lam", lam, x)
        if support is not None:
            check.mask("support", support, first.shape, x.device)
        check.real("tol", tol, 0.0, strict=True)
        check.flag("trace", trace)
        check.integer("iterations", iterations, 1)
        if check.choice("solver", solver, SOLVERS) == "auto":
            solver = "fista" if x.is_cuda else "working set"
        problem = _Problem(x, bank, lam, support, first, tol, iterations, trace)
        if solver == "working set":
            patch = bank.M * bank.l**bank.dims * first[0, 0].numel()
            chunk = len(x) if trace else max(1, CHUNK // patch)
            for samples in torch.arange(len(x), device=x.device).split(chunk):
                _working_set(problem, samples)
        _fista(problem)
        return problem.result()


def _per_sample(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        value = check.real(name, value, 0.0, strict=True)
        return torch.full((len(x),), value, dtype=x.dtype, device=x.device)
    check.array(name, value, (len(x),), like=("x", x))
    if not (value > 0).all():
        check.fail(name, value, "positive numbers, but the least is " + repr(float(value.min())))
    return value


class _Problem:
    """The arguments, what is known of the minimizers so far, and the samples not yet done."""

    def __init__(
        self, x: Tensor, bank: FilterBank, lam: Tensor, support: Tensor | None, first: Tensor,
        tol: float, iterations: int, trace: bool,
    ) -> None:
        self.x, self.bank, self.lam, self.support, self.first = x, bank, lam, support, first
        self.tol, self.limit = tol, iterations
        self.code = torch.zeros_like(first)
        self.gap = x.new_full((len(x),), torch.inf)
        self.ran = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.clock = _Clock(energy(x) / 2) if trace else None

    def open(self) -> Tensor:
        """The samples that are neither done nor out of iterations."""
        return (~(self.gap <= self.tol) & (self.ran < self.limit)).nonzero().squeeze(1)

    def result(self) -> LassoResult:
        """What was found; warns where the iterations ran out."""
        converged = self.gap <= self.tol
        missed = int((~converged).sum())
        if missed:
            warnings.warn(
                f"lasso: {missed} of {len(self.x)} samples ran out of {self.limit} iterations with "
                f"a relative duality gap of up to {float(self.gap.max()):.1e} (tol = {self.tol})",
                RuntimeWarning, stacklevel=3,
            )
        history = self.clock.history() if self.clock else None
        return LassoResult(self.code, self.gap, self.ran, converged, history)


class _Clock:
    """Objectives by time; `add` stops the clock while it looks."""

    def __init__(self, start: Tensor) -> None:
        self.now, self.seconds, self.rows = start.double(), [0.0], [start.double()]
        self.passed, self.since = 0.0, time.perf_counter()

    def add(self, samples: Tensor, lam: Tensor, squared: Tensor, absolute: Tensor) -> None:
        """The squared residuals and absolute sums of some samples after an iteration."""
        if squared.is_cuda:
            torch.cuda.synchronize(squared.device)
        self.passed += time.perf_counter() - self.since
        objective = squared.double() / 2 + lam.double() * absolute.double()
        self.now = self.now.index_copy(0, samples, objective)
        self.seconds.append(self.passed)
        self.rows.append(self.now)
        self.since = time.perf_counter()

    def history(self) -> History:
        """All of it."""
        return History(torch.tensor(self.seconds, dtype=torch.float64), torch.stack(self.rows).cpu())


def _gap(
    squared: Tensor, absolute: Tensor, inner: Tensor, largest: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    """The relative duality gap, and the objective P, by sample.

    For r = x - W^T z the dual point s r is feasible for s max |W r| <= lam, and
    D(s) = s <x, r> - s^2 / 2 ||r||^2. With <x, r> = ||r||^2 + <z, W r> the difference P - D is a sum
    of terms that are not negative, without cancellation.

    Args:
        squared: ||r||^2.
        absolute: ||z||_1.
        inner: <z, W r>.
        largest: max |W r| where z may be nonzero.
    """
    tiny = torch.finfo(lam.dtype).tiny
    scale = torch.minimum(lam / largest, 1 + inner / squared.clamp(min=tiny)).clamp(min=0.0)
    difference = (1 - scale).square() * squared / 2 + (lam * absolute - scale * inner).clamp(min=0.0)
    objective = squared / 2 + lam * absolute
    dual = objective - difference
    gap = torch.where(dual > 0, difference / dual.clamp(min=tiny), torch.inf)
    return torch.where(difference == 0, 0.0, gap), objective


# The working set


def _working_set(problem: _Problem, samples: Tensor) -> None:
    """Solve these samples; those that stall are left open, at z = 0 if their objective rose."""
    bank = problem.bank
    layout = Layout(bank.weight, bank.stride, bank.padding, problem.x[samples])
    lam, allowed = problem.lam[samples], None
    if problem.support is not None:
        allowed = layout.flatten(problem.support[samples])
    curvature = float(bank.weight.flatten(1).square().sum(1).mean())
    index, u, r = samples.new_zeros(0), lam.new_zeros(0), layout.x
    correlations = layout.flatten(problem.first[samples])
    absolute = inner = torch.zeros_like(lam)
    missed = lam != lam
    least = torch.full_like(lam, torch.inf)
    tight = torch.full_like(lam, TIGHT * problem.tol)
    for turn in range(ROUNDS + 1):
        if allowed is not None:
            correlations = torch.where(allowed, correlations, 0.0)
        size = correlations.abs()
        largest = size.amax(1)
        gap, objective = _gap(energy(r), absolute, inner, largest, lam)
        rose = ~(objective <= RISE * least)
        done = (gap <= problem.tol) | rose | missed | (problem.ran[samples] >= problem.limit)
        if turn == ROUNDS:
            done = torch.ones_like(done)
        if done.any():
            if rose.any():
                u = torch.where(rose[_sample_of(layout, index)], 0.0, u)
                gap = torch.where(rose, torch.inf, gap)
            _keep(problem, samples, layout, index, u, gap, done)
            rest = (~done).nonzero().squeeze(1)
            if not len(rest):
                return
            index, u = _restrict(layout, index, u, done)
            samples, lam, largest, size = samples[rest], lam[rest], largest[rest], size[rest]
            r, tight, objective = r[rest], tight[rest], objective[rest]
            allowed = None if allowed is None else allowed[rest]
            layout.set_signals(problem.x[samples])
        least = objective

        # What violates |W r| <= lam enters, down to the middle if the noise is above all of it.
        noise = DEVIATIONS * torch.linalg.vector_norm(size, dim=1) / size.shape[1] ** 0.5
        level = torch.maximum(lam, torch.minimum(noise, (lam + largest) / 2))
        nonzero = u.nonzero().squeeze(1)
        index, u = index.index_select(0, nonzero), u.index_select(0, nonzero)
        enters = (size > level.unsqueeze(1)).flatten().index_fill_(0, index, True)
        grown = enters.nonzero().squeeze(1)
        u = u.new_zeros(len(grown)).index_copy_(0, torch.searchsorted(grown, index), u)
        index, rows = grown, ActiveRows(layout, grown)

        enough = torch.clamp(TENTH * (largest / lam - 1), max=LOOSE).maximum(tight)
        tight = torch.where(enough <= tight, tight / 2, tight)
        most = min(MOST, int((problem.limit - problem.ran[samples]).min()))
        record = partial(problem.clock.add, samples, lam) if problem.clock else None
        u, r, c, ran, going = conjugate_gradients(rows, u, r, lam, enough, curvature, most, record)
        problem.ran[samples] += ran
        missed = going & (ran == MOST)
        absolute, inner = rows.dot(u, u.sign()), rows.dot(u, c)
        correlations = layout.analysis(r)


def _sample_of(layout: Layout, index: Tensor) -> Tensor:
    per_sample = layout.K * layout.n[0] * layout.n[1]
    return torch.div(index, per_sample, rounding_mode="floor")


def _restrict(layout: Layout, index: Tensor, u: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the samples that are not done, numbered as if there were no others."""
    sample = _sample_of(layout, index)
    stays = ~done[sample]
    earlier = done.cumsum(0)[sample] * (layout.K * layout.n[0] * layout.n[1])
    return (index - earlier)[stays], u[stays]


def _keep(
    problem: _Problem, samples: Tensor, layout: Layout, index: Tensor, u: Tensor, gap: Tensor,
    which: Tensor,
) -> None:
    """Store the codes and gaps of some of these samples."""
    flat = u.new_zeros(layout.batch * layout.K * layout.n[0] * layout.n[1]).index_copy_(0, index, u)
    code = flat.view(layout.batch, *layout.n, layout.K).permute(0, 3, 1, 2)
    code = code.squeeze(2).contiguous() if problem.bank.dims == 1 else code
    at = samples[which]
    if len(at) == len(problem.x):
        problem.code, problem.gap = code, gap
    else:
        problem.code[at], problem.gap[at] = code[which], gap[which]


def _fista(problem: _Problem) -> None:
    """Solve the samples that are open, from their codes."""
    samples, bank = problem.open(), problem.bank
    operators = {"analysis": bank._analysis, "synthesis": bank._synthesis}
    state = None
    while len(samples):
        x, lam = problem.x[samples], problem.lam[samples]
        allowed = None if problem.support is None else problem.support[samples]
        if state is None:
            z = problem.code[samples]
            r = x - bank._synthesis(z)
            per_row = bank.weight.flatten(1).square().sum(1).mean()
            state = State.start(z, r, first_curvature(
                z, r, per_row=per_row, lam=lam, support=allowed, **operators))  # fmt: skip
        run = partial(iterate, x=x, lam=lam, support=allowed, **operators)
        burst = None if problem.clock else captured(partial(run, count=BURST), state)
        while True:
            _look(problem, samples, state, allowed)
            rest = (problem.gap[samples] > problem.tol) & (problem.ran[samples] < problem.limit)
            # Go on with those; a few that are done may stay, so that a captured graph serves longer.
            if 2 * int(rest.sum()) <= len(samples):
                samples, state = samples[rest], State(*(part[rest] for part in state))
                break
            count = int(min(BURST, (problem.limit - problem.ran[samples[rest]]).min()))
            if burst and count == BURST:
                state = burst(state)
            for _ in range(0 if burst and count == BURST else count):
                state = run(state, count=1)
                if problem.clock:
                    problem.clock.add(samples, lam, energy(state.r), state.z.flatten(1).abs().sum(1))
            problem.ran[samples[rest]] += count


def _look(problem: _Problem, samples: Tensor, state: State, allowed: Tensor | None) -> None:
    """Keep the codes and gaps of those samples that have not come down to tol before."""
    correlations = problem.bank._analysis(state.r)
    if allowed is not None:
        correlations = torch.where(allowed, correlations, 0.0)
    gap, _ = _gap(
        energy(state.r), state.z.flatten(1).abs().sum(1), (state.z * correlations).flatten(1).sum(1),
        correlations.flatten(1).abs().amax(1), problem.lam[samples],
    )  # fmt: skip
    new = ~(problem.gap[samples] <= problem.tol)
    problem.code[samples[new]], problem.gap[samples[new]] = state.z[new], gap[new]
