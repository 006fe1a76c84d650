"""What a layer keeps of its input: f -> W^T M(W f, k), and what that is compared with (section 4.5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.iht import iht
from invertnb.model import ModelSparse, Size
from invertnb.operators import FilterBank
from invertnb.recover import recover

METHODS = ("iht", "recover", "transpose", "least squares")
POOLING = ("abs", "signed", "rectified")


class Reconstruction(NamedTuple):
    """A reconstructed input and where it comes from.

    Attributes:
        signal: f_hat, in the shape and dtype of f.
        code: (batch, K, n) or (batch, K, n1, n2): z_hat, with signal = scale * W^T z_hat; for
            "least squares" the h = W f that it explains.
        scale: (batch,), what matched the norm; 1 without matching.
    """

    signal: Tensor
    code: Tensor
    scale: Tensor


def reconstruct(
    f: Tensor, bank: FilterBank, k: int | None = None, *, method: str = "iht", block: Size = (2, 2),
    pooling: str = "abs", switches: str | Tensor = "known", iterations: int = 1,
    lam: float | Tensor | None = None, tol: float = 1e-3, match: bool = True,
    h: Tensor | None = None,
) -> Reconstruction:
    """One IHT step from zero and back, f_hat = W^T M(W f, k), scaled to the norm of f; and others.

    Args:
        f: inputs of a layer (batch, M, D) or (batch, M, H, W): in the paper the output of a pooling.
        bank: the layer's filters W; `FilterBank.gaussian` for random ones of the same shape.
        k: nonzeros of the code, at most its number of blocks; None keeps one entry of every block.
        method: "iht" as above, or Algorithm 1 for several `iterations`; "recover", Algorithm 2;
            "transpose", W^T W f without pooling; "least squares", the f_hat with W f_hat nearest to
            h = W f without pooling, f itself where the rows of W span its space.
        block: the pooling's window; of the code's edges what it does not fill is left out.
        pooling: which entry of a block an IHT step keeps: "abs" the one of largest magnitude, with
            its sign (section 2.3); "signed" the largest; "rectified" the largest of ReLU(W f).
        switches: where the step puts it back, see `ModelSparse.project`.
        iterations: more than 1 runs Algorithm 1 with the normalized step (with a network's filters
            the step 1 of the paper diverges), with "abs" and "known".
        lam, tol: of "recover" and, tol, of "least squares", where it bounds
            ``||W^T (W f_hat - h)|| / ||W^T h||``.
        match: scale f_hat to the norm of f; an f_hat of zero stays zero.
        h: W f, where it is at hand, as for several readings of one step.

    Raises:
        ValueError: arguments that do not fit together, are out of range or are of no use to the
            method; NaN or infinite f.

    No gradient is recorded.

    Warns:
        RuntimeWarning: samples of "iht" that diverged, or of "recover" that were not finished.
    """
    check.instance("bank", bank, FilterBank)
    check.choice("method", method, METHODS)
    check.choice("pooling", pooling, POOLING)
    check.integer("iterations", iterations, 1)
    check.flag("match", match)
    model = ModelSparse(block, k)
    if model.dims != bank.dims:
        check.fail("block", block, f"a block of {bank.dims}-D codes")
    if method != "iht" or iterations > 1:
        if pooling != "abs":
            check.fail("pooling", pooling, "'abs', unless for a single step of 'iht'")
        if isinstance(switches, Tensor) or switches != "known":
            check.fail("switches", switches, "'known', unless for a single step of 'iht'")
    if iterations > 1 and method != "iht":
        check.fail("iterations", iterations, f"1 for method {method!r}")
    if k is not None and method in ("transpose", "least squares"):
        check.fail("k", k, f"None for method {method!r}")
    if (lam is None) == (method == "recover"):
        check.fail("lam", lam, "a level for method 'recover', and for no other")
    if h is None:
        h = bank.analysis(f)
    else:
        check.array("f", f, ("batch", bank.M, *("side",) * bank.dims))
        size = bank.code_size(f.shape[2] if bank.dims == 1 else tuple(f.shape[2:]))
        shape = (size,) if bank.dims == 1 else size
        check.array("h", h, (len(f), bank.K, *shape), like=("f", f))
    with torch.no_grad():
        if method == "recover":
            code = recover(f, bank, model, lam, tol=tol).code
        elif method == "iht" and iterations > 1:
            code = iht(f, bank, model, step="normalized", iterations=iterations, tol=0.0).code
        elif method == "iht":
            code = _step(h, model, pooling, switches)
        else:
            code = h
        signal = bank._synthesis(code)
        if method == "least squares":
            signal = _least_squares(signal, bank, tol)
        scale = torch.ones(len(f), dtype=f.dtype, device=f.device)
        if match:
            ratio = _length(f) / _length(signal)
            scale = torch.where(ratio.isfinite(), ratio, 1.0)
    return Reconstruction(signal * _wide(scale, f), code, scale)


def random_activations(f: Tensor, generator: torch.Generator) -> Tensor:
    """Independent Gaussian entries in the shape, and sample by sample with the norm, of f.

    Drawn in float64 on the CPU, so that they are the same for every dtype and device. Their
    relative error is sqrt(2) on average (footnote 13): nearly orthogonal to f, and as long.
    """
    check.generator("generator", generator)
    draw = torch.randn(f.shape, generator=generator, dtype=torch.float64).to(f)
    return draw * _wide(_length(f) / _length(draw), f)


def relative_error(f: Tensor, f_hat: Tensor) -> Tensor:
    """``||f - f_hat|| / ||f||`` of each sample, (batch,); 0 where f = f_hat = 0."""
    check.array("f_hat", f_hat, tuple(f.shape))
    return (_length(f - f_hat) / _length(f)).nan_to_num(0.0, posinf=torch.inf)


def _step(h: Tensor, model: ModelSparse, pooling: str, switches: str | Tensor) -> Tensor:
    """M(h, k), with zeros at the edges that no whole block covers."""
    lengths = (model.block,) if model.dims == 1 else model.block
    whole = tuple(side - side % length for side, length in zip(h.shape[2:], lengths, strict=True))
    by = "abs" if pooling == "abs" else "signed"
    inside = h.clamp(min=0) if pooling == "rectified" else h
    if whole == tuple(h.shape[2:]):
        return model.project(inside, switches=switches, by=by).code
    inner = (..., *map(slice, whole))
    code = torch.zeros_like(h)
    code[inner] = model.project(inside[inner].contiguous(), switches=switches, by=by).code
    return code


def _least_squares(right: Tensor, bank: FilterBank, tol: float, most: int = 1000) -> Tensor:
    """The f_hat with W^T W f_hat = right = W^T h, by conjugate gradients."""
    x, r = torch.zeros_like(right), right
    p, square = r, _length(r).square()
    enough = tol**2 * square
    for _ in range(most):
        if (square <= enough).all():
            break
        Ap = bank._synthesis(bank._analysis(p))
        curvature = (p * Ap).flatten(1).sum(1)
        length = torch.where(curvature > 0, square / curvature, 0.0)
        x, r = x + _wide(length, x) * p, r - _wide(length, x) * Ap
        before, square = square, _length(r).square()
        p = r + _wide(torch.where(before > 0, square / before, 0.0), x) * p
    return x


def _length(x: Tensor) -> Tensor:
    # Not of x.flatten(1), which copies what is not contiguous.
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())))


def _wide(each: Tensor, x: Tensor) -> Tensor:
    return each.view(-1, *(1,) * (x.dim() - 1))
