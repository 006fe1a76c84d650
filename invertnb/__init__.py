"""invertnb: the package behind an executable reading of Gilbert et al. on invertible CNNs."""

from invertnb import rip, theory
from invertnb.coherence import coherence
from invertnb.encoder import Moments, encode, response_moments
from invertnb.iht import IHTResult, iht
from invertnb.lasso import LassoResult, lasso
from invertnb.least_squares import least_squares
from invertnb.model import ModelSparse, Projection
from invertnb.operators import FilterBank, adjoint_test
from invertnb.reconstruct import (
    Reconstruction, random_activations, reconstruct, relative_error,
)  # fmt: skip
from invertnb.recover import Recovery, recover

__all__ = [
    "FilterBank",
    "IHTResult",
    "LassoResult",
    "ModelSparse",
    "Moments",
    "Projection",
    "Reconstruction",
    "Recovery",
    "adjoint_test",
    "coherence",
    "encode",
    "iht",
    "lasso",
    "least_squares",
    "random_activations",
    "reconstruct",
    "recover",
    "relative_error",
    "response_moments",
    "rip",
    "theory",
]
