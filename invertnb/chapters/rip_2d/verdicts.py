"""What the chapter records for each claim: a value if the weights are real, and readings.

A network that ran on the page and a recorded one are judged alike, from results in the form of
`recordings`. The value of a claim is that of conv(5,2) with real weights, live before recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from invertnb.chapters.rip_2d import coherent, recordings
from invertnb.chapters.rip_2d.activations import FILTERS, SHARES, SIDES
from invertnb.chapters.rip_2d.coherent import Point
from invertnb.chapters.rip_2d.ratios import deviation, ends, significant
from invertnb.notebook import Recorded

#: "Like those of random filters, a bit wider": centers nearer than this, and at most so much wider.
NEAR, WIDER = 0.05, 3.0
#: Significant digits of what random codes give, and of what iterations find: see `recordings`.
DRAWN, ITERATED = 3, 1
#: The share of the largest lam whose code the verdicts on Algorithm 2 take: the page's smallest.
LEAST = min(SHARES)


class Ran(NamedTuple):
    """A network that ran, on the page or in a recording.

    Attributes:
        results: in the form of `recordings.network`.
        inputs: weights and images, for a note.
        recorded: whether it ran elsewhere.
    """

    results: Mapping[str, Any]
    inputs: str
    recorded: bool

    @property
    def words(self) -> str:
        """A few words on the weights."""
        return self.results["network"]

    def reading(self, layer: str, what: str) -> str:
        """The name of a reading."""
        number = self.results["images"]
        rest = f", {what}" if what else ""
        where = f" ({number} images, recorded)" if self.recorded else ""
        return f"{self.words}, {layer}{rest}{where}"


def ran(data: Any) -> str:
    """A few words on the filters of the page."""
    return f"{recordings.words(data.network)}, {data.layer}"


def runs(data: Any, recorded: Mapping[str, Recorded]) -> Iterator[Ran]:
    """The network of the page, and then those that were recorded."""
    seen = f"{data.network.source.label}; {data.pictures.label}"
    yield Ran(recordings.live(data), seen, False)
    for each in recorded.values():
        if "layers" in each.results:
            given = each.about["inputs"]
            yield Ran(each.results, f"{given['weights']}; {given['images']}", True)


def real(results: Mapping[str, Any]) -> bool:
    """Whether the network may be the paper's, and has conv(5,2)."""
    return results["real"] and FILTERS in results["layers"]


def _verdict(
    data: Any, recorded: Mapping[str, Recorded], of: Callable[[Mapping[str, Any]], dict[str, Any]],
    others: Mapping[str, Any], note: str,
) -> dict[str, Any]:
    """Value, readings and note; `of` gives what a layer's results say, the value's under ""."""
    value, spread, readings, chosen = None, None, {}, False
    for run in runs(data, recorded):
        main, chosen = real(run.results) and not chosen, chosen or real(run.results)
        for layer, results in run.results["layers"].items():
            for what, found in of(results).items():
                if main and layer == FILTERS and not what:
                    value, spread = found if isinstance(found, tuple) else (found, None)
                    note = f"{note}; {'recorded: ' if run.recorded else ''}{run.inputs}"
                else:
                    readings[run.reading(layer, what)] = found
    return {"value": value, "spread": spread, "readings": readings | dict(others), "note": note}


def center(data: Any, recorded: Mapping[str, Recorded], note: str = "") -> dict[str, Any]:
    """figure3.a: the mean ratio, full boundary, with what was seen."""
    dense = {
        f"random filters 512 x 512, {words} (any network)": (
            significant(ratios.mean(), DRAWN),
            tuple(significant(end, DRAWN) for end in ends(ratios)),
        )
        for words, ratios in zip(
            ("full", "cropped at 14", "cropped at 15"), _dense(data), strict=True
        )
    }

    def of(results: Mapping[str, Any]) -> dict[str, Any]:
        return {
            what: (significant(seen["mean"], DRAWN),
                   tuple(significant(seen[end], DRAWN) for end in ("low", "high")))
            for what, seen in _learned(results)
        }  # fmt: skip

    return _verdict(data, recorded, of, dense, note)


def tail(data: Any, recorded: Mapping[str, Recorded], note: str = "") -> dict[str, Any]:
    """figure3.a.tail: the largest ``|ratio^2 - 1|`` that was seen, and what codes attain."""
    seen = significant(deviation(_dense(data).full).max(), ITERATED + 1)
    others = {"random filters 512 x 512, full (any network)": seen} | _attained(data)

    def of(results: Mapping[str, Any]) -> dict[str, Any]:
        return {what: significant(_largest(s), ITERATED + 1) for what, s in _learned(results)}

    return _verdict(data, recorded, of, others, note)


