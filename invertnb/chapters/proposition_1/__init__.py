"""Chapter 2: Proposition 1, positive and negative pairs of filters (opening of section 3).

What the pairs do for a layer without pooling, what is left of it with pooling, how it fades as the
partners turn away from -w, and how far random filters are from having partners at all: the signed
minimum of their inner products. The maximum is the coherence, the random row of Table 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse, notebook
from invertnb.chapters.proposition_1 import random_filters
from invertnb.chapters.proposition_1.pairs import (
    bias_error, nearly_paired, orthonormal_bank, pair_bound, pair_error, rectified, relative_error,
    with_negatives,
)  # fmt: skip
from invertnb.chapters.proposition_1.random_filters import LAYERS, RandomFilters, draw_filters
from invertnb.notebook import PALETTE, Explorer, Slider, View, figure, parameter

# Figure 2 of the paper. The paired layers have stride l, so their D is the multiple of l below 32.
M, K, LENGTH, D, SPARSITY = 32, 96, 5, 32, 10
D_PAIRED = 30

BLOCKS = (1, 2, 4, 7, 14, 28)
DEGREES = (0, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90)
BIAS = 0.5

# Streams of draws; a bank for Table 4 has the stream FILTERS * (place of its size + 1) + draw.
BASIS, SIGNALS, PARTNERS, POOLING, TESTS, FILTERS = 1, 2, 3, 4, 5, 10**6


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """What may be changed from the command line."""

    signals: int = parameter(100, minimum=2, help="signals per filter bank")
    banks: int = parameter(5, minimum=2, help="filter banks of Figure 2's size, for the pooling")
    draws: int = parameter(20, minimum=3, help="random filter banks per layer size of Table 4")
    shift_filters: int = parameter(
        128, minimum=0, help="compare all shifts for banks of at most this many filters"
    )


PAPER = {"signals": 1000, "banks": 20, "draws": 200, "shift_filters": 512}


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows; one field per section."""

    parameters: Parameters
    basis: FilterBank
    hypotheses: Hypotheses
    pooling: Pooling
    near: NearPairs
    filters: dict[str, RandomFilters]


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    basis = orthonormal_bank(M, LENGTH, generator=p.generator(BASIS), device=p.device)
    return Data(p, basis, hypotheses(p, basis), pooling(p), near_pairs(p, basis), table_4(p))


# --- Proposition 1 and its hypotheses -----------------------------------------------------------


@dataclass(frozen=True)
class Hypotheses:
    """Relative errors (signals,) with and without each hypothesis, and what theory predicts."""

    errors: dict[str, Tensor]
    predicted: dict[str, float]
    frame_bounds: tuple[float, float]


def hypotheses(p: Parameters, basis: FilterBank) -> Hypotheses:
    """Proposition 1 on isotropic x, then with one hypothesis at a time taken away."""
    generator = p.generator(SIGNALS)
    frame = FilterBank.gaussian(K, M, LENGTH, generator=generator, device=p.device).normalized()
    x = torch.randn(p.signals, M, D_PAIRED, generator=generator, dtype=torch.float64).to(p.device)
    y = torch.randn(p.signals, M, D, generator=generator, dtype=torch.float64).to(p.device)
    psi = with_negatives(basis)
    twice = rectified(with_negatives(frame), y)  # = W^T W y
    W = frame.matrix(D)
    gram = W.T @ W
    dual = torch.linalg.solve(gram, twice.flatten(1).T).T.view(y.shape)
    errors = {
        "all hypotheses": relative_error(x, rectified(psi, x)),
        "negatives dropped": relative_error(x, rectified(basis, x)),
        "bias added": relative_error(x, rectified(psi, x, -BIAS)),
        "frame, not a basis": relative_error(y, twice),
        "frame, with its dual": relative_error(y, dual),
    }
    spectrum = torch.linalg.eigvalsh(gram)
    predicted = {
        "all hypotheses": 0.0,
        "negatives dropped": math.sqrt(1 / 2),
        "bias added": bias_error(BIAS),
        # For isotropic y: E||(W^T W - I) y||^2 = ||W^T W - I||_F^2.
        "frame, not a basis": float((spectrum - 1).square().mean().sqrt()),
        "frame, with its dual": 0.0,
    }
    return Hypotheses(errors, predicted, (float(spectrum[0]), float(spectrum[-1])))


