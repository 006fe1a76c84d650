"""Training of the classifiers of section 4.1: seeded, resumable, stopped by a validation split.

A run lives in a folder: ``state.pt`` while it goes on, ``run.json`` once it is done. Whoever asks
for the same run again gets the record; whoever asks for another run in the same folder, an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from invertnb import check
from invertnb.coherence import coherence
from invertnb.kernels import encoder
from invertnb.networks.classifier import Classifier, spread
from invertnb.networks.labelled import Labelled
from invertnb.networks.notation import Architecture
from invertnb.networks.train import save, schedule

SPLIT_SEED = 20161118  # of the validation images, the same in every run
CALIBRATION = 10_000  # training images at most, for the moments of random layers
STATE_EVERY_S = 20.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, besides the data and the architecture.

    Attributes:
        learned: everything learned; else random filters.
        epochs: over which the learning rate rises and falls.
        patience: epochs without a better validation accuracy after which a run stops.
        validation: images held out of the training set, by which the epoch is chosen.
        rate, warmup, momentum, decay: of stochastic gradient descent with Nesterov's momentum; the
            rate rises in a straight line over a share `warmup` of the steps and falls to 0. The
            decay is on filters and classifier.
        head: the classifier's rate is that of the filters times head / features.
        smoothing: of the labels.
        inner: False keeps scale 1 and bias 0 in all random layers but the last.
        pad, mirror: images are shifted by up to `pad` pixels (reflected at the border) and mirrored
            with probability one half.
        dtype: "float32", or "bfloat16" for images, activations and products.
    """

    learned: bool = True
    epochs: int = 20
    patience: int = 8
    validation: int = 5000
    batch: int = 500
    rate: float = 0.1
    warmup: float = 0.2
    momentum: float = 0.9
    decay: float = 5e-4
    head: float = 128.0
    dropout: float = 0.5
    smoothing: float = 0.0
    inner: bool = True
    pad: int = 4
    mirror: bool = True
    dtype: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1), ("patience", 1), ("validation", 1), ("batch", 2), ("pad", 0), ("seed", 0)
        ):  # fmt: skip
            check.integer(name, getattr(self, name), least)
        for name in ("rate", "decay", "head", "smoothing", "dropout"):
            check.real(name, getattr(self, name), 0)
        for name in ("warmup", "momentum"):
            check.real(name, getattr(self, name), 0, strict=True)
        for name in ("warmup", "momentum", "smoothing", "dropout"):
            if getattr(self, name) >= 1:
                check.fail(name, getattr(self, name), "a number below 1")
        for name in ("learned", "inner", "mirror"):
            check.flag(name, getattr(self, name))
        check.choice("dtype", self.dtype, tuple(DTYPES))


@dataclass(frozen=True)
class Run:
    """A finished run, as ``run.json`` keeps it.

    Attributes:
        architecture: in the notation of Table 5.
        recipe: how it was trained.
        data: what it was trained on, and its SHA-256.
        validation, test: accuracies (shares of images) after the epoch `best` (from 1), which
            validation chose; the test images were looked at once, then.
        history: loss, training and validation accuracy, seconds of each epoch.
        coherence: of each layer's filters at the end (section 4.4).
        about: device, versions, date, seconds, and what computed the random layers.
    """

    architecture: str
    recipe: dict[str, Any]
    data: dict[str, Any]
    validation: float
    test: float
    best: int
    history: list[dict[str, float]]
    coherence: list[float]
    about: dict[str, Any]


