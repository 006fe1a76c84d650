"""Softmax classifiers on features that do not move: computed once, kept in a file, read often.

The random rows of Table 1 learn nothing below batch norm's scale and bias. With these at 1 and 0
the features of all images are computed once, and the classifier is a convex problem of its own:
what its optimization contributes to an accuracy can be told apart from what the features allow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from invertnb import check
from invertnb.networks.classifier import Classifier
from invertnb.networks.ridge import Moments

BATCH = 250
KEPT_EVERY = 20  # batches
BASES = ("plain", "centered", "whitened")
Set = tuple[Tensor, Tensor]  # features (N, P) in any floating dtype, labels int64 (N,)


class Read(nn.Module):
    """Stands for a network whose features were computed: takes them, and gives them back.

    It has what `ridge` asks a network for.
    """

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.architecture, self.head = net.architecture, net.head

    def features(self, x: Tensor) -> Tensor:
        """x itself, (batch, features)."""
        return x


def keep_features(
    net: Classifier, images: Tensor, path: Path, *, dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> Tensor:  # fmt: skip
    """What the network's head sees of each image, float16 (N, P), out of the file or into it.

    A call that was interrupted goes on where it stopped. The file is numpy's; another beside it,
    with the suffix .json, says how many rows are done, of which network and images.

    Args:
        net: is set to evaluation, where features do not depend on the batch; its head is not used.
        images: uint8 (N, C, H, W).
        path: of the file, with the suffix .npy.
        dtype: float32 or bfloat16, of the network's products.
        progress: show a bar.

    Raises:
        ValueError: a file of another network or of other images, or features too large for float16.
    """
    if path.suffix != ".npy":
        check.fail("path", path.name, "a name that ends in .npy")
    net.eval()
    shape, note = (len(images), net.head.in_features), path.with_suffix(".json")
    of, done = _whose(net, images, dtype), 0
    if note.exists():
        about = json.loads(note.read_text(encoding="utf-8"))
        if about["of"] != of:
            check.fail("path", path.name, "features of this network and these images")
        done = about["done"] if path.exists() else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    if not done:
        note.unlink(missing_ok=True)  # or it would speak of rows that the new file has not
    mode = "r+" if done else "w+"
    rows = np.lib.format.open_memmap(path, mode, np.float16, None if done else shape)
    bar = tqdm(total=len(images), initial=done, unit="image", disable=not progress, mininterval=5)
    for number, start in enumerate(range(done, len(images), BATCH), 1):
        some = images[start : start + BATCH]
        autocast = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)
        with torch.inference_mode(), autocast:
            features = net.features(some).half().cpu()
        if not features.isfinite().all():
            check.fail("features", path.name, "numbers that float16 can hold")
        rows[start : start + len(some)] = features.numpy()
        if number % KEPT_EVERY == 0 or start + BATCH >= len(images):
            rows.flush()
            part = note.with_suffix(".part")
            part.write_text(json.dumps({"of": of, "done": start + len(some)}), encoding="utf-8")
            part.replace(note)
        bar.update(len(some))
    bar.close()
    return torch.from_numpy(rows)


def _whose(net: Classifier, images: Tensor, dtype: torch.dtype) -> str:
    whole = hashlib.sha256(f"{net.architecture} {dtype} {tuple(images.shape)}".encode())
    for name, value in sorted(net.state_dict().items()):
        if not name.startswith("head."):
            whole.update(name.encode() + np.ascontiguousarray(value.cpu().numpy()).tobytes())
    whole.update(np.ascontiguousarray(images.cpu().numpy()))
    return whole.hexdigest()


@dataclass(frozen=True)
class Condition:
    """Of the classifier's problem: the spectrum of its features. Rates are as in `softmax`.

    Attributes:
        mean: squared norm of the features' mean.
        variance: mean squared distance of the features from their mean.
        second: largest eigenvalue of the second moment, relative to `variance`.
        eigenvalues: of the covariance, falling, relative to `variance`: all of them have the sum 1.
        places: of these among all, counted from 1; the last is the number of features.
    """

    mean: float
    variance: float
    second: float
    eigenvalues: tuple[float, ...]
    places: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the features' energy, that of their mean."""
        return self.mean / (self.mean + self.variance)

    def stable(self, base: str, classes: int, momentum: float = 0.0) -> float:
        """The largest rate at which gradient descent does not leave the start, zero, at once.

        With all scores equal the Hessian of the softmax loss is the second moment of what the
        classifier sees, times 1 / classes for all directions but one among the classes: L is the
        largest eigenvalue by `classes`. Nesterov's momentum b bounds the rate by
        2 (1 + b) / ((1 + 2 b) L), which is 2 / L for none.

        Args:
            base: "plain" or "centered".
            classes: how many.
            momentum: b.
        """
        top = {"plain": self.second, "centered": self.eigenvalues[0]}
        L = top[check.choice("base", base, tuple(top))] / classes
        return 2 * (1 + momentum) / ((1 + 2 * momentum) * L)

    def above(self, threshold: float) -> float:
        """About how many eigenvalues are larger: on straight lines in logarithmic coordinates.

        Raises:
            ValueError: a threshold that is not positive.
        """
        at = np.log(check.real("threshold", threshold, 0, strict=True))
        # Of fewer images than features the last ones are 0 but for rounding.
        falling = -np.log(np.maximum(self.eigenvalues, 1e-12))
        if -at <= falling[0]:
            return 0.0
        return float(np.exp(np.interp(-at, falling, np.log(self.places))))