# --- With pooling -------------------------------------------------------------------------------


def pair_code(h: Tensor, model: ModelSparse) -> Tensor:
    """The pair network's pooled code, as one code for W; top-k is taken over both channels."""
    pooled = model.project(torch.cat([h.relu(), (-h).relu()], dim=1)).code
    return pooled[:, : h.shape[1]] - pooled[:, h.shape[1] :]


CODES = {
    "pairs": pair_code,
    "maximum of |Wx|": lambda h, model: model.project(h).code,
    "maximum of Wx": lambda h, model: model.project(h, by="signed").code,
}


@dataclass(frozen=True)
class Pooling:
    """What pooling does to pairs.

    survival[name]: share of blocks that keep both signs, per block length, (banks, lengths);
    errors[code, k]: relative errors, (banks, signals); equal[k]: share of the signals whose pair
    code is the code of one maximum of ``|Wx|``.
    """

    survival: dict[str, Tensor]
    errors: dict[tuple[str, int | None], Tensor]
    equal: dict[int | None, float]


def keeps_both(h: Tensor, block: int) -> Tensor:
    """Per block of h (batch, K, n): does the pair network keep an entry of each sign?"""
    blocks = h.unflatten(2, (-1, block))
    return (blocks.amax(-1) > 0) & (blocks.amin(-1) < 0)


def pooling(p: Parameters) -> Pooling:
    """Figure 2's setting: x = W^T z with z in M_k, pooled in three ways, reconstructed with W^T."""
    generator, n = p.generator(POOLING), D - LENGTH + 1
    survival: dict[str, list[Tensor]] = {"x isotropic": [], "x = W^T z": []}
    errors: dict[tuple[str, int | None], list[Tensor]] = {}
    equal: dict[int | None, list[Tensor]] = {}
    for _ in range(p.banks):
        bank = FilterBank.gaussian(K, M, LENGTH, generator=generator, device=p.device)
        z = ModelSparse(n, SPARSITY).sample(p.signals, K, n, generator=generator, device=p.device)
        noise = torch.randn(p.signals, M, D, generator=generator, dtype=torch.float64)
        x = bank.synthesis(z, D)
        h = bank.analysis(x)
        for name, code in (("x isotropic", bank.analysis(noise.to(p.device))), ("x = W^T z", h)):
            shares = [keeps_both(code, block).double().mean() for block in BLOCKS]
            survival[name].append(torch.stack(shares))
        for k in (SPARSITY, 2 * SPARSITY, 4 * SPARSITY, None):
            codes = {name: make(h, ModelSparse(n, k)) for name, make in CODES.items()}
            for name, code in codes.items():
                error = relative_error(x, bank.synthesis(code, D))
                errors.setdefault((name, k), []).append(error)
            pairs, single, _ = codes.values()
            equal.setdefault(k, []).append((pairs - single).abs().flatten(1).amax(1) < 1e-12)
    return Pooling(
        {name: torch.stack(shares).cpu() for name, shares in survival.items()},
        {key: torch.stack(values).cpu() for key, values in errors.items()},
        {k: float(torch.stack(values).double().mean()) for k, values in equal.items()},
    )


# --- Near pairs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class NearPairs:
    """Per angle of DEGREES: relative errors (angles, signals), the bound for every x (angles,).

    The signals are shared out among several draws of the partners; the bound is the largest.
    """

    errors: Tensor
    bounds: Tensor


