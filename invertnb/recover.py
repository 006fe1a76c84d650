"""Sparse hidden activations from a layer's output: Algorithm 2 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import check
from invertnb.lasso import LassoResult, lasso
from invertnb.model import ModelSparse
from invertnb.operators import FilterBank


@dataclass(frozen=True, eq=False)
class Recovery:
    """What `recover` found.

    Attributes:
        code: the z of step 3, (batch, K, n) or (batch, K, n1, n2), a member of the model.
        support: bool mask of the code's shape, where the z_model of step 2 is not zero: at most k
            entries a sample, one in a block. The code is zero outside, and where the penalty of
            step 3 shrinks an entry to zero, inside too.
        residual: (batch,), ``||x - W^T code|| / ||x||``; 0 for x = 0.
        initial: step 1, with z_init as its code.
        final: step 3.
    """

    code: Tensor
    support: Tensor
    residual: Tensor
    initial: LassoResult
    final: LassoResult


def recover(
    x: Tensor, bank: FilterBank, model: ModelSparse, lam: float | Tensor, *, tol: float = 1e-3,
    iterations: int = 2000, solver: str = "auto",
) -> Recovery:
    """Algorithm 2: an l1 code of x, its projection onto the model, an l1 code on that support.

    1. z_init minimizes 1/2 ``||x - W^T z||^2`` + lam ``||z||_1``.
    2. z_model = M_known(z_init, k): in each block the entry of largest magnitude, then the k
       largest of these.
    3. z minimizes the same objective with z_i = 0 wherever z_model is 0.

    The paper has no 1/2 before the square, so its lambda is twice this lam. Where z_init has
    nonzeros in fewer than k blocks the support is all of these and no more: entries at which
    z_init is zero are no part of it.

    Args:
        x: signals (batch, M, D) or (batch, M, H, W).
        bank: the filters W.
        model: M_k, over codes of as many axes; its block divides the code's size.
        lam: a positive number, or one for each sample, (batch,).
        tol, iterations: of both steps, see `lasso`.
        solver: of both steps; "auto" takes FISTA in step 1, and in step 3 what `lasso` would.

    Returns:
        A `Recovery` in the dtype of x; no gradient is recorded.

    Raises:
        ValueError: arguments that do not fit together or are out of range, NaN or infinite x.

    Warns:
        RuntimeWarning: samples ran out of iterations in one of the steps.
    """
    check.instance("bank", bank, FilterBank)
    check.instance("model", model, ModelSparse)
    if model.dims != bank.dims:
        check.fail("model", model, f"a ModelSparse over {bank.dims}-D codes")
    axes = ("D",) if bank.dims == 1 else ("H", "W")
    check.array("x", x, ("batch", bank.M, *axes), like=("weight", bank.weight))
    n = bank.code_size(x.shape[2] if bank.dims == 1 else tuple(x.shape[2:]))
    model._blocks(bank.K, (n,) if bank.dims == 1 else n)  # refuses before step 1, which takes long
    with torch.no_grad():
        # The first code of a layer's activations is dense, where convolutions beat a working set
        # by a factor of 2 to 4; where it is sparse they lose as much of far less time.
        first = "fista" if solver == "auto" else solver
        initial = lasso(x, bank, lam, tol=tol, iterations=iterations, solver=first)
        support = model.project(initial.code, switches="known", by="abs").code != 0
        final = lasso(x, bank, lam, support, tol=tol, iterations=iterations, solver=solver)
        residual = _length(x - bank._synthesis(final.code)) / _length(x)
    return Recovery(final.code, support, residual.nan_to_num(0.0), initial, final)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
