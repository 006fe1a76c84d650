"""The ridge classifier on a network's features, in closed form, for many numbers of filters at once.

Least squares on one-hot labels: with centered features F (N, P) and centered targets Y (N, C),
W = (F^T F + N lambda s I)^(-1) F^T Y, s the mean of the diagonal of F^T F / N. Features of one layer's
first k filters are the first columns of F, so that one F^T F serves every k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.networks.classifier import Classifier

BATCH = 500


@dataclass(frozen=True)
class Moments:
    """Of features (N, P) and one-hot targets (N, C).

    Attributes:
        gram: F^T F / N of centered features, (P, P).
        cross: F^T Y / N, centered, (P, C).
        feature_mean, target_mean: (P,) and (C,).
    """

    gram: Tensor
    cross: Tensor
    feature_mean: Tensor
    target_mean: Tensor

    def solve(self, decay: float, features: int | None = None) -> tuple[Tensor, Tensor]:
        """Weights (features, C) and bias (C,) of the ridge classifier, in float64.

        Args:
            decay: lambda, relative to the features' mean variance.
            features: use the first so many; None for all.

        Raises:
            ValueError: a decay that is not positive, or more features than there are.
        """
        check.real("decay", decay, 0, strict=True)
        P = len(self.gram) if features is None else features
        check.integer("features", P, 1, len(self.gram))
        system = self.gram[:P, :P].to(torch.float64, copy=True)
        system.diagonal().add_(decay * system.diagonal().mean())
        weight = torch.cholesky_solve(self.cross[:P].double(), torch.linalg.cholesky(system))
        return weight, self.target_mean.double() - self.feature_mean[:P].double() @ weight


@torch.inference_mode()
def moments(net: Classifier, images: Tensor, labels: Tensor, classes: int, dtype: torch.dtype) -> Moments:
    """Moments of the features that the network's head sees.

    Args:
        net: a network; its head plays no part.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        classes: how many.
        dtype: float32 or bfloat16, of the network's products. Sums are in float32 at least.
    """
    net.eval()
    P, N = net.head.in_features, len(images)
    gram = torch.zeros(P, P, device=images.device)
    cross = torch.zeros(P, classes, device=images.device)
    feature_sum, target_sum = gram.new_zeros(P, dtype=torch.float64), gram.new_zeros(classes)
    for features, truth in _features(net, images, labels, dtype):
        target = F.one_hot(truth, classes).float()
        gram.addmm_(features.T, features)
        cross.addmm_(features.T, target)
        feature_sum += features.double().sum(0)
        target_sum += target.sum(0)
    mean, share = (feature_sum / N).float(), target_sum / N
    return Moments(
        (gram / N).addr_(mean, mean, alpha=-1), (cross / N).addr_(mean, share, alpha=-1), mean, share
    )


@torch.inference_mode()
def accuracies(
    net: Classifier, images: Tensor, labels: Tensor, dtype: torch.dtype,
    heads: Sequence[tuple[Tensor, Tensor]],
) -> list[float]:  # fmt: skip
    """Shares of images that each head (weights, bias) gets right, in one pass over the images."""
    net.eval()
    P, C = net.head.in_features, len(heads[0][1])
    weight = torch.cat([F.pad(each, (0, 0, 0, P - len(each))) for each, _ in heads], 1).float()
    bias = torch.cat([each for _, each in heads]).float()
    right = torch.zeros(len(heads), dtype=torch.int64, device=images.device)
    for features, truth in _features(net, images, labels, dtype):
        scores = torch.addmm(bias, features, weight).unflatten(1, (len(heads), C))
        right += (scores.argmax(2) == truth[:, None]).sum(0)
    return [int(each) / len(images) for each in right]


def _features(
    net: Classifier, images: Tensor, labels: Tensor, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            features = net.features(some)
        yield features.float(), truth


@dataclass(frozen=True)
class Fit:
    """The ridge classifier on the first `filters` filters, with the decay that validation chose."""

    filters: int
    decay: float
    validation: float
    test: float
    train: float


def ridge(
    net: Classifier, filters: Sequence[int], decays: Sequence[float], *,
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> list[Fit]:  # fmt: skip
    """Ridge classifiers for each number of filters of the last layer.

    Args:
        net: a network; with one layer, its first k filters are a network with k filters.
        filters: numbers of filters, at most the last layer's.
        decays: to choose from, by validation alone.
        train, validation, test: images and labels each, on the network's device.
        dtype: float32 or bfloat16.
    """
    last = net.architecture.layers[-1].filters
    if not filters or not decays:
        check.fail("filters, decays", (filters, decays), "one of each at least")
    for each in filters:
        check.integer("filters", each, 1, last)
    classes = net.head.out_features
    found = moments(net, *train, classes, dtype)
    each = net.head.in_features // last
    heads = [found.solve(decay, k * each) for k in filters for decay in decays]
    reached = accuracies(net, *validation, dtype, heads)
    best = []
    for number, k in enumerate(filters):
        some = reached[number * len(decays) : (number + 1) * len(decays)]
        place = some.index(max(some))
        best.append((k, decays[place], some[place], heads[number * len(decays) + place]))
    chosen = [head for *_, head in best]
    tested = accuracies(net, *test, dtype, chosen)
    fitted = accuracies(net, *train, dtype, chosen)
    return [
        Fit(k, decay, held, tested[number], fitted[number])
        for number, (k, decay, held, _) in enumerate(best)
    ]
