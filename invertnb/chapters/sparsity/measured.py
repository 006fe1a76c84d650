"""A network, measured: live, or read back from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from invertnb.chapters.sparsity import activity, banks
from invertnb.chapters.sparsity.activity import Activity
from invertnb.chapters.sparsity.banks import Bank
from invertnb.networks import VGG16, Images, Network


@dataclass(frozen=True)
class Measured:
    """A network on images.

    Attributes:
        source: which weights, in words.
        tier: of the weights, as `networks.Source` has it.
        real: whether they are the weights of a network at full width that was trained elsewhere.
        images: which images, in words.
        layers: activity by layer.
        banks: filters by convolution; empty for random weights.
    """

    source: str
    tier: str
    real: bool
    images: str
    layers: Mapping[str, Activity]
    banks: Mapping[str, Bank]

    @property
    def whole(self) -> bool:
        """Whether all convolutions of VGG-16 were measured."""
        return all(name in self.layers and name in self.banks for name in VGG16.convolutions)

    @property
    def blocks(self) -> str:
        """Which blocks were measured, as "blocks 1 and 2"."""
        *most, last = sorted({str(activity.depth(name)[0]) for name in self.layers})
        return f"blocks {', '.join(most)} and {last}" if most else f"block {last}"

    def results(self) -> dict[str, Any]:
        """As JSON has it; layers and banks to six digits."""
        return asdict(self) | {
            kind: {name: plain(asdict(each)) for name, each in getattr(self, kind).items()}
            for kind in ("layers", "banks")
        }

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Self:
        """The inverse of `results`."""
        kinds = {"layers": Activity, "banks": Bank}
        fields = ("source", "tier", "real", "images")
        return cls(
            **{name: results[name] for name in fields},
            **{
                kind: {name: make(**_tuples(each)) for name, each in results[kind].items()}
                for kind, make in kinds.items()
            },
        )


def plain(value: Any) -> Any:
    """What JSON holds, with floats to six digits."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _tuples(results: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in results.items()}


def measure(
    network: Network, images: Images, *, filters: bool = True,
    generator: torch.Generator | None = None, draws: int = 1, shifts: int = 0,
    progress: bool = False,
) -> Measured:
    """The outputs of all layers, and the filters of all convolutions.

    Args:
        network, images: what is measured.
        filters: whether the filters are examined; they need a generator.
        generator, draws: for the random banks that partners are compared with.
        shifts: largest number of filters that are compared over all shifts.
        progress: show a bar.
    """
    found = {}
    for name in network.convolutions if filters else ():
        weight = network.filters(name)[0]
        found[name] = banks.examine(
            weight, generator, draws=draws, all_shifts=len(weight) <= shifts
        )
    layers = activity.activities(network, images, progress=progress)
    source = network.source
    where = f"{images.label} (embedded)" if images.tier == "embedded" else images.label
    return Measured(source.label, source.tier, source.real, where, layers, found)
