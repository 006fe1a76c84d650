"""How the error falls with the number of random filters, and what training a softmax adds to it.

One layer of random filters, its first 1, 2, 4, ... filters, and ridge classifiers in closed form.
Then the same features, and a softmax classifier by stochastic gradient descent: on features as they
are, centered, and whitened. What of its distance from ridge is the problem's conditioning?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from invertnb import check
from invertnb.chapters.random_filters.inputs import LAW, Inputs
from invertnb.chapters.random_filters.law_fits import Curve, Judged, judge
from invertnb.networks import frozen
from invertnb.networks.classifier import Classifier, spread
from invertnb.networks.frozen import Condition, Read, Set, Setting, Softmax
from invertnb.networks.notation import Architecture, ConvolutionLayer
from invertnb.networks.ridge import moments, ridge
from invertnb.networks.search import RANDOM
from invertnb.networks.training import Recipe
from invertnb.notebook import Recorded

#: Features at most, of small and of large images; filters at most, as a multiple of `inputs.width`.
FEATURES, MULTIPLE = {True: 2048, False: 1024}, 8
#: Images of which batch norm's moments are taken, at most.
CALIBRATION = 1500
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Images whose kernel matrix is looked at.
KERNEL = 100
EPOCHS = (1, 3, 10, 30)  # the last for few images only
FEW = 2000
BATCH = 100
#: (base, dropout): rates of which validation chooses.
RATES: Mapping[tuple[str, float], Sequence[float]] = {
    ("plain", 0.0): (0.3, 1.0, 3.0), ("plain", 0.5): (1.0, 3.0),
    ("centered", 0.0): (3.0, 10.0, 30.0), ("centered", 0.5): (3.0, 10.0),
    ("whitened", 0.0): (0.03, 0.1),
}  # fmt: skip
MOMENTUM = 0.9
#: Of the largest numbers of filters, those that laws predict from the smaller ones.
HELD = 2
#: Images and classes of CIFAR-10, on which the recorded results are.
TRAINED, TESTED, CLASSES = 50_000, 10_000, 10


@dataclass(frozen=True)
class Compared:
    """Softmax classifiers on the features of one network, beside ridge.

    Attributes:
        filters: of the network's last layer.
        ridge: (validation, test, train) accuracies of the ridge classifier.
        decay: of it, relative to the features' mean variance.
        trained: by epochs, every setting.
        condition: of the problem.
        classes: how many.
        steps: of one epoch.
    """

    filters: int
    ridge: tuple[float, float, float]
    decay: float
    trained: Mapping[int, Sequence[Softmax]]
    condition: Condition
    classes: int
    steps: int

    def best(self, epochs: int, base: str, dropout: float = 0.0) -> Softmax:
        """The rate that validation chose.

        Raises:
            ValueError: no such training.
        """
        some = [
            each for each in self.trained.get(epochs, ())
            if (each.setting.base, each.setting.dropout) == (base, dropout)
        ]  # fmt: skip
        if not some:
            check.fail("base, dropout, epochs", (base, dropout, epochs), "a training that was made")
        return max(some, key=lambda each: each.validation)

    def used(self, recipe: Recipe) -> float:
        """The classifier's rate in a recipe, in the units of `softmax`."""
        features = self.condition.places[-1]
        return recipe.rate * min(1.0, recipe.head / features) * self.condition.variance

    def reach(self, rate: float, epochs: int) -> float:
        """1 / eigenvalue of the directions in which a training just goes most of the way.

        Steps * rate * eigenvalue / (classes (1 - momentum)) = 1 in these. The rate is half of
        `rate` in the mean, as it falls to 0 in a straight line.
        """
        return epochs * self.steps * rate / 2 / (self.classes * (1 - MOMENTUM))

    def learned(self, rate: float, epochs: int) -> float:
        """The number of directions up to there."""
        return self.condition.above(1 / self.reach(rate, epochs))

    def allowed(self) -> float:
        """Directions that the ridge classifier's decay leaves most of."""
        return self.condition.above(self.decay / self.condition.places[-1])


