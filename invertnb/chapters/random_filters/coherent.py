"""Coherence of learned filters against accuracy (sections 4.1, 4.4 and 4.5).

Section 4.5 links a low coherence to a good reconstruction. Does it go with a high accuracy, too?
The coherence depends on the number K and the length d = M l^2 of the filters: random ones of that
shape are the measure, by the law of the chapter on Proposition 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Generator, Tensor

from invertnb import check, coherence
from invertnb.chapters.proposition_1.coherence_law import CoherenceLaw
from invertnb.chapters.random_filters.inputs import COHERENT, Inputs
from invertnb.networks import Labelled
from invertnb.networks.labelled import evenly
from invertnb.networks.notation import Architecture, parse
from invertnb.networks.training import Recipe, build, fit
from invertnb.notebook import PALETTE, Recorded, figure
from invertnb.notebook.figures import Figure

STUDIES = ("grid", "table1", "tuning")
CHANNELS = 3  # of CIFAR-10, on which the recorded runs were trained
#: Live networks: two layers of `Inputs.width` filters, at learning rates that differ much.
SIZE, RATES, EPOCHS = 3, (0.02, 0.1, 0.5), 3
#: Of larger images only so many, averaged to this side at most: there are nine networks to train.
TRAINED, SIDE = 1500, 16
DRAWS = 40  # of random filters of the live networks' shapes
SUPPORT = -0.5  # rank correlation from which a low coherence is said to go with a high accuracy


@dataclass(frozen=True)
class Trained:
    """One recorded run.

    Attributes:
        study: the recording that it is from.
        architecture: in Table 5's notation.
        learned: whether its filters are.
        rate, seed: of the recipe.
        test: accuracy.
        coherence: of each layer with two filters or more, absolute, filters in place.
    """

    study: str
    architecture: str
    learned: bool
    rate: float
    seed: int
    test: float
    coherence: tuple[float, ...]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(parse(self.architecture).layers)

    @property
    def width(self) -> int:
        """Filters of the first layer."""
        return parse(self.architecture).layers[0].filters

    @cached_property
    def laws(self) -> tuple[CoherenceLaw, ...]:
        """Of the coherence of random filters of each layer's shape."""
        found = shapes(parse(self.architecture), CHANNELS)
        return tuple(CoherenceLaw(K, d, False) for K, d in found if K > 1)

    @property
    def ratio(self) -> float:
        """Coherence over the mean of random filters of the shape, mean over the layers."""
        return fmean(mu / law.mean for mu, law in zip(self.coherence, self.laws, strict=True))

    @property
    def levels(self) -> tuple[float, ...]:
        """By layer, how probable a smaller coherence is for random filters."""
        pairs = zip(self.coherence, self.laws, strict=True)
        return tuple(float(law.probability(mu)) for mu, law in pairs)


#: One number for a network, by the words of the page.
MEASURES: Mapping[str, Callable[[Trained], float]] = {
    "layer 1": lambda run: run.coherence[0],
    "mean of layers": lambda run: fmean(run.coherence),
    "over random filters'": lambda run: run.ratio,
}


@dataclass(frozen=True)
class Live:
    """A small network trained here: its layers' coherences at the start and at the end."""

    rate: float
    seed: int
    start: tuple[float, ...]
    end: tuple[float, ...]
    test: float


@dataclass(frozen=True)
class Coherent:
    """Everything that the page shows.

    Attributes:
        runs: recorded, of both rows.
        architecture: of the live networks.
        images: that they were trained on, in words.
        live: by rate, then seed.
        random: by layer of theirs, coherence of draws of random filters of its shape.
    """

    runs: tuple[Trained, ...]
    architecture: str
    images: str
    live: tuple[Live, ...]
    random: tuple[Tensor, ...]

    def learned(self, **wanted: object) -> list[Trained]:
        """Recorded runs with learned filters that have these attributes."""
        return [
            run for run in self.runs
            if run.learned and all(getattr(run, name) == value for name, value in wanted.items())
        ]  # fmt: skip


def compute(inputs: Inputs, generator: Callable[[int], Generator]) -> Coherent:
    """Read the recorded runs and train the small networks.

    Raises:
        ValueError: a recording without what is needed here.
    """
    data = fewer(inputs.data)
    architecture = parse("-".join([f"({inputs.width}){SIZE}c-2pmax"] * 2))
    live = train(architecture, data, inputs.seeds, inputs.device)
    draw = generator(COHERENT)
    random = tuple(
        torch.stack([coherence(torch.randn(K, d, 1, generator=draw)) for _ in range(DRAWS)])
        for K, d in shapes(architecture, data.train.shape[1])
    )
    return Coherent(tuple(recorded(inputs.recorded)), str(architecture), data.label, live, random)


def recorded(found: Mapping[str, Recorded]) -> list[Trained]:
    """The runs of the recordings that are there.

    Raises:
        ValueError: a recording that lacks something, or a coherence for each layer.
    """
    runs = []
    for study in STUDIES:
        if study not in found:
            continue
        try:
            for run in found[study].results["runs"].values():
                recipe, each = run["recipe"], tuple(run["coherence"])
                runs.append(
                    Trained(
                        study, run["architecture"], recipe["learned"], recipe["rate"],
                        recipe["seed"], run["test"], each,
                    )
                )  # fmt: skip
                if len(each) != len(runs[-1].laws):
                    check.fail("coherence", each, f"one for each layer of {run['architecture']}")
        except (KeyError, TypeError, AttributeError) as error:
            check.fail("recorded", study, f"a recording as this version makes it, but {error!r}")
    return runs


