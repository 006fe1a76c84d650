"""What the chapter records for each claim: a value if the weights are real, and readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from invertnb.chapters.rip_2d import coherent
from invertnb.chapters.rip_2d.activations import FILTERS
from invertnb.chapters.rip_2d.coherent import Point
from invertnb.chapters.rip_2d.ratios import deviation, ends
from invertnb.notebook import Recorded

#: "Like those of random filters, a bit wider": centers nearer than this, and at most so much wider.
NEAR, WIDER = 0.05, 3.0


def real(data: Any) -> bool:
    """Whether the network that ran may be the paper's, and has conv(5,2)."""
    return data.network.source.real and data.layer == FILTERS


def ran(data: Any) -> str:
    """A few words on the filters."""
    kind = {"embedded": "embedded checkpoint", "file": "weights file"}
    return f"{kind.get(data.network.source.tier, data.network.source.label)}, {data.layer}"


def _verdict(data: Any, value: Any, spread: Any, readings: dict[str, Any]) -> dict[str, Any]:
    if real(data):
        return {"value": value, "spread": spread, "readings": readings}
    own = {ran(data): value if spread is None else (value, spread)}
    return {"value": None, "readings": own | readings}


def center(data: Any, recorded: Mapping[str, Recorded]) -> dict[str, Any]:
    """figure3.a: the mean ratio, full boundary, with what was seen."""
    own = data.layers[data.layer]
    found = {
        "the same, cropped": _mean(own.signed.cropped),
        "the same, full, nonzeros not negative": _mean(own.unsigned.full),
        "random filters 512 x 512, full (exact)": _mean(_dense(data).full),
        "random filters 512 x 512, cropped at 14 (exact)": _mean(_dense(data).cropped),
        "random filters 512 x 512, cropped at 15 (exact)": _mean(_dense(data).odd),
    }
    for name, each in _blocks(recorded):
        for kind, words in (("signed", ""), ("unsigned", ", nonzeros not negative")):
            seen = each["random codes"]["learned"][kind]["full"]
            found[f"real weights, {name}, full{words} (recorded)"] = (
                seen["mean"], (seen["low"], seen["high"])
            )  # fmt: skip
    return _verdict(data, *_mean(own.signed.full), found)


def tail(data: Any) -> dict[str, Any]:
    """figure3.a.tail: the largest ``|ratio^2 - 1|`` that was seen, and what codes attain."""
    own = data.layers[data.layer]
    found = {
        "the same, cropped": _largest(own.signed.cropped),
        "the same, full, nonzeros not negative": _largest(own.unsigned.full),
        "random filters 512 x 512, full (exact)": _largest(_dense(data).full),
    }
    for filters, each in data.constants.items():
        name = f"delta_k itself, a lower bound: {filters} filters of a smaller layer"
        found[name] = round(each[max(each)].attained, 1)
    return _verdict(data, _largest(own.signed.full), None, found)


def offset(data: Any, recorded: Mapping[str, Recorded], side: str) -> dict[str, Any]:
    """figure3.b and c: how far the median ratio is from 1, at the smallest lam on the page."""
    least = min(share for _, _, share in data.recovered)
    found = {
        f"{filters} filters, {of}, lam {share:g} of the largest": _offset(each.ratios.full)
        for (filters, of, share), each in data.recovered.items()
        if (filters, of, share) != ("learned", side, least)
    }
    for words, results in _recordings(recorded):
        for name, layer in results["layers"].items():
            key = f"learned, {side}, {least:g}"
            if key in layer["recovered"]:
                seen = layer["recovered"][key]["ratio"]["full"]["median"]
                found[f"{words}, {name}, {side} (recorded)"] = abs(seen - 1)
    return _verdict(data, _offset(data.recovered["learned", side, least].ratios.full), None, found)


def range_of(data: Any) -> dict[str, Any]:
    """section4.4.delta: the farthest ratio, not squared as in the paper; and squared."""
    least = min(share for _, _, share in data.recovered)
    seen = {side: data.recovered["learned", side, least].ratios.full for side in
            {key[1]: None for key in data.recovered}}  # fmt: skip
    first, *rest = seen
    found = {f"the same, {side}": _farthest(seen[side]) for side in rest}
    found |= {f"the same, {side}, squared": round(_largest(r), 2) for side, r in seen.items()}
    for filters, each in data.constants.items():
        name = f"delta_k itself, a lower bound: {filters} filters of a smaller layer"
        found[name] = round(each[max(each)].attained, 1)
    return _verdict(data, _farthest(seen[first]), None, found)


