"""Bad input to isometry constants and the theorems: a ValueError that names it, as in the core."""

from __future__ import annotations

import math

import pytest
import torch

from invertnb import FilterBank, ModelSparse
from invertnb.rip import (
    Atoms, block_coherence, certify, exact_constant, gershgorin, lower_bound, sample_extremes,
    sample_ratios, semidefinite_bound,
)
from invertnb.theory import lemmas, one_step
from invertnb.theory import model_rip as rip

G = torch.Generator().manual_seed(0)
BANK = FilterBank(torch.ones(4, 2, 3, dtype=torch.float64))
IMAGES = FilterBank(torch.ones(4, 2, 3, 3, dtype=torch.float64))
MODEL, WINDOWS = ModelSparse(6, 2), ModelSparse((2, 2), 2)
LAYER = rip.Layer(6, 4, 6)
Z = torch.zeros(2, 4, 6, dtype=torch.float64)
Z[:, 0, 1], Z[:, 2, 3] = 1.0, -2.0


def atoms(bank=BANK, model=MODEL, size=8, order=1):
    return Atoms(bank, model, size, order)


def with_entry(at, value):
    z = Z.clone()
    z[at] = value
    return z


def call(function, bank=BANK, model=MODEL, size=8, **changes):
    return function(bank, model, size, **{"generator": G, **changes})


def ratios(**changes):
    return call(sample_ratios, **{"samples": 3, **changes})


def extremes(**changes):
    return call(sample_extremes, **{"samples": 3, **changes})


def paper(delta=0.5, **changes):
    return rip.paper_failure(
        delta, **{"l": 3, "M": 2, "D": 8, "K": 4, "n": 6, "k": 2, "C": 1.0, **changes})


def step(z=Z, bank=BANK, model=MODEL, size=8, **changes):
    return lemmas.one_iteration(z, bank, model, size, **changes)


