"""A chapter of our own: at the limit of the hardware.

Bytes and operations are counted from formulas (`counts`), ceilings set the limits (`roofline`),
ratios are predicted from both (`predictions`) and stand beside those that the benchmark recorded
(`recorded`, `bars`). What a recorded GPU says of the predictions is in `gpu`, and which tests ran on it
in `tested`. The kernels' text and machine code are in `sources`; `without` counts what a kernel would
gain where there is none. Nothing is timed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from invertnb.chapters.kernels import bars, counts, recorded, roofline, tested
from invertnb.chapters.kernels.counts import Operation
from invertnb.chapters.kernels.recorded import Compiled, Recorded
from invertnb.chapters.kernels.roofline import Ceilings
from invertnb.chapters.kernels.tested import Tested
from invertnb.notebook import Explorer, Parameters as Base, parameter
from invertnb.notebook.figures import Figure
from invertnb.notebook.project import root

PAPER = {"samples": 20_000}


@dataclass(frozen=True)
class Parameters(Base):
    """Sizes of the executed checks; those of the layer are Figure 2's by default."""

    samples: int = parameter(500, minimum=5, help="random codes drawn and checked")
    k: int = parameter(10, minimum=1, help="nonzeros of a code")
    K: int = parameter(96, minimum=2, help="filters")
    M: int = parameter(32, minimum=1, help="channels")
    l: int = parameter(5, minimum=2, help="filter length")
    D: int = parameter(32, minimum=2, help="signal length")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l > self.D:
            raise ValueError(f"l={self.l}: expected at most the signal length D={self.D}")
        if self.k > self.K:
            raise ValueError(f"k={self.k}: expected at most the {self.K} filters")

    @property
    def n(self) -> int:
        """Shifts of a filter, the length of a block."""
        return self.D - self.l + 1


@dataclass(frozen=True)
class Data:
    """What was recorded, compiled and tested, and the counted operations with an H200's ceilings."""

    recorded: Recorded
    compiled: list[Compiled]
    operations: list[Operation]
    gpu: Ceilings
    tests: list[Tested]


def compute(p: Parameters) -> Data:
    """Read the recorded files of the book and count."""
    book = root()
    return Data(
        recorded.load(book / recorded.FILE),
        recorded.load_machine_code(book / recorded.MACHINE_CODE),
        counts.operations(p.k, p.K, p.M, p.l, p.D),
        roofline.h200(),
        tested.load(book / tested.FILE),
    )


def draw(data: Data) -> Figure:
    """The roofline."""
    return roofline.draw(data.operations, data.recorded)


def explorer(data: Data) -> Explorer:
    """Recorded times of pooling and unpooling."""
    return bars.pooling_explorer(data.recorded)


def tasks_explorer(data: Data) -> Explorer:
    """Recorded times of everything else."""
    return bars.tasks_explorer(data.recorded)
