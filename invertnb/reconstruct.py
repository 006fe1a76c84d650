"""What one step keeps of a layer's input: f -> W^T M(W f, k), and what it is compared with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.iht import iht
from invertnb.model import ModelSparse, Size
from invertnb.operators import FilterBank

POOLING = ("abs", "signed", "rectified")


class Reconstruction(NamedTuple):
    """A reconstructed input and where it comes from.

    Attributes:
        signal: f_hat, in the shape and dtype of f, with the norm of f where `match` was asked for.
        code: the z_hat with signal = scale * W^T z_hat, (batch, K, n) or (batch, K, n1, n2).
        scale: (batch,), what the norm was matched with; 1 without matching.
        switches: int64, the position of each block's entry.
    """

    signal: Tensor
    code: Tensor
    scale: Tensor
    switches: Tensor


def reconstruct(
    f: Tensor, bank: FilterBank, k: int | None, *, block: Size = (2, 2), pooling: str = "abs",
    switches: str | Tensor = "known", iterations: int = 1, match: bool = True,
) -> Reconstruction:
    """One IHT step from zero and back, f_hat = W^T M(W f, k) (section 4.5), or a few steps.

    Args:
        f: inputs of a layer (batch, M, D) or (batch, M, H, W): in the paper the output of a pooling.
        bank: the layer's filters W.
        k: nonzeros of the code, at most its number of blocks; None keeps one entry of every block.
        block: the pooling's window; an edge that it does not fill is left out of the code.
        pooling: which entry of a block is kept: "abs" the one of largest magnitude, with its sign
            (section 2.3); "signed" the largest; "rectified" the largest of ReLU(W f), as in a CNN.
        switches: where it is put back, see `ModelSparse.project`.
        iterations: more than 1 runs Algorithm 1 with the normalized step, as with the filters of a
            network the step 1 of the paper diverges; "abs" and "known" only.
        match: scale f_hat to the norm of f, as the paper does; a zero f_hat stays zero.

    Raises:
        ValueError: arguments that do not fit together or are out of range, NaN or infinite f.
    """
    check.instance("bank", bank, FilterBank)
    check.choice("pooling", pooling, POOLING)
    check.integer("iterations", iterations, 1)
    check.flag("match", match)
    model = ModelSparse(block, k)
    if model.dims != bank.dims:
        check.fail("block", block, f"a block of {bank.dims}-D codes")
    h = bank.analysis(f)
    lengths = (model.block,) if bank.dims == 1 else model.block
    whole = tuple(side - side % length for side, length in zip(h.shape[2:], lengths, strict=True))
    cut = tuple(slice(0, side) for side in whole)
    if iterations > 1:
        if pooling != "abs" or isinstance(switches, Tensor) or switches != "known":
            check.fail("iterations", iterations, "1, unless pooling is 'abs' and switches 'known'")
        if whole != tuple(h.shape[2:]):
            check.fail("block", block, f"a divisor of the code size {tuple(h.shape[2:])}")
        code = iht(f, bank, model, step="normalized", iterations=iterations, tol=0.0).code
        places = model.project(code).switches
    else:
        values = h[(..., *cut)]
        if pooling == "rectified":
            values = values.clamp(min=0)
        by = "abs" if pooling == "abs" else "signed"
        kept, places = model.project(values, switches=switches, by=by)
        code = torch.zeros_like(h)
        code[(..., *cut)] = kept
    signal = bank.synthesis(code, f.shape[2] if bank.dims == 1 else tuple(f.shape[2:]))
    scale = torch.ones(len(f), dtype=f.dtype, device=f.device)
    if match:
        scale = _length(f) / _length(signal)
        scale = torch.where(scale.isfinite(), scale, 1.0)
    return Reconstruction(signal * scale.view(-1, *(1,) * (f.dim() - 1)), code, scale, places)


def relative_error(f: Tensor, f_hat: Tensor) -> Tensor:
    """``||f - f_hat|| / ||f||`` of each sample, (batch,); 0 for f = f_hat = 0."""
    return (_length(f - f_hat) / _length(f)).nan_to_num(0.0)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
