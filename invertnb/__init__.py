"""invertnb: the package behind an executable reading of Gilbert et al. on invertible CNNs."""

from invertnb import rip, theory
from invertnb.coherence import coherence
from invertnb.iht import IHTResult, iht
from invertnb.least_squares import least_squares
from invertnb.model import ModelSparse, Projection
from invertnb.operators import FilterBank, adjoint_test

__all__ = [
    "FilterBank",
    "IHTResult",
    "ModelSparse",
    "Projection",
    "adjoint_test",
    "coherence",
    "iht",
    "least_squares",
    "rip",
    "theory",
]
