"""Footnote 9, ResNet: what the page measures and what is recorded, their figure, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from invertnb import notebook
from invertnb.chapters.inverting_vgg import residual_steps
from invertnb.chapters.inverting_vgg.activation import LEARNED, published
from invertnb.chapters.inverting_vgg.inputs import Inputs
from invertnb.chapters.inverting_vgg.residual_network import load
from invertnb.chapters.inverting_vgg.residual_steps import (
    ALL, ITERATIONS, NET, OWN, RANDOM, RULES, WINDOWS, Residual, cut, measure,
)  # fmt: skip
from invertnb.notebook.figures import PALETTE, Figure, figure

#: Live: photographs, of which the first few have their blocks undone, and pixels of a side from
#: their middle. A recording takes all photographs and more of each.
PHOTOGRAPHS, UNDONE, SIDE, SIDE_RECORDED = 4, 2, 128, 192

#: Kinds of layers in the order of a table: (side of the filters, stride).
KINDS = {"3 x 3": (3, 1), "3 x 3, stride 2": (3, 2), "shortcut 1 x 1, stride 2": (1, 2)}
#: An iteration that leaves less than this of x has found it.
FOUND = 0.01
DIGITS = 4


def compute(
    inputs: Inputs, generator: Callable[[int], torch.Generator], resnet: str = "random"
) -> Residual:
    """What the page measures, on a few photographs of the inputs.

    Args:
        generator: generator(stream) as of the chapter's parameters.
        resnet: weights, see `residual_network.load`.
    """
    pixels = cut(inputs.pixels[:PHOTOGRAPHS], SIDE)
    trained = load(resnet, generator(NET))
    return measure(trained, pixels, generator, undone=UNDONE, iterations=ITERATIONS // 2)


def largest_published() -> float:
    """The largest error of Table 3 in activation space with learned filters."""
    return max(published("activation", LEARNED, f"pool({i})") for i in range(1, 5))


def recording(p: Any) -> notebook.Recording:
    """What the parameters name, on all their photographs.

    Args:
        p: the chapter's parameters, with `resnet`.
    """
    pictures = p.pictures(p.photographs)
    pixels = cut(pictures.all().to(p.device), SIDE_RECORDED)
    trained = load(p.resnet, p.generator(NET))
    found = measure(trained, pixels, p.generator, p.banks)
    source = trained.source
    name = {"random": "random", "torchvision": source.weights.lower().replace("_", "-")}
    name["file"] = "imagenet" if source.real else "cifar10"
    weights = source.label + (f", SHA-256 {source.sha256}" if source.sha256 else "")
    made = {"weights": weights, "images": f"{pictures.label}, SHA-256 {pictures.sha256}"}
    return notebook.Recording(f"resnet18-{name[source.tier]}-{len(pixels)}", made, results(found))


def results(found: Residual) -> dict[str, Any]:
    """All measurements as a recording holds them: [mean, sd] over photographs, or over draws.

    The deviation, live and recorded, is that of these photographs or draws themselves, with the
    divisor n, as the page draws its filters once; other parts estimate it from a sample.
    """
    source = found.trained.source
    return {
        "network": source.label,
        "real": source.real,
        "images": len(found.pixels),
        "side": found.pixels.shape[2],
        "draws": len(next(iter(found.layers.values())).random),
        "layers": {name: _layer(each) for name, each in found.layers.items()},
        "blocks": {name: _block(each) for name, each in found.blocks.items()},
    }


def _layer(each: residual_steps.Layer) -> dict[str, Any]:
    bank = each.bank
    return {
        "shape": [bank.K, bank.M, bank.l, bank.stride],
        "places": each.places,
        "crowded": _round(each.crowded),
        OWN: {rule: _spread(each.own[rule].error) for rule in RULES},
        "kept, ratio": {
            rule: [_round(each.own[rule].kept.mean()), _round(each.own[rule].ratio.mean())]
            for rule in RULES
        },
        RANDOM: {
            rule: _spread(torch.stack([draw[rule].error.mean() for draw in each.random]))
            for rule in RULES
        },
        "activations": _round(each.activations.mean()),
        "floor": {filters: _spread(error) for filters, error in each.floor.items()},
        "norms": {name: _spread(error) for name, error in each.norms.items()},
    }


def _block(each: residual_steps.Block) -> dict[str, Any]:
    return {
        "start": _round(each.errors[0].mean()),
        "least": _round(each.errors.amin(0).mean()),
        "end": float(f"{each.errors[-1].mean():.3g}"),
        "found": int((each.errors[-1] < FOUND).sum()),
        "iterations": len(each.errors) - 1,
        "clipped": float(f"{each.clipped.mean():.3g}"),
        "clipped, found": int((each.clipped < FOUND).sum()),
        "expansion": [_round(each.expansion.min()), _round(each.expansion.max())],
        "growth": [_round(each.growth.min()), _round(each.growth.max())],
        "cut": _round(each.cut),
    }


def _spread(values: Tensor) -> list[float]:
    return [_round(values.mean()), _round(values.double().std(correction=0))]


def _round(value: Any) -> float:
    return round(float(value), DIGITS)


def by_kind(found: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The layers of results by kind, in order."""
    return {
        kind: [each for each in found["layers"].values() if tuple(each["shape"][2:]) == of]
        for kind, of in KINDS.items()
    }


