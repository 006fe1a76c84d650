"""Other libraries on the same problems; each imported when asked for, and named if it is missing.

Left out of the codes by l1 are SPORCO, whose convolutions wrap around, which is another problem, and
spams, whose path of all solutions took 14 s where FISTA takes 10 ms.
"""

from __future__ import annotations

import functools
import importlib
import math
import warnings
from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import FilterBank, ModelSparse, iht
from .frame import Task, Unavailable

# Figure 2 of the paper: K, M, l, D; and k where blocks begin to matter.
FILTERS, CHANNELS, LENGTH, SIGNAL = 96, 32, 5, 32
SHIFTS = SIGNAL - LENGTH + 1
SIGNALS, NONZEROS = 100, (10, 30)


def library(name: str) -> ModuleType:
    """The module, or `Unavailable` with its name."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise Unavailable(f"{name.partition('.')[0]} is not installed") from missing


# Codes by l1. `problem` is `coding._Problem`: x, bank, lam and the step length 1 / ||W||^2.


def pylops_fista(problem: object, iterations: int) -> Tensor:
    """PyLops' FISTA on an operator of the two convolutions."""
    pylops = library("pylops")
    weight, padding = problem.bank.weight, problem.bank.padding
    code = (1, problem.bank.K, *problem.x.shape[2:])

    def synthesis(z: object) -> object:
        return F.conv_transpose2d(torch.from_numpy(z).view(code), weight, padding=padding).flatten().numpy()

    def analysis(r: object) -> object:
        r = torch.from_numpy(r).view(problem.x.shape)
        return F.conv2d(r, weight, padding=padding).flatten().numpy()

    operator = pylops.FunctionOperator(
        synthesis, analysis, problem.x.numel(), math.prod(code), dtype="float32")
    found, *_ = pylops.optimization.sparsity.fista(
        operator, problem.x.flatten().numpy(), niter=iterations, eps=2 * problem.lam, alpha=problem.length,
        tol=0.0,
    )
    return torch.from_numpy(found).view(code)


def scico_pgm(problem: object, iterations: int) -> Tensor:
    """SCICO's accelerated proximal gradient method, its convolutions by JAX, compiled once."""
    functional, optimize = library("scico.functional"), library("scico.optimize")
    numpy, fit = library("numpy"), _scico_fit(problem)
    solver = optimize.AcceleratedPGM(
        f=fit, g=problem.lam * functional.L1Norm(), L0=1 / problem.length,
        x0=library("scico").numpy.zeros(fit.A.input_shape, dtype=numpy.float32), maxiter=iterations,
        itstat_options={"display": False},
    )
    return torch.tensor(numpy.asarray(solver.solve()))


@functools.lru_cache(1)
def _scico_fit(problem: object) -> object:
    """1/2 ||x - W^T z||^2 in SCICO's terms."""
    np, lax = library("scico").numpy, library("jax.lax")
    weight = np.array(problem.bank.weight.flip(2, 3).transpose(0, 1).contiguous().numpy())
    padding = problem.bank.l - 1 - problem.bank.padding
    operator = library("scico.linop").LinearOperator(
        input_shape=(1, problem.bank.K, *problem.x.shape[2:]), input_dtype=np.float32, jit=True,
        output_dtype=np.float32,
        eval_fn=lambda z: lax.conv_general_dilated(z, weight, (1, 1), [(padding, padding)] * 2),
    )
    return library("scico.loss").SquaredL2Loss(y=np.array(problem.x.numpy()), A=operator)


def sklearn_lasso(problem: object, iterations: int) -> Tensor:
    """scikit-learn's coordinate descent on the explicit matrix."""
    linear = library("sklearn.linear_model")
    X = problem.matrix.numpy().T  # (signal, code), in Fortran's order
    solver = linear.Lasso(
        alpha=problem.lam / len(X), fit_intercept=False, copy_X=False, max_iter=iterations, tol=1e-12)
    with warnings.catch_warnings():  # stopping early is the point
        warnings.simplefilter("ignore")
        solver.fit(X, problem.x.flatten().numpy())
    return torch.from_numpy(solver.coef_).view(1, problem.bank.K, *problem.x.shape[2:])


# Recovery at the size of Figure 2: which z made x = W^T z?


def recovery(device: str) -> Iterator[Task]:
    """Model-based HTP against orthogonal matching pursuit, which knows no blocks."""
    for k in NONZEROS:
        g = torch.Generator().manual_seed(0)
        bank = FilterBank.gaussian(FILTERS, CHANNELS, LENGTH, generator=g, device=device).normalized()
        model = ModelSparse(SHIFTS, k)
        z = model.sample(SIGNALS, FILTERS, SHIFTS, generator=g, device=device)
        yield _recovery(bank, model, z)


def _recovery(bank: FilterBank, model: ModelSparse, z: Tensor) -> Task:
    x = bank.synthesis(z, SIGNAL)
    atoms, signals = bank.matrix(SIGNAL).T.cpu().numpy(), x.flatten(1).T.cpu().numpy()

    def sklearn() -> Tensor:
        found = library("sklearn.linear_model").orthogonal_mp(
            atoms, signals, n_nonzero_coefs=model.k, precompute=True)
        return torch.from_numpy(found.T).to(z).view_as(z)

    def spams() -> Tensor:
        numpy = library("numpy")
        found = library("spams").omp(numpy.asfortranarray(signals), D=numpy.asfortranarray(atoms), L=model.k,
                                     numThreads=torch.get_num_threads())  # fmt: skip
        return torch.from_numpy(found.toarray().T.copy()).to(z).view_as(z)

    def pylops() -> Tensor:
        operator, solve = library("pylops").MatrixMult(atoms), library("pylops").optimization.sparsity.omp
        found = [solve(operator, signal.copy(), niter_outer=model.k, niter_inner=10, sigma=1e-10)[0]
                 for signal in signals.T]  # fmt: skip
        return torch.tensor(library("numpy").array(found)).to(z).view_as(z)

    def ours() -> Tensor:
        with warnings.catch_warnings():  # what was not recovered is counted
            warnings.simplefilter("ignore", RuntimeWarning)
            return iht(x, bank, model, step="normalized", pursuit=True).code

    def agree(_first: object, code: Tensor) -> str:
        error = (code - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
        assert bool(error.isfinite().all()), "codes that are no numbers"
        return f"recovers {int((error < 1e-3).sum())} of {len(z)}"

    ways = {"scikit-learn, OMP": sklearn, "spams, OMP": spams, "PyLops, OMP": pylops, "ours, model-based HTP": ours}
    return Task("recovery", f"{SIGNALS} signals of Figure 2, k={model.k}", "float64", ways, agree,
                items=SIGNALS, rounds=3)  # fmt: skip
