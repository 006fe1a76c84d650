"""The decoders of Figure 2(c): readings of x_hat = W^T M(W x, k), and Algorithm 1's iterates."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse, iht, least_squares

# The readings, in the order in which they are shown.
DECODERS = {
    "fixed": "M_fixed, as captioned",
    "fixed places": "M_fixed, and z at the fixed places",
    "averaged": "averaged upsampling",
    "known": "M_known",
    "known squared": "M_known, error squared",
    "blocks": "true blocks, max switch",
    "support": "true support",
    "known unit": "M_known, unit rows",
    "blocks unit": "true blocks, unit rows",
    "support unit": "true support, unit rows",
    "pursuit": "M_known, then least squares",
    "iht 2": "Algorithm 1, 2 iterations",
    "iht 3": "Algorithm 1, 3 iterations",
    "iht 5": "Algorithm 1, 5 iterations",
    "iht 10": "Algorithm 1, 10 iterations",
    "all of h": "all of h, least squares",
}
ITERATIONS = (2, 3, 5, 10)


def norm(array: Tensor) -> Tensor:
    """l2 norm of each sample: (batch, ...) to (batch,)."""
    return array.flatten(1).norm(dim=1)


def error(x: Tensor, x_hat: Tensor) -> Tensor:
    """||x - x_hat|| / ||x||, (batch,)."""
    return norm(x - x_hat) / norm(x)


def projections(z: Tensor, h: Tensor, model: ModelSparse) -> dict[str, Tensor]:
    """The code that each reading of pooling takes from h = W x and x = W^T z, by its key."""
    support = z != 0
    block_maxima = ModelSparse(model.block, None).project(h).code
    return {
        "fixed": model.project(h, switches="fixed").code,
        "averaged": model.project(h, switches="averaged").code,
        "known": model.project(h).code,
        "blocks": block_maxima * support.any(-1, keepdim=True),
        "support": h * support,
    }


def one_step_codes(
    z: Tensor, x: Tensor, h: Tensor, bank: FilterBank, model: ModelSparse
) -> dict[str, Tensor]:
    """The projections of h, and least squares on the support that M_known finds."""
    codes = projections(z, h, model)
    return codes | {"pursuit": least_squares(x, bank, codes["known"] != 0)}


def errors_of_unit_rows(
    z: Tensor, bank: FilterBank, model: ModelSparse, D: int
) -> dict[str, Tensor]:
    """Errors of three projections when the rows have unit norm, as section 2.2 assumes."""
    unit = bank.normalized()
    x = unit.synthesis(z, D)
    codes = projections(z, unit.analysis(x), model)
    names = ("known", "blocks", "support")
    return {f"{name} unit": error(x, unit.synthesis(codes[name], D)) for name in names}


def error_at_fixed_places(z: Tensor, bank: FilterBank, model: ModelSparse, D: int) -> Tensor:
    """M_fixed's error when the values of z stand where M_fixed puts what it finds."""
    x = bank.synthesis(model.project(z, switches="fixed").code, D)
    guess = model.project(bank.analysis(x), switches="fixed").code
    return error(x, bank.synthesis(guess, D))


def residuals(x: Tensor, bank: FilterBank, model: ModelSparse, iterations: int) -> Tensor:
    """||x - W^T z_i|| / ||x|| of Algorithm 1, (iterations + 1, batch)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # at large k step 1 diverges: chapter 4
        rows = iht(x, bank, model, iterations=iterations, tol=0.0).residuals
    return torch.cat([rows, rows[-1:].expand(iterations + 1 - len(rows), -1)])


def iterates(x: Tensor, bank: FilterBank, model: ModelSparse, count: int) -> list[Tensor]:
    """z_0 = 0, z_1, ..., z_count of Algorithm 1, as it stands: nothing stops it from diverging."""
    zs, d = [torch.zeros_like(bank.analysis(x))], x
    for _ in range(count):
        zs.append(model.project(zs[-1] + bank.analysis(d)).code)
        d = x - bank.synthesis(zs[-1], x.shape[-1])
    return zs


def frame_operator(bank: FilterBank, D: int) -> Tensor:
    """W^T W, (M, D, M, D): one l x l patch of filter products, added at each of the n shifts."""
    patch = torch.einsum("ima,inb->manb", bank.weight, bank.weight)
    total = patch.new_zeros(bank.M, D, bank.M, D)
    for j in range(bank.code_size(D)):
        total[:, j : j + bank.l, :, j : j + bank.l] += patch
    return total


def invert(h: Tensor, bank: FilterBank, D: int) -> Tensor:
    """The x with W x = h, by least squares on all of h; unique where the rows of W span."""
    factor = torch.linalg.cholesky(frame_operator(bank, D).view(bank.M * D, -1))
    x = torch.cholesky_solve(bank.synthesis(h, D).flatten(1).T, factor).T
    return x.reshape(-1, bank.M, D)
