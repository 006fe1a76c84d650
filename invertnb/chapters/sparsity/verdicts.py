"""The ledger's rows of this chapter: real weights give the value, stand-ins are readings.

A claim about networks trained on ImageNet is judged by the live network if its weights are real, by
what was recorded from real weights otherwise, and by nothing where neither has the layer. What the
embedded checkpoint or random weights show stands beside it, as a reading of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from invertnb.chapters.proposition_1.random_filters import LAYERS
from invertnb.chapters.sparsity import activity, banks, rows
from invertnb.networks import ALEXNET
from invertnb.notebook import Record, Records, record

if TYPE_CHECKING:
    # By its full name, for the documentation: every chapter has a Data.
    from invertnb.chapters import sparsity
    from invertnb.chapters.sparsity import Measured

STAND_IN = "embedded checkpoint (half width, CIFAR-10)"
RANDOM = "random Gaussian weights"


def judged(
    claim: str, live: Any, real: bool, stand_in: str, recorded: Any = None, note: str = "",
    readings: Mapping[str, Any] | None = None,
) -> Record:
    """Record a claim of tier "weights" from what there is.

    Args:
        claim: its id.
        live: what the live network shows, a value or (value, spread), or None.
        real: whether the live network has real weights.
        stand_in: the name of the live reading where it has not.
        recorded: the same from real weights, recorded; None where there is none.
        note: where the recorded value comes from.
        readings: further readings of the text, from the weights that give the value.
    """
    given = dict(readings or {})
    if live is not None and not real:
        given[stand_in] = live
    if live is not None and real:
        value, note = live, "computed from the weights and images given"
    else:
        value, note = recorded, (f"recorded: {note}" if recorded is not None else "")
    value, spread = value if isinstance(value, tuple) else (value, None)
    given = {name: each for name, each in given.items() if each is not None}
    return record(claim, value, spread, readings=given, note=note)


def _sources(measured: Measured) -> str:
    return f"{measured.source.split(' (')[0]}; {measured.images}"


def _percent(layers: Mapping[str, activity.Activity], name: str) -> tuple[float, float] | None:
    return (layers[name].percent, layers[name].sd) if name in layers else None


def table2(data: sparsity.Data) -> Records:
    """Percent of nonzeros of VGG-16, layer by layer."""
    elsewhere, note = _recorded(data)
    layers = data.network.architecture.published
    return Records(
        judged(
            f"table2.{theirs}", _percent(data.live.layers, ours), data.source.real, STAND_IN,
            _percent(elsewhere.layers if elsewhere else {}, ours), note,
        )
        for ours, theirs in layers.items()
    )  # fmt: skip


def table7(data: sparsity.Data) -> Records:
    """Percent of nonzeros of AlexNet, layer by layer."""
    measured, real = data.alexnet
    return Records(
        judged(f"table7.{theirs}", _percent(measured.layers, ours), real, f"{RANDOM}, photographs")
        for ours, theirs in ALEXNET.published.items()
    )


def table4(data: sparsity.Data) -> Records:
    """Learned coherence of VGG-16 in place, and what other readings give."""
    elsewhere, note = _recorded(data)
    best = data.live if data.source.real else elsewhere
    order = [f"conv{layer}" for layer in LAYERS]
    found = []
    for place, name in enumerate(order):
        after = order[place + 1] if place + 1 < len(order) else None
        filters = best.banks if best else {}
        readings = {
            reading: filters[name].coherence(reading)
            for reading in banks.READINGS[1:]
            if name in filters
        }
        if after in filters:
            readings |= {
                f"{reading}, next layer": filters[after].coherence(reading)
                for reading in ("signed", "absolute")
            }
        found.append(
            judged(
                f"table4.learned.{name.removeprefix('conv')}", _coherence(data.live, name),
                data.source.real, STAND_IN, _coherence(elsewhere, name), note, readings,
            )
        )  # fmt: skip
    return Records(found)


def table6_learned(data: sparsity.Data) -> Records:
    """Learned coherence of AlexNet: nothing stands in for weights that are not there."""
    measured, real = data.alexnet
    found = []
    for ours, theirs in ALEXNET.published.items():
        if ours.startswith("conv"):
            bank = measured.banks.get(ours)
            readings = {r: bank.coherence(r) for r in banks.READINGS[1:]} if bank else {}
            value = bank.coherence("absolute") if bank else None
            claim = f"table6.learned.{theirs}"
            found.append(judged(claim, value, real, STAND_IN, readings=readings))
    return Records(found)


def table6_random(data: sparsity.Data) -> Records:
    """Coherence of Gaussian filters of the sizes of 2012, in every reading in place."""
    stated, *others = data.rows
    found = []
    for layer, samples in data.rows[stated].samples.items():
        mean, sd = rows.mean_sd(samples)
        readings = {
            name.replace("AlexNet of 2012, ", ""): rows.mean_sd(data.rows[name].samples[layer])
            for name in others
            if "2012" in name
        }
        found.append(record(f"table6.random.{layer}", mean, sd, readings=readings,
                            note=f"the value: {stated}"))  # fmt: skip
    return Records(found)


def pairs(data: sparsity.Data) -> Record:
    """section3.pairs, by `banks.in_pairs`."""
    elsewhere, note = _recorded(data)
    best = data.live if data.source.real else elsewhere
    readings = {}
    if best:
        first = {name: best.banks[name] for name in list(best.banks)[:1]}
        readings = {
            "first layer only": banks.in_pairs(first),
            "against mixtures of the layer's own filters": banks.in_pairs(best.banks, "mixed"),
            "half of the filters of every layer have a partner below -0.5": banks.near_pairs(
                best.banks
            ),
        }
    return judged(
        "section3.pairs", banks.in_pairs(data.live.banks), data.source.real, STAND_IN,
        banks.in_pairs(elsewhere.banks) if elsewhere else None, note, readings,
    )  # fmt: skip


def compressible(data: sparsity.Data) -> Record:
    """conclusion.compressible, by `activity.compressible`, and its two halves."""
    elsewhere, note = _recorded(data)
    best = data.live if data.source.real else elsewhere
    readings = dict(activity.compressible(best.layers)) if best else {}
    readings[RANDOM] = _compressible(data.random)
    return judged(
        "conclusion.compressible", _compressible(data.live), data.source.real, STAND_IN,
        _compressible(elsewhere), note, readings,
    )  # fmt: skip


def _compressible(measured: Measured | None) -> bool | None:
    """None where no convolution before a pooling was measured."""
    if measured is None or not any(each.windows for each in measured.layers.values()):
        return None
    return all(activity.compressible(measured.layers).values())


def _recorded(data: sparsity.Data) -> tuple[Measured | None, str]:
    elsewhere = data.recorded[0] if data.recorded else None
    return elsewhere, _sources(elsewhere) if elsewhere else ""


def _coherence(measured: Measured | None, name: str) -> float | None:
    bank = measured.banks.get(name) if measured else None
    return bank.coherence("absolute") if bank else None
