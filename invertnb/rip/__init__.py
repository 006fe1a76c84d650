"""Isometry constants of a filter bank on the model M_k and its sums: sampled, exact, certified.

The constant delta is the largest ``| ||W^T z||^2 / ||z||^2 - 1 |`` over the model (section 2.3).
Sampling sees typical codes and says nothing of the worst; `certify` encloses the constant between
a code that attains the lower end and a bound that no code exceeds. Large layers with padding and
pooling windows, too many atoms for those, have the local bounds and `worst_code`.
"""

from invertnb.rip.atoms import Atoms
from invertnb.rip.certificate import (
    BlockCoherence,
    Isometry,
    block_coherence,
    certify,
    gershgorin,
    semidefinite_bound,
)
from invertnb.rip.exact import exact_constant
from invertnb.rip.local import (
    Ends,
    LocalRows,
    local_gershgorin,
    local_rows,
    shift_coherence,
    spectral_bound,
    stripe_coherence,
    worst_code,
)
from invertnb.rip.sampling import Ratios, sample_extremes, sample_ratios
from invertnb.rip.search import Witness, lower_bound, rounding

__all__ = [
    "Atoms",
    "BlockCoherence",
    "Ends",
    "Isometry",
    "LocalRows",
    "Ratios",
    "Witness",
    "block_coherence",
    "certify",
    "exact_constant",
    "gershgorin",
    "local_gershgorin",
    "local_rows",
    "lower_bound",
    "rounding",
    "sample_extremes",
    "sample_ratios",
    "semidefinite_bound",
    "shift_coherence",
    "spectral_bound",
    "stripe_coherence",
    "worst_code",
]
