"""Chapter 11: random filters can classify (section 4.1, Tables 1 and 5).

`inputs` is what all parts start from. `table1` trains small networks live and shows the recorded ones
at the paper's sizes; `law` counts filters, and sets the closed form against trained classifiers; `kept`
asks whether what a layer keeps is what classification needs; `coherent` whether coherence of learned
filters says anything; `recordings` are what takes too long for a page, `verdicts` fills the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invertnb import notebook
from invertnb.chapters.random_filters import coherent, inputs, kept, law, table1
from invertnb.chapters.random_filters.explorers import explorer  # noqa: F401
from invertnb.chapters.random_filters.figures import (  # noqa: F401
    draw_curves, draw_small, draw_table1,
)  # fmt: skip
from invertnb.chapters.random_filters.inputs import Inputs
from invertnb.chapters.random_filters.table1 import Cell, Choice, Small
from invertnb.notebook import Recording, load_recorded, parameter
from invertnb.notebook.figures import Figure

PAPER = {"data": "cifar10"}


@dataclass(frozen=True)
class Parameters(notebook.Parameters):
    """The images, the small networks, and where recorded runs are made."""

    data: str = parameter(
        "auto", path=True,
        help="auto (CIFAR-10 if INVERTNB_DATA holds it, else digits), cifar10, torchvision (which "
        "downloads it), digits, or the path of a folder",
    )  # fmt: skip
    seeds: int = parameter(3, minimum=2, help="runs of each kind")
    width: int = parameter(32, minimum=4, help="filters in each layer of the small networks")
    widths: tuple[int, ...] = parameter((64, 256), minimum=1, help="filters of the recorded grid")
    study: str = parameter(
        "table", choices=("table", "grid", "tuning", "steps", "closed", "frozen", "kept"),
        help="what --record computes",
    )  # fmt: skip
    runs: str = parameter("runs", path=True, help="folder of the runs that --record makes")
    missing: bool = parameter(True, help="make missing runs; else collect the finished ones")
    note: str = parameter("", help="what is special about the runs that --record collects")


@dataclass(frozen=True)
class Data:
    """Everything that the chapter shows.

    Attributes:
        inputs: labelled images, recorded results.
        small: networks trained for the page.
        cells: Table 1 as recorded, empty where nothing was.
        choices: filter sizes compared, likewise.
        law, kept, coherent: the parts of these names.
    """

    inputs: Inputs
    small: Small
    cells: Sequence[Cell]
    choices: Sequence[Choice]
    law: law.Law
    kept: kept.Kept
    coherent: coherent.Coherent


def compute(parameters: Parameters) -> Data:
    """All numbers of the chapter."""
    p = parameters
    given = gather(p)
    return Data(
        given,
        table1.compute(given, p.generator),
        table1.cells(given.recorded),
        table1.choices(given.recorded),
        law.compute(given, p.generator),
        kept.compute(given, p.generator),
        coherent.compute(given, p.generator),
    )


def draw(data: Data) -> Figure:
    """Table 1."""
    return draw_table1(data)


def gather(p: Parameters) -> Inputs:
    """The images that the parameters name, and what was recorded."""
    # Blocks of 1000, so that runs of another `seed` are other runs.
    own = range(1000 * p.seed, 1000 * p.seed + p.seeds)
    return inputs.gather(p.data, own, p.width, p.device, load_recorded("random_filters"))


def recording(parameters: Parameters) -> Recording:
    """What `study` names."""
    from invertnb.chapters.random_filters import recordings

    return getattr(recordings, parameters.study)(parameters)
