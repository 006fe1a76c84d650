"""The best code on a given support: step 3 of pursuit algorithms, and the oracle decoder."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.gram import gram_on
from invertnb.operators import FilterBank

# Above this many entries in a support the normal equations are solved by iteration; below it,
# that many matrix entries are built at a time.
DENSE_SUPPORT, DENSE_ENTRIES = 512, 2**22


def least_squares(x: Tensor, bank: FilterBank, support: Tensor) -> Tensor:
    """The minimizer of ``||x - W^T z||`` over codes z that vanish outside the support.

    Where the minimizer is not unique, the one of least norm. Without padding, the entries of
    W W^T on the support are read from `bank.gram()` and factorized (Cholesky); else, and for
    large or dependent supports, conjugate gradients on the same normal equations.

    Args:
        x: signals (batch, M, D) or (batch, M, H, W).
        bank: the filters.
        support: bool mask (batch, K, n) or (batch, K, n1, n2).

    Returns:
        Codes of the support's shape, with the dtype and device of x.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, NaN or infinite x.
    """
    correlations = check.instance("bank", bank, FilterBank).analysis(x)
    check.mask("support", support, correlations.shape, x.device)
    return _least_squares(x, bank, support, correlations)


def _least_squares(
    x: Tensor, bank: FilterBank, support: Tensor, correlations: Tensor, gram: Tensor | None = None
) -> Tensor:
    """`least_squares` without its checks; correlations = W x, gram = bank.gram()."""
    size = int(support.flatten(1).sum(1).max())
    if size == 0:
        return torch.zeros_like(correlations)
    if bank.padding or size > DENSE_SUPPORT:
        return _conjugate_gradients(x, bank, support, correlations)
    gram = bank.gram() if gram is None else gram
    chunk = max(1, DENSE_ENTRIES // size**2)
    parts = [
        _cholesky(gram, bank, s, c, size)
        for s, c in zip(support.split(chunk), correlations.split(chunk), strict=True)
    ]
    code, failed = (torch.cat(part) for part in zip(*parts, strict=True))
    if failed.any():
        exact = _conjugate_gradients(x[failed], bank, support[failed], correlations[failed])
        code = code.index_copy(0, failed.nonzero().squeeze(1), exact)
    return code


def _cholesky(
    gram: Tensor, bank: FilterBank, support: Tensor, correlations: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    flat = support.flatten(1)
    # The support's indices in ascending order, filled up to `size` with entries outside it.
    index = flat.byte().argsort(dim=1, descending=True, stable=True)[:, :size]
    real = flat.gather(1, index)
    filters, place = index // support[0, 0].numel(), index % support[0, 0].numel()
    width = support.shape[-1]
    places = (place,) if bank.dims == 1 else (place // width, place % width)
    entries = gram_on(gram, filters, places)
    square = torch.where(real.unsqueeze(2) & real.unsqueeze(1), entries, 0.0)
    square = square + torch.diag_embed((~real).to(square.dtype))
    right = torch.where(real, correlations.flatten(1).gather(1, index), 0.0)
    factor, info = torch.linalg.cholesky_ex(square)
    # A pivot at rounding level is a dependent support that the factorization let through.
    pivots = factor.diagonal(dim1=1, dim2=2)
    floor = math.sqrt(size * torch.finfo(square.dtype).eps) * square.diagonal(dim1=1, dim2=2).sqrt()
    failed = (info > 0) | (pivots < floor).any(1)
    solution = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
    code = torch.zeros_like(correlations).flatten(1).scatter(1, index, solution)
    return code.view(support.shape), failed


def _conjugate_gradients(
    x: Tensor, bank: FilterBank, support: Tensor, correlations: Tensor, limit: int = 1000
) -> Tensor:
    """CGLS (Hestenes and Stiefel 1952): min ||x - W^T z|| from z = 0, hence of least norm."""
    ones = (-1, *(1,) * (x.dim() - 1))
    code, residual = torch.zeros_like(correlations), x
    gradient = torch.where(support, correlations, 0.0)
    direction = gradient
    square = first = gradient.flatten(1).square().sum(1)
    tolerance = (50 * torch.finfo(x.dtype).eps) ** 2
    for _ in range(limit):
        active = square > tolerance * first
        if not active.any():
            return code
        image = bank._synthesis(direction)
        length = image.flatten(1).square().sum(1)
        step = torch.where(active, square / torch.where(active, length, 1.0), 0.0).view(ones)
        code = code + step * direction
        residual = residual - step * image
        gradient = torch.where(support, bank._analysis(residual), 0.0)
        last, square = square, gradient.flatten(1).square().sum(1)
        ratio = torch.where(active, square / torch.where(active, last, 1.0), 0.0).view(ones)
        direction = gradient + ratio * direction
    missed = int((square > tolerance * first).sum())
    if missed:
        worst = float((square / first).max().sqrt())
        warnings.warn(
            f"least_squares: {missed} of {len(x)} samples stopped after {limit} conjugate-gradient "
            f"steps with a relative gradient of up to {worst:.1e}",
            RuntimeWarning, stacklevel=3,
        )
    return code