@dataclass(frozen=True)
class Law:
    """Everything of this part.

    Attributes:
        architecture: of the live networks, with all filters.
        curves: test errors by number of filters, live and, if there are any, recorded.
        judged: laws for them.
        kernel: relative error of the kernel matrix of K filters, K as in `curves["live"]`.
        compared: softmax beside ridge, on features of the first live network and, by architecture,
            of recorded ones.
        closed: recorded ridge accuracies on the test set by architecture and number of filters.
        few: the same for networks whose moments were taken from few classes.
        dropped: recorded accuracy of ridge with the decay that dropout amounts to, by architecture
            and probability.
    """

    architecture: str
    curves: Mapping[str, Curve]
    judged: Mapping[str, Mapping[str, Judged]]
    kernel: np.ndarray
    compared: Mapping[str, Compared]
    closed: Mapping[str, Mapping[int, float]]
    few: Mapping[str, Mapping[int, float]]
    dropped: Mapping[str, Mapping[float, float]]

    def held(self, name: str) -> int:
        """Numbers of filters that the laws predict from the smaller ones."""
        return len(self.judged[name]["power"].predicted)


def compute(inputs: Inputs, generator: Callable[[int], Generator]) -> Law:
    """One layer of random filters on the inputs' images, `inputs.seeds` times."""
    architecture = network(inputs)
    K = architecture.layers[0].filters
    filters = tuple(2**i for i in range(K.bit_length()))
    errors, seen, first = [], [], None
    for seed in range(len(inputs.seeds)):
        sets, net = features(inputs, architecture, generator(LAW + seed))
        fits = ridge(Read(net), filters, DECAYS, dtype=torch.float32, **sets)
        errors.append([1 - each.test for each in fits])
        seen.append(sets["test"][0][:KERNEL])
        first = first or (sets, net, fits[-1])
    curves = {"live": Curve(filters, np.array(errors), len(inputs.data.test))}
    if "closed" in inputs.recorded:
        curves["recorded"] = closed_curve(inputs.recorded["closed"].results)
    found = recorded(inputs.recorded)
    return Law(
        str(architecture), curves,
        {name: judge(each, HELD, generator(LAW + 60)) for name, each in curves.items()},
        kernel_error(torch.stack(seen), K, filters),
        {"live": compare(*first, generator(LAW + 50)), **found[0]}, *found[1:],
    )  # fmt: skip


def closed_curve(results: Mapping[str, Any]) -> Curve:
    """Of the recorded network with one layer, a draw for each seed."""
    runs = [run for run in results["runs"].values() if len(run["fits"]) > 2]
    tested = [[1 - each["test"] for each in run["fits"]] for run in runs]
    return Curve(tuple(each["filters"] for each in runs[0]["fits"]), np.array(tested), TESTED)


def recorded(found: Mapping[str, Recorded]) -> tuple[dict[str, Any], ...]:
    """`Law.compared`, `closed`, `few` and `dropped` of what was recorded."""
    parts: dict[str, dict[str, Any]] = {}
    for run in found["frozen"].results["runs"].values() if "frozen" in found else ():
        parts.setdefault(run["architecture"], {})[run["what"]] = run
    compared = {
        text: _compared(each) for text, each in parts.items() if {"condition", "ridge"} <= set(each)
    }
    few = {text: _tests(each["few"]) for text, each in parts.items() if "few" in each}
    dropped = {
        text: dict(zip(each["dropout"]["dropout"], each["dropout"]["test"], strict=True))
        for text, each in parts.items() if "dropout" in each
    }  # fmt: skip
    closed = {}
    for run in found["closed"].results["runs"].values() if "closed" in found else ():
        closed.setdefault(run["architecture"], _tests(run))
    return compared, closed, few, dropped


def _tests(run: Mapping[str, Any]) -> dict[int, float]:
    return {each["filters"]: each["test"] for each in run["fits"]}