def alike(learned: Tensor, random: Tensor) -> bool:
    """The criterion: centers within NEAR of each other, and wider by a factor from 1 to WIDER."""
    return _alike(*((float(r.mean()), float(r.std())) for r in (learned, random)))


def _alike(learned: tuple[float, float], random: tuple[float, float]) -> bool:
    """The criterion on pairs of mean and standard deviation."""
    return abs(learned[0] - random[0]) < NEAR and 1 < learned[1] / random[1] <= WIDER


def learned_random(data: Any, recorded: Mapping[str, Recorded]) -> dict[str, Any]:
    """figure3.learned-random: random codes in the value, the rest in readings."""
    own, twin = data.layers[data.layer], data.twin
    found = {
        "nonzeros not negative": alike(own.unsigned.full, twin.unsigned.full),
    }
    for (filters, side, share), each in data.recovered.items():
        if filters == "learned":
            other = data.recovered["random", side, share]
            found[f"Algorithm 2, {side}, lam {share:g} of the largest"] = alike(
                each.ratios.full, other.ratios.full
            )
    for words, results in _recordings(recorded):
        for name, layer in results["layers"].items():
            drawn = (layer["random codes"][of]["signed"]["full"] for of in ("learned", "random"))
            found[f"{words}, {name}, random codes (recorded)"] = _alike(*map(_two, drawn))
            for key, seen in layer["recovered"].items():
                filters, side, share = key.split(", ")
                if filters == "learned":
                    other = layer["recovered"][f"random, {side}, {share}"]["ratio"]["full"]
                    where = f"{words}, {name}, {side}, lam {share} of the largest (recorded)"
                    found[where] = _alike(_two(seen["ratio"]["full"]), _two(other))
    return _verdict(data, alike(own.signed.full, twin.signed.full), None, found)


def coherence(data: Any, recorded: Mapping[str, Recorded]) -> dict[str, Any]:
    """section4.4.coherence: the criterion on the layers; recorded ones and ours as readings."""
    layers, blends = (
        coherent.holds(coherent.rank_correlations(data.families[name]))
        for name in ("layers", "blends")
    )
    real_layers = {
        f"real weights, {', '.join(each.results['coherence'])} (recorded)": coherent.holds(
            coherent.rank_correlations(
                {name: Point(*values) for name, values in each.results["coherence"].items()}
            )
        )
        for label, each in recorded.items() if label.startswith("vgg16")
    }
    return _verdict(data, layers, None, real_layers | {
        "random filters that share a part": blends,
        "random filters: one pair of equal ones makes both worse by a tenth": coherent.worse(
            *list(data.families["twins"].values())[:2]
        ),
    })  # fmt: skip


def _two(seen: Mapping[str, float]) -> tuple[float, float]:
    return seen["mean"], seen["sd"]


def _dense(data: Any):
    return data.random[min(data.random)]


def _mean(ratios: Tensor) -> tuple[float, tuple[float, float]]:
    return round(float(ratios.mean()), 3), tuple(round(end, 3) for end in ends(ratios))


def _largest(ratios: Tensor) -> float:
    return round(float(deviation(ratios[ratios.isfinite()]).max()), 3)


def _offset(ratios: Tensor) -> float:
    return round(abs(float(ratios[ratios.isfinite()].median()) - 1), 2)


def _farthest(ratios: Tensor) -> float:
    return round(float((ratios[ratios.isfinite()] - 1).abs().max()), 2)


def _recordings(recorded: Mapping[str, Recorded]):
    """Recorded networks, in words, with their results."""
    for label, each in recorded.items():
        if "layers" in each.results:
            ten = label.startswith("embedded")
            yield ("embedded checkpoint, ten photographs" if ten else "real weights"), each.results


def _blocks(recorded: Mapping[str, Recorded]):
    """The recorded layers with real weights, by name."""
    for label, each in recorded.items():
        if label.startswith("vgg16"):
            yield from each.results["layers"].items()