def near_pairs(p: Parameters, basis: FilterBank) -> NearPairs:
    """Psi ReLU(Psi^T x) with partners that are turned away from -w, on isotropic x."""
    generator = p.generator(PARTNERS)
    x = torch.randn(p.signals, M, D_PAIRED, generator=generator, dtype=torch.float64).to(p.device)
    errors, bounds = [], []
    for degrees in DEGREES:
        share, bound = [], 0.0
        for part in x.chunk(p.banks):
            psi = nearly_paired(basis, math.radians(degrees), generator=generator)
            share.append(relative_error(part, rectified(psi, part)))
            bound = max(bound, pair_bound(psi))
        errors.append(torch.cat(share))
        bounds.append(bound)
    return NearPairs(torch.stack(errors).cpu(), torch.tensor(bounds, dtype=torch.float64))


def table_4(p: Parameters) -> dict[str, RandomFilters]:
    """Random filters for each layer of VGG-16; layers of one size share a law, and their draws."""
    drawn = {}
    for place, (filters, channels) in enumerate(dict.fromkeys(LAYERS.values())):
        streams = range(FILTERS * (place + 1), FILTERS * (place + 1) + p.draws)
        drawn[filters, channels] = draw_filters(
            filters, channels, map(p.generator, streams), device=p.device,
            all_shifts=filters <= p.shift_filters,
        )  # fmt: skip
    return {layer: drawn[size] for layer, size in LAYERS.items()}


# --- Figures and explorers ----------------------------------------------------------------------