def _compared(runs: Mapping[str, Any]) -> Compared:
    names = [each.name for each in fields(Condition)]
    best = max(runs["ridge"]["fits"], key=lambda each: each["filters"])
    trained = {
        int(what.removeprefix("epochs")): [
            Softmax(**{**each, "setting": Setting(**each["setting"])}) for each in run["trained"]
        ]
        for what, run in runs.items() if what.startswith("epochs")
    }  # fmt: skip
    return Compared(
        best["filters"], (best["validation"], best["test"], best["train"]), best["decay"],
        dict(sorted(trained.items())), Condition(*(runs["condition"][name] for name in names)),
        CLASSES, (TRAINED - RANDOM.validation) // RANDOM.batch,
    )  # fmt: skip


def network(inputs: Inputs) -> Architecture:
    """One layer as in Table 5, with as many filters as a page has time for."""
    small = inputs.side < 16
    average = max(1, inputs.side // 2 // (2 if small else 4))
    each = (inputs.side // 2 // average) ** 2
    filters = min(MULTIPLE * inputs.width, FEATURES[small] // each)
    filters = 2 ** (filters.bit_length() - 1)  # the largest power of two among them
    return Architecture((ConvolutionLayer(filters, 3 if small else 5, 2),), average)


def features(
    inputs: Inputs, architecture: Architecture, generator: Generator
) -> tuple[dict[str, Set], Classifier]:
    """Features (N, P) with labels of training, validation and test images, and their network."""
    data, device = inputs.data, inputs.device
    learn, hold = inputs.split()
    train = data.train[learn].to(device)
    net = Classifier(
        architecture, train, len(data.classes), learned=False, dropout=0.0, generator=generator
    ).eval()
    net.calibrate(spread(train, CALIBRATION))
    images = {
        "train": (train, data.train_labels[learn]),
        "validation": (data.train[hold], data.train_labels[hold]),
        "test": (data.test, data.test_labels),
    }
    with torch.no_grad():
        return {
            name: (torch.cat([net.features(some.to(device)) for some in x.split(250)]).cpu(), y)
            for name, (x, y) in images.items()
        }, net.cpu()


def kernel_error(seen: Tensor, K: int, filters: Sequence[int]) -> np.ndarray:
    """Relative error of the kernel matrix that random filters approximate, by number of filters.

    The kernel of k filters is the mean over filters of the products of their features, centered as
    a classifier with a bias sees them. Disjoint groups of k filters are independent draws of it;
    their variance needs no limit, and the mean over all filters stands for that.

    Args:
        seen: features (draws, n, P) of the same images, P a multiple of K, filter after filter.
        K: filters.
        filters: numbers of them, at most K.
    """
    centered = (seen - seen.mean(1, keepdim=True)).unflatten(2, (K, -1))
    limit = torch.einsum("dnke,dmke->nm", centered, centered) / (K * len(seen))
    found = []
    for k in filters:
        groups = [
            each[:, k * g : k * (g + 1)].flatten(1)
            for each in centered for g in range(K // k)
        ]  # fmt: skip
        kernels = torch.stack([group @ group.T / k for group in groups])
        variance = float((kernels - kernels.mean(0)).square().sum()) / (len(groups) - 1)
        found.append(variance**0.5 / float(limit.norm()))
    return np.array(found)


def compare(
    sets: Mapping[str, Set], net: Classifier, fitted: Any, generator: Generator
) -> Compared:
    """Softmax classifiers on these features, by epochs and setting."""
    classes = net.head.out_features
    settings = [
        Setting(rate, base, dropout) for (base, dropout), rates in RATES.items() for rate in rates
    ]
    seed = int(torch.randint(2**62, (), generator=generator))
    trained = {
        epochs: frozen.softmax(
            *sets.values(), settings, classes=classes, epochs=epochs, batch=BATCH,
            momentum=MOMENTUM, generator=torch.Generator().manual_seed(seed),
        )
        for epochs in (EPOCHS if len(sets["train"][1]) <= FEW else EPOCHS[:-1])
    }  # fmt: skip
    found = frozen.condition(moments(Read(net), *sets["train"], classes, torch.float32))
    return Compared(
        fitted.filters, (fitted.validation, fitted.test, fitted.train), fitted.decay, trained,
        found, classes, len(sets["train"][1]) // BATCH,
    )  # fmt: skip