def condition(found: Moments) -> Condition:
    """The whole spectrum of features, from their moments as `ridge.moments` gives them."""
    variance = float(found.gram.diagonal().sum(dtype=torch.float64))
    second = torch.addr(found.gram, found.feature_mean, found.feature_mean)
    eigenvalues = torch.linalg.eigvalsh(found.gram).flip(0) / variance
    return Condition(
        float(found.feature_mean.double().square().sum()), variance,
        float(torch.linalg.eigvalsh(second)[-1]) / variance, tuple(eigenvalues.tolist()),
        tuple(range(1, len(eigenvalues) + 1)),
    )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """How a classifier is trained.

    Attributes:
        rate: of the descent.
        base: "plain", the features as they are; "centered", less their mean; "whitened", descent
            in coordinates in which the features' covariance is nearly the identity.
        dropout: probability, of the features as they are.
    """

    rate: float
    base: str = "centered"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check.real("rate", self.rate, 0, strict=True)
        check.choice("base", self.base, BASES)
        if check.real("dropout", self.dropout, 0) >= 1:
            check.fail("dropout", self.dropout, "a probability below 1")


@dataclass(frozen=True)
class Softmax:
    """A softmax classifier on fixed features, as trained.

    Attributes:
        setting: how.
        validation, test, train: shares of images that it gets right, after the epoch `best` (from
            1), which validation chose.
        history: validation accuracy after each epoch.
        loss: mean over each epoch, with dropout.
    """

    setting: Setting
    validation: float
    test: float
    train: float
    best: int
    history: tuple[float, ...]
    loss: tuple[float, ...]


def softmax(
    train: Set, validation: Set, test: Set, settings: Sequence[Setting], *, classes: int,
    epochs: int, generator: torch.Generator, decay: float = 0.0, batch: int = 500,
    momentum: float = 0.9, ridge: float = 0.01, progress: bool = False,
) -> list[Softmax]:  # fmt: skip
    """Train softmax classifiers on fixed features by stochastic gradient descent, side by side.

    Features are divided by the root of their mean squared distance from the mean, so that a rate
    means the same for every network. Subtracting their mean changes no classifier, since the bias
    takes it up, but the problem's conditioning: features after ReLU are positive. Whitening
    multiplies gradients by (C + ridge * mean variance * I)^(-1), C the covariance of the scaled
    features, which is descent on whitened features.

    Every classifier sees the same batches and the same draws of dropout, whichever others there
    are. What they share is one pass over the features.

    Args:
        train, validation, test: features (N, P) in any dtype, and labels (N,); on the CPU.
        settings: one for each classifier.
        classes: how many.
        epochs: over which the rate falls to 0 in a straight line.
        generator: orders the images and drops features.
        decay, momentum: of the descent with Nesterov's momentum; the decay is on scaled weights.
        batch: images in a step; what is left over at the end of an epoch is left out.
        ridge: for whitening.
        progress: show a bar.

    Raises:
        ValueError: numbers out of range, fewer images than one batch, or a loss that is no finite
            number.
    """
    features, labels = train
    for name, value in (("epochs", epochs), ("classes", classes), ("batch", batch)):
        check.integer(name, value, 1)
    check.generator("generator", generator)
    for name, value in (("decay", decay), ("momentum", momentum)):
        check.real(name, value, 0)
    if not settings:
        check.fail("settings", settings, "one at least")
    if len(labels) < batch:
        check.fail("training images", len(labels), f"{batch} at least, for a batch")
    mean, spread = scale(features)
    heads = _Heads(settings, classes, mean / spread, spread, momentum, decay)
    if any(setting.base == "whitened" for setting in settings):
        heads.whiten(features, ridge)
    orders, drops = (
        torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _ in range(2)
    )
    steps, kept, losses = len(labels) // batch, [], []
    bar = tqdm(total=epochs * steps, unit="step", disable=not progress, mininterval=5)
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=orders)
        lost = torch.zeros(len(settings))
        for step in range(steps):
            some = order[step * batch : (step + 1) * batch].sort().values
            left = 1 - (epoch * steps + step) / (epochs * steps)
            lost += heads.step(features[some].float(), labels[some], left, drops)
            bar.update()
        losses.append((lost / steps).tolist())
        if not lost.isfinite().all():
            worst = settings[int(lost.isfinite().int().argmin())]
            expected = f"finite numbers, as a smaller rate than {worst} may give"
            check.fail("loss", losses[-1], expected)
        head = heads.plain()
        kept.append((_shares(*validation, *head), head))
    bar.close()
    reached = torch.tensor([shares for shares, _ in kept], dtype=torch.float64)  # (epochs, H)
    # The last of the best: the rate has fallen further there.
    best = [epochs - 1 - int(each.flip(0).argmax()) for each in reached.T]
    chosen = [
        torch.stack([kept[epoch][1][part][h] for h, epoch in enumerate(best)]) for part in (0, 1)
    ]
    tested, fitted = _shares(*test, *chosen), _shares(*train, *chosen)
    return [
        Softmax(
            setting, float(reached[best[h], h]), tested[h], fitted[h], best[h] + 1,
            tuple(reached[:, h].tolist()), tuple(each[h] for each in losses),
        )
        for h, setting in enumerate(settings)
    ]  # fmt: skip