def shapes(architecture: Architecture, channels: int) -> list[tuple[int, int]]:
    """Number K and length d = M l^2 of each layer's filters."""
    inner = [channels, *(layer.filters for layer in architecture.layers)]
    return [
        (layer.filters, M * layer.size**2)
        for M, layer in zip(inner, architecture.layers, strict=False)
    ]


def welch(K: int, d: int) -> float:
    """The Welch bound: no K unit vectors of d entries have a smaller coherence."""
    return max(0.0, (K - d) / (d * (K - 1))) ** 0.5


def rank(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; None of fewer than three pairs, or of equal values."""
    pairs = list(pairs)
    if len(pairs) < 3 or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def ranks(runs: Sequence[Trained]) -> dict[str, float | None]:
    """Rank correlation of each measure of coherence with the accuracy."""
    return {
        name: rank((measure(run), run.test) for run in runs) for name, measure in MEASURES.items()
    }


def better(runs: Sequence[Trained], measure: str) -> tuple[int, int]:
    """Pairs of equal study, depth and width: in how many the less coherent is better; of how many.

    Pairs of equal coherence or accuracy do not count.
    """
    of = MEASURES[measure]
    pairs = [
        (of(a) - of(b), a.test - b.test)
        for a, b in itertools.combinations(runs, 2)
        if (a.study, a.depth, a.width) == (b.study, b.depth, b.width)
    ]
    pairs = [pair for pair in pairs if all(pair)]
    return sum(mu * test < 0 for mu, test in pairs), len(pairs)


def supported(found: Iterable[float | None]) -> bool:
    """Whether all of these rank correlations are there, and at most SUPPORT."""
    found = list(found)
    return bool(found) and all(each is not None and each <= SUPPORT for each in found)


def fewer(data: Labelled) -> Labelled:
    """So many training images as nine networks have time for, and small ones."""
    some = evenly(data.train_labels)[:TRAINED]
    data = dataclasses.replace(data, train=data.train[some], train_labels=data.train_labels[some])
    factor = data.train.shape[-1] // SIDE
    if factor < 2:
        return data
    small = {
        which: F.avg_pool2d(getattr(data, which).float(), factor).round().to(torch.uint8)
        for which in ("train", "test")
    }
    what = f"{data.what}, averaged over {factor} x {factor} pixels"
    return dataclasses.replace(data, what=what, **small)


def recipe(data: Labelled, rate: float, seed: int, epochs: int = EPOCHS) -> Recipe:
    """Of a live network: shifts by a pixel, no mirrored digits."""
    return Recipe(
        epochs=epochs, batch=50, validation=len(data.train) // 8, rate=rate, dropout=0.2, pad=1,
        mirror=data.name != "digits", dtype="float32", seed=seed,
    )  # fmt: skip


def train(
    architecture: Architecture, data: Labelled, seeds: Iterable[int], device: str = "cpu",
    rates: Sequence[float] = RATES, epochs: int = EPOCHS,
) -> tuple[Live, ...]:  # fmt: skip
    """A network for each rate and seed; networks of one seed start from the same filters."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for rate, seed in itertools.product(rates, seeds):
            how = recipe(data, rate, seed, epochs)
            net = build(architecture, how, data.train, len(data.classes))
            start = tuple(float(coherence(layer.weight.detach())) for layer in net.layers)
            run = fit(
                architecture, how, data, Path(folder) / f"{rate}-{seed}", device=device,
                progress=False,
            )  # fmt: skip
            found.append(Live(rate, seed, start, tuple(run.coherence), run.test))
    return tuple(found)


def draw(found: Coherent) -> Figure:
    """Recorded runs by depth and study; live ones by rate."""
    fig, (left, right) = figure(height=3.0, ncols=2)
    colours = [PALETTE[name] for name in ("sky", "blue", "black")]
    marks = dict(zip(STUDIES, "os^", strict=True))
    for run in found.learned():
        place = MEASURES["mean of layers"](run)
        colour = colours[min(run.depth, len(colours)) - 1]
        left.plot(place, run.test, marks[run.study], ms=6, color=colour, alpha=0.8)
    for depth, colour in enumerate(colours, 1):
        text = f"{depth} layer{'s' if depth > 1 else ''}"
        left.plot([], [], "o", ms=6, color=colour, label=text)
    for study in ("table1", "tuning"):
        left.plot([], [], marks[study], ms=6, mfc="none", mec="black", label=study)
    left.set(xlabel="coherence, mean of layers", ylabel="test accuracy", xlim=(0, 1))
    for rate, colour in zip(RATES, ("green", "orange", "vermillion"), strict=True):
        some = [each for each in found.live if each.rate == rate]
        for each in some:
            ends, height = (each.start[-1], each.end[-1]), (each.test, each.test)
            right.plot(ends, height, "-", lw=1, color=PALETTE[colour], alpha=0.5)
        places = [each.end[-1] for each in some], [each.test for each in some]
        right.plot(*places, "o", ms=6, color=PALETTE[colour], label=f"rate {rate:g}")
    right.axvline(float(found.random[-1].mean()), color="#59636e", lw=1, ls=":")
    right.set(xlabel="coherence, layer 2", xlim=(0, 1))
    for ax in (left, right):
        ax.legend(fontsize=9, frameon=False, loc="best", handletextpad=0.2)
    return fig
