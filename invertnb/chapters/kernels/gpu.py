"""What the recorded GPU says of the predictions: two tasks counted, and each forecast judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from invertnb.chapters.kernels import without
from invertnb.chapters.kernels.counts import (
    INDEX, RANDOM_FILTERS, WINDOW, Layer, Pass, Way, total,
)  # fmt: skip
from invertnb.chapters.kernels.predictions import TASKS
from invertnb.chapters.kernels.recorded import Recorded, Recording, Row, absent, missing
from invertnb.chapters.kernels.roofline import COPY_SHARE, PRODUCT_SHARE, h200, shares
from invertnb.chapters.kernels.text import columns, seconds, two

#: A filter's 3 x 5 x 5 entries, and those that the kernel multiplies: powers of two cover them.
ENTRIES, COVERED = 75, 80


def layer_ways(layer: Layer, itemsize: int) -> dict[str, Way]:
    """Bytes of each pass of each way of a pooled layer, for an image; the first pass convolves.

    By the benchmark's names. A convolution writes all its responses; compiled, all that follows it
    is one pass. `encode` writes the patches and reads them, and writes pooled responses.
    """
    s = itemsize
    image = layer.M * layer.image**2 * s
    out = layer.K * layer.side**2
    full, few = out * s, out // WINDOW * s
    pooled = few + out // WINDOW * INDEX  # torch's max_pool2d writes its index, too
    conv = Pass("convolution", image, full)
    scale, bias, relu = (Pass(name, full, full) for name in ("scale", "bias", "relu"))
    rest = Pass("all that follows", full, few)
    patches = layer.side**2 * COVERED * s
    return {
        "literal": (conv, scale, bias, relu, Pass("max_pool2d", full, pooled)),
        "pooling first": (
            conv, bias, Pass("max_pool2d", full, pooled), Pass("relu, pooled", few, few),
        ),  # fmt: skip
        "literal, compiled": (conv, rest),
        "pooling first, compiled": (conv, rest),
        "encode": (Pass("products, pooled", patches, few), Pass("patches", image, patches)),
    }


def step_ways(itemsize: int) -> dict[str, Way]:
    """Bytes of each way of the proximal step, for an entry of the code."""
    s = itemsize

    def of(name: str, read: int, times: int = 1) -> tuple[Pass, ...]:
        return (Pass(name, read * s, s),) * times

    whole = (Pass("all in one", 3 * s, 2 * s),)
    one, two_ = of("of one code", 1, 6), of("of two codes", 2, 4)
    return {
        # Sample by sample: step, magnitude, sign, level, clamp, momentum; then both are stacked.
        "literal": (*one, *two_, *of("stack", 1, 2)),
        "five operations": (*of("addcmul", 2), *of("clamp", 1), *of("subtract", 2), *of("lerp", 2)),
        "compiled": whole,
        "fista_step": whole,
    }


class Check(NamedTuple):
    """One recorded way beside the least time that its passes take at the ceilings of the same run.

    Attributes:
        least: seconds of an item, all passes one after the other.
        excess: recorded time over that; about 1 where the count says it all.
        predicted: the literal way's least time over this one's; `row.ratio` is the recorded one.
    """

    row: Row
    least: float
    excess: float
    predicted: float


def checks(run: Recording, kernel: str) -> list[Check]:
    """Every counted way of "encode" or "fista_step", in the order recorded."""
    found: list[Check] = []
    for size, dtype in dict.fromkeys((row.size, row.dtype) for row in run.of(kernel)):
        itemsize, first = 2 if dtype == "bfloat16" else 4, None
        ways = layer_ways(RANDOM_FILTERS, itemsize) if kernel == "encode" else step_ways(itemsize)
        for row in run.of(kernel, size, dtype):
            if row.seconds is None or row.way not in ways or not run.copy:
                continue
            least = _least(run, row, ways)
            first = first or least
            found.append(Check(row, least, row.seconds / row.items / least, first / least))
    return found


def _least(run: Recording, row: Row, ways: Mapping[str, Way]) -> float:
    way = ways[row.way]
    if row.kernel == "fista_step":
        entries = row.bytes / total(ways["fista_step"]) / row.items
        return entries * total(way) / run.copy
    multiplied = RANDOM_FILTERS.operations * (COVERED / ENTRIES if row.way == "encode" else 1)
    products = multiplied / run.matrix[row.dtype]
    return max(products, way[0].bytes / run.copy) + total(way[1:]) / run.copy


def table(recorded: Recorded, kernel: str) -> str:
    """Counted and recorded times of an item, their quotient, and both ratios to the literal way."""
    run = recorded.gpu
    found = checks(run, kernel) if run else []
    if not found:
        return absent(recorded, "gpu")
    rows, last = [("", "least", "recorded", "excess", "predicted", "recorded")], None
    for each in found:
        task = f"{each.row.kernel}, {each.row.size}, {each.row.dtype}"
        rows += [(task,)] * (task != last)
        last = task
        item = each.row.seconds / each.row.items
        rows.append((f"  {each.row.way}", seconds(each.least), seconds(item), two(each.excess),
                     f"{two(each.predicted)}x", f"{two(each.row.ratio)}x"))  # fmt: skip
    return f"{run.name}, {run.date[:10]}; times of an item\n{columns(rows)}"


class Forecast(NamedTuple):
    """Something said of a GPU before one was recorded; `held` is None if nothing was timed."""

    held: bool | None
    said: str
    found: str = "not timed"


def forecasts(run: Recording) -> list[Forecast]:
    """Each forecast of the page and what the run says of it.

    A rate must be within 5 % of what was said; "bound by" asks for at most twice the least time.
    """
    found = []
    for name, said in (("copy", COPY_SHARE), ("TF32", PRODUCT_SHARE), ("bfloat16", PRODUCT_SHARE)):
        share = shares(run).get(name)
        found.append(_of(f"{name}: {100 * said:.0f} % of the data sheet", share,
                         lambda share, said=said: (share >= 0.95 * said, f"{100 * share:.0f} %")))
    layer = {(c.row.dtype, c.row.way): c for c in checks(run, "encode")}
    step = {c.row.way: c for c in checks(run, "fista_step")}
    ours, literal = layer.get(("float32", "encode")), layer.get(("float32", "literal"))
    fused, compiled = step.get("fista_step"), step.get("compiled")
    share = 100 * without.stake(RANDOM_FILTERS, "TF32", h200()).share
    rate = run.matrix.get("float32")
    most = None
    if rate and literal:
        products = RANDOM_FILTERS.operations / rate * literal.row.items
        most = 1 / (1 - products / literal.row.seconds)
    found += [
        _of("fista_step is bound by memory", fused,
            lambda c: (0.75 <= c.excess <= 2, f"{two(c.excess)} times the time of its bytes")),
        _of("fista_step is worth a kernel",
            fused and compiled and compiled.row.seconds / fused.row.seconds,
            lambda gain: (gain > 1.05, f"{two(gain)}x torch.compile")),
        _of("encode is bound by its products", ours,
            lambda c: (c.excess <= 2, f"{two(c.row.percent)} % of the rate of products, "
                       f"{two(c.excess)} times the least time")),
        _of(f"encode wins from {share:.0f} % of the rate of products on", ours,
            lambda c: (c.row.percent > share and c.row.ratio > 1,
                       f"{two(c.row.percent)} %, {two(c.row.ratio)}x")),
        _of("encode gains more than products for nothing would", ours and most,
            lambda most: (ours.row.ratio > most, f"{two(ours.row.ratio)}x, they {most:.2f}x")),
    ]  # fmt: skip
    found += [_pooling(run, task) for task in TASKS[:2]]
    return found


def _of(said: str, value: Any, judge: Callable[[Any], tuple[bool, str]]) -> Forecast:
    if value is None:  # 0 is a time, if a bad one
        return Forecast(None, said)
    held, found = judge(value)
    return Forecast(held, said, found)


def _pooling(run: Recording, task: str) -> Forecast:
    said = f"{task}: 80 % of the copy bandwidth"
    rows = [r for r in run.of(task, dtype="float32") if r.way == "ours" and "last" not in r.size]
    least = min((r.percent for r in rows if r.percent is not None), default=None)
    return _of(said, least, lambda percent: (percent >= 80, f"{two(percent)} % at least"))


def verdicts(recorded: Recorded) -> str:
    """A line a forecast: held, missed or open."""
    run = recorded.gpu
    if run is None:
        return missing("gpu")
    words = {True: "held", False: "missed", None: "open"}
    lines = [f"{run.name}, {run.date[:10]}"]
    for each in forecasts(run):
        lines += [f"{words[each.held]:7} {each.said}", f"            {each.found}"]
    return "\n".join(lines)
