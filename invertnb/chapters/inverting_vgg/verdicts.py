"""What the chapter records for each claim of section 4.5: values from real weights, and readings.

A claim about one entry of Table 3 takes its value from real weights where the layer was run with
them. A claim about all layers waits for all layers; what other networks and single layers show are
readings. Criteria are constants here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from invertnb.chapters.inverting_vgg import decoded
from invertnb.chapters.inverting_vgg.activation import (
    ACTIVATIONS, CHANCE, FITTING, LEARNED, METHODS, RANDOM, STATED, Reading,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.bounds import Bound
from invertnb.chapters.inverting_vgg.decoded import FORMS, SPACES
from invertnb.chapters.rip_2d.ratios import significant
from invertnb.notebook import Recorded
from invertnb.notebook.real_networks import words
from invertnb.theory import one_step

#: "Much better": a mean error of at most this share of that of random activations, at every layer.
BETTER = 0.75
#: "Comparably": means within this, at every layer.
NEAR = 0.1
#: "Recognizable" and "better": of at least this share of the photographs.
MOST = 0.9
#: What section 4.4 puts into Theorem 3.3, a ratio off 1 by 0.05 taken for delta.
PAPER_DELTA = 0.05
DIGITS = 2


def table3(data: Any, space: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Claims table3.* of one space with what `record` takes for them."""
    for method in METHODS:
        for i in range(1, 5):
            made = _activation if space == "activation" else _image
            yield f"table3.{space}.{method}.{i}", made(data, method, f"pool({i})")


def baseline(data: Any) -> dict[str, Any]:
    """section4.5.baseline: learned and random filters against random activations."""
    note = f"criterion: at most {BETTER:g} times the error of random activations, at all layers"
    return _over_layers(data, much_better, note)


def comparable(data: Any) -> dict[str, Any]:
    """section4.5.comparable: near each other, and random filters no worse."""
    note = f"criterion: means within {NEAR:g} at all layers, random filters never the worse"
    return _over_layers(data, alike, note)


def much_better(means: Mapping[str, Mapping[str, float]]) -> bool:
    """The criterion of section4.5.baseline on mean errors by pooling and method."""
    return all(
        each[method] <= BETTER * each[ACTIVATIONS]
        for each in means.values()
        for method in (LEARNED, RANDOM)
    )


def alike(means: Mapping[str, Mapping[str, float]]) -> bool:
    """The criterion of section4.5.comparable."""
    return all(
        abs(each[LEARNED] - each[RANDOM]) <= NEAR and each[RANDOM] <= each[LEARNED]
        for each in means.values()
    )


def figures45(data: Any, pools: tuple[str, ...]) -> dict[str, Any]:
    """figure4 and figure5: recognizable, and better than random activations, at these layers."""
    note = (
        f"criterion: at least {MOST:.0%} of the photographs correlate most with their own decoded"
        " image, and have a smaller error than with random activations; with learned filters and"
        " with random ones"
    )
    if data.decoded is None:
        return {"value": None, "note": f"{note}; no decoder of this network"}
    readings = {}
    if len(data.inputs.pixels) < 2:
        return {"value": None, "note": f"{note}; one photograph, and none to take it for"}
    for method in (LEARNED, RANDOM):
        for form in FORMS:
            name = f"{_live(data)}, {method} filters, f_hat {form}"
            found = [data.decoded[pool] for pool in pools if pool in data.decoded]
            shares = [float(each.own[method, form].double().mean()) for each in found]
            wins = [better(each, method, form) for each in found]
            readings[f"{name}: recognizable, {_range(shares)}"] = min(shares) >= MOST
            readings[f"{name}: better, {_range(wins)}"] = min(wins) >= MOST
    return {"value": None, "readings": readings, "note": note}


def better(found: decoded.Decoded, method: str, form: str) -> float:
    """The share of photographs with a smaller error than from random activations."""
    own, chance = (found.errors[name, form][SPACES[0]] for name in (method, ACTIVATIONS))
    return float((own < chance).double().mean())