def augment(padded: Tensor, side: tuple[int, int], recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shifted, mirrored images (batch, C, H, W) out of bytes padded by `recipe.pad`."""
    batch, device = len(padded), padded.device

    def integers(high: int) -> Tensor:
        return torch.randint(high, (batch, 1), generator=generator)

    rows = integers(2 * recipe.pad + 1) + torch.arange(side[0])
    columns = integers(2 * recipe.pad + 1) + torch.arange(side[1])
    if recipe.mirror:
        columns = torch.where(integers(2) == 1, columns.flip(1), columns)
    rows, columns = rows.to(device), columns.to(device)
    at = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)[:, None, :]
    moved = padded.flatten(2).gather(2, at.expand(-1, padded.shape[1], -1))
    return moved.unflatten(2, side)


def accuracy(net: Classifier, images: Tensor, labels: Tensor, dtype: torch.dtype, batch: int = 500) -> float:
    """The share of images (N, C, H, W) that the network gets right."""
    return float((predict(net, images, dtype, batch) == labels).double().mean())


@torch.inference_mode()
def predict(net: Classifier, images: Tensor, dtype: torch.dtype, batch: int = 500) -> Tensor:
    """The class of each image, (N,)."""
    net.eval()
    with _autocast(images, dtype):
        return torch.cat([net(some).argmax(1) for some in images.split(batch)])


def _autocast(images: Tensor, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)


def build(architecture: Architecture, recipe: Recipe, train: Tensor, classes: int) -> Classifier:
    """The network at the start: weights drawn, moments of random layers set."""
    generator = torch.Generator().manual_seed(recipe.seed)
    net = Classifier(
        architecture, train, classes, learned=recipe.learned, dropout=recipe.dropout,
        generator=generator,
    )  # fmt: skip
    with _autocast(train, DTYPES[recipe.dtype]):
        net.calibrate(spread(train, CALIBRATION))
    return net


def optimizer(net: Classifier, recipe: Recipe) -> torch.optim.SGD:
    """Filters and classifier decay, batch norm's parameters do not."""
    layers = list(net.layers.parameters())
    if not recipe.learned and not recipe.inner:
        for each in net.layers[:-1].parameters():
            each.requires_grad_(False)
        layers = list(net.layers[-1].parameters())
    decayed = [each for each in layers if each.dim() > 1]
    others = [each for each in layers if each.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.decay, "share": 1.0},
        {"params": others, "weight_decay": 0.0, "share": 1.0},
        {
            "params": list(net.head.parameters()), "weight_decay": recipe.decay,
            "share": min(1.0, recipe.head / net.head.in_features),
        },
    ]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)


def fit(
    architecture: Architecture, recipe: Recipe, data: Labelled, folder: Path, *,
    device: str = "cpu", progress: bool = True, after: Callable[[Classifier], None] | None = None,
    description: str = "",
) -> Run:  # fmt: skip
    """Train a network, or go on with it, or read the record of the finished run.

    Of several calls at once for one folder the first trains; the others wait and read its record.

    Args:
        architecture, recipe, data: what to train, how, on what.
        folder: of this run; made if need be.
        device: "cpu" or "cuda".
        progress: show a bar.
        after: called with the network of the chosen epoch, once, before the record is written.
        description: for the bar.

    Raises:
        ValueError: a folder that holds another run, fewer training images than one batch and the
            validation images together, images too small for the shifts or the poolings, or a loss
            that is no finite number.
    """
    spec = {
        "architecture": str(architecture), "recipe": dataclasses.asdict(recipe),
        "data": {"label": data.label, "sha256": data.sha256, "real": data.real},
    }  # fmt: skip
    if (folder / "run.json").exists():
        return read_run(folder, spec)
    if len(data.train) < recipe.validation + recipe.batch:
        expected = f"{recipe.validation + recipe.batch} at least, to validate and for a batch"
        check.fail("training images", len(data.train), expected)
    if recipe.pad >= min(data.train.shape[2:]):
        check.fail("pad", recipe.pad, f"less than the images' {min(data.train.shape[2:])} pixels")
    with _alone(folder):
        if (folder / "run.json").exists():  # finished while this call waited
            return read_run(folder, spec)
        return _fit(
            architecture, recipe, data, folder, spec, device=device, progress=progress,
            after=after, description=description or str(architecture),
        )  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in this block for the same folder; one that stays empty is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with FileLock(path):
        try:
            yield
        finally:
            # While it is held: who locks a file that is gone then looks again. Windows refuses.
            with contextlib.suppress(OSError):
                path.unlink()
                folder.rmdir()


