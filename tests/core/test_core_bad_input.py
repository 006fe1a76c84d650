"""Bad input: a ValueError that names the argument, its value and what was expected."""

from __future__ import annotations

import math

import pytest
import torch

from invertnb import FilterBank, ModelSparse, adjoint_test, coherence, iht, least_squares

G = torch.Generator().manual_seed(0)
W1 = torch.ones(4, 2, 3, dtype=torch.float64)
W2 = torch.ones(4, 2, 3, 3, dtype=torch.float64)
BANK, IMAGES = FilterBank(W1), FilterBank(W2)
X = torch.ones(1, 2, 8, dtype=torch.float64)
Z = torch.ones(1, 4, 6, dtype=torch.float64)
Z2 = torch.ones(1, 4, 6, 6, dtype=torch.float64)
MODEL, WINDOWS = ModelSparse(6, 2), ModelSparse((2, 2), 2)
ON = torch.ones(1, 4, 6, dtype=torch.bool)


def spoiled(tensor, value):
    copy = tensor.clone()
    copy.view(-1)[-1] = value
    return copy


def sample(model=MODEL, **changes):
    return model.sample(**{"batch": 2, "K": 4, "size": 6, "generator": G, **changes})


def bank(**changes):
    return FilterBank.gaussian(**{"K": 2, "M": 2, "l": 3, "generator": G, **changes})


