"""What every part of the chapter starts from: labelled images and what was recorded elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from invertnb.networks import Labelled, open_labelled
from invertnb.notebook import Recorded

#: Streams of the chapter's random draws, `parameters.generator(stream)`, a block for each part.
TABLE, LAW, KEPT, COHERENT, EXPLORED = range(0, 500, 100)
#: Images that the book's small version looks at, where CIFAR-10 is there: training and test.
TRAIN, TEST = 5000, 1000


@dataclass(frozen=True)
class Inputs:
    """Images with one class each, and recorded results.

    Attributes:
        data: CIFAR-10, or the stand-in that `data.label` names.
        seeds: of the runs of each kind.
        width: filters in each layer of the small networks.
        device: where they are computed.
        recorded: what was recorded elsewhere, by label.
    """

    data: Labelled
    seeds: range
    width: int
    device: str
    recorded: Mapping[str, Any]

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return self.data.train.shape[-1]

    @property
    def held(self) -> int:
        """Images of the training set that validate: a fifth of them, 1000 at most."""
        return min(1000, len(self.data.train) // 5)

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Places of the training and of the validation images, the same in every part."""
        return self.data.split(self.held, torch.Generator().manual_seed(0))


def gather(
    source: str, seeds: range, width: int, device: str, recorded: Mapping[str, Recorded]
) -> Inputs:
    """Open the images: 5,000 + 1,000 of CIFAR-10, or all digits."""
    return Inputs(open_labelled(source, limit=(TRAIN, TEST)), seeds, width, device, recorded)
