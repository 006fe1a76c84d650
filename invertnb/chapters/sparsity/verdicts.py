"""The ledger's rows of this chapter: real weights give the value, stand-ins are readings.

A claim about one layer of a network trained on ImageNet is judged by the live network if its
weights are real and have the layer, by what was recorded from real weights otherwise, and by
nothing where neither has it. A claim about all layers asks for a network that has all. What the
embedded checkpoint, random weights or a part of the real network show stands beside it, as a
reading of its own.

Percents and coherences over all shifts are rounded before they are recorded: they come from
float32, which sums in another order on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from invertnb.chapters.proposition_1.random_filters import LAYERS
from invertnb.chapters.sparsity import activity, banks, rows
from invertnb.chapters.sparsity.measured import Measured
from invertnb.networks import ALEXNET, VGG16
from invertnb.notebook import Record, Records, record

if TYPE_CHECKING:
    # By its full name, for the documentation: every chapter has a Data.
    from invertnb.chapters import sparsity

STAND_IN = "embedded checkpoint (half width, CIFAR-10)"
RANDOM = "random Gaussian weights"
PERCENT, SHIFTED, PLACE = 1, 3, 4  # digits after the point that are recorded


def judged(
    claim: str, live: Measured, recorded: Measured | None,
    value: Callable[[Measured], Any], readings: Mapping[str, Any] | None = None,
) -> Record:
    """Record a claim of tier "weights" about one layer from what there is.

    Args:
        claim: its id.
        live: the live network.
        recorded: one with real weights that was measured elsewhere, or None.
        value: what a network shows, a value or (value, spread); None if it lacks the layer.
        readings: further readings of the text, from the weights that give the value.
    """
    given = {name: each for name, each in (readings or {}).items() if each is not None}
    shown = value(live)
    if shown is not None and not live.real:
        given[stand_in(live)] = shown
        shown = None
    note = f"live: {sources(live)}" if shown is not None else ""
    if shown is None and recorded is not None:
        shown = value(recorded)
        note = f"recorded: {sources(recorded)}" if shown is not None else ""
    shown, spread = shown if isinstance(shown, tuple) else (shown, None)
    return record(claim, shown, spread, readings=given, note=note)


def of_all_layers(
    claim: str, live: Measured, recorded: Measured | None,
    value: Callable[[Measured], bool | None],
    more: Callable[[Measured], Mapping[str, bool]],
) -> Record:
    """Record a statement about all convolutions, which only a whole real network judges.

    Args:
        claim: its id.
        live, recorded: as in `judged`.
        value: whether it holds in the layers of a network; None if it has none to tell.
        more: further readings, from real weights.
    """
    result, readings, notes = None, {}, []
    for kind, measured in (("live", live), ("recorded", recorded)):
        held = None if measured is None else value(measured)
        if held is None:
            continue
        if not measured.real:
            readings[stand_in(measured)] = held
            continue
        notes.append(f"{kind}: {sources(measured)}")
        if measured.whole and result is None:
            result = held
            readings |= more(measured)
            continue
        part = f"real weights of {measured.blocks} ({kind})"
        readings[part] = held
        readings |= {f"{part}, {name}": each for name, each in more(measured).items()}
    return record(claim, result, readings=readings, note="; ".join(notes))


def stand_in(measured: Measured) -> str:
    """The name of a reading of weights that are not real."""
    return {"embedded": STAND_IN, "random": f"{RANDOM}, photographs"}.get(
        measured.tier, measured.source
    )


def sources(measured: Measured) -> str:
    """Weights and images, for a note."""
    return f"{measured.source}; {measured.images}"


def _recorded(entry: tuple[Measured, str] | None) -> Measured | None:
    return entry[0] if entry else None


def _best(data: sparsity.Data, name: str) -> Measured | None:
    """The real weights that judge a claim about one layer."""
    return data.live if data.live.real and name in data.live.layers else _recorded(data.recorded)


def _percent(layer: str) -> Callable[[Measured], tuple[float, float] | None]:
    def value(measured: Measured) -> tuple[float, float] | None:
        each = measured.layers.get(layer)
        return each and (round(each.percent, PERCENT), round(each.sd, PERCENT))

    return value


def _coherence(layer: str, reading: str = "absolute") -> Callable[[Measured], float | None]:
    def value(measured: Measured) -> float | None:
        bank = measured.banks.get(layer)
        mu = bank.coherence(reading) if bank else None
        return mu and round(mu, SHIFTED if reading.endswith("all shifts") else PLACE)

    return value


def table2(data: sparsity.Data) -> Records:
    """Percent of nonzeros of VGG-16, layer by layer."""
    elsewhere = _recorded(data.recorded)
    return Records(
        judged(f"table2.{theirs}", data.live, elsewhere, _percent(ours))
        for ours, theirs in VGG16.published.items()
    )


def table7(data: sparsity.Data) -> Records:
    """Percent of nonzeros of AlexNet, layer by layer."""
    elsewhere = _recorded(data.recorded_alexnet)
    return Records(
        judged(f"table7.{theirs}", data.alexnet, elsewhere, _percent(ours))
        for ours, theirs in ALEXNET.published.items()
    )


def table4(data: sparsity.Data) -> Records:
    """Learned coherence of VGG-16 in place, and what other readings give."""
    elsewhere = _recorded(data.recorded)
    order = [f"conv{layer}" for layer in LAYERS]
    found = []
    for name, after in zip(order, [*order[1:], None], strict=True):
        best = _best(data, name)
        readings = {}
        if best:
            readings = {r: _coherence(name, r)(best) for r in banks.READINGS[1:]}
            readings |= {
                f"{reading}, next layer": _coherence(after, reading)(best)
                for reading in ("signed", "absolute")
            }
        claim = f"table4.learned.{name.removeprefix('conv')}"
        found.append(judged(claim, data.live, elsewhere, _coherence(name), readings))
    return Records(found)


def table6_learned(data: sparsity.Data) -> Records:
    """Learned coherence of AlexNet: nothing stands in for weights that are not there."""
    elsewhere = _recorded(data.recorded_alexnet)
    found = []
    for ours, theirs in ALEXNET.published.items():
        if ours.startswith("conv"):
            best = data.alexnet if data.alexnet.real else elsewhere
            readings = {r: _coherence(ours, r)(best) for r in banks.READINGS[1:]} if best else {}
            claim = f"table6.learned.{theirs}"
            found.append(judged(claim, data.alexnet, elsewhere, _coherence(ours), readings))
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

    def more(measured: Measured) -> dict[str, bool]:
        first = dict(list(measured.banks.items())[:1])
        return {
            "first layer only": banks.in_pairs(first),
            "against mixtures of the layer's own filters": banks.in_pairs(measured.banks, "mixed"),
            "half of the filters of every layer have a partner below -0.5": banks.near_pairs(
                measured.banks
            ),
        }

    return of_all_layers(
        "section3.pairs", data.live, _recorded(data.recorded),
        lambda measured: banks.in_pairs(measured.banks), more,
    )  # fmt: skip


def compressible(data: sparsity.Data) -> Record:
    """conclusion.compressible, by `activity.compressible`, and its two halves."""
    return of_all_layers(
        "conclusion.compressible", data.live, _recorded(data.recorded), _compressible,
        lambda measured: activity.compressible(measured.layers),
    )


def _compressible(measured: Measured) -> bool | None:
    """None where no convolution before a pooling was measured."""
    if not any(each.windows for each in measured.layers.values()):
        return None
    return all(activity.compressible(measured.layers).values())
