"""How sparse, how clustered and how compressible the outputs of a network's layers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb.networks import Images, Network
from invertnb.networks.architecture import parse_layer

#: Shares of the entries, largest first, at which the error of keeping them alone is computed.
SHARES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
ENERGY = 0.9  # of the squared norm, for the share of the nonzeros that holds it
WINDOW = 2  # side of a pooling window, and its stride
BATCH = 4  # images whose activations are held at once
MAP = 48  # side of the largest map of active channels, in pixels
#: Nonzeros of a rectified zero-mean Gaussian that hold ENERGY of its squared norm: the share
#: 2 Q(t) with 2 (t phi(t) + Q(t)) = ENERGY.
HALF_NORMAL = 0.4446


@dataclass(frozen=True)
class Activity:
    """One layer over a set of images; the percents are means over images.

    Attributes:
        percent: percent of the entries that are not zero.
        sd: its standard deviation over images (0 for one image).
        low, high: its smallest and largest value over images.
        errors: ``||h - h_s|| / ||h||`` for each share s of SHARES, h_s the largest entries of h.
        needed: percent of the nonzeros, largest first, that hold ENERGY of ``||h||^2``.
        windows: percent of the 2 x 2 windows with 0, 1, 2, 3 and 4 nonzeros; empty for layers that
            no pooling with such windows follows.
        lost: ``||h - h_1|| / ||h||``, h_1 the largest entry of each window; None like windows.
    """

    percent: float
    sd: float
    low: float
    high: float
    errors: tuple[float, ...]
    needed: float
    windows: tuple[float, ...] = ()
    lost: float | None = None

    @property
    def crowded(self) -> float:
        """Percent of the windows with a nonzero that have more than one."""
        return 100 * sum(self.windows[2:]) / sum(self.windows[1:])


def independent(density: float) -> float:
    """Density after 2 x 2 max pooling of nonzeros that are placed independently, 1 - (1 - p)^4."""
    return 1 - (1 - density) ** WINDOW**2


def per_window(conv: float, pool: float) -> float:
    """Nonzeros in an average nonempty 2 x 2 window, from the densities before and after pooling.

    Windows that tile the image hold ``4 conv`` nonzeros each on average, and the share ``pool`` of
    them is not empty.
    """
    return WINDOW**2 * conv / pool


def crowded_at_least(conv: float, pool: float) -> float:
    """Least share of the nonempty windows with more than one nonzero, from the same densities.

    A window has four entries: if the share s has more than one, the mean is at most 1 + 3 s.
    """
    return max(0.0, (per_window(conv, pool) - 1) / (WINDOW**2 - 1))


def pooled(network: Network) -> dict[str, str]:
    """Convolutions that a pooling with windows 2 x 2 at stride 2 follows, with that pooling.

    All five of VGG-16. AlexNet's windows are 3 x 3 at stride 2 and overlap, so it has none.
    """
    if network.architecture.name != "vgg16":
        return {}
    pairs = zip(network.layers, network.layers[1:], strict=False)
    return {first: second for first, second in pairs if second.startswith("pool")}


def kept_errors(magnitudes: np.ndarray, total: int) -> tuple[np.ndarray, float]:
    """Relative errors at SHARES of `total` entries, and the share of the nonzeros holding ENERGY.

    Args:
        magnitudes: the nonzeros, positive, in any order.
        total: how many entries there are, zeros included.
    """
    if not len(magnitudes):
        return np.zeros(len(SHARES)), 0.0
    energy = np.cumsum(np.square(np.sort(magnitudes)[::-1], dtype=np.float64))
    kept = [min(max(round(share * total), 1), len(energy)) for share in SHARES]
    left = 1 - energy[np.array(kept) - 1] / energy[-1]
    enough = int(np.searchsorted(energy, ENERGY * energy[-1])) + 1
    return np.sqrt(np.maximum(left, 0)), enough / len(energy)


def window_counts(h: Tensor) -> Tensor:
    """Share of the 2 x 2 windows with 0 to 4 nonzeros, for each image: (batch, 5), float64.

    Rows and columns that no window covers are left out, as in pooling.
    """
    inside = F.avg_pool2d((h != 0).float(), WINDOW) * WINDOW**2
    counts = inside.flatten(1).round()
    return torch.stack([(counts == c).double().mean(1) for c in range(WINDOW**2 + 1)], 1)


def one_per_window(h: Tensor) -> Tensor:
    """``||h - h_1|| / ||h||`` for each image, h_1 the largest magnitude of each 2 x 2 window."""
    whole = F.avg_pool2d(h.square(), WINDOW).double().flatten(1).sum(1) * WINDOW**2
    largest = F.max_pool2d(h.abs(), WINDOW).double().flatten(1).square().sum(1)
    return ((whole - largest).clamp(min=0) / whole.clamp(min=1e-300)).sqrt()


def activities(network: Network, images: Images, *, progress: bool = False) -> dict[str, Activity]:
    """Every layer of a network over a set of images, a batch in memory at a time."""
    windows = pooled(network)
    parts = {name: _Part() for name in network.layers}
    for _, pixels in images.batches(BATCH, progress=progress):
        for name, h in network.activations(pixels).items():
            parts[name].add(h.cpu(), name in windows)
    return {name: part.summary() for name, part in parts.items()}


class _Part:
    """What one layer has shown so far: the density of each image, and sums of the rest."""

    def __init__(self) -> None:
        self.percent: list[float] = []
        self.sums: dict[str, np.ndarray | float] = {}

    def add(self, h: Tensor, windows: bool) -> None:
        for image in h.flatten(1):
            values = image.numpy()
            nonzero = values[values != 0]
            errors, needed = kept_errors(np.abs(nonzero), len(values))
            self.percent.append(100 * len(nonzero) / len(values))
            self._sum("errors", errors)
            self._sum("needed", 100 * needed)
        if windows:
            self._sum("windows", (100 * window_counts(h)).sum(0).numpy())
            self._sum("lost", float(one_per_window(h).sum()))

    def _sum(self, name: str, more: np.ndarray | float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + more

    def summary(self) -> Activity:
        percent = np.array(self.percent)
        mean = {name: each / len(percent) for name, each in self.sums.items()}
        sd = float(percent.std(ddof=1)) if len(percent) > 1 else 0.0
        return Activity(
            float(percent.mean()), sd, float(percent.min()), float(percent.max()),
            tuple(mean["errors"].tolist()), float(mean["needed"]),
            tuple(mean["windows"].tolist()) if "windows" in mean else (),
            mean.get("lost"),
        )  # fmt: skip


def compressible(layers: Mapping[str, Activity]) -> dict[str, bool]:
    """The two halves of "compressible rather than exactly sparse", a criterion fixed beforehand.

    "not exactly sparse": in every convolution that 2 x 2 pooling follows, more than half of the
    windows with a nonzero have more than one, so that the output is no member of M_k for any k.
    "compressible": in every convolution the share of the nonzeros that holds 90 % of the squared
    norm, on average over images, is below HALF_NORMAL, the share of a rectified Gaussian: the sizes
    fall off faster than noise through a ReLU would let them.

    Returns:
        Both by name; each False where nothing was measured.
    """
    windows = [each for each in layers.values() if each.windows]
    convolutions = [each for name, each in layers.items() if name.startswith("conv")]
    return {
        "not exactly sparse": bool(windows) and all(each.crowded > 50 for each in windows),
        "compressible": bool(convolutions)
        and all(each.needed < 100 * HALF_NORMAL for each in convolutions),
    }


def most_needed(layers: Mapping[str, Activity]) -> float:
    """Largest percent of the nonzeros that hold ENERGY in a convolution."""
    return max(each.needed for name, each in layers.items() if name.startswith("conv"))


def active_maps(network: Network, pixels: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Share of the channels that are active at each place: (images, side, side) with side <= MAP.

    Maps larger than MAP are averaged over areas.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    for part in pixels.split(BATCH):
        for name, h in network.activations(part, found).items():
            share = (h != 0).float().mean(1, keepdim=True)
            side = min(MAP, *share.shape[2:])
            found[name].append(F.adaptive_avg_pool2d(share, side)[:, 0].cpu())
    return {name: torch.cat(maps) for name, maps in found.items()}


def depth(name: str) -> tuple[int, int]:
    """(block, place) of a layer; a pooling comes last in its block."""
    block, *place = parse_layer(name)
    return block, place[0] if place else 99
