"""What is recorded elsewhere, and read back: networks with real weights, and random rows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from invertnb import check, notebook
from invertnb.chapters.sparsity import rows
from invertnb.chapters.sparsity.measured import Measured
from invertnb.notebook import Recorded
from invertnb.notebook.real_networks import inputs, slug

if TYPE_CHECKING:
    from invertnb.chapters import sparsity

ROWS_LABEL = "random-rows"


def random_rows(p: sparsity.Parameters) -> notebook.Recording:
    """Table 6's random row in all readings, without weights and images.

    Raises:
        ValueError: weights or images are given, which would not be used.
    """
    for name in ("weights", "alexnet", "images", "preprocessing", "skip_corrupt"):
        default = type(p).__dataclass_fields__[name].default
        if getattr(p, name) != default:
            check.fail(name, getattr(p, name), f"{default!r}, as random rows use none")
    from invertnb.chapters.sparsity import ODDS, ROWS

    found = rows.draw_rows(p.generator(ROWS), p.draws, all_shifts=True)
    odds = functools.partial(p.generator, ODDS)
    return notebook.Recording(ROWS_LABEL, {"draws": str(p.draws)}, rows.results(found, odds))


def network(p: sparsity.Parameters) -> notebook.Recording:
    """The network of `weights` on `images`, whichever it is, and AlexNet unless it is random."""
    from invertnb.chapters.sparsity import load_alexnet, measure

    studied, images = p.network(), p.pictures(p.count)
    results = measure(p, studied, images, progress=True).results()
    label, given = slug(studied), inputs(studied, images)
    if p.alexnet != "random":
        alexnet, images = load_alexnet(p), p.pictures(p.count)
        results["alexnet"] = measure(p, alexnet, images, progress=True).results()
        label += f"-{slug(alexnet)}"
        given["alexnet"] = inputs(alexnet, images)["weights"]
    return notebook.Recording(label, given, results)


def real_network(entries: Mapping[str, Recorded]) -> tuple[Measured, str] | None:
    """Of the recorded networks with real weights that with the most layers, and its provenance."""
    return _largest((entry.results, entry.provenance) for entry in entries.values())


def real_alexnet(entries: Mapping[str, Recorded]) -> tuple[Measured, str] | None:
    """The same for AlexNet."""
    return _largest(
        (entry.results.get("alexnet", {}), entry.provenance) for entry in entries.values()
    )


def _largest(found) -> tuple[Measured, str] | None:
    real = [(results, line) for results, line in found if results.get("real")]
    if not real:
        return None
    results, line = max(real, key=lambda each: len(each[0]["layers"]))
    return Measured.of(results), line


def recorded_rows(entries: Mapping[str, Recorded]) -> tuple[Mapping, str] | None:
    """The recorded random rows, and their provenance."""
    entry = entries.get(ROWS_LABEL)
    return None if entry is None else (entry.results, entry.provenance)