def offset(
    data: Any, recorded: Mapping[str, Recorded], side: str, note: str = ""
) -> dict[str, Any]:
    """figure3.b and c: how far the median ratio is from 1, at the smallest lam on the page."""
    (other,) = set(SIDES.values()) - {side}
    keys = {"": f"learned, {side}, {LEAST:g}"}
    keys |= {_lam(share): f"learned, {side}, {share:g}" for share in SHARES if share != LEAST}
    keys |= {other: f"learned, {other}, {LEAST:g}", "random filters": f"random, {side}, {LEAST:g}"}

    def of(results: Mapping[str, Any]) -> dict[str, Any]:
        found = results["recovered"]
        return {
            what: significant(abs(found[key]["ratio"]["full"]["median"] - 1), ITERATED)
            for what, key in keys.items() if key in found
        }  # fmt: skip

    return _verdict(data, recorded, of, {}, note)


def range_of(data: Any, recorded: Mapping[str, Recorded], note: str = "") -> dict[str, Any]:
    """section4.4.delta: the farthest ratio, not squared as in the paper; and squared."""

    def of(results: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for side in SIDES.values():
            each = results["recovered"].get(f"learned, {side}, {LEAST:g}")
            if each:
                seen, first = each["ratio"]["full"], side == SIDES[True]
                farthest = max(seen["high"] - 1, 1 - seen["low"])
                found["" if first else side] = significant(farthest, ITERATED)
                found[f"{side}, squared"] = significant(_largest(seen), ITERATED)
        return found

    return _verdict(data, recorded, of, _attained(data), note)


def alike(learned: Mapping[str, float], random: Mapping[str, float]) -> bool:
    """The criterion: means within NEAR of each other, and wider by a factor from 1 to WIDER."""
    near = abs(learned["mean"] - random["mean"]) < NEAR
    return near and 1 < learned["sd"] / random["sd"] <= WIDER


def learned_random(data: Any, recorded: Mapping[str, Recorded], note: str = "") -> dict[str, Any]:
    """figure3.learned-random: random codes in the value, the rest in readings."""

    def of(results: Mapping[str, Any]) -> dict[str, Any]:
        learned, random = (results["random codes"][filters] for filters in ("learned", "random"))
        found = {
            what: alike(learned[kind]["full"], random[kind]["full"])
            for what, kind in (("", "signed"), ("nonzeros not negative", "unsigned"))
        }
        for key, seen in results["recovered"].items():
            filters, side, share = key.split(", ")
            if filters == "learned":
                other = results["recovered"][f"random, {side}, {share}"]
                what = f"Algorithm 2, {side}, {_lam(float(share))}"
                found[what] = alike(seen["ratio"]["full"], other["ratio"]["full"])
        return found

    return _verdict(data, recorded, of, {}, note)


def coherence(data: Any, recorded: Mapping[str, Recorded], note: str = "") -> dict[str, Any]:
    """section4.4.coherence: the criterion on a network's layers, and on random filters."""
    value, readings = None, {}
    for run in runs(data, recorded):
        layers = {name: Point(*point) for name, point in run.results["coherence"].items()}
        if len(layers) < 3:
            continue  # nothing to rank
        found = coherent.holds(coherent.rank_correlations(layers))
        if real(run.results) and value is None:
            value, note = found, f"{note}; {'recorded: ' if run.recorded else ''}{run.inputs}"
        else:
            readings[run.reading(f"{len(layers)} layers", "")] = found
    blends, twins = data.families["blends"], list(data.families["twins"].values())
    readings["random filters that share a part"] = coherent.holds(
        coherent.rank_correlations(blends)
    )
    readings["random filters: one pair of equal ones makes both worse by a tenth"] = (
        coherent.worse(*twins[:2])
    )
    return {"value": value, "readings": readings, "note": note}


def _learned(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """Random codes with a layer's own filters: the paper's reading, and others."""
    seen = results["random codes"]["learned"]
    return [
        ("", seen["signed"]["full"]), ("cropped", seen["signed"]["cropped"]),
        ("nonzeros not negative", seen["unsigned"]["full"]),
    ]  # fmt: skip


def _attained(data: Any) -> dict[str, float]:
    return {
        f"delta_k itself, a lower bound: {filters} filters of a smaller layer": significant(
            each[max(each)].attained, ITERATED
        )
        for filters, each in data.constants.items()
    }


def _dense(data: Any):
    return data.random[min(data.random)]


def _lam(share: float) -> str:
    return f"lam {share:g} of the largest"


def _largest(seen: Mapping[str, float]) -> float:
    return max(seen["high"] ** 2 - 1, 1 - seen["low"] ** 2)