def draw_rectifiers(data: Data):
    """What a pair makes of one entry h, and the errors of ReLU alone against their prediction."""
    fig, (left, right) = figure(ncols=2)
    h = torch.linspace(-2, 2, 401)
    for bias, style in ((0.0, "-"), (-BIAS, "--"), (BIAS, ":")):
        label = f"pair, bias {bias:+g}" if bias else "pair"
        left.plot(h, (h + bias).relu() - (bias - h).relu(), style, label=label)
    left.plot(h, h.relu(), "-.", label="ReLU alone")
    left.set(xlabel="$h$", ylabel="what the decoder receives")
    left.legend(frameon=False)
    errors = data.hypotheses.errors["negatives dropped"].cpu()
    right.hist(errors, bins=15, density=True, color=PALETTE["sky"])
    mean = data.hypotheses.predicted["negatives dropped"]
    sd = math.sqrt(3 / (4 * (M * D_PAIRED + 2))) / (2 * mean)
    t = torch.linspace(mean - 4 * sd, mean + 4 * sd, 200)
    bell = torch.exp(-(((t - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
    right.plot(t, bell, color=PALETTE["vermillion"])
    right.set_xticks([mean + i * sd for i in (-3, 0, 3)])
    right.xaxis.set_major_formatter("{x:.3f}")
    right.set(xlabel=r"$\|x-\hat x\|/\|x\|$ without negatives", ylabel="density of signals")
    return fig


def draw_pooling(data: Data, h: tuple[float, ...] = (3.0, -4.0, 1.0, -2.0)):
    """One block and what is kept of it; the share of blocks that keep both signs, by length."""
    fig, (left, right) = figure(ncols=2)
    place = torch.arange(len(h))
    left.bar(place, h, width=0.5, color="#c9d1d9")
    largest = max(place.tolist(), key=lambda i: abs(h[i]))
    ends = [h.index(max(h)), h.index(min(h))]
    kept = {"color": "none", "linestyle": "none", "markeredgewidth": 2}
    left.plot(
        ends, [h[i] for i in ends], "s", markersize=15, markeredgecolor=PALETTE["vermillion"],
        label="kept by a pair", **kept,
    )  # fmt: skip
    left.plot(
        largest, h[largest], "o", markersize=8, markeredgecolor=PALETTE["blue"],
        label="largest magnitude", **kept,
    )  # fmt: skip
    left.axhline(0, color=PALETTE["black"], lw=0.8)
    left.set(xlabel="shift $j$", ylabel="entry $h_j$", xticks=place.tolist())
    left.margins(y=0.2)
    left.legend(frameon=False, loc="upper right")
    n = torch.arange(1, BLOCKS[-1] + 1)
    right.plot(n, 1 - 2.0 ** (1 - n), color=PALETTE["black"], label="$1-2^{1-n}$")
    for (name, shares), marker in zip(data.pooling.survival.items(), "os", strict=True):
        right.plot(BLOCKS, shares.mean(0), marker, label=name.replace("W^T", "$W^T$"))
    right.set(xlabel="block length $n$", ylabel="blocks that keep both signs")
    right.legend(frameon=False)
    return fig


def draw(data: Data, mark: int | None = None, axes=None):
    """Relative error against the partners' angle: measured, predicted, first order, bound."""
    fig, ax = (None, axes) if axes is not None else figure()
    errors = data.near.errors
    low, high = errors.quantile(0.05, dim=1), errors.quantile(0.95, dim=1)
    fine = torch.linspace(0, 90, 181).tolist()
    radians = torch.tensor(fine).deg2rad()
    ax.fill_between(DEGREES, low, high, color=PALETTE["sky"], alpha=0.6, lw=0)
    ax.plot(DEGREES, errors.mean(1), "o", markersize=4, color=PALETTE["blue"], label="measured")
    predicted = [pair_error(float(r)) for r in radians]
    ax.plot(fine, predicted, color=PALETTE["vermillion"], label="predicted")
    ax.plot(fine, radians, ":", color=PALETTE["black"], label=r"first order, $\theta$")
    ax.plot(DEGREES, data.near.bounds, "--", color=PALETTE["green"], label="bound for every $x$")
    if mark is not None:
        ax.axvline(mark, color=PALETTE["orange"], lw=1.5)
    ax.set(xlabel=r"angle $\theta$ to $-w$ (degrees)", ylabel="relative error", ylim=(0, 1.2))
    ax.legend(frameon=False, loc="lower right", borderpad=0)
    return fig


def explorer(data: Data | None = None) -> Explorer:
    """Turn the partners away from -w and watch the identity dissolve."""
    data = data or compute(Parameters())
    p = data.parameters
    signal = torch.randn(1, M, D_PAIRED, generator=p.generator(SIGNALS), dtype=torch.float64)
    x = signal.to(p.device)
    h = data.basis.analysis(x)

    def show(theta: int) -> View:
        generator = p.generator(PARTNERS)
        psi = nearly_paired(data.basis, math.radians(theta), generator=generator)
        estimate = rectified(psi, x)
        fig, (left, right) = figure(ncols=2)
        received = data.basis.analysis(estimate)[:, ::3].flatten().cpu()
        left.plot(h[:, ::3].flatten().cpu(), received, ".", markersize=4, color=PALETTE["blue"])
        left.plot([-3.5, 3.5], [-3.5, 3.5], color=PALETTE["black"], lw=1)
        left.set(xlabel=r"entries of $Wx$", ylabel=r"entries of $W\hat x$")
        left.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
        draw(data, mark=theta, axes=right)
        # Fixed margins: quicker than a computed layout, and no frame is displaced.
        fig.set_layout_engine(None)
        fig.subplots_adjust(left=0.08, right=0.99, bottom=0.17, top=0.97, wspace=0.22)
        values = {
            "relative error of this signal": float(relative_error(x, estimate)),
            "predicted": pair_error(math.radians(theta)),
            "first order (theta in radians)": math.radians(theta),
            "bound for every signal": pair_bound(psi),
        }
        return View(fig, values)

    label = "angle between partner and -w, degrees"
    slider = Slider("theta", DEGREES, label, default=20, live=range(0, 91))
    return Explorer(
        "near-pairs", [slider], show,
        alt="Scatter of reconstructed against true entries of Wx, and error against angle, with "
        "the partners {theta} degrees away from -w.",
        caption="Turn the partners away from -w. Left: the entries of one signal in the basis, "
        "after and before. Right: at small angles the error is the angle.",
    )  # fmt: skip


def coherence_explorer(data: Data | None = None) -> Explorer:
    """Inner products of one random bank per layer of VGG-16, with the paper's number."""
    return random_filters.explorer((data or compute(Parameters())).filters)