class _Heads:
    """Weights of classifiers side by side, on scaled features, and their descent."""

    def __init__(
        self, settings: Sequence[Setting], classes: int, mean: Tensor, spread: float,
        momentum: float, decay: float,
    ) -> None:  # fmt: skip
        H, P = len(settings), len(mean)
        self.mean, self.spread, self.momentum, self.decay = mean, spread, momentum, decay
        self.weight = torch.zeros(H, classes, P, requires_grad=True)
        self.bias = torch.zeros(H, classes, requires_grad=True)
        self.velocity = [torch.zeros_like(each) for each in (self.weight, self.bias)]
        self.rate = torch.tensor([float(each.rate) for each in settings])
        self.centered = torch.tensor([float(each.base != "plain") for each in settings])
        self.white = [h for h, each in enumerate(settings) if each.base == "whitened"]
        self.dropped: dict[float, list[int]] = {}
        for h, each in enumerate(settings):
            self.dropped.setdefault(float(each.dropout), []).append(h)
        self.inverse = torch.empty(0)

    def whiten(self, features: Tensor, ridge: float) -> None:
        """Prepare (C + ridge * mean variance * I)^(-1)."""
        P = len(self.mean)
        system = torch.zeros(P, P)
        for some in features.split(2000):
            x = some.float() / self.spread - self.mean
            system.addmm_(x.T, x, alpha=1 / len(features))
        system.diagonal().add_(ridge * system.diagonal().mean())
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(system.double())).float()

    def scores(self, x: Tensor, heads: list[int]) -> Tensor:
        """(batch, heads, classes) of features x (batch, P), not yet scaled."""
        weight = self.weight[heads]
        shift = self.bias[heads] - self.centered[heads, None] * (weight @ self.mean)
        # Scaling the weights is cheaper than scaling the features.
        scores = F.linear(x, weight.flatten(0, 1) / self.spread)
        return scores.unflatten(1, weight.shape[:2]) + shift

    def step(self, x: Tensor, labels: Tensor, left: float, drops: torch.Generator) -> Tensor:
        """Go down the gradient, at the rates times `left`; the losses (heads,) before that."""
        losses = torch.zeros(len(self.rate))
        drawn = torch.rand(x.shape, generator=drops) if any(self.dropped) else None
        for p, heads in self.dropped.items():
            seen = torch.where(drawn >= p, x / (1 - p), 0.0) if p else x
            scores = self.scores(seen, heads).transpose(1, 2)  # (batch, classes, heads)
            truth = labels[:, None].expand(-1, len(heads))
            loss = F.cross_entropy(scores, truth, reduction="none").mean(0)
            losses = losses.index_add(0, torch.tensor(heads), loss)
        # A head's loss depends on that head alone.
        gradients = torch.autograd.grad(losses.sum(), (self.weight, self.bias))
        with torch.no_grad():
            gradients[0].add_(self.weight, alpha=self.decay)
            if self.white:
                gradients[0][self.white] = gradients[0][self.white] @ self.inverse
            for each, gradient, v in zip(
                (self.weight, self.bias), gradients, self.velocity, strict=True
            ):
                v.mul_(self.momentum).add_(gradient)
                rate = (left * self.rate).view(-1, *(1,) * (each.dim() - 1))
                each.sub_(rate * (gradient + self.momentum * v))
        return losses.detach()

    @torch.no_grad()
    def plain(self) -> tuple[Tensor, Tensor]:
        """Weights (heads, classes, P) and biases (heads, classes) for features as they are."""
        bias = self.bias - self.centered[:, None] * (self.weight @ self.mean)
        return self.weight / self.spread, bias


def scale(features: Tensor) -> tuple[Tensor, float]:
    """The mean, and the root of the mean squared distance from it."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for some in features.split(2000):
        total += some.float().sum(0, dtype=torch.float64)
    mean, squares = (total / len(features)).float(), 0.0
    for some in features.split(2000):
        squares += float((some.float() - mean).square().sum(dtype=torch.float64))
    return mean, max(squares / len(features), 1e-12) ** 0.5


@torch.no_grad()
def _shares(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> list[float]:
    """Of images that each head gets right."""
    right = torch.zeros(len(weight), dtype=torch.int64)
    for some, truth in zip(features.split(2000), labels.split(2000), strict=True):
        scores = F.linear(some.float(), weight.flatten(0, 1)).unflatten(1, weight.shape[:2]) + bias
        right += (scores.argmax(2) == truth[:, None]).sum(0)
    return [int(each) / len(labels) for each in right]
