"""Readers: networks that are trained on images, or on what one step gives back of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Generator

from invertnb.chapters.random_filters.inputs import KEPT
from invertnb.chapters.random_filters.kept_images import SIZE, Step, drawn
from invertnb.networks import Labelled
from invertnb.networks.classifier import Classifier, spread
from invertnb.networks.notation import parse
from invertnb.networks.ridge import ridge
from invertnb.networks.training import CALIBRATION, SPLIT_SEED, Recipe, Run, fit

#: Streams of the generator, one for each draw of random classifiers.
CLASSIFIERS = KEPT + 40
LARGE = 16  # side from which images are large
DECAYS = (1e-3, 1e-2)  # of the ridge classifiers
EPOCHS, FEW_EPOCHS = 10, 3  # few for large images


def again(
    architecture: str, how: Recipe, data: Labelled, ratios: Sequence[int],
    generator: Callable[[int], Generator], folder: Path, *, device: str = "cpu",
    progress: bool = False, after: Callable[[Classifier], None] | None = None,
) -> dict[int, Run]:  # fmt: skip
    """Readers trained on originals (0) and on reconstructions, by ratio; see `training.fit`.

    Args:
        folder: a folder of each run is made in it.
        after: called with the network that was trained on originals, if it is trained now.
    """
    net, options = parse(architecture), {"device": device, "progress": progress}
    runs = {0: fit(net, how, data, folder / "originals", after=after, **options)}
    for ratio, each in reconstructed(data, ratios, generator):
        runs[ratio] = fit(net, how, each, folder / f"ratio-{ratio}", **options)
    return runs


def recipe(data: Labelled) -> Recipe:
    """Of a small reader: shifts by a pixel for small images, no mirrored digits."""
    small = data.train.shape[2] < LARGE
    return Recipe(
        epochs=EPOCHS if small else FEW_EPOCHS, batch=50, validation=len(data.train) // 8, pad=1 if small else 4,
        mirror=not small, dropout=0.2, dtype="float32",
    )  # fmt: skip


def reconstructed(
    data: Labelled, ratios: Sequence[int], generator: Callable[[int], Generator]
) -> Iterator[tuple[int, Labelled]]:
    """By ratio: training and test images replaced by what one step gives back of them.

    As training takes bytes, the values are scaled to these so that all of the training images fit;
    a network standardizes its images, so that only the rounding is left of this.
    """
    mean = data.train.float().mean((0, 2, 3)).view(-1, 1, 1)
    deviation = data.train.float().std((0, 2, 3), correction=0).view(-1, 1, 1)
    bank = drawn(data.train.shape[1], generator, 0)
    for ratio in ratios:
        step = Step(ratio)
        sets = [
            step.of((some.float() - mean) / deviation, bank) for some in (data.train, data.test)
        ]
        low, high = sets[0].min(), sets[0].max()
        bytes_of = [
            ((some - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)
            for some in sets
        ]
        yield ratio, dataclasses.replace(
            data, name="reconstructions", what=f"{data.what}, {ratio} filters a channel",
            train=bytes_of[0], test=bytes_of[1],
        )  # fmt: skip


def classifiers(
    data: Labelled, ratios: Sequence[int], generator: Callable[[int], Generator], draws: int,
    device: torch.device | str = "cpu",
) -> dict[int, float]:  # fmt: skip
    """Test accuracy of ridge classifiers on a random layer, by ratio, mean over draws.

    The layer is that of section 4.1, with pooling over 2 x 2; large images are then averaged to
    4 x 4. The first filters of the largest ratio serve the others.
    """
    channels, height = data.train.shape[1:3]
    learn, hold = data.split(len(data.train) // 8, Generator().manual_seed(SPLIT_SEED))
    sets = {
        "train": (data.train[learn], data.train_labels[learn]),
        "validation": (data.train[hold], data.train_labels[hold]),
        "test": (data.test, data.test_labels),
    }
    sets = {name: (each.to(device), truth.to(device)) for name, (each, truth) in sets.items()}
    average = f"-{height // 8}pave" if height >= LARGE else ""
    found = []
    for draw in range(draws):
        net = Classifier(
            parse(f"({ratios[-1] * channels}){SIZE}c-2pmax{average}"), sets["train"][0],
            len(data.classes), learned=False, dropout=0.0, generator=generator(CLASSIFIERS + draw),
        )  # fmt: skip
        net.calibrate(spread(sets["train"][0], CALIBRATION))
        filters = [ratio * channels for ratio in ratios]
        fits = ridge(net, filters, DECAYS, dtype=torch.float32, **sets)
        found.append([each.test for each in fits])
    means = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return dict(zip(ratios, means, strict=True))
