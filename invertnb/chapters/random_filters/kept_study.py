"""The same on CIFAR-10, with a larger reader: recorded, as it takes too long for a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Generator

from invertnb import check
from invertnb.chapters.random_filters import kept, kept_readers
from invertnb.chapters.random_filters.inputs import KEPT
from invertnb.networks import Labelled
from invertnb.networks.classifier import Classifier
from invertnb.networks.labelled import evenly
from invertnb.networks.notation import parse
from invertnb.networks.training import DTYPES, Recipe, fit, read_run

TESTED = 2000
LEARNER = "(64)3c-2pmax-(128)3c-2pmax-(128)3c-2pmax"
RECIPE = Recipe(epochs=10, patience=50, batch=125, dropout=0.2)
STATE = "net.safetensors"
SUBSET = KEPT + 60  # stream
#: What is recorded: readers of reconstructions, and ridge, learn from so many images.
IMAGES, SHOWN = 12_000, 1000
SMALLER = "(32)3c-2pmax-(64)3c-2pmax"
SMALLER_RECIPE = Recipe(epochs=8, patience=50, batch=100, validation=2000, dropout=0.2)


def recorded(
    data: Labelled, generator: Callable[[int], Generator], work: Path, *, device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The study at the size that is recorded: a reader of all images, smaller ones of fewer.

    Args:
        data: CIFAR-10.
        generator: a fresh generator for each stream.
        work: a folder; what is finished there is not computed again.
        device: "cpu" or "cuda".
        progress: show bars.

    Raises:
        ValueError: in `work` is another reader, or one without its state dict.
    """
    reader = work / "reader"

    def save(net: Classifier) -> None:
        state = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
        save_file(state, reader / STATE)

    # A finished run is read, and refused if it is another one.
    fit(parse(LEARNER), RECIPE, data, reader, device=device, progress=progress, after=save)
    if not (reader / STATE).exists():
        both = f"{STATE} beside run.json; without both it is trained anew"
        check.fail("reader", reader.name, both)
    some = data.first(IMAGES, 2 * SHOWN, generator=generator(SUBSET))
    return study(
        some, generator, work, reader=reader, tested=SHOWN, learner=SMALLER,
        recipe=SMALLER_RECIPE, device=device, progress=progress,
    )


def study(
    data: Labelled, generator: Callable[[int], Generator], work: Path, *,
    reader: Path | None = None, tested: int = TESTED, ratios: Sequence[int] = kept.RETRAINED,
    steps: Sequence[kept.Step] | None = None, learner: str = LEARNER, recipe: Recipe = RECIPE,
    device: str = "cpu", progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """What `kept.Kept.json` says, and of the reader its accuracy on all test images.

    Args:
        data: all images.
        generator: a fresh generator for each stream.
        work: a folder for the runs of this study; what is finished there is not computed again.
        reader: a folder with a reader's run.json and state dict; None takes the learner.
        tested: test images that the reader reads, as even over the classes as these allow. The
            readers that are trained here and the random classifiers have all of them.
        ratios: of the reconstructions on which readers are trained.
        steps: None for `kept.settings()`.
        learner, recipe: of the readers trained here.
        device: "cpu" or "cuda".
        progress: show bars.

    Raises:
        ValueError: a reader for other images.
    """

    def save(net: Classifier) -> None:
        state = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
        save_file(state, work / "originals" / STATE)

    runs = kept_readers.again(
        learner, recipe, data, ratios, generator, work, device=device, progress=progress, after=save
    )
    folder = work / "originals" if reader is None else reader
    run = read_run(folder)
    some = evenly(data.test_labels)[: check.integer("tested", tested, len(data.classes))]
    fewer = dataclasses.replace(data, test=data.test[some], test_labels=data.test_labels[some])
    found = kept.measure(
        fewer, load_reader(folder, data).to(device), runs, generator,
        random=kept_readers.classifiers(data, kept.RATIOS, generator, kept.DRAWS, device),
        steps=steps, draws=kept.DRAWS, dtype=DTYPES[run.recipe["dtype"]],
        progress=progress,
    )  # fmt: skip
    return found.json() | {"reader's accuracy": run.test, "reader's epochs": run.recipe["epochs"]}


def load_reader(folder: Path, data: Labelled) -> Classifier:
    """The network of this folder's run.json, in float32, on the CPU.

    Raises:
        ValueError: a state for images of another size or for other classes.
    """
    run = read_run(folder)
    net = Classifier(
        parse(run.architecture), data.train[:1], len(data.classes), learned=True, dropout=0.0,
        generator=Generator().manual_seed(0),
    )  # fmt: skip
    state = load_file(folder / STATE)
    wanted = net.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if shapes != {name: tuple(value.shape) for name, value in wanted.items()}:
        what = f"{tuple(data.train.shape[1:])} and {len(data.classes)} classes"
        check.fail("reader", folder.name, f"the state of {run.architecture} for images {what}")
    net.load_state_dict({name: value.to(wanted[name].dtype) for name, value in state.items()})
    return net.eval()
