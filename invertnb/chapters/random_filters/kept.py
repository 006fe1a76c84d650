"""What one step keeps of an image, and what a classifier needs of it (sections 4.1 and 4.5).

A layer of random filters with max pooling keeps M(W x), and x_hat = W^T M(W x) at the norm of x is
the image that one step gives back. A reader, a small network trained on images, reads x_hat in
place of x. How much of its accuracy is left, and does the relative error of x_hat tell?
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from invertnb import FilterBank, check
from invertnb.chapters.random_filters.inputs import KEPT, Inputs
from invertnb.chapters.random_filters.kept_images import (
    RATIOS, Step, averaged, blurred, drawn, noisy,
)  # fmt: skip
from invertnb.chapters.random_filters.kept_readers import LARGE, again, classifiers, recipe
from invertnb.networks import Labelled
from invertnb.networks.classifier import Classifier
from invertnb.networks.labelled import evenly
from invertnb.networks.training import Run, predict
from invertnb.reconstruct import relative_error

#: Streams of the generator, one for each draw of noise.
NOISE = KEPT + 20
DRAWS = 3  # of the random filters
WINDOWS = (2, 4)
MANY = 32  # filters for each channel, of which only some responses are kept, or in several steps
SHARES = (0.5, 1 / 8, 1 / 32, 1 / 128)  # 4, 1, 1/4 and 1/16 times as many numbers as the image has
STEPS = (2, 3)
RETRAINED = (1, 4, MANY)  # filters for each channel
READER = "(16)3c-2pmax-(32)3c-2pmax"
LEARNED, SUBSET = 1500, 80  # large images to learn from, and the stream that draws them
TESTED = 100  # large images, so many of which a page can read
SHOWN = 8  # pictures
LIVE = ("pictures", "desk")  # what a record does not have


@dataclass(frozen=True)
class Point:
    """Images that a reader was given in place of the originals.

    Attributes:
        step: how they were made; None for averages over `window` x `window` pixels.
        window: side of the pooling windows.
        kept: numbers kept of an image; where they were in their windows is not counted.
        error: relative error, the mean over images and draws.
        accuracy: of the reader, the mean over draws.
        noise, blur: its accuracy on images with the same errors, image by image, that come from
            Gaussian noise and from a Gaussian blur.
        spread: the largest accuracy of a draw less the smallest.
        order: among the images that are read right in the original, how often one that is now
            misread has a larger error than one that still is not; 1/2 if errors say nothing, None
            without such pairs.
    """

    step: Step | None
    window: int
    kept: int
    error: float
    accuracy: float
    noise: float
    blur: float
    spread: float
    order: float | None


@dataclass(frozen=True)
class Kept:
    """Everything of one data set and reader.

    Attributes:
        label: of the images.
        reader: its architecture.
        image: (channels, height, width).
        tested: number of test images.
        original: the reader's accuracy on them.
        points: of steps and averages.
        learner: architecture of the readers that were trained again.
        again: accuracy of such a reader that was trained on the originals, on these.
        retrained: accuracy on reconstructions of those trained on reconstructions, by ratio (window
            2, everything kept, one step).
        random: accuracy of ridge classifiers on what a random layer has after pooling over 2 x 2
            (and averaging to 4 x 4), by ratio; mean over draws.
        chance: 1 / number of classes.
        pictures: test images and what stands for them, by name, (n, C, H, W) in [0, 1]; none in a
            record.
        desk: the reader with the images, to read others; None in a record.
    """

    label: str
    reader: str
    image: tuple[int, ...]
    tested: int
    original: float
    points: tuple[Point, ...]
    learner: str
    again: float
    retrained: Mapping[int, float]
    random: Mapping[int, float]
    chance: float
    pictures: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    desk: Desk | None = field(default=None, repr=False)

    def survives(self, accuracy: float) -> float:
        """The part of the reader's accuracy above chance that this is, 1 for all of it."""
        return (accuracy - self.chance) / (self.original - self.chance)

    def steps(self, **wanted: Any) -> list[Point]:
        """Points whose Step has these attributes; None for any, as is the ratio by default.

        The other attributes have their defaults unless they are named.
        """
        wanted = {"window": 2, "share": 1.0, "steps": 1, "pooling": "abs"} | wanted
        pairs = [(name, value) for name, value in wanted.items() if value is not None]
        return [
            each for each in self.points
            if each.step and all(getattr(each.step, name) == value for name, value in pairs)
        ]  # fmt: skip

    def averages(self) -> list[Point]:
        """Points of average pooling."""
        return [each for each in self.points if each.step is None]

    def json(self) -> dict[str, Any]:
        """For a record: no pictures, no desk, numbers rounded to what 10,000 images resolve."""
        found = dataclasses.asdict(dataclasses.replace(self, pictures={}, desk=None))
        results = _rounded({name: each for name, each in found.items() if name not in LIVE})
        for point, exact in zip(results["points"], found["points"], strict=True):
            point["step"] = exact["step"]  # settings, not results
        return results

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Kept:
        """What `json` gave, read again."""
        names = (each.name for each in dataclasses.fields(cls) if each.name not in LIVE)
        given = {name: results[name] for name in names}
        given["image"] = tuple(given["image"])
        given["points"] = tuple(
            Point(**{**each, "step": each["step"] and Step(**each["step"])})
            for each in given["points"]
        )
        for name in ("retrained", "random"):
            given[name] = {int(ratio): value for ratio, value in given[name].items()}
        return cls(**given)