CASES = {
    # Atoms, and what every function asks of a layer
    "gershgorin": (lambda: gershgorin(3), "atoms = 3", "Atoms"),
    "program: coherence": (lambda: semidefinite_bound(3, 1, 2), "coherence = 3", "BlockCoherence"),
    "program: order": (lambda: semidefinite_bound(block_coherence(atoms()), 0, 2), "order = 0"),
    "program: entries": (lambda: semidefinite_bound(block_coherence(atoms()), 1, 2.5),
                         "entries = 2.5", "an integer"),
    "cap: angle": (lambda: rip.log_cap(2.0, 3), "theta = 2.0", "pi / 2"),
    "cap: no angle": (lambda: rip.log_cap(0.0, 3), "theta = 0.0", "above 0"),
    "cap: dimension": (lambda: rip.log_cap(0.3, 0), "dimension = 0", "at least 1"),
    "exponent: m": (lambda: rip.exponent(0.5, 0), "m = 0", "at least 1"),
    "exponent: order": (lambda: rip.exponent(0.5, 10, 0), "order = 0", "from 1 to 3"),
    "deviation: m": (lambda: rip.deviation(1.0, -5), "m = -5", "at least 1"),
    "weights: tiny delta": (lambda: rip.weights_needed(LAYER, 1, 1e-200, 0.1), "delta = 1e-200"),
    "bank": (lambda: atoms(bank=3), "bank = 3", "a FilterBank"),
    "model": (lambda: atoms(model=6), "model = 6", "a ModelSparse"),
    "model of images": (lambda: atoms(model=WINDOWS), "model = ModelSparse", "1-D"),
    "model of signals": (lambda: atoms(IMAGES, MODEL, (8, 8)), "model = ModelSparse", "2-D"),
    "no k": (lambda: atoms(model=ModelSparse(6, None)), "k = None", "a number of nonzeros"),
    "padding": (lambda: atoms(FilterBank(BANK.weight, padding=1), ModelSparse(8, 2)),
                "padding = 1", "crops rows"),
    "size": (lambda: atoms(size=2), "size = 2", "not negative"),
    "block": (lambda: atoms(model=ModelSparse(4, 2)), "block = 4", "divisor", "(6,)"),
    "k": (lambda: atoms(model=ModelSparse(6, 5)), "k = 5", "4 blocks"),
    "order: zero": (lambda: atoms(order=0), "order = 0", "from 1 to 3"),
    "order: four": (lambda: atoms(order=4), "order = 4", "from 1 to 3"),
    "order: bool": (lambda: atoms(order=True), "order = True", "an integer"),
    "order: float": (lambda: atoms(order=2.0), "order = 2.0", "an integer"),
    # sampling
    "ratios: samples": (lambda: ratios(samples=0), "samples = 0", "at least 1"),
    "ratios: samples float": (lambda: ratios(samples=3.0), "samples = 3.0", "an integer"),
    "ratios: values": (lambda: ratios(values="normal"), "values = 'normal'", "'gaussian'"),
    "ratios: dtype": (lambda: ratios(dtype=torch.float16), "dtype = torch.float16", "float32"),
    "ratios: generator": (lambda: ratios(generator=1), "generator = 1", "torch.Generator"),
    "ratios: order": (lambda: ratios(order=4), "order = 4", "from 1 to 3"),
    "extremes: samples": (lambda: extremes(samples=-1), "samples = -1", "at least 1"),
    "extremes: generator": (lambda: extremes(generator=None), "generator = None", "torch.Generator"),
    "extremes: order": (lambda: extremes(order=0), "order = 0", "from 1 to 3"),
    # exact, lower, certified
    "exact: limit": (lambda: exact_constant(BANK, MODEL, 8, limit=0), "limit = 0", "at least 1"),
    "exact: limit float": (lambda: exact_constant(BANK, MODEL, 8, limit=1e6),
                           "limit = 1000000.0", "an integer"),
    "exact: too many": (lambda: exact_constant(BANK, MODEL, 8, limit=200), "k = 2",
                        "limit = 200", "not 216"),
    "exact: order": (lambda: exact_constant(BANK, MODEL, 8, order=True), "order = True"),
    "lower: starts": (lambda: call(lower_bound, starts=0), "starts = 0", "at least 1"),
    "lower: generator": (lambda: call(lower_bound, generator=0), "generator = 0",
                         "torch.Generator"),
    "certify: sdp": (lambda: call(certify, sdp=1), "sdp = 1", "True or False"),
    "certify: starts": (lambda: call(certify, starts=True), "starts = True", "an integer"),
    "certify: generator": (lambda: call(certify, generator="cpu"), "generator = 'cpu'"),
    "certify: order": (lambda: call(certify, order=4), "order = 4", "from 1 to 3"),
    "certify: blocks smaller than n": (lambda: call(certify, model=ModelSparse(3, 2)),
                                       "block = 3", "all (6,) shifts"),
    "certify: windows": (lambda: call(certify, IMAGES, WINDOWS, (8, 8)), "block = (2, 2)",
                         "all (6, 6) shifts"),
    # Theorem 3.1
    "layer: m": (lambda: rip.isometry_bound(LAYER._replace(m=0), 2, 0.1), "m = 0", "at least 1"),
    "layer: K": (lambda: rip.isometry_bound(LAYER._replace(K=4.0), 2, 0.1), "K = 4.0",
                 "an integer"),
    "layer: n": (lambda: rip.log_supports(LAYER._replace(n=-1), 2), "n = -1", "at least 1"),
    "layer: k": (lambda: rip.log_supports(LAYER, 5), "k = 5", "from 1 to 4"),
    "layer: k zero": (lambda: rip.failure_bound(LAYER, 0, 0.5), "k = 0", "from 1 to 4"),
    "layer: order": (lambda: rip.log_supports(LAYER, 2, order=0), "order = 0", "from 1 to 3"),
    "bound: order": (lambda: rip.isometry_bound(LAYER, 2, 0.1, True), "order = True"),
    "bound: eps zero": (lambda: rip.isometry_bound(LAYER, 2, 0), "eps = 0", "above 0"),
    "bound: eps one": (lambda: rip.isometry_bound(LAYER, 2, 1.0), "eps = 1.0", "below 1"),
    "bound: eps nan": (lambda: rip.isometry_bound(LAYER, 2, math.nan), "eps = nan", "finite"),
    "needed: eps": (lambda: rip.weights_needed(LAYER, 2, 0.5, -0.1), "eps = -0.1", "0"),
    "needed: delta": (lambda: rip.weights_needed(LAYER, 2, 0.0, 0.1), "delta = 0.0", "above 0"),
    "failure: delta": (lambda: rip.failure_bound(LAYER, 2, -1.0), "delta = -1.0", "above 0"),
    "failure: delta inf": (lambda: rip.failure_bound(LAYER, 2, math.inf), "delta = inf", "finite"),
    "explicit: delta": (lambda: rip.explicit_weights(LAYER, 2, 1.5, 0.1), "delta = 1.5",
                        "at most 1"),
    "explicit: small layer": (lambda: rip.explicit_weights(rip.Layer(6, 3, 1), 2, 0.5, 0.1),
                              "K n = 3", "at least 4"),
    "explicit: order": (lambda: rip.explicit_weights(LAYER, 2, 0.5, 0.1, 3), "order = 3",
                        "1 or 2"),
    "exponent: x": (lambda: rip.exponent(-0.1, 6), "x = -0.1", "at least 0"),
    "exponent: x nan": (lambda: rip.exponent(math.nan, 6), "x = nan", "finite"),
    "deviation: s": (lambda: rip.deviation(0.0, 6), "s = 0.0", "above 0"),
    "deviation: s negative": (lambda: rip.laurent_massart(-1.0, 6), "s = -1.0", "above 0"),
    "paper: l": (lambda: paper(l=9), "l = 9", "D = 8"),
    "paper: M": (lambda: paper(M=0), "M = 0", "at least 1"),
    "paper: D": (lambda: paper(D=8.0), "D = 8.0", "an integer"),
    "paper: k": (lambda: paper(k=5), "k = 5", "from 1 to 4"),
    "paper: C": (lambda: paper(C=0.0), "C = 0.0", "above 0"),
    "paper: delta": (lambda: paper(1.0), "delta = 1.0", "below 1"),
    "paper: delta zero": (lambda: paper(0), "delta = 0", "above 0"),
    # Theorem 3.3
    "one step: delta_2k": (lambda: one_step.golden(0.5, 1.0), "delta_2k = 1.0", "below 1"),
    "one step: delta_k": (lambda: one_step.as_stated(0.4, 0.3), "delta_k = 0.4",
                          "delta_2k = 0.3"),
    "one step: negative": (lambda: one_step.identification(-0.1, 0.3), "delta_k = -0.1",
                           "at least 0"),
    "one step: nan": (lambda: one_step.penultimate(0.1, math.nan), "delta_2k = nan", "finite"),
    "iht rate": (lambda: one_step.iht_rate(1), "delta_2k = 1", "below 1"),
    "htp rate": (lambda: one_step.htp_rate(-0.1), "delta_2k = -0.1", "at least 0"),
    # the lemmas
    "z: two of a filter": (lambda: step(with_entry((1, 0, 2), 1.0)), "z = ", "M_k"),
    "z: three in all": (lambda: step(with_entry((1, 3, 2), 1.0)), "z = ", "M_k"),
    "z: zero": (lambda: step(torch.cat([Z, 0 * Z])), "z = ", "other than zero"),
    "z: nan": (lambda: step(with_entry((0, 0, 1), math.nan)), "z = ", "finite"),
    "z: shape": (lambda: step(Z[:, :, :5]), "z = ", "(batch, 4, 6)"),
    "z: switches": (lambda: step(switches="max"), "switches = 'max'", "'known'"),
    "gram: filter longer than the signal": (lambda: lemmas.expected_gram(2, 2, 5, 4), "size = 4",
                                            "not negative"),
    "gram: stride": (lambda: lemmas.expected_gram(2, 2, 3, 8, stride=2), "size = 8",
                     "multiple of 2"),
    "lemma: constants": (lambda: lemmas.lemma_b3(step(), 0.5, 0.4), "delta_k = 0.5", "0.4"),
    "theorem: constants": (lambda: lemmas.theorem_3_3(step(), 0.5, 1.2, tight=True),
                           "delta_2k = 1.2", "below 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])
