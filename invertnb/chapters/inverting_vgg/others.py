"""Other ways back from a layer, which the paper leaves out, beside its one step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse, iht, reconstruct, relative_error
from invertnb.chapters.inverting_vgg.activation import WINDOW

#: lambda of Algorithm 2 as a share of max |W f|, image by image.
LEVELS = (0.3, 0.1, 0.03)
TOL = 1e-2




def iterations(f: Tensor, bank: FilterBank, k: int | None, most: int) -> Tensor:
    """Residuals of Algorithm 1 with the normalized step after 1 to `most` iterations, by image.

    The norm is not matched: the normalized step has the length that makes the error smallest.
    """
    with warnings.catch_warnings():  # a residual that grew is shown as it is
        warnings.simplefilter("ignore", RuntimeWarning)
        found = iht(
            f, bank, ModelSparse(WINDOW, k), step="normalized", iterations=most, tol=0.0
        ).residuals[1:]
    last = found[-1:].expand(most - len(found), -1)
    return torch.cat([found, last]).double()


def ways(f: Tensor, bank: FilterBank, k: int | None) -> dict[str, Tensor]:
    """Relative errors by way and image, each f_hat at the norm of f.

    "unpooled" is W^T W f, "least squares" what h = W f determines; Algorithm 2 for each of LEVELS.
    """
    found = {
        "one step": reconstruct(f, bank, k),
        "unpooled, W^T W f": reconstruct(f, bank, method="transpose"),
        "unpooled, least squares": reconstruct(f, bank, method="least squares", tol=1e-4),
    }
    largest = bank.analysis(f).flatten(1).abs().amax(1)
    for level in LEVELS:
        found[f"Algorithm 2, {level:g} of the largest lambda"] = reconstruct(
            f, bank, k, method="recover", lam=level * largest, tol=TOL
        )
    return {name: relative_error(f, each.signal).double() for name, each in found.items()}


def summary(errors: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over images."""
    return {name: float(each.mean()) for name, each in errors.items()}