def mean(layers: Iterable[Mapping[str, Any]], *keys: str) -> float:
    """The mean over layers of what stands under these keys: a number, or the first of a pair."""
    values = []
    for each in layers:
        for key in keys:
            each = each[key]
        values.append(each[0] if isinstance(each, list) else each)
    return sum(values) / len(values)


def holds(found: Mapping[str, Any], shortcuts: bool = True) -> bool:
    """Whether one step with the own filters and windows is nowhere worse than the worst of Table 3.

    Args:
        found: results.
        shortcuts: among the layers are those of 1 x 1.
    """
    layers = [each for each in found["layers"].values() if shortcuts or each["shape"][2] > 1]
    return all(each[OWN][WINDOWS][0] <= largest_published() for each in layers)


def verdict(all_results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of `notebook.record` for footnote9.resnet.

    Args:
        all_results: live and recorded; of weights trained on ImageNet the first is the value.
    """
    value, readings = None, {}
    for found in all_results:
        if found["real"] and value is None:
            value = holds(found)
        else:
            readings[f"{found['network']}, all convolutions"] = holds(found)
        readings[f"{found['network']}, 3 x 3 only"] = holds(found, shortcuts=False)
    note = (
        f"activation space only, there is no decoder: own filters, windows of 2 x 2 put on, at most"
        f" {largest_published():g} (the largest of Table 3) at every convolution of the stages"
    )
    return {"value": value, "readings": readings, "note": note}


def draw(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Errors of one step by layer, a panel for each network.

    Args:
        panels: results by title.
    """
    canvas, axes = figure(
        height=0.9 + 1.9 * len(panels), nrows=len(panels), sharex=True, sharey=True, squeeze=False
    )
    for ax, (title, found) in zip(axes[:, 0], panels.items(), strict=True):
        layers = found["layers"]
        at = range(len(layers))
        for shift, filters, colour, marker in (
            (-0.15, OWN, "blue", "o"), (0.15, RANDOM, "vermillion", "s"),
        ):  # fmt: skip
            errors, spread = zip(*(each[filters][WINDOWS] for each in layers.values()), strict=True)
            ax.errorbar(
                [i + shift for i in at], errors, spread, color=PALETTE[colour], marker=marker,
                ls="", ms=5, elinewidth=1.2, label=f"{filters} filters, windows",
            )  # fmt: skip
        everything = [each[OWN][ALL][0] for each in layers.values()]
        own = {"ls": "", "color": PALETTE["sky"], "marker": "_", "ms": 9, "mew": 2}
        ax.plot(at, everything, label="own, $W^TWf$", **own)
        floor = {
            i: each["floor"][OWN][0] for i, each in enumerate(layers.values()) if each["floor"]
        }
        least = {"ls": "", "color": PALETTE["black"], "marker": "^", "ms": 6}
        ax.plot(list(floor), list(floor.values()), label="own, least squares", **least)
        for level, colour, style, label in (
            (2**0.5, "black", ":", "random activations"),
            (largest_published(), "purple", "--", "Table 3, largest"),
        ):  # fmt: skip
            ax.axhline(level, color=PALETTE[colour], lw=1.2, ls=style, label=label)
        ax.set_ylim(0, 1.5)
        ax.set_ylabel("relative error")
        ax.text(0.01, 0.04, title, transform=ax.transAxes, fontsize=10)
        ax.set_xticks(list(at), [_short(name) for name in layers], rotation=90, fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return canvas


def _short(name: str) -> str:
    """ "2.0 conv1" for layer2.0.conv1."""
    stage, block, part = name.split(".")[:3]
    return f"{stage[5:]}.{block} {part.replace('downsample', 'short')}"