def settings() -> list[Step]:
    """Filters by window; shares that are kept; more steps; and a network's pooling."""
    found = [Step(ratio, window) for window in WINDOWS for ratio in RATIOS]
    found += [Step(MANY, share=share) for share in SHARES]
    found += [Step(MANY, steps=steps) for steps in STEPS]
    return [*found, *(Step(ratio, pooling="rectified") for ratio in RETRAINED)]


def compute(inputs: Inputs, generator: Callable[[int], Generator]) -> Kept:
    """The images of this page, read by a small network that is trained on them here."""
    data, readers = inputs.data, []
    large = data.train.shape[2] >= LARGE
    if large:
        data = data.first(LEARNED, generator=generator(KEPT + SUBSET))
    with tempfile.TemporaryDirectory() as folder:
        runs = again(
            READER, recipe(data), data, RETRAINED, generator, Path(folder), after=readers.append
        )
    draws = 1 if large else DRAWS
    random = classifiers(data, RATIOS, generator, draws)
    if large:
        some = evenly(data.test_labels)[:TESTED]
        data = dataclasses.replace(data, test=data.test[some], test_labels=data.test_labels[some])
    return measure(data, readers[0], runs, generator, random=random, draws=draws)


def measure(
    data: Labelled, reader: Classifier, runs: Mapping[int, Run],
    generator: Callable[[int], Generator], *, random: Mapping[int, float], draws: int,
    steps: Sequence[Step] | None = None, dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> Kept:  # fmt: skip
    """What the reader reads of all that stands for the test images.

    Args:
        data: the images.
        reader: a network trained on the originals; what it reads is made on its device.
        runs: of `kept_readers.again`.
        generator: a fresh generator for each stream.
        random: of `kept_readers.classifiers`.
        draws: of the random filters.
        steps: None for `settings()`.
        dtype: in which the reader computes.
        progress: show a bar.
    """
    device = reader.head.weight.device
    x = standardized(reader, data.test.to(device))
    desk = Desk(reader, x, data.test_labels.to(device), generator, dtype)
    banks = [drawn(x.shape[1], generator, draw).to(device) for draw in range(draws)]
    points = [
        desk.point(step, [step.of(x, bank) for bank in banks])
        for step in tqdm(settings() if steps is None else steps, disable=not progress)
    ]
    points += [desk.point(window, [averaged(x, window)]) for window in WINDOWS]
    return Kept(
        label=data.label,
        reader=str(reader.architecture),
        image=tuple(x.shape[1:]),
        tested=len(x),
        original=_share(desk.right),
        points=tuple(points),
        learner=runs[0].architecture,
        again=runs[0].test,
        retrained={ratio: run.test for ratio, run in runs.items() if ratio},
        random=dict(random),
        chance=1 / len(data.classes),
        pictures=desk.pictures(SHOWN, banks[0]),
        desk=desk,
    )


def standardized(net: Classifier, pixels: Tensor) -> Tensor:
    """Images (N, C, H, W) as the network sees them, float32."""
    return (pixels.float() - net.standardize.mean) / net.standardize.deviation


@dataclass(frozen=True, eq=False)
class Desk:
    """A reader, the images x (N, C, H, W) as it sees them, and their classes (N,)."""

    reader: Classifier
    x: Tensor
    truth: Tensor
    generator: Callable[[int], Generator]
    dtype: torch.dtype = torch.float32

    @cached_property
    def right(self) -> Tensor:
        """Which of the originals are read right, bool (N,)."""
        return self.reads(self.x)

    def reads(self, x_hat: Tensor) -> Tensor:
        """Which images are read right in these, neither rounded to bytes nor clipped."""
        return predict(self.reader, self._pixels(x_hat), self.dtype) == self.truth

    def _pixels(self, x: Tensor) -> Tensor:
        standard = self.reader.standardize
        return standard.mean + standard.deviation * x

    def point(self, made: Step | int, versions: Sequence[Tensor]) -> Point:
        """What the reader makes of x_hat, one version for each draw, and of the controls.

        Args:
            made: how x_hat was made, or the window of an average.
        """
        errors, accuracies, orders, noise, blur = [], [], [], [], []
        for draw, x_hat in enumerate(versions):
            error = relative_error(self.x, x_hat)
            still = self.reads(x_hat)
            errors.append(float(error.mean()))
            accuracies.append(_share(still))
            orders.append(order(error[self.right], still[self.right]))
            controls = (
                noisy(self.x, error, self.generator(NOISE + draw)), blurred(self.x, error)
            )  # fmt: skip
            for found, control in zip((noise, blur), controls, strict=True):
                found.append(_share(self.reads(control)))
        step = made if isinstance(made, Step) else None
        window = step.window if step else made
        known = [each for each in orders if each is not None]
        return Point(
            step=step,
            window=window,
            kept=step.kept(self.x.shape[1:]) if step else self.x[0].numel() // window**2,
            error=_mean(errors),
            accuracy=_mean(accuracies),
            noise=_mean(noise),
            blur=_mean(blur),
            spread=max(accuracies) - min(accuracies),
            order=_mean(known) if known else None,
        )

    def pictures(self, count: int, bank: FilterBank) -> dict[str, Tensor]:
        """The first images and what stands for them, in [0, 1]."""
        x = self.x[:count]
        few, many = (Step(ratio).of(x, bank) for ratio in (4, MANY))
        error = relative_error(x, few)
        shown = {
            "original": x, f"one step, {MANY}": many, "one step, 4": few,
            "noise": noisy(x, error, self.generator(NOISE)), "blur": blurred(x, error),
        }  # fmt: skip
        return {
            name: (self._pixels(each) / 255).clamp(0, 1).cpu() for name, each in shown.items()
        }


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def concordance(pairs: Sequence[tuple[float, float]]) -> float:
    """How often, of two (error, accuracy) with different errors, the smaller error has the higher
    accuracy; equal accuracies are half.

    Raises:
        ValueError: no two different errors.
    """
    error, accuracy = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
    less = error[:, None] < error
    if not less.any():
        check.fail("pairs", pairs, "two different errors at least")
    higher = accuracy[:, None] - accuracy
    return float(((higher > 0).double() + 0.5 * (higher == 0).double())[less].mean())


def order(error: Tensor, right: Tensor) -> float | None:
    """How often a misread image has the larger error than one that is read right; ties are half.

    Args:
        error: (N,).
        right: bool (N,).

    Returns:
        A share of all such pairs; None if there are none.
    """
    wrong, good = error[~right][:, None], error[right][None]
    if not wrong.numel() or not good.numel():
        return None
    return float(((wrong > good).double() + 0.5 * (wrong == good).double()).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rounded(value: Any) -> Any:
    """Floats with four decimals, keys as JSON has them."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {str(name): _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