def _range(shares: list[float]) -> str:
    low, high = (f"{each:.0%}" for each in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"


def chance(data: Any) -> dict[str, Any]:
    """footnote13: the error of random Gaussian activations; of other random ones."""
    means = {
        kind: [
            float(draw[kind].mean()) for draws in data.chance.values() for draw in draws
        ]
        for kind in CHANCE
    }  # fmt: skip
    seen = {kind: (sum(each) / len(each), (min(each), max(each))) for kind, each in means.items()}
    value, spread = seen[CHANCE[0]]
    return {
        "value": significant(value, 4),
        "spread": tuple(significant(end, 4) for end in spread),
        "readings": {
            f"{kind} of Gaussians": (
                significant(seen[kind][0], 3), tuple(significant(end, 3) for end in seen[kind][1])
            )
            for kind in CHANCE[1:]
        },
        "note": "means over photographs; range over layers and draws",
    }  # fmt: skip


def bound(data: Any) -> dict[str, Any]:
    """section4.5.bound: whether Theorem 3.3 bounds the errors of random filters, and says anything.

    One layer where it does not is enough to refute the claim, so real activations of one are.
    """
    readings = {
        f"{_live(data)}, {pool}": _says_something(by_filters[RANDOM])
        for pool, by_filters in data.bounds.items()
    }
    promised = one_step.as_stated(PAPER_DELTA, PAPER_DELTA)
    name = f"{_live(data)}, delta = {PAPER_DELTA:g} as section 4.4 reads it off, all layers"
    readings[name] = all(
        by_filters[RANDOM].error <= promised for by_filters in data.bounds.values()
    )
    value, note = None, "criterion: measured error <= bound < 1, delta being what a code attains"
    for each, results in _networks(data):
        for pool, by_filters in results["layers"].items():
            if results["real"] and RANDOM in by_filters:
                found = by_filters[RANDOM][str(STATED)]
                off = abs(found["ratio"][0] ** 2 - 1)
                holds = _says_something(Bound(found["error"][0], off, 0.0))
                value = value if holds else False
                note += (
                    f"; recorded, {pool}: the mean ratio shows delta >= {off:.2g}"
                    f" ({each.about['inputs']['images']})"
                )
    return {"value": value, "readings": readings, "note": note}


def _says_something(bound: Bound) -> bool:
    return bound.bound is not None and bound.error <= bound.bound < 1


def _activation(data: Any, method: str, pool: str) -> dict[str, Any]:
    """The value is that of the reading as stated, over images; of random filters over draws."""
    value, spread, note, readings = None, None, "", {}
    live = _live(data)
    own = live_errors(data, method, pool) if pool in data.steps else {}
    if own and data.inputs.network.source.real:
        value, spread = own.pop(STATED)
        note = f"{STATED}; {live}"
    readings |= {f"{live}, {reading}": found for reading, found in own.items()}
    for each, results in _networks(data):
        found = recorded_errors(results, method, pool)
        if found and results["real"] and value is None:
            value, spread = found.pop(STATED)
            given = each.about["inputs"]
            note = f"{STATED}; recorded: {given['weights']}; {given['images']}"
        name = f"{results['network']} ({results['images']} images, recorded)"
        readings |= {f"{name}, {reading}": error for reading, error in found.items()}
    if method == ACTIVATIONS:  # which know no reading
        own = {name: found for name, found in readings.items() if name.endswith(str(STATED))}
        readings = {name.removesuffix(f", {STATED}"): found for name, found in own.items()}
        note = note.removeprefix(f"{STATED}; ")
    elif value is not None:
        note += "; spread over draws of the filters" if method == RANDOM else "; over images"
    return {"value": value, "spread": spread, "readings": readings, "note": note}


def live_errors(data: Any, method: str, pool: str) -> dict[Reading, tuple[float, float]]:
    """Mean error and its standard deviation, over photographs or, of random filters, over draws."""
    if method == ACTIVATIONS:
        drawn = data.chance[pool][0][CHANCE[0]]
        return {STATED: _mean(drawn.tolist())}
    if method == RANDOM:
        return {
            reading: _mean([float(step.error.mean()) for step in drawn])
            for reading, drawn in data.draws[pool].items()
        }
    by_reading = data.steps[pool][method]
    return {reading: _mean(by_reading[reading].error.tolist()) for reading in (STATED, FITTING)}


def recorded_errors(
    results: Mapping[str, Any], method: str, pool: str
) -> dict[Reading, tuple[float, float]]:
    """The same from a recording; empty for what was not recorded."""
    if method == ACTIVATIONS:
        found = results["errors"].get(pool, {}).get(ACTIVATIONS)
        return {STATED: _pair(found)} if found else {}
    layer = results["layers"].get(pool, {})
    if method == RANDOM:
        drawn = [each for name, each in layer.items() if name.startswith(RANDOM)]
        return {
            reading: _mean([each[str(reading)]["error"][0] for each in drawn])
            for reading in (STATED, FITTING)
        } if drawn else {}  # fmt: skip
    found = layer.get(method, {})
    return {r: _pair(found[str(r)]["error"]) for r in (STATED, FITTING) if str(r) in found}


def _mean(values: list[float]) -> tuple[float, float]:
    return _pair([statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0])


def _pair(found: list[float]) -> tuple[float, float]:
    return significant(found[0], 3), significant(found[1], 1)


def _image(data: Any, method: str, pool: str) -> dict[str, Any]:
    readings = {}
    if data.decoded is not None and pool in data.decoded:
        errors = data.decoded[pool].errors
        for form in FORMS:
            for space in SPACES:
                error = errors[method, form][space]
                mean = significant(float(error.mean()), DIGITS)
                sd = significant(float(error.std()), 1) if len(error) > 1 else 0.0
                readings[f"{_live(data)}, our decoder, f_hat {form}, {space}"] = (mean, sd)
    # Once a column of the table is enough.
    first = pool == "pool(1)"
    note = "the decoder of the paper's network is not at hand: ours is the embedded network's"
    return {"value": None, "readings": readings, "note": note if first else ""}


def _over_layers(data: Any, holds: Any, note: str) -> dict[str, Any]:
    """A criterion on means by pooling and method, in every space; the value waits for all layers
    of the real network."""
    live, value = _live(data), None
    readings = {}
    for reading in (STATED, FITTING):
        means = {
            pool: {
                LEARNED: float(by_filters[LEARNED][reading].error.mean()),
                RANDOM: live_errors(data, RANDOM, pool)[reading][0],
                ACTIVATIONS: float(data.chance[pool][0][CHANCE[0]].mean()),
            }
            for pool, by_filters in data.steps.items()
        }
        found = holds(means)
        if data.inputs.network.source.real and len(means) == 4 and reading == STATED:
            value = found
        else:
            readings[f"{live}, activations, {reading}"] = found
    if data.decoded is not None:
        for form in FORMS:
            means = decoded.means(data.decoded, form, SPACES[0])
            readings[f"{live}, images, f_hat {form}"] = holds(means)
    for _, results in _networks(data):
        for pool, by_filters in results["layers"].items():
            if LEARNED not in by_filters:
                continue
            means = {
                reading: _recorded_means(results, pool, reading) for reading in (STATED, FITTING)
            }
            name = f"{results['network']} ({results['images']} images, recorded), {pool} alone"
            readings |= {f"{name}, {r}": holds({pool: each}) for r, each in means.items()}
    return {"value": value, "readings": readings, "note": note}


def _recorded_means(results: Mapping[str, Any], pool: str, reading: Reading) -> dict[str, float]:
    found = {method: recorded_errors(results, method, pool) for method in METHODS}
    return {
        method: each[STATED if method == ACTIVATIONS else reading][0]
        for method, each in found.items()
    }


def _live(data: Any) -> str:
    return f"{words(data.inputs.network)} ({len(data.inputs.pixels)} photographs)"


def networks(data: Any) -> dict[str, Recorded]:
    """The recordings of a network's layers, by label; not those of speed, pixels or ResNet."""
    return {label: each for label, each in data.recorded.items() if "errors" in each.results}


def _networks(data: Any) -> Iterator[tuple[Recorded, Mapping[str, Any]]]:
    for each in networks(data).values():
        yield each, each.results