def _fit(
    architecture: Architecture, recipe: Recipe, data: Labelled, folder: Path,
    spec: dict[str, Any], *, device: str, progress: bool,
    after: Callable[[Classifier], None] | None, description: str,
) -> Run:  # fmt: skip
    begin = time.monotonic()
    learn, hold = data.split(recipe.validation, torch.Generator().manual_seed(SPLIT_SEED))
    train, truth = data.train[learn].to(device), data.train_labels[learn].to(device)
    held, held_truth = data.train[hold].to(device), data.train_labels[hold].to(device)
    net = build(architecture, recipe, train, len(data.classes))
    steps_by = optimizer(net, recipe)
    state = _resume(folder / "state.pt", spec, device, net, steps_by)
    history, best = state["history"], state["best"]
    dtype, side = DTYPES[recipe.dtype], tuple(train.shape[2:])
    padded = F.pad(train.float(), (recipe.pad,) * 4, mode="reflect").to(torch.uint8)
    steps, saved = len(train) // recipe.batch, time.monotonic()
    bar = tqdm(
        total=recipe.epochs * steps, initial=len(history) * steps, unit="step",
        desc=description, disable=not progress, mininterval=5,
    )  # fmt: skip
    for epoch in range(len(history), recipe.epochs):
        if _stalled(history, recipe):
            break
        start = time.monotonic()
        # A generator for each epoch: what follows a resumption is what would have followed anyway.
        generator = torch.Generator().manual_seed(_seed(recipe, epoch, "order"))
        order = torch.randperm(len(train), generator=generator)[: steps * recipe.batch].to(device)
        lost, right = torch.zeros(2, device=device).unbind()
        net.train()
        with torch.random.fork_rng():  # dropout draws from torch's own
            torch.manual_seed(_seed(recipe, epoch, "dropout"))
            for step, some in enumerate(order.split(recipe.batch)):
                rate = schedule(epoch * steps + step, recipe.epochs * steps, recipe)
                for group in steps_by.param_groups:
                    group["lr"] = rate * group["share"]
                moved = augment(padded[some], side, recipe, generator)
                with _autocast(train, dtype):
                    scores = net(moved)
                loss = F.cross_entropy(scores.float(), truth[some], label_smoothing=recipe.smoothing)
                steps_by.zero_grad(set_to_none=True)
                loss.backward()
                steps_by.step()
                lost += loss.detach()
                right += (scores.argmax(1) == truth[some]).sum()
                bar.update()
        loss = float(lost) / steps
        if not loss < float("inf"):
            check.fail("loss", loss, f"a finite number in epoch {epoch + 1}; a smaller rate may help")
        record = {"loss": loss, "train": float(right) / (steps * recipe.batch)}
        record["validation"] = accuracy(net, held, held_truth, dtype)
        history.append(record | {"seconds": time.monotonic() - start})
        bar.set_postfix(validation=f"{record['validation']:.3f}")
        if best is None or record["validation"] > history[best["epoch"]]["validation"]:
            best = {"epoch": epoch, "net": {k: v.clone() for k, v in net.state_dict().items()}}
        state = {"spec": spec, "history": history, "best": best}
        if time.monotonic() - saved > STATE_EVERY_S:
            parts = {"net": net.state_dict(), "optimizer": steps_by.state_dict()}
            save(state | parts, folder / "state.pt")
            saved = time.monotonic()
    bar.close()
    net.load_state_dict(best["net"])
    net.eval()
    if after:
        after(net)
    tested = accuracy(net, data.test.to(device), data.test_labels.to(device), dtype)
    run = Run(
        **spec, validation=history[best["epoch"]]["validation"], test=tested,
        best=best["epoch"] + 1, history=[_short(each) for each in history],
        coherence=[
            round(float(coherence(layer.weight.detach().float())), 4)
            for layer in net.layers if len(layer.weight) > 1
        ],
        about=about(device, net) | {"seconds": round(time.monotonic() - begin, 1)},
    )  # fmt: skip
    part = folder / "run.part"
    part.write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")
    part.replace(folder / "run.json")
    (folder / "state.pt").unlink(missing_ok=True)
    return run


def read_run(folder: Path, spec: dict[str, Any] | None = None) -> Run:
    """The record of a finished run.

    Raises:
        ValueError: the record of another run than `spec` says.
    """
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if spec is not None:
        _same(folder / "run.json", found, spec)
    return Run(**found)


def about(device: str, net: Classifier) -> dict[str, Any]:
    """Where and with what a run was made."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "device": name,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }  # fmt: skip
    if not net.learned:
        first = net.layers[0].weight[:1]
        taken = encoder.takes(first.new_zeros((1, *first.shape[1:])).half(), first.half())
        found["encoder"] = "Triton kernel in layer 1" if taken else "plain PyTorch"
    return found


def _seed(recipe: Recipe, epoch: int, purpose: str) -> int:
    """Of one epoch's draws for one purpose; no two of all runs share a stream."""
    words = np.random.SeedSequence((recipe.seed, epoch, *purpose.encode())).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _short(record: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in record.items()}


def _stalled(history: list[dict[str, float]], recipe: Recipe) -> bool:
    """Whether `patience` epochs have passed since the best one."""
    reached = [record["validation"] for record in history]
    return bool(reached) and len(reached) - 1 - reached.index(max(reached)) >= recipe.patience


def _resume(
    path: Path, spec: dict[str, Any], device: str, net: Classifier, steps_by: torch.optim.Optimizer
) -> dict[str, Any]:
    if not path.exists():
        return {"history": [], "best": None}
    state = torch.load(path, weights_only=True, map_location=device)
    _same(path, state["spec"], spec)
    net.load_state_dict(state["net"])
    steps_by.load_state_dict(state["optimizer"])
    return state


def _same(path: Path, found: dict[str, Any], spec: dict[str, Any]) -> None:
    for name, want in spec.items():
        if found[name] != want:
            raise ValueError(f"{path.parent.name}: expected the run of {want}, but found {found[name]}")