CASES = {
    # FilterBank
    "weight: no tensor": (lambda: FilterBank([1.0]), "weight = [1.0]", "(K, M, l)"),
    "weight: two axes": (lambda: FilterBank(W1[0]), "weight = float64 tensor of shape (2, 3)",
                         "(K, M, l)"),
    "weight: five axes": (lambda: FilterBank(W2[None]), "of shape (1, 4, 2, 3, 3)", "(K, M, l)"),
    "weight: empty": (lambda: FilterBank(W1[:0]), "of shape (0, 2, 3)", "non-empty"),
    "weight: not square": (lambda: FilterBank(W2[..., :2]), "of shape (4, 2, 3, 2)", "square"),
    "weight: integers": (lambda: FilterBank(W1.int()), "weight = int32 tensor", "float32 or"),
    "weight: half": (lambda: FilterBank(W1.half()), "weight = float16 tensor", "float32 or"),
    "weight: nan": (lambda: FilterBank(spoiled(W1, math.nan)), "weight = ", "finite", "nan"),
    "weight: inf": (lambda: FilterBank(spoiled(W2, math.inf)), "weight = ", "finite", "inf"),
    "stride: zero": (lambda: FilterBank(W1, stride=0), "stride = 0", "at least 1"),
    "stride: float": (lambda: FilterBank(W1, stride=1.5), "stride = 1.5", "an integer"),
    "stride: bool": (lambda: FilterBank(W1, stride=True), "stride = True", "an integer"),
    "padding: negative": (lambda: FilterBank(W1, padding=-1), "padding = -1", "from 0 to 2"),
    "padding: a filter's length": (lambda: FilterBank(W1, padding=3), "padding = 3", "from 0 to 2"),
    "x: axes": (lambda: BANK.analysis(X[0]), "x = ", "(batch, 2, D)"),
    "x: channels": (lambda: BANK.analysis(Z), "x = float64 tensor of shape (1, 4, 6)",
                    "(batch, 2, D)"),
    "x: image channels": (lambda: IMAGES.analysis(Z2), "x = ", "(batch, 2, H, W)"),
    "x: dtype": (lambda: BANK.analysis(X.float()), "x = float32 tensor", "float64 on cpu"),
    "x: device": (lambda: BANK.analysis(X.to("meta")), "x = ", "on meta", "float64 on cpu"),
    "x: nan": (lambda: BANK.analysis(spoiled(X, math.nan)), "x = ", "finite", "nan"),
    "x: shorter than a filter": (lambda: BANK.analysis(X[..., :2]), "size = 2", "not negative"),
    "x: stride does not fit": (lambda: FilterBank(W1, 2).analysis(X), "size = 8", "multiple of 2"),
    "size: negative": (lambda: BANK.code_size(-8), "size = -8", "at least 1"),
    "size: zero": (lambda: BANK.matrix(0), "size = 0", "at least 1"),
    "size: pair for signals": (lambda: BANK.matrix((8, 8)), "size = (8, 8)", "an integer"),
    "size: negative side": (lambda: IMAGES.norm((8, -8)), "size = (8, -8)", "positive"),
    "size: triple": (lambda: IMAGES.code_size((8, 8, 8)), "size = (8, 8, 8)", "pair (H, W)"),
    "size: float": (lambda: IMAGES.code_size(8.0), "size = 8.0", "pair (H, W)"),
    "size: not the code's": (lambda: BANK.synthesis(Z, 9), "z = ", "(batch, 4, 7)"),
    "z: filters": (lambda: BANK.synthesis(Z[:, :3], 8), "shape (1, 3, 6)", "(batch, 4, 6)"),
    "z: inf": (lambda: BANK.synthesis(spoiled(Z, -math.inf), 8), "z = ", "finite", "-inf"),
    "z: dtype": (lambda: BANK.synthesis(Z.float(), 8), "z = float32", "float64 on cpu"),
    "norm: size": (lambda: BANK.norm(2), "size = 2", "not negative"),
    "gaussian: K": (lambda: bank(K=0), "K = 0", "at least 1"),
    "gaussian: M": (lambda: bank(M=-2), "M = -2", "at least 1"),
    "gaussian: l": (lambda: bank(l=2.0), "l = 2.0", "an integer"),
    "gaussian: dims": (lambda: bank(dims=3), "dims = 3", "from 1 to 2"),
    "gaussian: generator": (lambda: bank(generator=0), "generator = 0", "torch.Generator"),
    "gaussian: dtype": (lambda: bank(dtype=torch.float16), "dtype = torch.float16", "float32"),
    "gaussian: padding": (lambda: bank(padding=4), "padding = 4", "from 0 to 2"),
    "to: dtype": (lambda: BANK.to(dtype=torch.int64), "dtype = torch.int64", "float32"),
    "normalized: zero filter": (lambda: FilterBank(W1 * torch.tensor([1.0, 1, 0, 1]).view(-1, 1, 1))
                                .normalized(), "weight = ", "filter 2"),
    "adjoint_test: generator": (lambda: adjoint_test(BANK, 8, generator=None), "generator = None"),
    "adjoint_test: trials": (lambda: adjoint_test(BANK, 8, generator=G, trials=0), "trials = 0"),
    # ModelSparse
    "block: zero": (lambda: ModelSparse(0, 2), "block = 0", "at least 1"),
    "block: negative side": (lambda: ModelSparse((2, -2), 2), "block = (2, -2)", "positive"),
    "block: float": (lambda: ModelSparse(2.0, 2), "block = 2.0", "an integer"),
    "block: triple": (lambda: ModelSparse((2, 2, 2), 2), "block = (2, 2, 2)", "pair"),
    "k: zero": (lambda: ModelSparse(2, 0), "k = 0", "at least 1"),
    "k: negative": (lambda: ModelSparse(2, -1), "k = -1", "at least 1"),
    "k: float": (lambda: ModelSparse(2, 3.0), "k = 3.0", "an integer"),
    "project: k too large": (lambda: ModelSparse(3, 9).project(Z), "k = 9", "8 blocks"),
    "project: block": (lambda: ModelSparse(4, 2).project(Z), "block = 4", "divisor", "(6,)"),
    "project: window": (lambda: ModelSparse((2, 4), 2).project(Z2), "block = (2, 4)", "divisor"),
    "project: image for blocks": (lambda: MODEL.project(Z2), "z = ", "(batch, K, n)"),
    "project: signal for windows": (lambda: WINDOWS.project(Z), "z = ", "(batch, K, n1, n2)"),
    "project: nan": (lambda: MODEL.project(spoiled(Z, math.nan)), "z = ", "finite", "nan"),
    "project: integers": (lambda: MODEL.project(Z.long()), "z = int64", "float32 or"),
    "project: switches": (lambda: MODEL.project(Z, "unknown"), "switches = 'unknown'", "'known'"),
    "project: no switches": (lambda: MODEL.project(Z, None), "switches = None", "'averaged'"),
    "project: by": (lambda: MODEL.project(Z, by="max"), "by = 'max'", "'signed'"),
    "switches: shape": (lambda: MODEL.project(Z, torch.zeros(1, 4, 6, dtype=torch.int64)),
                        "switches = int64 tensor of shape (1, 4, 6)", "shape (1, 4, 1)"),
    "switches: dtype": (lambda: MODEL.project(Z, torch.zeros(1, 4, 1)), "switches = float32",
                        "int64"),
    "switches: too large": (lambda: MODEL.project(Z, torch.full((1, 4, 1), 6)), "switches = 6",
                            "from 0 to 5"),
    "switches: negative": (lambda: MODEL.project(Z, torch.full((1, 4, 1), -1)), "switches = -1",
                           "from 0 to 5"),
    "contains: block": (lambda: ModelSparse(5, 2).contains(Z), "block = 5", "divisor"),
    "contains: shape": (lambda: MODEL.contains(Z[0]), "z = ", "(batch, K, n)"),
    "sample: batch": (lambda: sample(batch=0), "batch = 0", "at least 1"),
    "sample: K": (lambda: sample(K=-1), "K = -1", "at least 1"),
    "sample: size": (lambda: sample(size=-6), "size = -6", "at least 1"),
    "sample: image size": (lambda: sample(WINDOWS, size=(6, 0)), "size = (6, 0)", "positive"),
    "sample: block": (lambda: sample(size=7), "block = 6", "divisor"),
    "sample: k": (lambda: sample(K=1), "k = 2", "1 blocks"),
    "sample: values": (lambda: sample(values="normal"), "values = 'normal'", "'gaussian'"),
    "sample: generator": (lambda: sample(generator=1), "generator = 1", "torch.Generator"),
    "sample: dtype": (lambda: sample(dtype=torch.int32), "dtype = torch.int32", "float32"),
    # iht and least_squares
    "iht: x": (lambda: iht(X[..., :2], BANK, MODEL), "size = 2", "not negative"),
    "iht: x nan": (lambda: iht(spoiled(X, math.nan), BANK, MODEL), "x = ", "finite"),
    "iht: bank": (lambda: iht(X, W1, MODEL), "bank = ", "a FilterBank"),
    "iht: model": (lambda: iht(X, BANK, 6), "model = 6", "a ModelSparse"),
    "iht: model of images": (lambda: iht(X, BANK, WINDOWS), "model = ModelSparse", "1-D"),
    "iht: block": (lambda: iht(X, BANK, ModelSparse(4, 2)), "block = 4", "divisor"),
    "iht: k": (lambda: iht(X, BANK, ModelSparse(6, 5)), "k = 5", "4 blocks"),
    "iht: step zero": (lambda: iht(X, BANK, MODEL, step=0), "step = 0", "above 0"),
    "iht: step negative": (lambda: iht(X, BANK, MODEL, step=-1.0), "step = -1.0", "above 0"),
    "iht: step nan": (lambda: iht(X, BANK, MODEL, step=math.nan), "step = nan", "finite"),
    "iht: step word": (lambda: iht(X, BANK, MODEL, step="normal"), "step = 'normal'",
                       "'normalized'"),
    "iht: pursuit": (lambda: iht(X, BANK, MODEL, pursuit=1), "pursuit = 1", "True or False"),
    "iht: iterations": (lambda: iht(X, BANK, MODEL, iterations=0), "iterations = 0", "at least 1"),
    "iht: tol": (lambda: iht(X, BANK, MODEL, tol=-1e-6), "tol = -1e-06", "at least 0"),
    "least_squares: bank": (lambda: least_squares(X, None, ON), "bank = None", "a FilterBank"),
    "least_squares: x": (lambda: least_squares(X[:, :1], BANK, ON), "x = ", "(batch, 2, D)"),
    "least_squares: dtype": (lambda: least_squares(X, BANK, ON.long()), "support = int64", "bool"),
    "least_squares: shape": (lambda: least_squares(X, BANK, ON[:, :3]),
                             "support = bool tensor of shape (1, 3, 6)", "(1, 4, 6)"),
    # coherence
    "coherence: weight": (lambda: coherence(W1[0]), "weight = ", "(K, M, l)"),
    "coherence: nan": (lambda: coherence(spoiled(W1, math.nan)), "weight = ", "finite"),
    "coherence: zero filter": (lambda: coherence(torch.zeros(2, 1, 3)), "weight = ", "filter 0"),
    "coherence: one filter": (lambda: coherence(W1[:1]), "weight = ", "two filters"),
    "coherence: shifts": (lambda: coherence(W1, shifts="some"), "shifts = 'some'", "'all'"),
    "coherence: signed": (lambda: coherence(W1, signed="no"), "signed = 'no'", "True or False"),
    "coherence: groups": (lambda: coherence(W1, groups=3), "groups = 3", "divisor of the 4"),
    "coherence: no groups": (lambda: coherence(W1, groups=0), "groups = 0", "at least 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, refuses):
    refuses(*CASES[case])
