"""FISTA (Beck and Teboulle 2009) in bursts of iterations that never look at a number from the host.

On CUDA a burst is captured once as a graph and then launched as a whole: at small codes, launches
take longer than kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb.kernels.fista_step import fista_step

Operator = Callable[[Tensor], Tensor]


class State(NamedTuple):
    """Iterate z, the point y of the next gradient, their residuals, and numbers by sample."""

    z: Tensor
    y: Tensor
    r: Tensor
    at_y: Tensor
    curvature: Tensor
    t: Tensor
    objective: Tensor

    @classmethod
    def start(cls, z: Tensor, r: Tensor, curvature: Tensor) -> State:
        """From z with the residual r, at rest."""
        inf = torch.full_like(curvature, torch.inf)
        return cls(z, z, r, r, curvature, torch.ones_like(curvature), inf)


def energy(z: Tensor) -> Tensor:
    """``||z||^2`` of each sample."""
    if len(z) == 1 and z.is_contiguous():
        flat = z.view(-1)
        return torch.dot(flat, flat).view(1)
    return torch.linalg.vector_norm(z.flatten(1), dim=1).square()


def first_curvature(
    z: Tensor, r: Tensor, analysis: Operator, synthesis: Operator, per_row: Tensor, lam: Tensor,
    support: Tensor | None,
) -> Tensor:
    """``||W^T d||^2 / ||d||^2`` along the first proximal step d, the start of the estimate.

    Args:
        z, r: code and residual x - W^T z.
        analysis, synthesis: W and W^T.
        per_row: the mean squared norm of a row of W, a tensor of one number.
        lam: by sample, (batch,).
        support: bool mask of the code's shape, or None.
    """
    length = (1 / per_row).expand_as(lam).contiguous()
    new, _ = fista_step(z, analysis(r), z, length, lam * length, torch.zeros_like(lam), support)
    along, below = energy(synthesis(new - z)), energy(new - z)
    return torch.where(below > 0, along / torch.where(below > 0, below, 1.0), per_row)


def iterate(
    state: State, x: Tensor, analysis: Operator, synthesis: Operator, lam: Tensor,
    support: Tensor | None, count: int,
) -> State:
    """`count` iterations for 1/2 ``||x - W^T z||^2`` + lam ``||z||_1``; arguments as above.

    The step is 1 / (largest curvature met so far): where a step was too long for its curvature,
    the next ones are shorter, which happens finitely often. Momentum restarts when the objective
    rises, one iteration later than it is seen, because z and the next point come from one pass.
    """
    noise = (100 * torch.finfo(x.dtype).eps) ** 2 * energy(x)
    ones = (-1, *(1,) * (x.dim() - 1))
    z, y, r, at_y, curvature, t, objective = state
    for _ in range(count):
        after = (1 + torch.sqrt(1 + 4 * t * t)) / 2
        momentum, length = (t - 1) / after, 1 / curvature
        new, point = fista_step(y, analysis(at_y), z, length, lam * length, momentum, support)
        at_new = x - synthesis(new)
        along, below = energy(at_new - at_y), energy(new - y)
        # Below this the difference of residuals is rounding.
        met = torch.where(along > noise, along / torch.where(below > 0, below, 1.0), 0.0)
        now = energy(at_new) / 2 + lam * new.flatten(1).abs().sum(1)
        t = torch.where(now > objective, torch.ones_like(t), after)
        at_y = at_new + momentum.view(ones) * (at_new - r)
        z, y, r = new, point, at_new
        curvature, objective = torch.maximum(curvature, met), now
    return State(z, y, r, at_y, curvature, t, objective)


def captured(
    function: Callable[[State], State], state: State
) -> Callable[[State], State]:
    """On CUDA, the function as a graph that is launched at once; elsewhere the function itself.

    Small codes spend more time in launches than in kernels. What cannot be captured (an old
    driver, memory) runs as it is.
    """
    if not state.z.is_cuda:
        return function
    try:
        given = State(*(part.clone() for part in state))
        side = torch.cuda.Stream(state.z.device)
        side.wait_stream(torch.cuda.current_stream(state.z.device))
        with torch.cuda.stream(side):  # kernels are compiled and chosen before the capture
            function(given)
        torch.cuda.current_stream(state.z.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = function(given)
    except RuntimeError:
        return function

    def replay(state: State) -> State:
        for mine, theirs in zip(given, state, strict=True):
            mine.copy_(theirs)
        graph.replay()
        return State(*(part.clone() for part in found))

    return replay
