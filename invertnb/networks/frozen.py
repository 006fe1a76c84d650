"""A softmax classifier on features that do not move: computed once, kept in a file, read many times.

The random rows of Table 1 learn nothing below batch norm's scale and bias. With these at 1 and 0 the
features of all images are computed once, and the classifier is a convex problem of its own: what
its optimization contributes to an accuracy can be told apart from what the features allow.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from invertnb import check
from invertnb.networks.classifier import Classifier

BATCH = 250


@torch.inference_mode()
def keep_features(
    net: Classifier, images: Tensor, path: Path, *, progress: bool = True
) -> Tensor:
    """What the network's head sees of each image, bfloat16 (N, P), out of the file or into it.

    A call that was interrupted goes on where it stopped. The file holds the bits of the numbers,
    row by row; `path` with the suffix .json says how many rows are done.

    Args:
        net: in evaluation mode its features must not depend on the batch.
        images: uint8 (N, C, H, W).
        path: of the file.
        progress: show a bar.

    Raises:
        ValueError: a file of another shape.
    """
    net.eval()
    shape = (len(images), net.head.in_features)
    note = path.with_suffix(".json")
    done = 0
    if note.exists():
        about = json.loads(note.read_text())
        if tuple(about["shape"]) != shape:
            check.fail("path", path.name, f"features of shape {shape}, but found {about['shape']}")
        done = about["done"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bits of bfloat16, which numpy does not know; int16 is what torch can see them through.
    bits = np.memmap(path, np.int16, "r+" if path.exists() and done else "w+", shape=shape)
    rows = torch.from_numpy(bits)
    bar = tqdm(total=len(images), initial=done, unit="image", disable=not progress, mininterval=5)
    for start in range(done, len(images), BATCH):
        some = images[start : start + BATCH]
        with torch.autocast(images.device.type, torch.bfloat16):
            features = net.features(some).bfloat16().cpu()
        rows[start : start + len(some)] = features.contiguous().view(torch.int16)
        if start // BATCH % 20 == 19 or start + BATCH >= len(images):
            bits.flush()
            note.write_text(json.dumps({"shape": shape, "done": start + len(some)}))
        bar.update(len(some))
    bar.close()
    return rows.view(torch.bfloat16)


@dataclass(frozen=True)
class Softmax:
    """A softmax classifier on fixed features, as trained.

    Attributes:
        validation, test, train: shares of images that it gets right, after the epoch `best` (from
            1), which validation chose.
        history: validation accuracy after each epoch.
    """

    validation: float
    test: float
    train: float
    best: int
    history: list[float]


def softmax(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor],
    *, epochs: int, rate: float, dropout: float, decay: float, generator: torch.Generator,
    batch: int = 500, momentum: float = 0.9, centered: bool = True,
) -> Softmax:  # fmt: skip
    """Train a softmax classifier on fixed features by stochastic gradient descent.

    Features are divided by the root of their mean squared distance from the mean, so that `rate`
    means the same for every network. Subtracting their mean changes no classifier, since the bias
    takes it up, but the problem's conditioning: features after ReLU are positive, and the
    direction of their mean has most of their energy.

    Args:
        train, validation, test: features (N, P) in any dtype, and labels (N,).
        epochs: over which the rate falls to 0 in a straight line.
        rate, momentum, decay: of the descent with Nesterov's momentum; decay on the scaled weights.
        dropout: probability.
        generator: orders the images and drops features.
        batch: images in a step.
        centered: subtract the mean.

    Raises:
        ValueError: numbers out of range.
    """
    check.integer("epochs", epochs, 1)
    check.real("rate", rate, 0, strict=True)
    check.generator("generator", generator)
    features, labels = train
    classes = int(labels.max()) + 1
    mean, spread = _moments(features)
    shift = mean if centered else torch.zeros_like(mean)
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    steps_by = torch.optim.SGD(
        [{"params": [weight], "weight_decay": decay}, {"params": [bias]}],
        lr=rate, momentum=momentum, nesterov=True,
    )  # fmt: skip
    steps, history, best = len(labels) // batch, [], None
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for step in range(steps):
            for group in steps_by.param_groups:
                group["lr"] = rate * (1 - (epoch * steps + step) / (epochs * steps))
            some = order[step * batch : (step + 1) * batch].sort().values
            x = (features[some].float() - shift) / spread
            if dropout:
                kept = torch.rand(x.shape, generator=generator) >= dropout
                # Dropped entries are zero before the mean is subtracted.
                x = torch.where(kept, (x + shift / spread) / (1 - dropout), 0.0) - shift / spread
            loss = F.cross_entropy(F.linear(x, weight, bias), labels[some])
            steps_by.zero_grad(set_to_none=True)
            loss.backward()
            steps_by.step()
        with torch.no_grad():
            head = (weight / spread).detach().clone(), (bias - weight @ (shift / spread)).detach()
        history.append(_share(*validation, head))
        if history[-1] >= max(history):
            best = head
    reached = max(history)
    return Softmax(
        reached, _share(*test, best), _share(features, labels, best),
        len(history) - history[::-1].index(reached), history,
    )  # fmt: skip


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and the root of the mean squared distance from it."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    squares = 0.0
    for some in features.split(2000):
        total += some.float().sum(0).double()
        squares += float(some.float().square().sum(dtype=torch.float64))
    mean = total / len(features)
    variance = squares / len(features) - float(mean.square().sum())
    return mean.float(), torch.tensor(variance).clamp(min=1e-12).sqrt().float()


def _share(features: Tensor, labels: Tensor, head: tuple[Tensor, Tensor]) -> float:
    right = 0
    for some, truth in zip(features.split(2000), labels.split(2000), strict=True):
        right += int((F.linear(some.float(), *head).argmax(1) == truth).sum())
    return right / len(labels)
